"""Fallbacks as files: each operator that the CPU runs as a small ONNX model of its own, with inputs to run it on."""

import io
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from pipeline.compile.extract import Pieces
from pipeline.compile.partitions import onnx_model, partition
from pipeline.errors import ModelError
from pipeline.graph import peer
from pipeline.graph.nouns import Graph, Node, Tensor
from runtime.delegates.cpu import LOAD_ERRORS

MODEL, INPUTS = "model.onnx", "inputs.npz"

Array = NDArray[Any]

LONGEST_NAME = 80
"""Characters of a node's name that its folder keeps."""

AT_ONCE = 256
"""Fallbacks whose inputs are computed in one run of the model, which bounds the memory."""


def save_fallbacks(
    model: onnx.ModelProto,
    graph: Graph,
    names: Iterable[str],
    folder: Path,
    feeds: Mapping[str, Array] | None = None,
    seed: int = 0,
) -> tuple[Path, ...]:
    """Write each operator of ``names`` into ``folder`` as ``NUMBER-NAME/model.onnx`` beside ``inputs.npz``.

    The model holds the operator with its constants and the QuantizeLinear and DequantizeLinear around it; the inputs,
    by name, are what the whole model computes there from ``feeds``. Where ONNX Runtime cannot run the whole model they
    are random. The folder appears as a whole or not at all; the same arguments give the same bytes.

    Args:
        model: as opened (``pipeline.graph.opening``).
        graph: its view.
        names: of the operators; they are written in the graph's order.
        folder: must not exist, or be empty.
        feeds: the model's inputs by name; random, from ``seed``, when not given.
        seed: of the random inputs.

    Returns:
        The folder of each operator, in the graph's order.

    Raises:
        ModelError: a name is no operator of the graph, ``folder`` holds something or cannot be written, or a model
            would be too large.
    """
    nodes = _chosen(graph, names)
    pieces = [partition(graph, (node,), "cpu") for node in nodes]
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ModelError("is not an empty folder", where=folder, fix="name a new one for the fallbacks")
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ModelError(f"cannot be written: {error.strerror or error}", where=folder) from error
    try:
        kept = _Inputs(model, graph, feeds, seed)
        cutter = Pieces(model)
        made = []
        for start in range(0, len(nodes), AT_ONCE):
            block = range(start, min(start + AT_ONCE, len(nodes)))
            values = kept.of([t for i in block for t in pieces[i].inputs])
            for index in block:
                place = unfinished / _safe(index, nodes[index])
                place.mkdir()
                piece = onnx_model(cutter, pieces[index])
                (place / MODEL).write_bytes(piece.SerializeToString(deterministic=True))
                (place / INPUTS).write_bytes(_packed({t.wire: values[t.wire] for t in pieces[index].inputs}))
                made.append(folder / place.name)
        unfinished.chmod(0o755)
        unfinished.replace(folder)
    except OSError as error:
        raise ModelError(f"cannot be written: {error.strerror or error}", where=folder) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return tuple(made)


def _chosen(graph: Graph, names: Iterable[str]) -> list[Node]:
    wanted = set(names)
    nodes = [node for node in graph.nodes if node.name in wanted]
    unknown = wanted - {node.name for node in nodes}
    if unknown:
        raise ModelError("is no operator of the model", where=min(unknown))
    return nodes


def _safe(index: int, node: Node) -> str:
    """A folder name for ``node``: its position, and of its name what any file system takes."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", node.name)[:LONGEST_NAME].strip("._")
    return f"{index:05d}-{plain or node.op}"


def _packed(arrays: Mapping[str, Array]) -> bytes:
    """The arrays as an ``.npz``, whose entries carry no time."""
    buffer = io.BytesIO()
    texts = {name: array.astype(str) for name, array in arrays.items() if array.dtype == object}
    np.savez(buffer, allow_pickle=False, **{**arrays, **texts})
    return buffer.getvalue()


class _Inputs:
    """What the operators of a model read, in one run of the model."""

    def __init__(self, model: onnx.ModelProto, graph: Graph, feeds: Mapping[str, Array] | None, seed: int) -> None:
        self.model, self.graph = model, graph
        self.generator = np.random.default_rng(seed)
        constant = {i.name for i in model.graph.initializer}
        ends = [v for v in model.graph.input if v.name not in constant]
        self.feeds = dict(feeds or {})
        for value in ends:
            if value.name not in self.feeds:
                kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
                self.feeds[value.name] = self.random(tuple(d.dim_value for d in value.type.tensor_type.shape.dim), kind)
        self.runs = True

    def of(self, tensors: Sequence[Tensor]) -> Mapping[str, Array]:
        """The values of ``tensors`` by their wire."""
        wires = {t.wire: t for t in tensors}
        found = {name: self.feeds[name] for name in wires if name in self.feeds}
        missing = [name for name in wires if name not in found]
        if missing and self.runs:
            found |= self.run(missing)
        random = {n: self.random(t.dims, _kind(t)) for n, t in wires.items() if n not in found}
        return {**found, **random}

    def run(self, wires: Sequence[str]) -> Mapping[str, Array]:
        """The values of ``wires`` as the model computes them; nothing, and no other try, where it does not run."""
        try:
            asked = Pieces(self.model).cut(self.feeds, list(wires))
            return peer.run(asked.SerializeToString(), self.feeds)
        except (ModelError, *LOAD_ERRORS):
            self.runs = False
            return {}

    def random(self, shape: tuple[int, ...], kind: np.dtype[Any]) -> Array:
        """Normal numbers; of integers 0 and 1, valid as an index where there are two; of texts a."""
        if kind.kind == "O":
            return np.full(shape, "a", dtype="U1")
        if kind.kind == "f":
            return self.generator.normal(size=shape).astype(kind)
        return self.generator.integers(0, 2, shape).astype(kind)


def _kind(tensor: Tensor) -> np.dtype[Any]:
    return np.dtype(tensor.dtype if tensor.quantization is None else tensor.quantization.dtype)
