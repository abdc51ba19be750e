"""Rules of the opcodes that reduce windows or axes."""

from collections.abc import Mapping
from types import MappingProxyType

from runtime.npu.rules.call import MAX_WINDOW, Call, Opcode, Shape, opcode, require, window_output
from runtime.npu.rules.products import image, like_image


def _pool(call: Call) -> Shape:
    batch, channels, height, width = image(call)
    kernel = call.integers("kernel", 2, 1, MAX_WINDOW)
    pads = call.integers("pads", 4, 0, MAX_WINDOW)
    require(all(pads[i] < kernel[i % 2] for i in range(4)), f"pads {pads} reach past the kernel {kernel}")
    call.same_quantization()
    strides = call.integers("strides", 2, 1, MAX_WINDOW)
    return like_image(call, batch, channels, window_output((channels, height, width), kernel, strides, pads))


def _average_pool(call: Call) -> Shape:
    require(call.contract.multiplier_bits > 1, "a contract of powers of two has no factor 1/n")
    return _pool(call)


def _reduced(call: Call) -> Shape:
    """The output's shape: the reduced axes have size 1, or are dropped where the output has it so."""
    shape, axes = call.inputs[0].shape, call.axes()
    dropped = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return dropped if call.output.shape == dropped else kept


def _mean(call: Call) -> Shape:
    call.scaling(1)
    return _reduced(call)


def _extreme(call: Call) -> Shape:
    call.same_quantization()
    return _reduced(call)


OPCODES: Mapping[str, Opcode] = MappingProxyType(
    {
        "max_pool": opcode(1, "kernel strides pads", "", _pool),
        "average_pool": opcode(1, "kernel strides pads", "", _average_pool),
        "mean": opcode(1, "axes", "multiplier shift", _mean),
        "reduce_sum": opcode(1, "axes", "multiplier shift", _mean),
        "reduce_max": opcode(1, "axes", "", _extreme),
        "reduce_min": opcode(1, "axes", "", _extreme),
    }
)
