"""Folding scales into integers: multipliers, biases and clamps of one operator under the target's contract."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.graph.fusion import clip_range
from pipeline.graph.view import Node, Quantization, Tensor
from runtime.npu.contracts import quantize_multiplier

Constants = Mapping[str, NDArray[np.generic]]


def fold(node: Node, factors: Sequence[float]) -> Constants:
    """``multiplier`` and ``shift`` of each real factor; raises ``ModelError`` for one that has no such form."""
    pairs = []
    for factor in factors:
        if not np.isfinite(factor) or factor <= 0:
            raise ModelError(f"has the requantization factor {factor}", where=node.name, fix="check the scales")
        pairs.append(quantize_multiplier(factor))
    return {
        "multiplier": np.array([m for m, _ in pairs], np.int32),
        "shift": np.array([e for _, e in pairs], np.int32),
    }


def conv_parameters(
    node: Node, weight: NDArray[np.generic] | None, output: Tensor, quantization: Quantization | None
) -> Constants:
    """Weight, bias, multiplier and shift of a convolution or fully connected layer.

    Args:
        node: the operator; its first input is the quantized activation, its third the int32 bias, if any.
        weight: int8, output channels first.
        output: the tensor it writes.
        quantization: of the weight: symmetric, per tensor or per channel.

    The factor of channel c is ``f64(s_x) * f64(s_w[c]) / f64(s_y)`` (TFLite, numerics section 3.1).

    Raises:
        ModelError: the weight is not symmetric int8, or the bias does not stand on ``s_x * s_w``.
    """
    if weight is None or quantization is None or weight.dtype != np.int8 or np.any(quantization.zero_point != 0):
        raise ModelError("needs a constant, symmetric int8 weight", where=node.name, fix="quantize the model")
    channels = weight.shape[0]
    scales = np.broadcast_to(quantization.scale, (channels,)).astype(np.float64)
    source, result = _scale(node.required(0)), _scale(output)
    return {
        "weight": weight,
        "bias": _bias(node, channels, source * scales),
        **fold(node, [float(f) for f in source * scales / result]),
    }


def _bias(node: Node, channels: int, scales: NDArray[np.float64]) -> NDArray[np.int32]:
    bias = node.input(2)
    if bias is None:
        return np.zeros(channels, np.int32)
    if bias.constant is None:
        raise ModelError("has a computed bias", where=node.name)
    if bias.constant.dtype == np.int32 and bias.quantization is not None:
        same = np.allclose(np.broadcast_to(bias.quantization.scale, (channels,)), scales, rtol=1e-5, atol=0)
        if not same:
            raise ModelError("its bias does not have the scale input x weight", where=node.name, fix="requantize it")
        return np.broadcast_to(bias.constant.reshape(-1), (channels,)).astype(np.int32)
    raise ModelError("its bias is not int32", where=node.name, fix="quantize the model")


def _scale(tensor: Tensor) -> float:
    if tensor.quantization is None:
        raise ModelError("is not quantized", where=tensor.name, fix="quantize the model")
    return float(tensor.quantization.scale)


def clamp_bounds(node: Node, output: Tensor) -> tuple[int, int]:
    """``act_min`` and ``act_max`` that a Relu or Clip puts on ``output``.

    Formula: TFLite, ``max(-128, z_y + rha(f32(low / s_y)))`` and ``min(127, z_y + rha(f32(high / s_y)))``.
    Raises ``ModelError`` when the limits are computed or the output is not quantized.
    """
    if output.quantization is None:
        raise ModelError("is not quantized", where=output.name, fix="quantize the model")
    low, high = clip_range(node)
    scale, zero = np.float32(output.quantization.scale), int(output.quantization.zero_point)
    bottom = -128 if low is None else max(-128, zero + _half_away(np.float32(low) / scale))
    top = 127 if high is None else min(127, zero + _half_away(np.float32(high) / scale))
    return bottom, max(top, bottom)


def _half_away(value: np.floating) -> int:
    return int(np.copysign(np.floor(np.abs(float(value)) + 0.5), value))
