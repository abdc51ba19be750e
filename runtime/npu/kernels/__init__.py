"""The plain kernels: one obvious function per opcode, in integers only. They are the specification.

Every kernel takes an ``Operation`` (the instruction, the specs of its tensors, the contract) and integer arrays, and
gives an integer array. Semantics are those of the TensorFlow Lite reference kernels (tensorflow/tflite-micro at
90b983c), except where the contract says otherwise.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from runtime.npu.kernels import arithmetic, convolution, movement, pooling, resizing, wide
from runtime.npu.kernels.operation import Operation, Values
from runtime.npu.kernels.softmax import softmax

__all__ = ["KERNELS", "Kernel", "Operation", "Values"]

Kernel = Callable[[Operation, tuple[Values, ...]], Values]

KERNELS: Mapping[str, Kernel] = MappingProxyType(
    {
        "conv2d": convolution.conv2d,
        "conv_transpose2d": convolution.conv_transpose2d,
        "fully_connected": convolution.fully_connected,
        "matmul": convolution.matmul,
        "add": arithmetic.add,
        "sub": arithmetic.sub,
        "mul": arithmetic.mul,
        "maximum": arithmetic.maximum,
        "minimum": arithmetic.minimum,
        "prelu": arithmetic.prelu,
        "requantize": arithmetic.requantize,
        "lookup": arithmetic.lookup,
        "softmax": softmax,
        "sigmoid": wide.sigmoid,
        "tanh": wide.tanh,
        "softmax_tables": wide.softmax_tables,
        "max_pool": pooling.max_pool,
        "average_pool": pooling.average_pool,
        "mean": pooling.mean,
        "reduce_sum": pooling.reduce_sum,
        "reduce_max": pooling.reduce_max,
        "reduce_min": pooling.reduce_min,
        "constant": movement.constant,
        "resize_nearest": movement.resize_nearest,
        "resize_linear": resizing.resize_linear,
        "concat": movement.concat,
        "reshape": movement.reshape,
        "transpose": movement.transpose,
        "slice": movement.slice_axes,
        "pad": movement.pad,
        "depth_to_space": movement.depth_to_space,
        "space_to_depth": movement.space_to_depth,
    }
)
