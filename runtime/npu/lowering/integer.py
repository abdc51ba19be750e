"""Instructions as onnxruntime's integer kernels, where their float32 requantization is proven to be the contract's.

QLinearConv, QGemm and QLinearMatMul compute ``rint(f32(acc) * a)``, add the zero point and saturate
(onnxruntime ``mlas/lib/quantize.cpp``); ``runtime.npu.steps.fit_product`` finds factors ``a`` for which that is the
contract's rule. QLinearAdd and QLinearMul round differently from processor to processor, so they are taken when this
host's kernel gives the contract's result on every pair of values.
"""

import numpy as np
from numpy.typing import NDArray

from runtime.errors import ProgramError
from runtime.npu.kernels import KERNELS, Operation
from runtime.npu.kernels.arithmetic import float_factors, float_sum
from runtime.npu.lowering.host import open_session
from runtime.npu.lowering.values import Builder, Range, Value
from runtime.npu.onnx_writer import MICROSOFT, Port
from runtime.npu.requantize import INT32_MAX, Integers
from runtime.npu.steps import Scaling, find_steps, fit_product, fit_slopes, scaling

_NUDGES = sorted(
    ((i * 2.0**-21, j * 2.0**-21) for i in range(-6, 7) for j in range(-6, 7)),
    key=lambda pair: (abs(pair[0]) + abs(pair[1]), -pair[0]),
)
"""Relative to the real factors of a sum, the nearest ones first."""


_HOST_TRIALS = 4

_BLOCK = 128
"""Channels that are proven at a time."""


def products_scaling(operation: Operation, source: Range) -> tuple[Scaling, ...]:
    """The requantization of a convolution or fully connected layer over every accumulator that can occur, in parts."""
    starts = range(0, operation.instruction.constants["bias"].size, _BLOCK)
    return tuple(_scaling(operation, source, slice(start, start + _BLOCK)) for start in starts)


def _scaling(operation: Operation, source: Range, channels: slice) -> Scaling:
    low, high = reach(operation.instruction.constants["weight"][channels], source)
    bias = operation.constant("bias")[channels]
    zero, (least, most) = operation.output_zero(), operation.bounds()
    factor = operation.constant("multiplier")[channels], operation.constant("shift")[channels]
    return scaling(operation.contract, factor, (low + bias, high + bias), (least - zero, most - zero))


def reach(weight: NDArray[np.generic], source: Range) -> tuple[Integers, Integers]:
    """Smallest and largest sum of products per output channel, padding (zero) included."""
    rows = weight.reshape(len(weight), -1)
    up, down = (part(rows, np.int8(0)).sum(axis=1, dtype=np.int64) for part in (np.maximum, np.minimum))
    least, most = min(source[0], 0), max(source[1], 0)
    return up * least + down * most, up * most + down * least


def products(builder: Builder, operation: Operation, source: Value) -> str | None:
    """A convolution or fully connected layer's integers, or ``None`` where nothing is proven."""
    bias = operation.constant("bias")
    slopes = _slopes(operation, source.range) if builder.integer_kernels and takes(source) else None
    if slopes is None or np.abs(bias).max() > INT32_MAX:
        return None
    builders = {"conv2d": _conv, "fully_connected": _gemm}
    name = builders[operation.instruction.opcode](builder, operation, source, slopes, bias.astype(np.int32))
    return clamped(builder, operation, name)


def _slopes(operation: Operation, source: Range) -> NDArray[np.float32] | None:
    """The factor of every output channel, or ``None`` where one has none."""
    parts = products_scaling(operation, source)
    fits = all(part.defined and np.abs([part.low, part.high]).max() <= INT32_MAX for part in parts)
    return fit_slopes(parts) if fits else None


def _conv(
    builder: Builder, operation: Operation, source: Value, slopes: NDArray[np.float32], bias: NDArray[np.int32]
) -> str:
    sequence = len(source.spec.shape) == 3
    weight = operation.instruction.constants["weight"]
    strides, dilations, pads = (operation.integers(name) for name in ("strides", "dilations", "pads"))
    return builder.node(
        "QLinearConv",
        [
            builder.raw(source),
            builder.single(1),
            builder.zero(source.spec),
            builder.constant(weight[:, :, 0] if sequence else weight),
            builder.constant(slopes),
            builder.constant(np.zeros(len(slopes), np.int8)),
            builder.single(1),
            builder.zero(operation.output),
            builder.constant(bias),
        ],
        group=operation.integer("group"),
        strides=strides[1:] if sequence else strides,
        dilations=dilations[1:] if sequence else dilations,
        pads=(pads[1], pads[3]) if sequence else pads,
        kernel_shape=weight.shape[3:] if sequence else weight.shape[2:],
    )


