"""Rules about tensors of any operator: shapes, types, quantization, constants."""

import math

import numpy as np

from pipeline.graph.view import Node
from pipeline.targets.profile import Limits
from pipeline.targets.rules.reading import RECURRENT, batch, choices, data, elements, number, shown

REAL = frozenset({"float32", "float16", "bfloat16", "float64"})
"""Types of tensors that are quantized for the target."""

BYTES = {"int8": 1, "uint8": 1, "int16": 2, "uint16": 2}


def static_shapes(node: Node, limits: Limits) -> str | None:
    """Tensor shapes must be known at compile time."""
    for tensor in (*(t for t in node.inputs if t is not None), *node.outputs):
        if tensor.shape is None or any(d is None for d in tensor.shape):
            return f"{tensor.name} has shape {tensor.shape}"
    return None


def static_but_batch(node: Node, limits: Limits) -> str | None:
    """Tensor shapes must be known at compile time, but for the first dimension."""
    for tensor in (*(t for t in node.inputs if t is not None), *node.outputs):
        if tensor.shape is None or any(d is None for d in tensor.shape[1:]):
            return f"{tensor.name} has shape {tensor.shape}"
    return None


def max_rank(node: Node, limits: Limits) -> str | None:
    """Only the innermost {rank} dimensions of a tensor may be larger than 1."""
    for tensor in (*node.activations, *node.outputs):
        shape = tensor.shape or ()
        if node.op in RECURRENT and len(shape) == 4 and shape[1] == 1:
            shape = (shape[0], *shape[2:])  # its only direction is no dimension elsewhere
        outer = shape[: -int(number(limits, "rank"))]
        if any(d is not None and d > 1 for d in outer):
            return f"{tensor.name} has shape {shown(tensor)}"
    return None


def max_dimensions(node: Node, limits: Limits) -> str | None:
    """Tensors have at most {dimensions} dimensions."""
    for tensor in (*node.activations, *node.outputs):
        if len(tensor.shape or ()) > number(limits, "dimensions"):
            return f"{tensor.name} has shape {shown(tensor)}"
    return None


def exact_dimensions(node: Node, limits: Limits) -> str | None:
    """Tensors have {dimensions} dimensions."""
    for tensor in data(node):
        if len(tensor.shape or ()) != number(limits, "dimensions"):
            return f"{tensor.name} has shape {shown(tensor)}"
    return None


def batch_one(node: Node, limits: Limits) -> str | None:
    """The batch size must be 1."""
    for tensor in (*node.activations, *node.outputs):
        if batch(node, tensor) != 1:
            return f"{tensor.name} has batch size {batch(node, tensor)}"
    return None


def max_batch(node: Node, limits: Limits) -> str | None:
    """The batch size must be at most {batch}."""
    for tensor in (*node.activations, *node.outputs):
        if batch(node, tensor) > number(limits, "batch"):
            return f"{tensor.name} has batch size {batch(node, tensor)}"
    return None


def max_dimension(node: Node, limits: Limits) -> str | None:
    """Dimensions other than the batch must be at most {size}."""
    for tensor in (*node.activations, *node.outputs):
        if any(d is not None and d > number(limits, "size") for d in (tensor.shape or ())[1:]):
            return f"{tensor.name} has shape {shown(tensor)}"
    return None


def max_tensor_bytes(node: Node, limits: Limits) -> str | None:
    """A tensor must have fewer than {bytes} bytes."""
    for tensor in data(node):
        width = 1 if tensor.quantization is None else BYTES.get(tensor.quantization.dtype, 1)
        if width * elements(tensor.shape or ()) >= number(limits, "bytes"):
            return f"{tensor.name} has {width * elements(tensor.shape or ())} bytes"
    return None


def int8_activations(node: Node, limits: Limits) -> str | None:
    """Activations must be real numbers that int8 with one scale per tensor can carry."""
    return activation_types(node, {"types": ("int8",)})


