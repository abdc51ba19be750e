"""A program of rule R1 or R8 as the ``.tflite`` file that computes the same, to compare TFLite interpreters with it."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.graph.tflite_writer import PADDING, RELU, RELU6, Op, Options, Tensor, network
from pipeline.graph.view import Graph
from runtime.npu.program import Instruction, Program
from runtime.tensors import TensorSpec

Scales = Mapping[str, Sequence[float]]
"""By instruction, the scales of its weight's output channels."""


def weight_scales(graph: Graph) -> Scales:
    """Of every operator of a quantized graph that has a weight."""
    pairs = ((node.name, node.inputs[1]) for node in graph.nodes if len(node.inputs) > 1)
    known = ((name, w.quantization) for name, w in pairs if w is not None and w.constant is not None)
    return {name: np.atleast_1d(found.scale).tolist() for name, found in known if found is not None}


def tflite(program: Program, weights: Scales, outputs: Sequence[str] = ()) -> bytes:
    """The file; its tensors lie channels last.

    A fully connected layer with one scale per channel is written as a convolution of 1x1, as TFLite's has one for all.

    Args:
        program: of images (4-D) and vectors (2-D).
        weights: scales that the program's factors were folded from.
        outputs: which of its tensors the file gives; the program's outputs when there are none.

    Raises:
        ModelError: an instruction has no form in TFLite.
        ModuleNotFoundError: ai-edge-litert is not installed.
    """
    flat = _Flat(program, weights)
    for item in program.instructions:
        write = FORMS.get(item.opcode)
        if write is None:
            raise ModelError(f"{item.opcode} has no .tflite form here", where=item.name)
        write(flat, item)
    ends = [[flat.index[name] for name in names] for names in (program.inputs, outputs or program.outputs)]
    return network(flat.operators, flat.tensors, *ends)


class _Flat:
    """The file as it grows."""

    def __init__(self, program: Program, weights: Scales) -> None:
        self.specs = {spec.name: spec for spec in program.tensors}
        self.weights = weights
        self.tensors: list[Tensor] = []
        self.operators: list[Op] = []
        self.index = {spec.name: self.activation(spec, channels_last(spec.shape)) for spec in program.tensors}

    def activation(self, like: TensorSpec, shape: tuple[int, ...]) -> int:
        """Add a tensor that is quantized as ``like``; its number."""
        return self.add(Tensor(shape, (like.scale or 1.0,), like.zero_point or 0, dtype=like.dtype))

    def constant(self, data: NDArray[np.generic] | Sequence[int], scales: Sequence[float] = (), axis: int = 0) -> int:
        """Add a constant, integers of 32 bits unless it is an array; its number."""
        array = data if isinstance(data, np.ndarray) else np.array(data, np.int32)
        return self.add(Tensor(array.shape, tuple(scales), 0, array, axis, array.dtype.name))

    def bias(self, item: Instruction, scales: Sequence[float]) -> int:
        """Add the instruction's bias, of 64 bits beside int16, for a weight of these scales; its number."""
        source = self.specs[item.inputs[0]]
        products = [float(np.float32(source.scale) * np.float32(scale)) for scale in scales]
        return self.constant(item.constants["bias"].astype("int64" if source.dtype == "int16" else "int32"), products)

    def add(self, tensor: Tensor) -> int:
        """Add a tensor; its number."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def write(self, name: str, inputs: Sequence[int], output: int, table: str = "", **fields: object) -> int:
        """Add an operator; the number of its output."""
        self.operators.append(Op(name, inputs, output, Options(table, fields) if table else None))
        return output

    def inputs(self, item: Instruction) -> list[int]:
        """The numbers of the instruction's inputs."""
        return [self.index[name] for name in item.inputs]

    def clamp(self, item: Instruction) -> int:
        """The fused activation whose bounds are the instruction's."""
        spec = self.specs[item.output]
        zero, six = spec.zero_point or 0, int(np.floor(np.float32(6) / np.float32(spec.scale) + 0.5))
        low, high = np.iinfo(spec.dtype).min, np.iinfo(spec.dtype).max
        known = {(low, high): 0, (max(zero, low), high): RELU, (max(zero, low), min(zero + six, high)): RELU6}
        bounds = item.attributes["act_min"], item.attributes["act_max"]
        for each, activation in known.items():
            if each == bounds:
                return activation
        raise ModelError(f"its clamp to {bounds} is no activation of TFLite", where=item.name)


def channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an image [N, C, H, W] as TFLite has it, [N, H, W, C]; any other as it is."""
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape


def _conv(flat: _Flat, item: Instruction) -> None:
    source, output = flat.specs[item.inputs[0]], flat.specs[item.output]
    weight, scales = item.constants["weight"], flat.weights[item.name]
    strides, dilations, pads = (_integers(item, name) for name in ("strides", "dilations", "pads"))
    x, same = flat.index[source.name], _same(source.shape[2:], weight.shape[2:], strides, dilations)
    if any(pads) and pads != same:
        room = [[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]]
        shape = tuple(size + sum(ends) for size, ends in zip(channels_last(source.shape), room, strict=True))
        x = flat.write(
            "PAD", [x, flat.constant(np.array(room, np.int32))], flat.activation(source, shape), "PadOptions"
        )
    fields = {
        "padding": PADDING["SAME" if any(pads) and pads == same else "VALID"],
        "strideH": strides[0],
        "strideW": strides[1],
        "dilationHFactor": dilations[0],
        "dilationWFactor": dilations[1],
        "fusedActivationFunction": flat.clamp(item),
    }
    per_group, channels = weight.shape[1], source.shape[1]
    bias = flat.bias(item, scales)
    if item.attributes["group"] == 1:
        kernel = flat.constant(np.moveaxis(weight, 1, -1), scales)
        flat.write("CONV_2D", [x, kernel, bias], flat.index[output.name], "Conv2DOptions", **fields)
    elif per_group == 1 and item.attributes["group"] == channels:
        kernel = flat.constant(np.moveaxis(weight[:, 0], 0, -1)[None], scales, 3)
        many = {**fields, "depthMultiplier": len(weight) // channels}
        flat.write("DEPTHWISE_CONV_2D", [x, kernel, bias], flat.index[output.name], "DepthwiseConv2DOptions", **many)
    else:
        raise ModelError("a convolution in groups has no .tflite form here", where=item.name)


def _dense(flat: _Flat, item: Instruction) -> None:
    source, output = flat.specs[item.inputs[0]], flat.specs[item.output]
    weight, scales, x = item.constants["weight"], flat.weights[item.name], flat.index[item.inputs[0]]
    activation = {"fusedActivationFunction": flat.clamp(item)}
    if len(set(scales)) == 1:
        inputs = [x, flat.constant(weight, scales[:1]), flat.bias(item, scales[:1])]
        flat.write("FULLY_CONNECTED", inputs, flat.index[output.name], "FullyConnectedOptions", **activation)
        return
    (rows, columns), outputs = source.shape, len(weight)
    image = _reshaped(flat, x, flat.activation(source, (rows, 1, 1, columns)))
    inputs = [image, flat.constant(weight[:, None, None, :], scales), flat.bias(item, scales)]
    fields = {"padding": PADDING["VALID"], "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    wide = flat.activation(output, (rows, 1, 1, outputs))
    made = flat.write("CONV_2D", inputs, wide, "Conv2DOptions", **fields, **activation)
    _reshaped(flat, made, flat.index[output.name])


def _same(
    size: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> tuple[int, ...]:
    """What TFLite's padding SAME adds: top, left, bottom, right; the larger half behind."""
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    total = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(size, strides, reach, strict=True)]
    return total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2


def _add(flat: _Flat, item: Instruction) -> None:
    fields = {"fusedActivationFunction": flat.clamp(item), "potScaleInt16": False}
    flat.write("ADD", flat.inputs(item), flat.index[item.output], "AddOptions", **fields)


def _mean(flat: _Flat, item: Instruction) -> None:
    if _integers(item, "axes") != (2, 3):
        raise ModelError("a mean over other axes than an image's has no .tflite form here", where=item.name)
    inputs = [*flat.inputs(item), flat.constant([1, 2])]
    flat.write("MEAN", inputs, flat.index[item.output], "ReducerOptions", keepDims=True)


def _reshape(flat: _Flat, item: Instruction) -> None:
    shapes = [flat.specs[name].shape for name in (*item.inputs, item.output)]
    if any(len(shape) == 4 and shape[1] != 1 and shape[2:] != (1, 1) for shape in shapes):
        raise ModelError("a reshape of images has no .tflite form, where channels are last", where=item.name)
    _reshaped(flat, flat.index[item.inputs[0]], flat.index[item.output])


def _reshaped(flat: _Flat, source: int, output: int) -> int:
    shape = list(flat.tensors[output].shape)
    return flat.write("RESHAPE", [source, flat.constant(shape)], output, "ReshapeOptions", newShape=shape)


def _resize(flat: _Flat, item: Instruction) -> None:
    sizes = flat.specs[item.inputs[0]].shape[2:], flat.specs[item.output].shape[2:]
    for name, size, wanted in zip(("rows", "columns"), *sizes, strict=True):
        if (item.constants[name] != np.arange(wanted) * size // wanted).any():
            raise ModelError("resizes by other indices than TFLite's default", where=item.name)
    inputs = [*flat.inputs(item), flat.constant(list(sizes[1]))]
    flat.write("RESIZE_NEAREST_NEIGHBOR", inputs, flat.index[item.output], "ResizeNearestNeighborOptions")


def _integers(item: Instruction, name: str) -> tuple[int, ...]:
    value = item.attributes[name]
    return value if isinstance(value, tuple) else (value,)


FORMS = {
    "conv2d": _conv,
    "fully_connected": _dense,
    "add": _add,
    "mean": _mean,
    "reshape": _reshape,
    "resize_nearest": _resize,
}
"""What writes an instruction, by opcode."""