def _gemm(
    builder: Builder, operation: Operation, source: Value, slopes: NDArray[np.float32], bias: NDArray[np.int32]
) -> str:
    shape, result = source.spec.shape, operation.output.shape
    raw = builder.raw(source)
    if len(shape) != 2:
        raw = builder.node("Reshape", [raw, builder.constant(np.array([-1, shape[-1]]))])
    made = builder.node(
        "QGemm",
        [
            raw,
            builder.single(1),
            builder.zero(source.spec),
            builder.constant(np.ascontiguousarray(operation.instruction.constants["weight"].T)),
            builder.constant(slopes),
            builder.constant(np.zeros(len(slopes), np.int8)),
            builder.constant(bias),
            builder.single(1),
            builder.zero(operation.output),
        ],
        domain=MICROSOFT,
    )
    return made if len(shape) == 2 else builder.node("Reshape", [made, builder.constant(np.array(result))])


def two_scaling(operation: Operation, inputs: tuple[Value, ...], depth: int) -> Scaling:
    """The requantization of ``matmul`` and ``mul`` over every accumulator that can occur."""
    corners = [depth * a * b for a in inputs[0].range for b in inputs[1].range]
    zero, (least, most) = operation.output_zero(), operation.bounds()
    factor = operation.constant("multiplier"), operation.constant("shift")
    reach = np.array([min(*corners, 0)]), np.array([max(*corners, 0)])
    return scaling(operation.contract, factor, reach, (least - zero, most - zero))


def product_of_two(builder: Builder, operation: Operation, inputs: tuple[Value, ...], depth: int) -> str | None:
    """``matmul`` and ``mul`` (``depth`` 1): two activations, one factor."""
    scaled = two_scaling(operation, inputs, depth)
    usable = builder.integer_kernels and all(takes(v) for v in inputs) and scaled.defined
    if not usable or max(-int(scaled.low[0]), int(scaled.high[0])) > INT32_MAX:
        return None
    itself = operation.contract.add == "float32"  # the contract is what onnxruntime computes
    slopes = float_factors(operation) if itself else fit_product(scaled, find_steps(scaled))
    if slopes is None:
        return None
    factors = slopes[0], np.float32(1)
    if operation.instruction.opcode == "matmul":
        name = builder.node("QLinearMatMul", _pair(builder, operation, inputs, factors))
    elif proven_on_host(builder, "QLinearMul", operation, inputs, factors):
        name = builder.node("QLinearMul", _pair(builder, operation, inputs, factors), domain=MICROSOFT)
    else:
        return None
    return clamped(builder, operation, name)