def activation_types(node: Node, limits: Limits) -> str | None:
    """Activations must be quantized with one scale per tensor, as one of {types}."""
    for tensor in data(node):
        quantization = tensor.quantization
        if quantization is None and tensor.dtype not in REAL and tensor.dtype not in choices(limits, "types"):
            return f"{tensor.name} is {tensor.dtype}"
        if quantization is not None and quantization.per_channel:
            return f"{tensor.name} is quantized as per channel"
        if quantization is not None and quantization.dtype not in choices(limits, "types"):
            return f"{tensor.name} is quantized as {quantization.dtype}"
    return None


def symmetric_activations(node: Node, limits: Limits) -> str | None:
    """Activations must be quantized symmetrically, with zero point 0."""
    for tensor in data(node):
        if tensor.quantization is not None and np.any(tensor.quantization.zero_point != 0):
            return f"{tensor.name} has zero point {int(np.ravel(tensor.quantization.zero_point)[0])}"
    return None


def shared_input_scale(node: Node, limits: Limits) -> str | None:
    """All inputs must share one scale and zero point."""
    found = [t for t in node.activations if t.quantization is not None]
    others = [t for t in found[1:] if t.quantization and not t.quantization.same(found[0].quantization)]  # type: ignore[arg-type]
    return f"{found[0].name} and {others[0].name} are quantized differently" if others else None


def shared_scale(node: Node, limits: Limits) -> str | None:
    """Inputs and output must share one scale and zero point."""
    found = [t for t in (*node.activations, *node.outputs) if t.quantization is not None]
    others = [t for t in found[1:] if t.quantization and not t.quantization.same(found[0].quantization)]  # type: ignore[arg-type]
    return f"{found[0].name} and {others[0].name} are quantized differently" if others else None


def per_tensor_weights(node: Node, limits: Limits) -> str | None:
    """Weights must be quantized with one scale per tensor."""
    weight = node.input(1)
    split = weight is not None and weight.quantization is not None and weight.quantization.per_channel
    return f"{node.required(1).name} has one scale per channel" if split else None


def weight_types(node: Node, limits: Limits) -> str | None:
    """Weights must be quantized as one of {types}."""
    weight = node.input(1)
    if weight is None or weight.constant is None or weight.quantization is None:
        return None
    kind = weight.quantization.dtype
    return None if kind in choices(limits, "types") else f"{weight.name} is quantized as {kind}"


def bias_types(node: Node, limits: Limits) -> str | None:
    """The bias must be quantized as one of {types}."""
    bias = node.input(2)
    if bias is None or bias.quantization is None:
        return None
    kind = bias.quantization.dtype
    return None if kind in choices(limits, "types") else f"{bias.name} is quantized as {kind}"


def constant_operands(node: Node, limits: Limits) -> str | None:
    """Every input but the first must be constant."""
    computed = [t.name for t in node.inputs[1:] if t is not None and t.constant is None]
    return f"{', '.join(computed)} is computed" if computed else None


def equal_shapes(node: Node, limits: Limits) -> str | None:
    """All inputs must have the same shape."""
    shapes = [t.shape for t in node.inputs if t is not None]
    return None if len(set(shapes)) <= 1 else f"they have {' and '.join(str(list(s or ())) for s in shapes)}"


def broadcast_per_channel(node: Node, limits: Limits) -> str | None:
    """An operand that is broadcast must be a scalar or have one value per channel."""
    rank = len(node.outputs[0].shape or ())
    for tensor in node.inputs:
        shape = () if tensor is None else tuple(tensor.shape or ())
        full = (1,) * (rank - len(shape)) + shape
        scalar, whole = math.prod(d or 0 for d in shape) == 1, full == node.outputs[0].shape
        if tensor is not None and not scalar and not whole and any(d != 1 for d in full[2:]):
            return f"{tensor.name} has shape {shown(tensor)} where the result has {shown(node.outputs[0])}"
    return None


def min_inputs(node: Node, limits: Limits) -> str | None:
    """There must be at least {inputs} inputs."""
    return None if len(node.inputs) >= number(limits, "inputs") else f"it has {len(node.inputs)}"


def requantizes(node: Node, limits: Limits) -> str | None:
    """QuantizeLinear must read integers with another scale."""
    source = node.required(0)
    return f"{source.name} is {source.dtype}" if source.quantization is None else None
