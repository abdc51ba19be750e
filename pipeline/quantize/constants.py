"""The constants of a float model: found by name, and written where an operator has them."""

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from pipeline.graph.view import Graph, Node


def initializers(model: onnx.ModelProto) -> Mapping[str, onnx.TensorProto]:
    """The constants of ``model`` that stand beside its operators, by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def users(graph: Graph) -> Mapping[str, int]:
    """How often each constant of ``graph`` is read, by name."""
    counts: dict[str, int] = {}
    for node in graph.nodes:
        for tensor in node.inputs:
            if tensor is not None and tensor.constant is not None:
                counts[tensor.name] = counts.get(tensor.name, 0) + 1
    return counts


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model``."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


def store(model: onnx.ModelProto, node: Node, index: int, values: NDArray[np.floating]) -> None:
    """Write ``values`` as float32, in place, where ``node`` of ``model`` has its constant number ``index``.

    That is an initializer or a Constant node; where there is none yet, as of a bias, it becomes an initializer.
    """
    tensor = node.input(index)
    real = np.ascontiguousarray(values, np.float32)
    if tensor is None:
        name = f"{node.name}.bias@added"
        model.graph.initializer.append(numpy_helper.from_array(real, name))
        next(n for n in model.graph.node if n.name == node.name).input.append(name)
        return
    made = numpy_helper.from_array(real, tensor.name)
    constants = initializers(model)
    if tensor.name in constants:
        constants[tensor.name].CopyFrom(made)
        return
    for other in model.graph.node:
        if other.op_type == "Constant" and other.output[0] == tensor.name:
            del other.attribute[:]
            other.attribute.append(helper.make_attribute("value", made))
