"""Which operators the host's runtime computes in integers, and what the others pay to leave and reenter them."""

from dataclasses import replace

from pipeline.cost.hosts import HostProfile
from pipeline.cost.nouns import Kind, LayerCost, Work

INT8_KERNELS = frozenset({
    "Add", "ArgMax", "ArgMin", "AveragePool", "Clip", "Concat", "Conv", "DepthToSpace", "Expand", "Flatten", "Gather",
    "Gemm", "GlobalAveragePool", "Identity", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "QuantizeLinear",
    "DequantizeLinear", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Softmax", "SpaceToDepth", "Split", "Squeeze",
    "Tile", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
"""Operators that ONNX Runtime's CPU provider runs on int8 tensors: with a QLinear form, or only moving data (its
quantization registry, onnxruntime/python/tools/quantization/registry.py); QuantizeLinear absorbs clamps."""

TABLE_KINDS = (Kind.LUT, Kind.OTHER)
"""Kinds whose host rate is measured through float32, conversions included (``configs/hosts``)."""

FLOAT_BYTES = 5
"""Bytes that a conversion moves per element: one of int8 and four of float32."""


def with_conversions(cost: LayerCost, work: Work, host: HostProfile | None, *, real: bool = False) -> LayerCost:
    """``cost`` of ``work`` on ``host``, with the conversions around a kernel that computes in float.

    ``real`` says that the operator does so for its weights are real; its rate is still that of int8, which is a lower
    bound.

    Each input is dequantized and each output quantized: one kernel call and ``FLOAT_BYTES`` per element each.
    """
    integers = work.op in INT8_KERNELS and not real
    if cost.ms is None or host is None or integers or work.kind in (*TABLE_KINDS, Kind.VIEW):
        return cost
    rate, overhead = host.get("bytes_per_second"), host.get("overhead_s")
    if rate is None or overhead is None:
        return cost
    calls = len(work.inputs) + len(work.outputs)
    moved = FLOAT_BYTES * work.feature_bytes // work.element_bytes
    ms = 1e3 * (calls * overhead + moved / rate)
    return replace(cost, ms=cost.ms + ms, bytes={**cost.bytes, "dram": cost.bytes.get("dram", 0) + moved})
