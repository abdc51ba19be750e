"""Lower instructions to onnxruntime operators whose result is the integer result, bit for bit.

Each lowering is tried in the form that is soonest: onnxruntime's integer kernels where their requantization is proven
to be the contract's, else floating point where every step is proven exact (``runtime.npu.steps``), else it gives
``None``, and the plain kernel, or a table of all values, runs the instruction.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from runtime.npu.kernels import Operation
from runtime.npu.lowering import integer, movement, products, reductions, sums
from runtime.npu.lowering.values import Builder, Value, output_range

__all__ = ["LOWERINGS", "Builder", "Lowering", "Value", "output_range"]

Lowering = Callable[[Builder, Operation, tuple[Value, ...]], Value | None]

_Named = Callable[[Builder, Operation, tuple[Value, ...]], str | None]


def _either(raw: _Named | None, centred: _Named | None) -> Lowering:
    """The lowering that tries ``raw``, which gives integers, then ``centred``, which gives centred float32."""

    def lower(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> Value | None:
        range_ = output_range(operation, tuple(value.range for value in inputs))
        name = None if raw is None else raw(builder, operation, inputs)
        if name is not None:
            return Value(operation.output, range_, raw=name)
        name = None if centred is None else centred(builder, operation, inputs)
        return None if name is None else Value(operation.output, range_, centred=name)

    return lower


def _extreme(operator: str) -> Lowering:
    def lower(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> str:
        return builder.node(operator, [builder.raw(value) for value in inputs])

    def wide(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> str:
        return builder.node(operator, [builder.centred(value) for value in inputs])

    def choose(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> Value | None:
        eight = all(integer.takes(value) for value in inputs)
        return _either(lower if eight else None, wide)(builder, operation, inputs)

    return choose


def _mul(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> str | None:
    return integer.product_of_two(builder, operation, inputs, 1)


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "conv2d": _either(products.raw_products, products.conv2d),
        "conv_transpose2d": _either(None, products.conv_transpose2d),
        "fully_connected": _either(products.raw_products, products.fully_connected),
        "matmul": _either(products.raw_matmul, products.matmul),
        "add": _either(integer.sum_of_two, sums.add),
        "sub": _either(integer.sum_of_two, sums.add),
        "mul": _either(_mul, sums.mul),
        "maximum": _extreme("Max"),
        "minimum": _extreme("Min"),
        "prelu": _either(None, sums.pair_table),
        "max_pool": reductions.max_pool,
        "average_pool": reductions.average_pool,
        "mean": reductions.reduce_sum,
        "reduce_sum": reductions.reduce_sum,
        "reduce_max": reductions.reduce_max,
        "reduce_min": reductions.reduce_min,
        "resize_nearest": movement.moved(movement.resize_nearest),
        "resize_linear": movement.resize_linear,
        "concat": movement.moved(movement.concat),
        "reshape": movement.moved(movement.reshape),
        "transpose": movement.moved(movement.transpose),
        "slice": movement.moved(movement.slice_axes),
        "pad": movement.pad,
        "depth_to_space": movement.moved(movement.depth_to_space),
        "space_to_depth": movement.moved(movement.space_to_depth),
    }
)
"""How an opcode is lowered; no entry: it runs as a table or with its plain kernel (``runtime.npu.fast``)."""
