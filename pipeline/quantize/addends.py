"""Biases that an Add holds, one per output channel: what exporters make of a linear layer's behind its MatMul."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.graph.view import Graph, Node
from pipeline.quantize.walk import Step

Values = NDArray[np.float64]


def addend(node: Node) -> int | None:
    """Which input of ``node`` is such a bias: of an Add of an activation [..., O] the constant [O]; else ``None``."""
    if node.op != "Add" or not node.standard or len(node.inputs) != 2 or len(node.activations) != 1:
        return None
    index = 1 if node.required(0).constant is None else 0
    constant, made = node.required(index), node.outputs[0].shape
    channels = None if not made else made[-1]
    return index if constant.dtype == "float32" and constant.shape == (channels,) else None


def behind(graph: Graph, node: Node) -> Node | None:
    """The Add with the bias of ``node``, a MatMul with a constant matrix that nothing else reads; ``None`` without."""
    readers = graph.consumers(node.outputs[0].name)
    matrix = node.input(1)
    if node.op != "MatMul" or matrix is None or matrix.constant is None or graph.is_output(node.outputs[0].name):
        return None
    return readers[0] if len(readers) == 1 and addend(readers[0]) is not None else None


@dataclass(frozen=True)
class Addend:
    """The bias of a step that is such an Add.

    Attributes:
        integers: as its instruction has it: [O].
        scale: real value of one step.
    """

    integers: NDArray[np.generic]
    scale: float

    def shifted(self, shift: Values) -> NDArray[np.generic]:
        """The integers with ``shift``, real numbers [O], added; the largest stay, which the scale is made from."""
        whole = self.integers.astype(np.int64)
        most = np.abs(whole).max()
        moved = np.clip(whole + np.rint(shift / self.scale), -most, most)
        return np.where(np.abs(whole) == most, whole, moved).astype(self.integers.dtype)


def of_step(step: Step) -> Addend | None:
    """The bias of ``step``; ``None`` when it has none, or shares it, or runs in real numbers."""
    program, index = step.unit.program, addend(step.node)
    if program is None or index is None or not step.sole or program.instructions[0].opcode != "constant":
        return None
    first = program.instructions[0]
    spec = next(tensor for tensor in program.tensors if tensor.name == first.output)
    if spec.scale is None or spec.zero_point:
        return None
    return Addend(first.constants["value"], float(spec.scale))
