"""A toolkit's quantized file as an NPU's compiler takes it: uint8 as int8 of the same values, float biases as int32."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

LIMIT = 2**31 - 1
PAIRS = ("QuantizeLinear", "DequantizeLinear")


def as_compiled(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with pairs of int8 only, and every bias that its operator's factors allow in int32.

    ``q - zero_point`` is the same in uint8 and, both 128 less, in int8. A bias in float is rounded to steps of
    ``s_x * s_w``; a bias with a pair of its own stays as it is.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _signed(result)
    _whole_biases(result)
    return result


def _signed(model: onnx.ModelProto) -> None:
    """Write the zero points, and what constants have such a pair, as int8."""
    pairs = [n for n in model.graph.node if n.op_type in PAIRS and len(n.input) > 2]
    moved = {n.input[2] for n in pairs} | {n.input[0] for n in pairs}
    for constant in model.graph.initializer:
        if constant.name in moved and constant.data_type == onnx.TensorProto.UINT8:
            values = numpy_helper.to_array(constant).astype(np.int16) - 128
            constant.CopyFrom(numpy_helper.from_array(values.astype(np.int8), constant.name))
    del model.graph.value_info[:]  # it would still call them uint8


def _whole_biases(result: onnx.ModelProto) -> None:
    constants = {i.name: i for i in result.graph.initializer}
    pairs = {n.output[0]: n for n in result.graph.node if n.op_type == "DequantizeLinear"}
    nodes = list(result.graph.node)
    for place, node in reversed(list(enumerate(nodes))):
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm") or len(node.input) < 3:
            continue
        source, weight, bias = pairs.get(node.input[0]), pairs.get(node.input[1]), constants.get(node.input[2])
        if source is None or weight is None or bias is None:
            continue
        scale = np.asarray(_real(constants, source.input[1]) * _real(constants, weight.input[1]), np.float32)
        values = np.broadcast_to(numpy_helper.to_array(bias).reshape(-1), (_channels(constants, weight, node),))
        scale = scale.reshape(()) if scale.size == 1 else scale.reshape(-1)
        whole = np.clip(np.rint(values / scale.astype(np.float64)), -LIMIT, LIMIT).astype(np.int32)
        names = [f"{node.name}:bias:{part}" for part in ("integers", "scale", "zero", "real")]
        for name, value in zip(names, (whole, scale, np.zeros(scale.shape, np.int32)), strict=False):
            result.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        made = helper.make_node("DequantizeLinear", names[:3], [names[3]], name=names[3], axis=0)
        node.input[2] = names[3]
        nodes.insert(place, made)
    del result.graph.node[:]
    result.graph.node.extend(nodes)


def _real(constants: dict[str, onnx.TensorProto], name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return numpy_helper.to_array(constants[name]).astype(np.float64)


def _channels(constants: dict[str, onnx.TensorProto], weight: onnx.NodeProto, node: onnx.NodeProto) -> int:
    """Output channels of ``node``, whose weight ``weight`` dequantizes."""
    dims = constants[weight.input[0]].dims
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Conv":
        return int(dims[0])
    if node.op_type == "Gemm":
        return int(dims[0 if given.get("transB", 0) else 1])
    return int(dims[1] * given.get("group", 1))
