"""The plain kernels: one obvious function per opcode, in integers only. They are the specification.

Every kernel takes an ``Operation`` (the instruction, the specs of its tensors, the contract) and int8 arrays, and
gives an int8 array. Semantics are those of the TensorFlow Lite reference kernels (tensorflow/tflite-micro at 90b983c).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from runtime.npu.kernels.arithmetic import add, lookup, mul, requantize, sub
from runtime.npu.kernels.convolution import conv2d, fully_connected
from runtime.npu.kernels.movement import concat, reshape, resize_nearest, transpose
from runtime.npu.kernels.operation import Int8, Operation
from runtime.npu.kernels.pooling import average_pool, max_pool, mean

__all__ = ["KERNELS", "Int8", "Kernel", "Operation"]

Kernel = Callable[[Operation, tuple[Int8, ...]], Int8]

KERNELS: Mapping[str, Kernel] = MappingProxyType(
    {
        "conv2d": conv2d,
        "fully_connected": fully_connected,
        "add": add,
        "sub": sub,
        "mul": mul,
        "requantize": requantize,
        "lookup": lookup,
        "max_pool": max_pool,
        "average_pool": average_pool,
        "mean": mean,
        "resize_nearest": resize_nearest,
        "concat": concat,
        "reshape": reshape,
        "transpose": transpose,
    }
)
