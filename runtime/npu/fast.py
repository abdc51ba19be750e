"""The fast path: pieces of a program as onnxruntime sessions, with tables and plain kernels in between."""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnxruntime as ort

from runtime.errors import ProgramError
from runtime.npu.kernels import KERNELS, Operation, Values
from runtime.npu.kernels.softmax import exponential_table, softmax_by_table
from runtime.npu.lowering import LOWERINGS, Builder, Value, output_range
from runtime.npu.lowering.host import integer_kernels_exact, open_session, prefers_unsigned
from runtime.npu.lowering.values import Range
from runtime.npu.onnx_writer import Port
from runtime.npu.plain import run_plain
from runtime.npu.requantize import Integers
from runtime.tensors import TensorSpec

SIGN = np.uint8(128)

TABLES = frozenset({"lookup", "requantize", "sigmoid", "tanh"})
"""Opcodes with one input whose output depends on that one value."""


class Step(Protocol):
    """A piece of a prepared program."""

    def run(self, values: MutableMapping[str, Values]) -> None:
        """Read tensors from ``values`` and add what this step writes."""


@dataclass(frozen=True)
class PlainStep:
    """One instruction with its plain kernel."""

    operation: Operation

    def run(self, values: MutableMapping[str, Values]) -> None:
        """See ``Step``; raises ProgramError when an accumulator leaves its width."""
        values[self.operation.instruction.output] = run_plain(self.operation, values)


@dataclass(frozen=True)
class TableStep:
    """One instruction on 8-bit values as a table of its 256 outputs, indexed by the input's byte."""

    source: str
    output: TensorSpec
    table: bytes

    def run(self, values: MutableMapping[str, Values]) -> None:
        """See ``Step``."""
        found = values[self.source].tobytes().translate(self.table)
        values[self.output.name] = np.frombuffer(found, self.output.dtype).reshape(self.output.shape)


@dataclass(frozen=True)
class WideTableStep:
    """One instruction from or to int16 as a table of all its outputs, indexed by the input's bits."""

    source: str
    name: str
    table: Values

    def run(self, values: MutableMapping[str, Values]) -> None:
        """See ``Step``."""
        values[self.name] = np.take(self.table, values[self.source].view(f"u{values[self.source].itemsize}"))


@dataclass(frozen=True)
class SoftmaxStep:
    """A softmax of 8-bit values, with a table of its exponentials."""

    operation: Operation
    table: Integers

    def run(self, values: MutableMapping[str, Values]) -> None:
        """See ``Step``."""
        item = self.operation.instruction
        values[item.output] = softmax_by_table(self.operation, values[item.inputs[0]], self.table)


@dataclass(frozen=True)
class ConstantStep:
    """A tensor that does not depend on the input."""

    name: str
    value: Values

    def run(self, values: MutableMapping[str, Values]) -> None:
        """See ``Step``."""
        values[self.name] = self.value


@dataclass(frozen=True)
class SessionStep:
    """Consecutive instructions as one onnxruntime session; ``raised``: it holds int8 tensors as uint8, 128 higher."""

    session: ort.InferenceSession
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    raised: bool

    def run(self, values: MutableMapping[str, Values]) -> None:
        """See ``Step``."""
        feeds = {f"in{i}": values[name] for i, name in enumerate(self.inputs)}
        if self.raised:
            feeds = {n: value.view(np.uint8) ^ SIGN if value.dtype == np.int8 else value for n, value in feeds.items()}
        found = self.session.run(None, feeds)
        if self.raised:
            found = [(value ^ SIGN).view(np.int8) if value.dtype == np.uint8 else value for value in found]
        values.update(zip(self.outputs, found, strict=True))


@dataclass(frozen=True)
class _Unopened:
    """A ``SessionStep`` whose session is not open yet."""

    model: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    raised: bool

    def open(self, threads: int, alone: bool) -> SessionStep:
        return SessionStep(open_session(self.model, threads, alone), self.inputs, self.outputs, self.raised)


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
    needed_later = [
        {name for other in operations[i:] for name in other.instruction.inputs} | set(outputs)
        for i in range(1, len(operations) + 1)
    ]
    plan = _Plan(specs, threads)
    for operation, needed in zip(operations, needed_later, strict=True):
        plan.add(operation, needed)
    return plan.finish(set(outputs))


