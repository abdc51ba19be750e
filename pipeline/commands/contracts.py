"""``pipeline contracts``: how much of a quantized model moves between two integer contracts."""

import io
import json as jsonlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from pipeline.commands.check import Targets, say
from pipeline.errors import ModelError, UserError
from pipeline.files import read_whole
from runtime.text import printable

if TYPE_CHECKING:
    from pipeline.compile.moves import Movement
    from pipeline.graph.view import Graph

SCHEMA = 1
SHOWN = 8

Names = Annotated[
    list[str] | None,
    typer.Option("--contract", metavar="NAME", help="One or two contracts; else the target's against all others."),
]
Inputs = Annotated[
    Path | None,
    typer.Option("--inputs", metavar="DIR|NPZ", help="Real inputs, .npy or .npz by input name; random ones otherwise."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")]


QuantizedFile = Annotated[
    Path, typer.Argument(metavar="MODEL", help="An ONNX file with QDQ pairs, as pipeline quantize writes.")
]


def contracts_command(
    model: QuantizedFile,
    *,
    contract: Names = None,
    target: Annotated[str, typer.Option("--target", metavar="NAME", help="Whose contract is meant.")] = (
        "coral-edgetpu-usb3"
    ),
    inputs: Inputs = None,
    count: Annotated[int, typer.Option("--count", min=1, help="Random inputs to draw without --inputs.")] = 4,
    targets: Targets = Path("targets"),
    json: Json = False,
) -> None:
    """Say how many outputs move, and by how much, when another contract runs the same quantized model."""
    if contract is not None and len(contract) > 2:
        raise typer.BadParameter("give one or two", param_hint="--contract")
    from pipeline.compile import moves  # noqa: PLC0415 (imports onnx)
    from pipeline.graph.model import load  # noqa: PLC0415
    from pipeline.graph.view import view  # noqa: PLC0415
    from pipeline.targets import library  # noqa: PLC0415

    profile, loaded = library.load(library.resolve(target, targets)), load(model)
    graph = view(loaded)
    given = list(_inputs(model, graph, inputs, count))
    how = "random integers" if inputs is None else str(inputs)
    pairs = _pairs(contract or (), profile.contract)
    found: list[Movement] = []
    refused: dict[str, str] = {}
    for first, second in pairs:
        try:
            found.append(moves.compare(loaded, profile, (first, second), given))
        except UserError as error:
            if len(pairs) == 1:
                raise
            refused[second] = str(error)
    say(_document(model, how, found, refused) if json else _text(how, found, refused))


def _pairs(names: Sequence[str], own: str) -> list[tuple[str, str]]:
    from runtime.npu.contracts import CONTRACTS  # noqa: PLC0415

    if len(names) == 2:
        return [(names[0], names[1])]
    first = names[0] if names else own
    return [(first, other) for other in CONTRACTS if other != first]


def _inputs(
    model: Path, graph: "Graph", source: Path | None, count: int
) -> Iterator[dict[str, NDArray[np.integer[Any]]]]:
    """Integers of the model's inputs: real ones quantized as the model says, or random ones."""
    from pipeline.graph.view import quantize  # noqa: PLC0415

    for tensor in graph.inputs:
        if tensor.quantization is None:
            what = f"its input {tensor.name} is not quantized"
            raise ModelError(what, where=model, fix="give a model with QDQ pairs; pipeline quantize makes one")
    if source is None:
        rng = np.random.default_rng(0)
        for _ in range(count):
            yield {
                t.wire: rng.integers(*_limits(t.quantization.dtype), t.dims).astype(t.quantization.dtype)
                for t in graph.inputs
                if t.quantization is not None
            }
        return
    for arrays in _arrays(source, graph):
        values = {}
        for tensor in graph.inputs:
            array = arrays[tensor.name]
            integers = np.issubdtype(array.dtype, np.integer)
            real = array if integers or tensor.quantization is None else quantize(array, tensor.quantization)
            if real.shape != tensor.dims:
                raise UserError(f"{tensor.name} has shape {list(real.shape)}", where=source, fix=f"give {tensor.dims}")
            values[tensor.wire] = real
        yield values  # type: ignore[misc]


def _limits(dtype: str) -> tuple[int, int]:
    info = np.iinfo(dtype)
    return int(info.min), int(info.max) + 1


def _arrays(source: Path, graph: "Graph") -> Iterator[Mapping[str, NDArray[np.generic]]]:
    """One mapping from input names for every file; a ``.npy`` is the only input."""
    names = [t.name for t in graph.inputs]
    files = sorted(source.glob("*.np[yz]")) if source.is_dir() else [source]
    if not files:
        raise UserError("holds no .npy or .npz", where=source, fix="give a folder with arrays")
    for file in files:
        try:
            content = np.load(io.BytesIO(read_whole(file)), allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot be read: {error}", where=file) from error
        arrays = {names[0]: content} if isinstance(content, np.ndarray) else dict(content)
        missing = [name for name in names if name not in arrays]
        if missing:
            raise UserError(f"has no array {missing[0]}", where=file, fix=f"it has {', '.join(sorted(arrays))}")
        yield arrays


def _document(model: Path, how: str, found: "Sequence[Movement]", refused: Mapping[str, str]) -> str:
    document = {
        "schema": SCHEMA,
        "model": str(model),
        "inputs": how,
        "comparisons": [
            {
                "contracts": [m.first, m.second],
                "inputs": m.inputs,
                "outputs": [asdict(row) for row in m.at_outputs()],
                "layers": [asdict(row) for row in m.layers],
            }
            for m in found
        ],
        "refused": dict(refused),
    }
    return jsonlib.dumps(document, indent=1)


def _text(how: str, found: "Sequence[Movement]", refused: Mapping[str, str]) -> str:
    lines = []
    for movement in found:
        lines.append(f"{movement.first} against {movement.second}, {movement.inputs} inputs ({how})")
        for row in movement.at_outputs():
            lines.append(
                f"  output {row.tensor}: {_share(row.moved, row.elements)} moved, by at most {row.largest} LSB"
            )
        layers = [row for row in movement.layers if row.moved or row.own_moved]
        lines.append(f"  {len(layers)} of {len(movement.layers)} layers move; those that move most of themselves:")
        for row in sorted(layers, key=lambda r: -r.own_moved / max(r.elements, 1))[:SHOWN]:
            own = _share(row.own_moved, row.elements)
            lines.append(
                f"    {row.node} ({row.opcode}): {own} by itself; {_share(row.moved, row.elements)} in the net"
            )
    lines += [f"{name}: {why}" for name, why in refused.items()]
    return "\n".join(map(printable, lines))


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({100 * part / max(whole, 1):.2f} %)"
