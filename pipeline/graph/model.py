"""Reading ONNX files: checked, shape-inferred, every node named; and writing them."""

from collections.abc import Sequence
from pathlib import Path

import onnx

from pipeline.errors import ModelError, one_line
from pipeline.graph.files import read


def load(path: Path) -> onnx.ModelProto:
    """The checked, shape-inferred model in ``path``.

    Raises:
        ModelError: the file cannot be read, see ``pipeline.graph.files.read``, or fails ONNX's checker.
    """
    return check(read(path), path)


def check(model: onnx.ModelProto, where: object) -> onnx.ModelProto:
    """``model`` with shapes inferred and every node named, after ONNX's own checker has passed it.

    Raises:
        ModelError: the checker or the shape inference refuses the model; the message says where it comes from.
    """
    if not model.graph.node:
        raise ModelError("holds no operators; it is empty or cut short", where=where)
    try:
        onnx.checker.check_model(model)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"is not valid ONNX: {one_line(error)}", where=where) from error
    complete_names(inferred)
    return inferred


def complete_names(model: onnx.ModelProto) -> None:
    """Give every node of ``model`` a unique name, in place: its own, or its operator's; a number where it is taken."""
    _assign(model, [node.name or node.op_type for node in model.graph.node])


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node of ``model``, fresh from torch, a unique name that a reader of the source recognises, in place.

    A node with a weight is named after it (``stem.0.weight`` gives ``stem.0``), any other after the module it comes
    from, if that is known; otherwise it keeps its name, or gets its operator's.
    """
    constants = {i.name for i in model.graph.initializer}
    _assign(model, [_weight_module(n, constants) or _torch_module(n) or n.name or n.op_type for n in model.graph.node])


def _assign(model: onnx.ModelProto, wanted: Sequence[str]) -> None:
    """Name the nodes as ``wanted``; the second with a name gets ``#2``, and so on, never a name that another wants."""
    taken: set[str] = set()
    counts: dict[str, int] = {}
    reserved = set(wanted)
    for node, base in zip(model.graph.node, wanted, strict=True):
        name = base
        while name in taken or (name != base and name in reserved):
            counts[base] = counts.get(base, 1) + 1
            name = f"{base}#{counts[base]}"
        taken.add(name)
        node.name = name


def _weight_module(node: onnx.NodeProto, constants: set[str]) -> str | None:
    weights = [i for i in node.input if i in constants and i.endswith(".weight")]
    return weights[0].removesuffix(".weight") if weights else None


def _torch_module(node: onnx.NodeProto) -> str | None:
    """The dotted module path in the scopes that torch's exporter leaves, e.g. ``['', 'stem', 'stem.2', 'relu6']``."""
    scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "")
    names = [s.strip().strip("'\"") for s in scopes.strip("[]").split(",")]
    return names[-2] if len(names) > 1 and names[-2] else None


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write ``model`` to ``path``; the same model gives the same bytes."""
    path.write_bytes(model.SerializeToString(deterministic=True))