class _Plan:
    """Steps so far, and the session that is being built."""

    def __init__(self, specs: Mapping[str, TensorSpec], threads: int) -> None:
        self.specs, self.threads = specs, threads
        self.integer_kernels, self.unsigned = integer_kernels_exact(), prefers_unsigned()
        self.ranges: dict[str, Range] = {name: _full_range(spec) for name, spec in specs.items()}
        self.constants: dict[str, Values] = {}
        self.steps: list[Step | _Unopened] = []
        self.segment = _Segment(Builder(self.integer_kernels, self.unsigned))

    def add(self, operation: Operation, needed: set[str]) -> None:
        """Append an instruction; ``needed`` are the tensors that are read after it."""
        item = operation.instruction
        if item.opcode == "constant":
            self._constant(operation)
            return
        if not self.segment.lower(operation, self.ranges, self.constants):
            self._close(needed | set(item.inputs))
            self.steps.append(_alone(operation))
        made = self.segment.values.get(item.output)
        self.ranges[item.output] = (
            output_range(operation, tuple(self.ranges[name] for name in item.inputs)) if made is None else made.range
        )

    def finish(self, outputs: set[str]) -> tuple[Step, ...]:
        """All steps."""
        self._close(outputs)
        alone = sum(isinstance(step, _Unopened) for step in self.steps) == 1
        opened: list[Step] = []
        while self.steps:
            step = self.steps.pop(0)  # so that a model is let go of once its session is open
            opened.append(step.open(self.threads, alone) if isinstance(step, _Unopened) else step)
        return tuple(opened)

    def _close(self, needed: set[str]) -> None:
        self.steps += self.segment.finish(self.specs, needed)
        self.segment = _Segment(Builder(self.integer_kernels, self.unsigned))

    def _constant(self, operation: Operation) -> None:
        name, value = operation.output.name, KERNELS["constant"](operation, ())
        zero = operation.output_zero()
        self.constants[name] = value
        self.ranges[name] = int(value.min()) - zero, int(value.max()) - zero
        self.steps.insert(0, ConstantStep(name, value))


class _Segment:
    """Instructions that go into one session."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.inputs: list[str] = []
        self.values: dict[str, Value] = {}
        self.written: list[str] = []

    def lower(self, operation: Operation, ranges: Mapping[str, Range], constants: Mapping[str, Values]) -> bool:
        """Append the instruction; ``False`` when it must run otherwise."""
        item = operation.instruction
        lowering = LOWERINGS.get(item.opcode)
        if lowering is None:
            return False
        for name, spec in zip(item.inputs, operation.inputs, strict=True):
            if name not in self.values:
                self._enter(spec, ranges[name], constants.get(name))
        made = lowering(self.builder, operation, tuple(self.values[name] for name in item.inputs))
        if made is None:
            return False
        self.values[item.output] = made
        self.written.append(item.output)
        return True

    def _enter(self, spec: TensorSpec, range_: Range, constant: Values | None) -> None:
        """Bring a tensor in as its integers."""
        if constant is not None:
            held, higher = self.builder.held_as(spec.dtype)
            raised = (constant.astype(np.int64) + higher).astype(held)
            self.values[spec.name] = Value(spec, range_, raw=self.builder.constant(raised))
            return
        port = Port(f"in{len(self.inputs)}", self.builder.held_as(spec.dtype)[0], spec.shape)
        self.builder.graph.inputs.append(port)
        self.inputs.append(spec.name)
        self.values[spec.name] = Value(spec, range_, raw=port.name)

    def finish(self, specs: Mapping[str, TensorSpec], needed: set[str]) -> list[_Unopened]:
        """The session that gives the tensors in ``needed``; empty when there is nothing to run."""
        outputs = tuple(name for name in self.written if name in needed)
        if not outputs:
            return []
        graph = self.builder.graph
        for index, name in enumerate(outputs):
            port = Port(f"out{index}", self.builder.held_as(specs[name].dtype)[0], specs[name].shape)
            graph.node("Identity", [self.builder.raw(self.values[name])], port.name)
            graph.outputs.append(port)
        held = any(self.builder.held_as(specs[name].dtype)[1] for name in (*self.inputs, *outputs))
        return [_Unopened(graph.model(), tuple(self.inputs), outputs, held)]


def _alone(operation: Operation) -> Step:
    """What runs an instruction that has no lowering."""
    if operation.instruction.opcode == "softmax":
        return SoftmaxStep(operation, exponential_table(operation))
    return _table(operation) or PlainStep(operation)


def _table(operation: Operation) -> TableStep | WideTableStep | None:
    """The instruction as a table, or ``None`` where it is none or some value leaves the accumulator."""
    if operation.instruction.opcode not in TABLES:
        return None
    source, result = operation.inputs[0], operation.output
    bits = np.arange(1 << 16, dtype=np.uint16) if source.dtype == "int16" else np.arange(256, dtype=np.uint8)
    try:
        table = KERNELS[operation.instruction.opcode](operation, (bits.view(source.dtype),))
    except ProgramError:  # the plain kernel reports it if the value occurs
        return None
    if "int16" in (source.dtype, result.dtype):
        return WideTableStep(source.name, result.name, table)
    return TableStep(source.name, result, table.tobytes())


def _full_range(spec: TensorSpec) -> Range:
    zero, info = spec.zero_point or 0, np.iinfo(spec.dtype)
    return int(info.min) - zero, int(info.max) - zero
