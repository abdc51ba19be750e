"""How each operator becomes instructions with folded integer parameters; ``LOWERINGS`` is the table."""

from collections.abc import Callable, Mapping

from pipeline.compile.operators import elementwise, movement, pooling, products, tables, wide
from pipeline.compile.operators.lowering import Lowering, Made

__all__ = ["LOWERINGS", "Lowering", "Made"]

Lower = Callable[[Lowering], list[Made]]


def _typed(narrow: Lower, int16: Lower) -> Lower:
    """The lowering by the type of the output."""
    return lambda op: (int16 if op.contract.activations == "int16" else narrow)(op)


LOWERINGS: Mapping[str, Lower] = {
    "Add": elementwise.add,
    "AveragePool": pooling.average_pool,
    "Clip": elementwise.clamp,
    "Concat": movement.concat,
    "Conv": products.conv,
    "ConvTranspose": products.conv_transpose,
    "DepthToSpace": movement.depth_to_space,
    "Flatten": movement.reshape,
    "Gemm": products.gemm,
    "GlobalAveragePool": pooling.reduce,
    "GlobalMaxPool": pooling.reduce_extreme,
    "Identity": movement.reshape,
    "MatMul": products.matmul,
    "Max": elementwise.extreme,
    "MaxPool": pooling.max_pool,
    "Min": elementwise.extreme,
    "Mul": elementwise.mul,
    "PRelu": elementwise.prelu,
    "Pad": movement.pad,
    "QuantizeLinear": elementwise.requantize,
    "ReduceMax": pooling.reduce_extreme,
    "ReduceMean": pooling.reduce,
    "ReduceMin": pooling.reduce_extreme,
    "ReduceSum": pooling.reduce,
    "Relu": elementwise.clamp,
    "Reshape": movement.reshape,
    "Resize": movement.resize,
    "Slice": movement.slice_axes,
    "Softmax": _typed(elementwise.softmax, wide.softmax),
    "SpaceToDepth": movement.space_to_depth,
    "Split": movement.split,
    "Squeeze": movement.reshape,
    "Sub": elementwise.add,
    "Transpose": movement.transpose,
    "Unsqueeze": movement.reshape,
    **dict.fromkeys(tables.FUNCTIONS, tables.lookup),
    **{op: _typed(tables.lookup, lower) for op, lower in wide.FUNCTIONS.items()},
}
"""ONNX operator to the function that lowers it."""
