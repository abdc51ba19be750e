"""ONNX operators in torch, as far as they are trained with rounding; a batch of 1 in the model may be any here."""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.compile.windows import nearest_indices, pads, pool_pads
from pipeline.graph.fusion import clip_range
from pipeline.graph.view import Node

Inputs = Sequence[Tensor | None]
Operator = Callable[[Node, Inputs], Tensor | tuple[Tensor, ...]]


def _first(inputs: Inputs) -> Tensor:
    return _at(inputs, 0)


def _at(inputs: Inputs, index: int) -> Tensor:
    return cast("Tensor", inputs[index])


def _optional(inputs: Inputs, index: int) -> Tensor | None:
    return inputs[index] if index < len(inputs) else None


def _padded(values: Tensor, around: Sequence[int], fill: float = 0.0) -> Tensor:
    top, left, bottom, right = around
    return functional.pad(values, (left, right, top, bottom), value=fill) if any(around) else values


def _number(node: Node, name: str, default: float) -> float:
    return float(str(node.attributes.get(name, default)))


def _conv(node: Node, inputs: Inputs) -> Tensor:
    weight = _at(inputs, 1)
    given = _padded(_first(inputs), pads(node, tuple(weight.shape[2:])))
    strides, dilations = node.ints("strides", (1, 1)), node.ints("dilations", (1, 1))
    group = node.int("group", 1)
    return functional.conv2d(given, weight, _optional(inputs, 2), strides, 0, dilations, group)


def _gemm(node: Node, inputs: Inputs) -> Tensor:
    weight = _at(inputs, 1)
    return functional.linear(_first(inputs), weight if node.int("transB", 0) else weight.T, _optional(inputs, 2))


def _max_pool(node: Node, inputs: Inputs) -> Tensor:
    kernel = node.ints("kernel_shape", ())
    given = _padded(_first(inputs), pool_pads(node, kernel), -torch.inf)
    ones = (1,) * len(kernel)
    return functional.max_pool2d(given, kernel, node.ints("strides", ones), 0, node.ints("dilations", ones))


def _average_pool(node: Node, inputs: Inputs) -> Tensor:
    kernel = node.ints("kernel_shape", ())
    strides = node.ints("strides", (1,) * len(kernel))
    around = pool_pads(node, kernel)
    total = functional.avg_pool2d(_padded(_first(inputs), around), kernel, strides)
    if node.int("count_include_pad", 0):
        return total
    ones = torch.ones_like(_first(inputs)[:1, :1])
    return total / functional.avg_pool2d(_padded(ones, around), kernel, strides)


def _clip(node: Node, inputs: Inputs) -> Tensor:
    low, high = clip_range(node)
    return _first(inputs).clamp(low, high)


def _reshape(node: Node, inputs: Inputs) -> Tensor:
    """To the model's shape, whose batch is 1, with the batch that there is."""
    given = _first(inputs)
    before, after = node.required(0).dims, node.outputs[0].dims
    same = before[:1] == after[:1] == (1,)
    return given.reshape((len(given), *after[1:]) if same else after)


def _resize(node: Node, inputs: Inputs) -> Tensor:
    given = _first(inputs)
    if node.text("mode", "nearest") == "nearest":
        for axis in (2, 3):
            places = torch.from_numpy(nearest_indices(node, axis)).to(given.device)
            given = given.index_select(axis, places)
        return given
    corners = node.text("coordinate_transformation_mode", "half_pixel") == "align_corners"
    return functional.interpolate(given, node.outputs[0].dims[2:], mode="bilinear", align_corners=corners)


def _softmax(node: Node, inputs: Inputs) -> Tensor:
    return _first(inputs).softmax(node.int("axis", -1))


def _mean(node: Node, inputs: Inputs) -> Tensor:
    given = node.input(1)
    axes = node.ints("axes", ()) if given is None else tuple(int(a) for a in given.real.ravel())
    every = axes or tuple(range(_first(inputs).ndim))
    return _first(inputs).mean(every, keepdim=bool(node.int("keepdims", 1)))


def _hard_sigmoid(node: Node, inputs: Inputs) -> Tensor:
    return (_first(inputs) * _number(node, "alpha", 0.2) + _number(node, "beta", 0.5)).clamp(0, 1)


OPERATORS: Mapping[str, Operator] = {
    "Add": lambda node, inputs: _at(inputs, 0) + _at(inputs, 1),
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Concat": lambda node, inputs: torch.cat([v for v in inputs if v is not None], node.int("axis", 0)),
    "Conv": _conv,
    "Flatten": lambda node, inputs: _first(inputs).flatten(node.int("axis", 1)),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node, inputs: _first(inputs).mean((2, 3), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda node, inputs: functional.hardswish(_first(inputs)),
    "Identity": lambda node, inputs: _first(inputs),
    "LeakyRelu": lambda node, inputs: functional.leaky_relu(_first(inputs), _number(node, "alpha", 0.01)),
    "MatMul": lambda node, inputs: _at(inputs, 0) @ _at(inputs, 1),
    "MaxPool": _max_pool,
    "Mul": lambda node, inputs: _at(inputs, 0) * _at(inputs, 1),
    "ReduceMean": _mean,
    "Relu": lambda node, inputs: _first(inputs).relu(),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": lambda node, inputs: _first(inputs).sigmoid(),
    "Softmax": _softmax,
    "Sub": lambda node, inputs: _at(inputs, 0) - _at(inputs, 1),
    "Tanh": lambda node, inputs: _first(inputs).tanh(),
    "Transpose": lambda node, inputs: _first(inputs).permute(node.ints("perm", ())),
}
"""Each operator as a function of its node and its inputs; a constant is among them."""
