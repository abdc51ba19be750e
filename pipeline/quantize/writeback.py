"""Putting changed weights and biases back into the float model, on their grids, so that pairs round to the same."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from pipeline.graph.view import Node, view
from pipeline.quantize.addends import addend
from pipeline.quantize.constants import copied, store, users
from pipeline.quantize.engine import Engine, Unit

Values = NDArray[np.float64]


def shifted(model: onnx.ModelProto, shifts: Mapping[str, Values]) -> onnx.ModelProto:
    """A copy of ``model`` with each layer's shift, [O], taken off its bias; layers that share a bias keep theirs."""
    made = copied(model)
    graph = view(made)
    shared = users(graph)
    for node in graph.nodes:
        index = addend(node)
        index = 2 if index is None else index
        bias = node.input(index)
        if node.name in shifts and bias is not None and shared[bias.name] == 1:
            store(made, node, index, bias.real.astype(np.float64) - shifts[node.name])
    return made


def written(model: onnx.ModelProto, engine: Engine, changed: Sequence[str]) -> onnx.ModelProto:
    """A copy of ``model`` whose operators ``changed`` have the weights and biases that ``engine`` has for them."""
    made = copied(model)
    nodes = {n.name: n for n in view(made).nodes}
    units = {u.name: u for u in engine.units}
    for name in changed:
        _write(made, nodes[name], units[name])
    return made


def _write(model: onnx.ModelProto, node: Node, unit: Unit) -> None:
    index = addend(node)
    if index is not None:
        _write_addend(model, node, index, unit)
        return
    quantized = unit.nodes[0]
    weight, source = quantized.required(1).quantization, quantized.required(0).quantization
    if unit.program is None or weight is None or source is None:
        return
    constants = unit.program.instructions[0].constants
    integers = constants["weight"].astype(np.float64)
    steps = np.broadcast_to(weight.scale.reshape(-1), (len(integers),))
    real = integers * steps.astype(np.float64).reshape(-1, *[1] * (integers.ndim - 1))
    if node.op == "MatMul" or (node.op == "Gemm" and not node.int("transB", 0)):
        real = real.T
    store(model, node, 1, real)
    if node.op == "MatMul":
        return
    # The product is float32, as the pair of the bias has it.
    store(model, node, 2, constants["bias"].astype(np.float64) * (np.float32(source.scale) * steps).astype(np.float64))


def _write_addend(model: onnx.ModelProto, node: Node, index: int, unit: Unit) -> None:
    """Write the bias of an Add where its integers have changed; the others, and so its scale, stay as they are."""
    if unit.program is None:
        return
    first = unit.program.instructions[0]
    spec = next(tensor for tensor in unit.program.tensors if tensor.name == first.output)
    scale = spec.scale or 1.0
    before, integers = node.required(index).real.astype(np.float64), first.constants["value"].astype(np.float64)
    store(model, node, index, np.where(np.rint(before / scale) == integers, before, integers * scale))
