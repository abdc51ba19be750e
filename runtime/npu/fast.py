"""The fast path: pieces of a program as onnxruntime sessions, with plain kernels in between where nothing is proven."""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnxruntime as ort

from runtime.npu.kernels import Int8, Operation
from runtime.npu.lowering import LOWERINGS, Range, Source, output_range
from runtime.npu.onnx_writer import ELEMENT_TYPES, Graph, Port
from runtime.npu.plain import run_plain
from runtime.tensors import TensorSpec

DISABLED = ("ConvMulFusion", "ConvAddFusion", "MatMulScaleFusion", "MatMulAddFusion")
"""Graph optimizations that move a factor into weights and so change roundings."""


class Step(Protocol):
    """A piece of a prepared program."""

    def run(self, values: MutableMapping[str, Int8]) -> None:
        """Read int8 tensors from ``values`` and add what this step writes."""


@dataclass(frozen=True)
class PlainStep:
    """One instruction with its plain kernel."""

    operation: Operation

    def run(self, values: MutableMapping[str, Int8]) -> None:
        """See ``Step``; raises ProgramError when an accumulator leaves int32."""
        values[self.operation.instruction.output] = run_plain(self.operation, values)


@dataclass(frozen=True)
class SessionStep:
    """Consecutive instructions as one onnxruntime session."""

    session: ort.InferenceSession
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(self, values: MutableMapping[str, Int8]) -> None:
        """See ``Step``."""
        feeds = {f"in{i}": values[name] for i, name in enumerate(self.inputs)}
        values.update(zip(self.outputs, self.session.run(None, feeds), strict=True))


def prepare(
    operations: Sequence[Operation], specs: Mapping[str, TensorSpec], outputs: Sequence[str], threads: int
) -> tuple[Step, ...]:
    """Split a program into steps.

    Args:
        operations: the program's instructions in order.
        specs: its tensors by name.
        outputs: its outputs.
        threads: intra-operator threads of each session; 0 lets onnxruntime choose.
    """
    ranges = {name: _full_range(spec) for name, spec in specs.items()}
    needed_later = [
        {name for other in operations[i:] for name in other.instruction.inputs} | set(outputs)
        for i in range(1, len(operations) + 1)
    ]
    steps: list[Step] = []
    segment = _Segment()
    for operation, needed in zip(operations, needed_later, strict=True):
        item = operation.instruction
        lowered = segment.lower(operation, ranges)
        if not lowered:
            steps.extend(segment.finish(specs, needed | set(item.inputs), threads))
            steps.append(PlainStep(operation))
            segment = _Segment()
        ranges[item.output] = output_range(operation, tuple(ranges[name] for name in item.inputs))
    return (*steps, *segment.finish(specs, set(outputs), threads))


class _Segment:
    """Instructions that go into one session."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.inputs: list[str] = []
        self.values: dict[str, str] = {}
        self.written: list[str] = []

    def lower(self, operation: Operation, ranges: Mapping[str, Range]) -> bool:
        """Append the instruction; ``False`` when it must run with its plain kernel."""
        item = operation.instruction
        lowering = LOWERINGS.get(item.opcode)
        if lowering is None:
            return False
        for name, spec in zip(item.inputs, operation.inputs, strict=True):
            if name not in self.values:
                self._enter(spec)
        sources = tuple(Source(self.values[name], ranges[name]) for name in item.inputs)
        output = lowering(self.graph, operation, sources)
        if output is None:
            return False
        self.values[item.output] = output
        self.written.append(item.output)
        return True

    def _enter(self, spec: TensorSpec) -> None:
        """Bring an int8 tensor in as centred float32."""
        port = Port(f"in{len(self.inputs)}", "int8", spec.shape)
        self.graph.inputs.append(port)
        self.inputs.append(spec.name)
        raw = self.graph.node("Cast", [port.name], to=ELEMENT_TYPES["float32"])
        zero = self.graph.constant(np.array(spec.zero_point, np.float32))
        self.values[spec.name] = self.graph.node("Sub", [raw, zero])

    def finish(self, specs: Mapping[str, TensorSpec], needed: set[str], threads: int) -> list[Step]:
        """The session that gives the tensors in ``needed``; empty when there is nothing to run."""
        outputs = tuple(name for name in self.written if name in needed)
        if not outputs:
            return []
        for index, name in enumerate(outputs):
            spec = specs[name]
            zero = self.graph.constant(np.array(spec.zero_point, np.float32))
            raw = self.graph.node("Add", [self.values[name], zero])
            port = Port(f"out{index}", "int8", spec.shape)
            self.graph.node("Cast", [raw], port.name, to=ELEMENT_TYPES["int8"])
            self.graph.outputs.append(port)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(
            self.graph.model(), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(DISABLED)
        )
        return [SessionStep(session, tuple(self.inputs), outputs)]


def _full_range(spec: TensorSpec) -> Range:
    zero = spec.zero_point or 0
    return -128 - zero, 127 - zero
