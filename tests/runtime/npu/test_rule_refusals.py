"""Every rule of an instruction refuses what breaks it, with its own sentence, when a program is written and read."""

from dataclasses import replace

import numpy as np
import pytest
from npu_programs import clamp, program, scaling, single, spec

from runtime.errors import ProgramError
from runtime.npu.device import Device
from runtime.npu.encoding import dumps
from runtime.npu.program import Instruction
from runtime.tensors import TensorSpec

X = spec("x", (1, 4, 6, 6))
Y = spec("y", (1, 4, 6, 6))
HALF = scaling(0.5)


def wide(name, shape, scale=0.5):
    return TensorSpec(name, shape, "int16", scale, 0)


def int16(*given):
    """A program of one instruction under the contract of int16 activations."""
    return replace(single(*given), contract="tflite-r8")


WIDE, FINE = wide("x", (1, 4)), wide("y", (1, 4), 1 / 32768)
SIGMOID = {"factor": 1, "right_shift": 0}
TABLES = {
    **scaling(0.5, "tflite-r8"),
    "exp": np.arange(513, dtype=np.int16),
    "reciprocal": np.ones(513, np.int16),
}


def softmax(constants=None, output=None):
    given = {"multiplier": np.int32([1 << 30]), "shift": np.int32([5]), **(constants or {})}
    fixed = spec("y", X.shape, 1 / 256, -128)
    return single("softmax", [X], output or fixed, {"axis": 1, "diff_min": -100}, given)


def softmax_tables(constants=None, shape=(1, 4), output=None):
    source, fixed = wide("x", shape), wide("y", shape, 1 / 32768)
    return int16("softmax_tables", [source], output or fixed, {"axis": 1}, {**TABLES, **(constants or {})})


ROWS = {name: np.zeros(6, np.int32) for name in ("rows_low", "rows_high", "columns_low", "columns_high")}
MIXED = {**ROWS, "rows_weight": np.zeros(6, np.int32), "columns_weight": np.full(6, 1025, np.int32)}


def sliced(output, step=1):
    return single("slice", [X], output, {"starts": (0, 0, 0, 1), "steps": (1, 1, 1, step)})


TURNED = {"strides": (2, 2), "pads": (0, 0, 0, 0), "dilations": (1, 1), "group": 1, **clamp()}
WEIGHTS = {"weight": np.ones((8, 4, 3, 3), np.int8), "bias": np.zeros(8, np.int32), **scaling(np.full(8, 0.01))}


def turned(output, attributes=None):
    return single("conv_transpose2d", [X], output, {**TURNED, **(attributes or {})}, WEIGHTS)


def matmul(first, second, output):
    return single("matmul", [spec("x", first), spec("z", second)], spec("y", output), clamp(), HALF)


SEQUENCE = single(
    "conv2d",
    [spec("x", (1, 4, 6))],
    spec("y", (1, 8, 6)),
    {"strides": (1, 1), "pads": (1, 0, 1, 0), "dilations": (1, 1), "group": 1, **clamp()},
    {**WEIGHTS, "weight": np.ones((8, 4, 1, 1), np.int8)},
)
CONSTANT = Instruction("constant", "c", (), "y", {}, {"value": np.zeros(Y.shape, np.int32)})
HALVES = {"kernel": (2, 2), "strides": (2, 2), "pads": (0, 0, 0, 0)}
POOLED = single("average_pool", [X], spec("y", (1, 4, 3, 3)), HALVES)

