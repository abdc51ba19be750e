"""Rules of the opcodes that work element by element."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from runtime.npu.rules.call import Call, Opcode, Shape, opcode, require

MAX_INPUT_SHIFT = 22
SOFTMAX_OUTPUT = (1 / 256, 0)
"""Scale of a softmax's output, and its zero point above the smallest activation (TFLite int8 contract)."""
WIDE_OUTPUT = (1 / 32768, 0)
"""Scale and zero point of what int16 sigmoid, tanh and softmax give (TFLite)."""
LOOKUP_ENTRIES = 513
"""Of a table that is interpolated over int16: 512 steps of 128, and the end of the last one."""


def _add(call: Call) -> Shape:
    if call.contract.add == "float32":
        call.integer("left_shift", 0, 0)
        call.scaling(2)
    else:
        call.integer("left_shift", 0, MAX_INPUT_SHIFT)
        call.scaling(3, shift_max=1 if call.contract.multiplier_bits == 1 else 0)
    call.clamp()
    return call.broadcast()


def _mul(call: Call) -> Shape:
    call.scaling(1)
    call.clamp()
    return call.broadcast()


def _extreme(call: Call) -> Shape:
    call.same_quantization()
    return call.broadcast()


def _requantize(call: Call) -> Shape:
    call.scaling(1)
    call.clamp()
    return call.inputs[0].shape


def _prelu(call: Call) -> Shape:
    call.scaling(2)
    call.clamp()
    return call.broadcast()


def _lookup(call: Call) -> Shape:
    require(call.contract.activations != "int16", "a table has 256 entries, int16 has more values")
    call.constant("table", call.contract.activations, (256,))
    return call.inputs[0].shape


def _softmax(call: Call) -> Shape:
    shape = call.inputs[0].shape
    call.integer("axis", 0, len(shape) - 1)
    call.integer("diff_min", -(2**31), 0)
    require(call.contract.activations != "int16", "an int16 softmax is softmax_tables")
    call.constant("multiplier", "int32", (1,))
    call.constant("shift", "int32", (1,))
    multiplier, shift = (int(call.instruction.constants[name].astype(int)[0]) for name in ("multiplier", "shift"))
    require(2**30 <= multiplier < 2**31 and 0 <= shift <= 31, f"multiplier {multiplier}, shift {shift} are illegal")
    wanted = (SOFTMAX_OUTPUT[0], call.contract.limits[0] + SOFTMAX_OUTPUT[1])
    require((call.output.scale, call.output.zero_point) == wanted, f"its output must have scale and zero {wanted}")
    return shape


def _wide(call: Call) -> None:
    """An int16 activation without zero point in 1/32768 of its own (TFLite's int16 kernels)."""
    require(call.contract.activations == "int16", f"it takes int16, not {call.contract.activations}")
    have = call.output.scale, call.output.zero_point
    require(have == WIDE_OUTPUT, f"its output must have scale and zero point {WIDE_OUTPUT}")


def _sigmoid(call: Call) -> Shape:
    _wide(call)
    call.integer("factor", 1, 2**15 - 1)
    call.integer("right_shift", 0, 31)
    return call.inputs[0].shape


def _softmax_tables(call: Call) -> Shape:
    _wide(call)
    shape = call.inputs[0].shape
    axis = call.integer("axis", 0, len(shape) - 1)
    require(shape[axis] <= 2**16, f"{shape[axis]} exponentials may not fit int32")
    call.scaling(1)
    exp = call.constant("exp", "int16", (LOOKUP_ENTRIES,)).astype(np.int64)
    call.constant("reciprocal", "int16", (LOOKUP_ENTRIES,))
    require(int(exp.min()) >= 0 and int(exp[-2:].min()) > 0, "exp must not be negative, and be above 0 at 0")
    return shape


OPCODES: Mapping[str, Opcode] = MappingProxyType(
    {
        "add": opcode(2, "left_shift act_min act_max", "multiplier shift", _add),
        "sub": opcode(2, "left_shift act_min act_max", "multiplier shift", _add),
        "mul": opcode(2, "act_min act_max", "multiplier shift", _mul),
        "maximum": opcode(2, "", "", _extreme),
        "minimum": opcode(2, "", "", _extreme),
        "prelu": opcode(2, "act_min act_max", "multiplier shift", _prelu),
        "requantize": opcode(1, "act_min act_max", "multiplier shift", _requantize),
        "lookup": opcode(1, "", "table", _lookup),
        "sigmoid": opcode(1, "factor right_shift", "", _sigmoid),
        "tanh": opcode(1, "factor right_shift", "", _sigmoid),
        "softmax_tables": opcode(1, "axis", "multiplier shift exp reciprocal", _softmax_tables),
        "softmax": opcode(1, "axis diff_min", "multiplier shift", _softmax),
    }
)