def sum_of_two(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> str | None:
    """``add`` and ``sub`` as QLinearAdd, ``sub`` with a negative factor."""
    if not (builder.integer_kernels and all(takes(v) for v in inputs)):
        return None
    factors = fit_sum(builder, operation, inputs)
    if factors is None:
        return None
    name = builder.node("QLinearAdd", _pair(builder, operation, inputs, factors), domain=MICROSOFT)
    return clamped(builder, operation, name)


def fit_sum(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> tuple[np.float32, np.float32] | None:
    """Factors for which QLinearAdd is the instruction on every pair of values, or ``None``.

    They are looked for near the real ones by ``float_sum``, first among the pairs that lie close to a tie; what
    counts is this host's own result.
    """
    rows, columns = (np.arange(v.range[0], v.range[1] + 1) for v in inputs)
    try:
        want = grid(operation, rows, columns)
    except ProgramError:  # some pair leaves int32: the plain kernel reports it if it occurs
        return None
    (first, second), (low, high) = sum_factors(operation), operation.bounds()
    higher = builder.held_as(operation.output.dtype)[1]
    zeros = inputs[0].zero + higher, inputs[1].zero + higher, operation.output_zero() + higher
    want = want + higher
    left, right = (a.ravel() for a in np.broadcast_arrays(rows[:, None], columns[None, :]))
    near = np.flatnonzero(np.abs(first * left + second * right + zeros[2] - want.ravel()) > 0.5 - 2.0**-8)

    def same(factors: tuple[np.float32, np.float32], chosen: NDArray[np.intp] | slice) -> bool:
        total = float_sum(left[chosen] + zeros[0], right[chosen] + zeros[1], factors, zeros)
        return bool((np.clip(total, low + higher, high + higher) == want.ravel()[chosen]).all())

    tried = 0
    for i, j in _NUDGES:
        factors = np.float32(first * (1 + i)), np.float32(second * (1 + j))
        if same(factors, near) and same(factors, slice(None)):
            if proven_on_host(builder, "QLinearAdd", operation, inputs, factors):
                return factors
            tried += 1
        if tried == _HOST_TRIALS:
            break
    return None


def proven_on_host(
    builder: Builder,
    operator: str,
    operation: Operation,
    inputs: tuple[Value, ...],
    factors: tuple[np.float32, np.float32],
) -> bool:
    """Whether this host's kernel is the instruction on every pair of values, of equal shapes and broadcast.

    The kernel works element by element, its last elements by the same vectors as the others (``mlas/lib/qladd.cpp``,
    ``qlmul.cpp``), so all pairs are all there is.
    """
    rows, columns = (np.arange(v.range[0], v.range[1] + 1) for v in inputs)
    held, higher = builder.held_as(operation.contract.activations)
    want, (low, high) = grid(operation, rows, columns) + higher, operation.bounds()
    a, b = (rows + inputs[0].zero + higher).astype(held), (columns + inputs[1].zero + higher).astype(held)
    full = np.broadcast_arrays(a[:, None], b[None, :])
    for x, y, expected in ((*full, want), (a[:, None], b[None, :], want), (a[None, :], b[:, None], want.T)):
        trial = Builder(True, builder.unsigned)
        values = []
        for value, array, name in zip(inputs, (x, y), "xy", strict=True):
            trial.graph.inputs.append(Port(name, held, array.shape))
            values.append(Value(value.spec, value.range, raw=name))
        trial.graph.node(operator, _pair(trial, operation, tuple(values), factors), "z", MICROSOFT)
        trial.graph.outputs.append(Port("z", held, expected.shape))
        session = open_session(trial.graph.model(), 1)
        found = session.run(None, {"x": np.ascontiguousarray(x), "y": np.ascontiguousarray(y)})[0]
        if (np.clip(found.astype(np.int64), low + higher, high + higher) != expected).any():
            return False
    return True


def sum_factors(operation: Operation) -> tuple[float, float]:
    """The real factors of the centred inputs of ``add`` and ``sub``; the second is negative in ``sub``."""
    shift = operation.constant("shift") - operation.contract.multiplier_bits
    factors = np.ldexp(operation.constant("multiplier").astype(np.float64), shift)
    scale = factors[2] * 2.0 ** operation.integer("left_shift") if len(factors) == 3 else 1.0
    sign = -1.0 if operation.instruction.opcode == "sub" else 1.0
    return float(factors[0] * scale), float(sign * factors[1] * scale)


def grid(operation: Operation, rows: Integers, columns: Integers) -> Integers:
    """The plain kernel's outputs for every pair of centred values: [rows, columns]."""
    dtype = operation.contract.activations
    first = (rows + operation.input_zero(0)).astype(dtype)[:, None]
    second = (columns + operation.input_zero(1)).astype(dtype)[None, :]
    return KERNELS[operation.instruction.opcode](operation, (first, second)).astype(np.int64)


def _pair(
    builder: Builder, operation: Operation, inputs: tuple[Value, ...], factors: tuple[np.float32, np.float32]
) -> list[str]:
    """The inputs of an operator of two quantized tensors, whose output has scale 1."""
    names: list[str] = []
    for value, factor in zip(inputs, factors, strict=True):
        names += [builder.raw(value), builder.single(factor), builder.zero(value.spec)]
    return [*names, builder.single(1), builder.zero(operation.output)]


def takes(value: Value) -> bool:
    """Whether the integer kernels have the tensor's type."""
    return value.spec.dtype in ("int8", "uint8")


def clamped(builder: Builder, operation: Operation, name: str) -> str:
    """``name``, which saturates at the type's limits, within the instruction's bounds."""
    if operation.bounds() == operation.contract.limits:
        return name
    low, high = operation.bounds()
    return builder.node("Clip", [name, *(builder.level(b, operation.output.dtype) for b in (low, high))])
