"""Lowering: from the quantized operators of an NPU partition to a program with folded integer parameters."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pipeline.compile.fold import clamp_bounds, fold, of_type, spec
from pipeline.compile.operators import LOWERINGS, Lowering, Made
from pipeline.compile.support import no_kernel
from pipeline.errors import ModelError
from pipeline.graph.fusion import fused_activation
from pipeline.graph.view import Graph, Node, Tensor
from pipeline.targets.profile import Target
from runtime.npu.contracts import Contract, find_contract
from runtime.npu.program import Instruction, Program
from runtime.tensors import TensorSpec

UNSCALED = frozenset(
    {
        "average_pool", "depth_to_space", "max_pool", "pad", "reduce_max", "reduce_min", "reshape", "resize_linear",
        "resize_nearest", "slice", "space_to_depth", "transpose",
    }
)  # fmt: skip
"""Opcodes with one input that must have the output's scale and zero point."""

JOINED = frozenset({"concat", "maximum", "minimum"})
"""Opcodes whose inputs are brought to the output's scale and zero point, as TFLite has it for CONCATENATION."""


@dataclass
class _Assembly:
    """Instructions and tensors collected so far, for one contract."""

    contract: Contract
    instructions: list[Instruction] = field(default_factory=list)
    tensors: dict[str, TensorSpec] = field(default_factory=dict)

    def add(self, node: Node, made: Made) -> None:
        """Append an instruction, with requantizations around it where the opcode demands equal scales."""
        instruction = made.instruction
        if made.tensor is not None:
            self.tensors[made.tensor.name] = made.tensor
        if instruction.opcode in JOINED:
            inputs = tuple(self._rescaled(node, name, instruction.output) for name in instruction.inputs)
            self.instructions.append(replace(instruction, inputs=inputs))
        elif instruction.opcode in UNSCALED and not self._equal(instruction.inputs[0], instruction.output):
            source, result = self.tensors[instruction.inputs[0]], self.tensors[instruction.output]
            before = f"{result.name} before requantization"
            self.tensors[before] = replace(result, name=before, scale=source.scale, zero_point=source.zero_point)
            self.instructions.append(replace(instruction, output=before))
            self._requantize(node, before, result.name)
        else:
            self.instructions.append(instruction)

    def _rescaled(self, node: Node, source: str, like: str) -> str:
        """The tensor ``source`` with the scale and zero point of ``like``."""
        if self._equal(source, like):
            return source
        name = f"{source} requantized for {like}"
        if name not in self.tensors:
            wanted = self.tensors[like]
            shape = self.tensors[source].shape
            self.tensors[name] = replace(wanted, name=name, shape=shape)
            self._requantize(node, source, name)
        return name

    def _requantize(self, node: Node, source: str, result: str) -> None:
        """TFLite's QUANTIZE within one type (numerics, section 6.6)."""
        contract = of_type(result, self.tensors[result].dtype, self.contract)
        factor = contract.ratio((self.tensors[source].scale or 0.0,), self.tensors[result].scale or 1.0)
        bounds = dict(zip(("act_min", "act_max"), contract.limits, strict=True))
        self.instructions.append(
            Instruction("requantize", node.name, (source,), result, bounds, fold(node, (factor,), contract))
        )

    def _equal(self, first: str, second: str) -> bool:
        a, b = self.tensors[first], self.tensors[second]
        return a.scale == b.scale and a.zero_point == b.zero_point


def lower(
    graph: Graph, nodes: Sequence[Node], inputs: Sequence[Tensor], outputs: Sequence[Tensor], target: Target
) -> Program:
    """The program of one NPU partition.

    An operator whose kernel moves values without scaling them is given a requantization where the scales of its
    tensors differ (on the inputs of a Concat, Max or Min; behind any other).

    Args:
        graph: the whole quantized graph.
        nodes: the partition's operators in topological order.
        inputs: the tensors it takes, quantized.
        outputs: the tensors it gives, quantized.
        target: whose contract the parameters are folded for.

    Raises:
        ModelError: an operator or a tensor has no form in the program; placement should have prevented it.
    """
    contract = find_contract(target.contract)
    assembly = _Assembly(contract)
    for tensor in inputs:
        assembly.tensors[tensor.wire] = spec(tensor, contract)
    followers = {f.name for f in (fused_activation(graph, n) for n in nodes) if f is not None}
    for node in nodes:
        if node.name in followers:
            continue
        reason = no_kernel(node, contract)
        if reason is not None:
            raise ModelError(f"cannot be compiled: {reason}", where=node.name)
        clamp = fused_activation(graph, node)
        output = node.outputs[0] if clamp is None else clamp.outputs[0]
        for tensor in (output, *node.outputs[1:]):
            assembly.tensors[tensor.wire] = spec(tensor, contract)
        typed = of_type(output.name, assembly.tensors[output.wire].dtype, contract)
        bounds = typed.limits if clamp is None else clamp_bounds(clamp, output, typed.limits)
        for made in LOWERINGS[node.op](Lowering(node, output, typed, bounds)):
            assembly.add(node, made)
    return Program(
        target=target.name,
        contract=target.contract,
        device=target.device_figures(),
        tensors=tuple(assembly.tensors.values()),
        inputs=tuple(t.wire for t in inputs),
        outputs=tuple(t.wire for t in outputs),
        instructions=tuple(assembly.instructions),
    )
