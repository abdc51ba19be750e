"""Rules of the opcodes that sum products."""

from collections.abc import Mapping
from types import MappingProxyType

from runtime.npu.rules.call import MAX_ELEMENTS, MAX_WINDOW, Call, Opcode, Shape, opcode, require, window_output


def _grouped(call: Call, channels: int) -> tuple[int, list[int], tuple[int, ...], tuple[int, ...]]:
    """What both convolutions keep: output channels, height and width of the kernel, strides and dilations."""
    group = call.integer("group", 1, channels)
    weight = call.constant("weight", "int8", (None, None, None, None))
    outputs, per_group, *kernel = weight.shape
    require(channels == per_group * group, f"weight takes {per_group} x {group} channels, the input has {channels}")
    require(outputs % group == 0, f"{outputs} output channels do not divide into {group} groups")
    call.bias(outputs)
    call.scaling(outputs)
    call.clamp()
    strides, dilations = call.integers("strides", 2, 1, MAX_WINDOW), call.integers("dilations", 2, 1, MAX_WINDOW)
    return outputs, kernel, strides, dilations


def _conv2d(call: Call) -> Shape:
    batch, channels, height, width = image(call)
    outputs, kernel, strides, dilations = _grouped(call, channels)
    reach = tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True))
    pads = call.integers("pads", 4, 0, MAX_WINDOW)
    return like_image(call, batch, outputs, window_output((channels, height, width), reach, strides, pads))


def _conv_transpose2d(call: Call) -> Shape:
    _never_saturates(call)
    batch, channels, *size = image(call)
    outputs, kernel, strides, dilations = _grouped(call, channels)
    pads = call.integers("pads", 4, 0, MAX_WINDOW)
    grown = [(size[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 for i in (0, 1)]
    require(outputs * grown[0] * grown[1] <= MAX_ELEMENTS, f"its result {grown} has more than {MAX_ELEMENTS} elements")
    have = call.output.shape
    wanted = (1, have[-1]) if len(have) == 3 else have[-2:]
    for i in (0, 1):
        least = grown[i] - pads[i] - pads[i + 2]
        most = least + strides[i] - 1
        require(least >= 1 and least <= wanted[i] <= most, f"a size of {wanted[i]} is outside [{least}, {most}]")
    return like_image(call, batch, outputs, wanted)


def _fully_connected(call: Call) -> Shape:
    shape = call.inputs[0].shape
    weight = call.constant("weight", "int8", (None, shape[-1]))
    call.bias(weight.shape[0])
    call.scaling(weight.shape[0])
    call.clamp()
    return (*shape[:-1], weight.shape[0])


def _matmul(call: Call) -> Shape:
    _never_saturates(call)
    first, second = call.inputs[0].shape, call.inputs[1].shape
    require(len(first) >= 2 and len(second) >= 2, f"{first} and {second} are no matrices")
    require(first[-1] == second[-2], f"{first} and {second} do not multiply")
    call.scaling(1)
    call.clamp()
    batch = first[:-2] if len(second) == 2 else second[:-2] if len(first) == 2 else first[:-2]
    require(second[:-2] in ((), batch) and first[:-2] in ((), batch), f"{first} and {second} differ in their batches")
    return (*batch, first[-2], second[-1])


def _never_saturates(call: Call) -> None:
    require(call.contract.accumulator_bits > 16, "it has no form with a 16-bit saturating accumulator")


def image(call: Call) -> Shape:
    """Batch, channels, height and width of the first input; a sequence [N, C, L] is an image one row high."""
    shape = call.inputs[0].shape
    require(len(shape) in (3, 4), f"{call.inputs[0].name} has shape {list(shape)}, expected 3 or 4 dimensions")
    return (*shape[:2], 1, shape[2]) if len(shape) == 3 else shape


def like_image(call: Call, batch: int, channels: int, size: Shape) -> Shape:
    """The output's shape: a sequence when the input is one."""
    if len(call.inputs[0].shape) == 4:
        return (batch, channels, *size)
    require(size[0] == 1, f"a sequence gives one row, this one gives {size[0]}")
    return (batch, channels, size[1])


OPCODES: Mapping[str, Opcode] = MappingProxyType(
    {
        "conv2d": opcode(1, "strides pads dilations group act_min act_max", "weight bias multiplier shift", _conv2d),
        "conv_transpose2d": opcode(
            1, "strides pads dilations group act_min act_max", "weight bias multiplier shift", _conv_transpose2d
        ),
        "fully_connected": opcode(1, "act_min act_max", "weight bias multiplier shift", _fully_connected),
        "matmul": opcode(2, "act_min act_max", "multiplier shift", _matmul),
    }
)
