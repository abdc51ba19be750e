"""Cutting instructions: every tile of every cut must be the same part of the whole result."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from npu_programs import clamp, conv_instruction, feeds, program, scaling, single, spec, sum_scaling

from runtime.errors import ProgramError
from runtime.npu import layout
from runtime.npu.kernels import KERNELS
from runtime.npu.needs import RULES
from runtime.npu.plain import operations, run_plain
from runtime.npu.program import Instruction
from runtime.npu.tiles import cut, index, need, regions

POOL = {"kernel": (3, 2), "strides": (2, 1), "pads": (1, 0, 1, 1)}
X = spec("x", (1, 4, 9, 8), 0.1, 3)
TABLE = np.arange(127, -129, -1).astype(np.int8)
ROWS = {"rows": (np.arange(7) * 9 // 7).astype(np.int32), "columns": (np.arange(20) * 8 // 20).astype(np.int32)}
DENSE = {"weight": np.arange(-24, 32, dtype=np.int8).reshape(7, 8), "bias": np.arange(7, dtype=np.int32)}


def conv(group, **more):
    rng = np.random.default_rng(group)
    item, output = conv_instruction(rng, X, 8, "y", kernel=(3, 3), group=group, pads=(1, 2, 1, 0), **more)
    return program([X], [item], [X, output])


def sequence():
    x, y = spec("x", (1, 4, 20), 0.1, 3), spec("y", (1, 6, 10), 0.2, 1)
    attributes = {"strides": (1, 2), "pads": (0, 1, 0, 1), "dilations": (1, 1), "group": 1, **clamp()}
    weight = np.arange(-36, 36, dtype=np.int8).reshape(6, 4, 1, 3)
    constants = {"weight": weight, "bias": np.arange(6, dtype=np.int32), **scaling(np.full(6, 0.01))}
    return single("conv2d", [x], y, attributes, constants)


def transposed(strides, kernel, pads, sequence=False):
    shape = (1, 4, 9) if sequence else X.shape
    dilations = (1, 2)
    size = [(1, *shape[2:])[i - len(shape) + 3] if sequence else shape[2 + i] for i in (0, 1)]
    grown = [(size[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[i + 2] for i in (0, 1)]
    grown[1] += strides[1] - 1  # as large as it may be
    weight = np.arange(-128, 128, dtype=np.int8)[: 3 * 4 * kernel[0] * kernel[1]].reshape(3, 4, *kernel)
    attributes = {"strides": strides, "pads": pads, "dilations": dilations, "group": 1, **clamp()}
    constants = {"weight": weight, "bias": np.arange(3, dtype=np.int32), **scaling(np.full(3, 0.01))}
    y = spec("y", (1, 3, *(grown[1:] if sequence else grown)), 0.2, 1)
    return single("conv_transpose2d", [spec("x", shape, 0.1, 3)], y, attributes, constants)


def lines(size, count):
    low = np.sort(np.random.default_rng(count).integers(0, size, count)).astype(np.int32)
    weight = np.random.default_rng(size).integers(0, 1025, count).astype(np.int32)
    return {"low": low, "high": np.minimum(low + 1, size - 1).astype(np.int32), "weight": weight}


MATRIX, EVEN = spec("x", (2, 5, 6)), spec("x", (1, 2, 8, 10), 0.1, 3)
LINES = {f"{name}_{end}": v for name, n in (("rows", (9, 7)), ("columns", (8, 20))) for end, v in lines(*n).items()}
UNEVEN = {
    "grouped conv2d", "depthwise conv2d", "concat", "softmax", "depth_to_space", "space_to_depth", "pad",
    "conv_transpose2d", "conv_transpose2d with gaps", "conv_transpose2d of a sequence",
}  # fmt: skip
"""Cases that not every cut suits."""

CASES = {
    "conv2d": conv(1, strides=(2, 1)),
    "grouped conv2d": conv(2),
    "depthwise conv2d": conv(4, dilations=(2, 1)),
    "conv2d of a sequence": sequence(),
    "fully_connected": single(
        "fully_connected", [spec("x", (5, 8))], spec("y", (5, 7)), clamp(), {**DENSE, **scaling(np.full(7, 0.02))}
    ),
    "add": single(
        "add",
        [X, spec("b", (4, 1, 8), 0.1, -5)],
        spec("y", X.shape, 0.2, 1),
        {"left_shift": 20, **clamp()},
        sum_scaling(0.1, 0.1, 0.2),
    ),
    "mul": single("mul", [spec("b", (8,)), X], spec("y", X.shape), clamp(), scaling(0.03)),
    "requantize": single("requantize", [X], spec("y", X.shape, 0.2, 1), clamp(), scaling(0.5)),
    "lookup": single("lookup", [X], spec("y", X.shape, 0.1, 3), {}, {"table": TABLE}),
    "max_pool": single("max_pool", [X], spec("y", (1, 4, 5, 8), 0.1, 3), POOL),
    "average_pool": single("average_pool", [X], spec("y", (1, 4, 5, 8), 0.1, 3), POOL),
    "mean": single("mean", [X], spec("y", (1, 4), 0.1, 3), {"axes": (2, 3)}, scaling(1.0)),
    "mean with its axes": single("mean", [X], spec("y", (1, 1, 9, 8), 0.1, 3), {"axes": (1,)}, scaling(1.0)),
    "resize_nearest": single("resize_nearest", [X], spec("y", (1, 4, 7, 20), 0.1, 3), {}, ROWS),
    "concat": single("concat", [X, spec("b", (1, 2, 9, 8), 0.1, 3)], spec("y", (1, 6, 9, 8), 0.1, 3), {"axis": 1}),
    "conv_transpose2d": transposed((2, 3), (3, 3), (1, 0, 1, 2)),
    "conv_transpose2d with gaps": transposed((3, 4), (2, 1), (0, 0, 0, 0)),
    "conv_transpose2d of a sequence": transposed((1, 2), (1, 4), (0, 1, 0, 1), sequence=True),
    "matmul": single("matmul", [MATRIX, spec("b", (2, 6, 7))], spec("y", (2, 5, 7)), clamp(), scaling(0.02)),
    "matmul of batches": single("matmul", [MATRIX, spec("b", (6, 7))], spec("y", (2, 5, 7)), clamp(), scaling(0.02)),
    "softmax": single(
        "softmax",
        [X],
        spec("y", X.shape, 1 / 256, -128),
        {"axis": 1, "diff_min": -248},
        {"multiplier": np.array([2**30 + 7], np.int32), "shift": np.array([23], np.int32)},
    ),
    "resize_linear": single("resize_linear", [X], spec("y", (1, 4, 7, 20), 0.1, 3), {}, LINES),
    "slice": single("slice", [X], spec("y", (1, 2, 3, 8), 0.1, 3), {"starts": (0, 3, 1, 7), "steps": (1, -2, 3, -1)}),
    "pad": single("pad", [X], spec("y", (1, 5, 12, 9), 0.1, 3), {"pads": (0, 1, 2, 0, 0, 0, 1, 1), "value": 9}),
    "depth_to_space": single(
        "depth_to_space", [X], spec("y", (1, 1, 18, 16), 0.1, 3), {"block": 2, "columns_first": 1}
    ),
    "space_to_depth": single("space_to_depth", [EVEN], spec("y", (1, 8, 4, 5), 0.1, 3), {"block": 2}),
    "transpose": single("transpose", [X], spec("y", (1, 8, 4, 9), 0.1, 3), {"permutation": (0, 3, 1, 2)}),
}  # fmt: skip


def test_every_rule_has_a_case():
    assert {RULES[case.instructions[0].opcode] for case in CASES.values()} == set(RULES.values())


@settings(max_examples=25, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", CASES)
def test_the_tiles_of_a_result_are_its_parts(name, data):
    item = CASES[name]
    (operation,) = operations(item)
    values = feeds(item, 1)
    whole = run_plain(operation, values)
    inner = [data.draw(st.sets(st.integers(1, size), max_size=2)) - {size} for size in whole.shape]
    cuts = tuple((0, *sorted(some), size) for some, size in zip(inner, whole.shape, strict=True))
    try:
        parts = [(region, *cut(operation, region)) for region in regions(cuts)]
    except ProgramError:
        assert name in UNEVEN
        return
    for region, piece, needed in parts:
        given = tuple(values[n][index(part)] for n, part in zip(item.inputs, needed.inputs, strict=True))
        found = KERNELS[operation.instruction.opcode](piece, given)
        np.testing.assert_array_equal(found, whole[index(region)])


@pytest.mark.parametrize(
    ("name", "region", "message"),
    [
        ("grouped conv2d", ((0, 1), (0, 3), (0, 9), (0, 8)), "channels 0 to 3 do not end with a group of 4"),
        ("concat", ((0, 1), (0, 3), (0, 9), (0, 8)), "cannot be cut along the axis on which it joins"),
        ("softmax", ((0, 1), (0, 3), (0, 9), (0, 8)), "cannot be cut along the axis of its sums"),
        ("conv_transpose2d", ((0, 1), (0, 2), (0, 9), (0, 8)), "cannot be cut along its channels"),
        ("conv_transpose2d of a sequence", ((0, 1), (0, 3), (23, 24)), "would see nothing of its input"),
        ("depth_to_space", ((0, 1), (0, 1), (0, 3), (0, 16)), "cannot be cut inside of a block of 2"),
        ("pad", ((0, 1), (0, 5), (0, 2), (0, 9)), "a tile of it would be padding only"),
    ],
)
def test_what_cannot_be_cut(name, region, message):
    (operation,) = operations(CASES[name])
    with pytest.raises(ProgramError, match=message):
        need(operation, region)


def test_a_tile_of_padding_alone_and_an_opcode_without_a_rule():
    item, output = conv_instruction(np.random.default_rng(0), X, 8, "y", kernel=(3, 3), pads=(4, 1, 1, 1))
    (operation,) = operations(program([X], [item], [X, output]))
    with pytest.raises(ProgramError, match="a tile of it would see padding only"):
        need(operation, ((0, 1), (0, 8), (0, 1), (0, output.shape[3])))
    (reshape,) = operations(single("reshape", [X], spec("y", (4, 72), 0.1, 3)))
    with pytest.raises(ProgramError, match="it cannot be cut into tiles"):
        need(reshape, ((0, 2), (0, 72)))


@settings(max_examples=60, deadline=None)
@given(sizes=st.tuples(*(st.integers(1, n) for n in (40, 9, 3, 40))), data=st.data())
def test_parameters_come_back_from_their_layout(sizes, data):
    count, depth, side, lanes = sizes
    rng = np.random.default_rng(count * 100 + depth)
    kernel = data.draw(st.sampled_from([(), (side,), (side, 2)]))
    constants = {
        "weight": rng.integers(-128, 128, (count, depth, *kernel)).astype(np.int8),
        "bias": rng.integers(-(2**31), 2**31, count).astype(np.int32),
        **scaling(rng.uniform(0.001, 1, count)),
    }
    item = Instruction("conv2d" if kernel else "fully_connected", "n", ("x",), "y", {}, constants)
    inner = sorted(data.draw(st.sets(st.integers(1, count), max_size=3)) - {count})
    for span in itertools.pairwise((0, *inner, count)):
        block = layout.pack(item, span, lanes)
        assert len(block) == layout.block_bytes(item, span, lanes)
        assert len(block) % 16 == 0
        back = layout.unpack(item, span, lanes, np.frombuffer(block, np.uint8))
        for name, array in constants.items():
            np.testing.assert_array_equal(back[name], array[slice(*span)])
            assert back[name].dtype == array.dtype


def test_weights_lie_interleaved_by_lanes():
    """Two lanes: the weights of channels 0 and 1 take turns; channel 2 is filled up with a channel of zeros."""
    weight = np.array([[1, 2], [3, 4], [5, 6]], np.int8)
    constants = {"weight": weight, "bias": np.array([7, 8, 9], np.int32), **scaling(np.full(3, 0.5))}
    block = layout.pack(Instruction("fully_connected", "n", ("x",), "y", {}, constants), (0, 3), 2)
    assert np.frombuffer(block[:8], np.int8).tolist() == [1, 3, 2, 4, 5, 0, 6, 0]
    assert np.frombuffer(block[16:28], "<i4").tolist() == [7, 8, 9]
