"""What moves between two contracts: a quantized model under both, on the same inputs, compared byte by byte."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.compile.lower import lower
from pipeline.compile.partitions import Partition, cut, onnx_models
from pipeline.compile.support import kernels
from pipeline.errors import ModelError
from pipeline.graph.view import Graph, Node, view
from pipeline.targets.placement import NPU, by_kernel, place
from pipeline.targets.profile import Target
from runtime.npu.device import Device
from runtime.npu.plain import operations, run_plain
from runtime.npu.program import Program

Rows = Mapping[str, "Moved"]
Values = dict[str, NDArray[np.integer[Any]]]


@dataclass
class Moved:
    """How much of a tensor differs between two contracts.

    Attributes:
        tensor: its name in the program.
        node: the operator that writes it.
        opcode: the instruction that writes it, ``cpu`` for what the host computes.
        elements: integers compared.
        moved: of which differ, each contract from the inputs on.
        largest: the largest difference, in steps of the output.
        own_moved: of which differ when both contracts are given the first one's inputs of the layer.
    """

    tensor: str
    node: str
    opcode: str
    elements: int = 0
    moved: int = 0
    largest: int = 0
    own_moved: int = 0


@dataclass(frozen=True)
class Movement:
    """The comparison of ``first`` with ``second`` on so many inputs: per tensor in order, and the outputs' names."""

    first: str
    second: str
    inputs: int
    layers: tuple[Moved, ...]
    outputs: tuple[str, ...]

    def at_outputs(self) -> tuple[Moved, ...]:
        """The rows of the model's outputs."""
        return tuple(row for row in self.layers if row.tensor in self.outputs)


@dataclass
class _Side:
    """A model under one contract: a device for each NPU partition, which gives all that it computes."""

    partitions: Sequence[Partition]
    programs: Sequence[Program | None]
    sessions: Sequence[ort.InferenceSession | None]
    devices: list[Device | None] = field(init=False)

    def __post_init__(self) -> None:
        self.devices = [None if p is None else Device(_open(p)) for p in self.programs]

    def run(self, values: Values) -> Values:
        """Every tensor from the model's inputs on."""
        known = dict(values)
        for part, device, session in zip(self.partitions, self.devices, self.sessions, strict=True):
            given = {t.wire: known[t.wire] for t in part.inputs}
            if device is not None:
                known.update(device.run(given))
            elif session is not None:
                names = [t.wire for t in part.outputs]
                known.update(zip(names, session.run(names, given), strict=True))
        return known


def compare(model: onnx.ModelProto, target: Target, contracts: tuple[str, str], inputs: Iterable[Values]) -> Movement:
    """Run the quantized ``model`` under both ``contracts``.

    Args:
        model: with quantize/dequantize pairs.
        target: whose figures the programs carry; its rules do not count, every operator with a kernel is on the NPU.
        contracts: their names.
        inputs: integers of the model's inputs, by the names of their quantized tensors.

    Raises:
        ModelError: no operator has a kernel under both, or one cannot be folded for a contract.
        ProgramError: there is no such contract.
    """
    graph = view(model)
    partitions = _partitions(graph, contracts)
    models = onnx_models(model, partitions)
    sides = [_side(graph, partitions, models, _under(target, name)) for name in contracts]
    rows = _rows(partitions, sides[0].programs)
    count = 0
    for values in inputs:
        first, second = (side.run(values) for side in sides)
        for row in rows.values():
            _count(row, first[row.tensor], second[row.tensor])
        for program in sides[1].programs:
            _count_own(program, first, rows)
        count += 1
    return Movement(*contracts, count, tuple(rows.values()), tuple(t.wire for t in graph.outputs))


def _under(target: Target, contract: str) -> Target:
    """``target`` with another contract."""
    return target.model_copy(update={"contract": contract})


def _partitions(graph: Graph, contracts: tuple[str, str]) -> tuple[Partition, ...]:
    judges = [kernels(name) for name in contracts]

    def no_kernel(node: Node) -> str | None:
        return judges[0](node) or judges[1](node)

    placed = place(graph, by_kernel(no_kernel), None)
    if all(p.device != NPU for p in placed):
        why = next((p.reasons[0] for p in placed if p.reasons), "")
        raise ModelError(f"no operator has a kernel under {' and '.join(contracts)}: {why}", fix="quantize the model")
    return cut(graph, placed)


def _side(graph: Graph, partitions: Sequence[Partition], models: Sequence[bytes], target: Target) -> _Side:
    programs = [lower(graph, p.nodes, p.inputs, p.outputs, target) if p.device == NPU else None for p in partitions]
    sessions = [
        None if p.device == NPU else ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        for p, content in zip(partitions, models, strict=True)
    ]
    return _Side(partitions, programs, sessions)


def _open(program: Program) -> Program:
    """The program with every tensor that it writes as output."""
    return replace(program, outputs=tuple(item.output for item in program.instructions))


def _rows(partitions: Sequence[Partition], programs: Sequence[Program | None]) -> dict[str, Moved]:
    rows: dict[str, Moved] = {}
    for part, program in zip(partitions, programs, strict=True):
        if program is None:
            writers = {t.wire: n.name for n in part.nodes for t in n.outputs}
            rows.update({t.wire: Moved(t.wire, writers[t.wire], "cpu") for t in part.outputs})
        else:
            rows.update({i.output: Moved(i.output, i.name, i.opcode) for i in program.instructions})
    return {name: row for name, row in rows.items() if row.opcode != "constant"}


def _count(row: Moved, first: NDArray[np.generic], second: NDArray[np.generic]) -> None:
    distance = np.abs(first.astype(np.float64) - second.astype(np.float64))
    row.elements += distance.size
    row.moved += int((distance > 0).sum())
    row.largest = max(row.largest, int(np.ceil(distance.max(initial=0.0))))


def _count_own(
    program: Program | None, first: Mapping[str, NDArray[np.integer[Any]]], rows: Mapping[str, Moved]
) -> None:
    """Each instruction of the second contract on the first one's values."""
    for operation in () if program is None else operations(program):
        row = rows.get(operation.instruction.output)
        if row is None:
            continue
        found = run_plain(operation, {name: first[name] for name in operation.instruction.inputs})
        row.own_moved += int((found != first[row.tensor]).sum())