REFUSED = {
    "a table of int16": (int16("lookup", [WIDE], wide("y", (1, 4)), {}, {"table": np.zeros(256, np.int16)}),
                         "a table has 256 entries, int16 has more values"),
    "a softmax of int16": (int16("softmax", [WIDE], FINE, {"axis": 1, "diff_min": 0}, dict(HALF)),
                           "an int16 softmax is softmax_tables"),
    "a softmax's factor": (softmax({"multiplier": np.int32([5])}), "multiplier 5, shift 5 are illegal"),
    "a softmax's shift": (softmax({"shift": np.int32([32])}), "multiplier 1073741824, shift 32 are illegal"),
    "a softmax's output": (softmax(output=Y), r"its output must have scale and zero \(0\.00390625, -128\)"),
    "a sigmoid of int8": (single("sigmoid", [X], Y, SIGMOID), "it takes int16, not int8"),
    "a sigmoid's output": (int16("sigmoid", [WIDE], wide("y", (1, 4)), SIGMOID),
                           r"its output must have scale and zero point \(3\.0517578125e-05, 0\)"),
    "tables of int8": (single("softmax_tables", [X], Y, {"axis": 1}, TABLES), "it takes int16, not int8"),
    "tables' output": (softmax_tables(output=wide("y", (1, 4))), "its output must have scale and zero point"),
    "many exponentials": (softmax_tables(shape=(1, 65537)), "65537 exponentials may not fit int32"),
    "an exponential below 0": (softmax_tables({"exp": np.full(513, -1, np.int16)}), "exp must not be negative"),
    "no exponential": (softmax_tables({"exp": np.zeros(513, np.int16)}), "exp must not be negative, and be above 0"),
    "a constant's type": (program([X], [CONSTANT], [X, Y]), "value is int32, not int8"),
    "a linear resize's weight": (single("resize_linear", [X], Y, {}, MIXED),
                                 r"columns_weight is outside \[-1024, 1024\]"),
    "a slice's dimensions": (sliced(spec("y", (4, 6, 6))), "have different numbers of dimensions"),
    "a slice's end": (sliced(Y), r"1 to 6 by 1 leaves \[0, 5\]"),
    "a slice's step": (sliced(Y, step=0), r"1 to 1 by 0 leaves \[0, 5\]"),
    "a pad's size": (single("pad", [X], Y, {"pads": (4096,) * 8, "value": 0}), "has more than 67108864 elements"),
    "a block of channels": (single("depth_to_space", [X], Y, {"block": 3, "columns_first": 0}),
                            "4 channels do not divide into blocks of 3 x 3"),
    "a block of pixels": (single("space_to_depth", [X], Y, {"block": 4}), "6 x 6 does not divide into blocks of 4"),
    "a block's rank": (single("space_to_depth", [spec("x", (4, 6))], Y, {"block": 2}),
                       r"x has shape \[4, 6\], expected 4 dimensions"),
    "the mean of a window by shifts": (replace(POOLED, contract="pot-r9-half-up"),
                                       "a contract of powers of two has no factor 1/n"),
    "a transposed convolution's result": (turned(Y, {"strides": (4096, 4096)}), "has more than 67108864 elements"),
    "a transposed convolution's size": (turned(spec("y", (1, 8, 20, 13))), r"a size of 20 is outside \[13, 14\]"),
    "one row of a matrix": (matmul((4,), (4, 3), (3,)), r"\(4,\) and \(4, 3\) are no matrices"),
    "matrices": (matmul((2, 4), (5, 3), (2, 3)), r"\(2, 4\) and \(5, 3\) do not multiply"),
    "batches of matrices": (matmul((2, 2, 4), (3, 4, 3), (2, 2, 3)), "differ in their batches"),
    "a sum that saturates": (replace(matmul((2, 4), (4, 3), (2, 3)), contract="tflite-r1+acc16"),
                             "it has no form with a 16-bit saturating accumulator"),
    "a sequence of two rows": (SEQUENCE, "a sequence gives one row, this one gives 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_an_instruction_that_breaks_a_rule_is_refused(case):
    item, message = REFUSED[case]
    with pytest.raises(ProgramError, match=message):
        dumps(item)
    with pytest.raises(ProgramError, match=message):
        Device(item)


@pytest.mark.parametrize(
    "given",
    [
        softmax(), softmax_tables(), sliced(spec("y", (1, 4, 6, 5))), turned(spec("y", (1, 8, 13, 14))),
        matmul((2, 4), (4, 3), (2, 3)), int16("sigmoid", [WIDE], FINE, SIGMOID), POOLED,
        single("resize_linear", [X], Y, {}, {**MIXED, "columns_weight": np.full(6, 1024, np.int32)}),
    ],
    ids=lambda item: item.instructions[0].opcode,
)  # fmt: skip
def test_an_instruction_that_keeps_the_rules_is_taken(given):
    dumps(given)
    Device(given)
