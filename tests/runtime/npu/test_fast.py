"""The fast path against the plain kernels: the same bytes, whatever the shapes and scales."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from npu_networks import both_types
from npu_programs import clamp, conv_instruction, feeds, network, program, scaling, single, spec, sum_scaling

from runtime.npu.contracts import find_contract
from runtime.npu.device import Device
from runtime.npu.fast import PlainStep, SessionStep, WideTableStep
from runtime.npu.lowering import Builder, Value
from runtime.npu.lowering.integer import fit_sum
from runtime.npu.plain import operations
from runtime.npu.program import Instruction

zero_points = st.one_of(st.sampled_from([-128, 127, 0]), st.integers(-128, 127))
scales = st.one_of(st.floats(0.01, 0.2), st.sampled_from([2.0**-6, 2.0**-5, 2.0**-4, 2.0**-3]))
small = settings(max_examples=60, deadline=None)


def assert_same(item, seeds=(0, 1)):
    fast, plain = Device(item, threads=1), Device(item, fast=False)
    for seed in seeds:
        given_ = feeds(item, seed)
        ours, theirs = fast.run(given_), plain.run(given_)
        for name, value in theirs.items():
            np.testing.assert_array_equal(ours[name], value)


def kinds(item):
    return [type(step) for step in Device(item)._steps]


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_convolutions(data):
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    group = draw(st.sampled_from([1, 1, 2, 4, 16]))
    channels, out = group * draw(st.integers(1, 3)), group * draw(st.integers(1, 3))
    source = spec("x", (1, channels, draw(st.integers(5, 9)), draw(st.integers(5, 9))), 0.1, draw(zero_points))
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    item, output = conv_instruction(
        rng,
        source,
        out,
        "y",
        kernel=draw(pair),
        strides=draw(pair),
        dilations=draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        group=group,
        pads=tuple(draw(st.lists(st.integers(0, 2), min_size=4, max_size=4))),
        even=draw(st.booleans()),
    )
    kind = draw(st.sampled_from(["as it is", "power of two", "large", "small", "bounds"]))
    if kind == "bounds":
        low = draw(st.integers(-128, 127))
        item = replace(item, attributes={**item.attributes, **clamp(low, draw(st.integers(low, 127)))})
    elif kind != "as it is":
        low, high = {"power of two": (-9, -4), "large": (-2, 3), "small": (-32, -12)}[kind]
        factors = 2.0 ** rng.integers(low, high, out) if kind == "power of two" else 2.0 ** rng.uniform(low, high, out)
        item = replace(item, constants={**item.constants, **scaling(factors)})
    assert_same(program([source], [item], [source, output]))


@small
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 20), zero_points, zero_points, st.floats(0.0005, 0.5))
def test_fully_connected(seed, features, outputs, zero_in, zero_out, factor):
    rng = np.random.default_rng(seed)
    x, y = spec("x", (1, 3, features), 0.1, zero_in), spec("y", (1, 3, outputs), 0.1, zero_out)
    constants = {
        "weight": rng.integers(-127, 128, (outputs, features)).astype(np.int8),
        "bias": rng.integers(-3000, 3000, outputs).astype(np.int32),
        **scaling(np.full(outputs, factor)),
    }
    assert_same(single("fully_connected", [x], y, clamp(), constants))


@small
@given(
    st.sampled_from(["add", "sub", "mul"]), scales, scales, scales, zero_points, zero_points, zero_points, st.booleans()
)
def test_two_inputs(opcode, first, second, third, z1, z2, z3, broadcast):
    shape = (1, 4, 32, 32)
    a, b = spec("a", shape, first, z1), spec("b", (1, 4, 1, 1) if broadcast else shape, second, z2)
    y = spec("y", shape, third, z3)
    if opcode == "mul":
        assert_same(single(opcode, [a, b], y, clamp(), scaling(first * second / third)))
    else:
        constants = sum_scaling(first, second, third)
        assert_same(single(opcode, [a, b], y, {"left_shift": 20, **clamp(max(z3, -128), 127)}, constants))


@small
@given(scales, scales, zero_points, zero_points)
def test_requantize_and_lookup(first, second, z1, z2):
    x, y = spec("x", (1, 2, 20, 20), first, z1), spec("y", (1, 2, 20, 20), second, z2)
    assert_same(single("requantize", [x], y, clamp(-100, 90), scaling(first / second)))
    table = np.random.default_rng(z1 + 128).integers(-128, 128, 256).astype(np.int8)
    assert_same(single("lookup", [x], y, {}, {"table": table}))


@pytest.mark.parametrize("rows", [[0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 2, 2], [2, 1, 0]])
def test_resize(rows):
    x, y = spec("x", (1, 5, 3, 4), 0.1, 7), spec("y", (1, 5, len(rows), 8), 0.1, 7)
    index = {"rows": np.array(rows, np.int32), "columns": (np.arange(8) // 2).astype(np.int32)}
    assert_same(single("resize_nearest", [x], y, {}, index))


@pytest.mark.parametrize("zero_point", [-128, 0, 127])
def test_pools_and_movement(zero_point):
    def at(name, *shape):
        return spec(name, shape, 0.1, zero_point)

    x = at("x", 1, 4, 6, 6)
    window = {"kernel": (3, 3), "strides": (2, 1), "pads": (1, 2, 1, 0)}
    assert_same(single("max_pool", [x], at("y", 1, 4, 3, 6), window))
    assert_same(single("average_pool", [x], at("y", 1, 4, 3, 6), window))
    assert_same(single("concat", [x, at("z", 1, 4, 6, 2)], at("y", 1, 4, 6, 8), {"axis": 3}))
    assert_same(single("reshape", [x], at("y", 4, 36)))
    assert_same(single("transpose", [x], at("y", 6, 1, 4, 6), {"permutation": (2, 0, 1, 3)}))
    assert_same(single("mean", [x], at("y", 1, 4, 1, 1), {"axes": (2, 3)}, scaling(0.8)))


def test_sessions_that_run_in_turn_do_not_wait_by_spinning():
    x, y, z = (spec(name, (1, 2, 4, 4), 0.1) for name in "xyz")
    table = np.arange(256, dtype=np.uint8).view(np.int8)

    def pool(number, source, output):
        window = {"kernel": (1, 1), "strides": (1, 1), "pads": (0, 0, 0, 0)}
        return Instruction("max_pool", f"pool{number}", (source,), output, window)

    middle = Instruction("lookup", "table", ("y",), "z", {}, {"table": table})
    ends = [spec("w", x.shape, 0.1)]
    one, three = program([x], [pool(1, "x", "y")], [x, y]), [pool(1, "x", "y"), middle, pool(2, "z", "w")]
    for item, count in ((one, 1), (program([x], three, [x, y, z, *ends]), 2)):
        steps = [step for step in Device(item, threads=2)._steps if isinstance(step, SessionStep)]
        assert len(steps) == count
        for step in steps:
            options = step.session.get_session_options()
            assert options.enable_cpu_mem_arena == (count == 1)
            assert count == 1 or options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert_same(item)


@pytest.mark.parametrize("seed", range(12))
def test_whole_networks(seed):
    item = network(seed, even=bool(seed % 2))
    assert_same(item, seeds=range(3))
    assert SessionStep in kinds(item)


def test_a_network_of_lowered_instructions_is_one_session():
    rng = np.random.default_rng(3)
    x = spec("x", (1, 16, 8, 8), 0.1, 4)
    first, a = conv_instruction(rng, x, 16, "a", kernel=(3, 3), pads=(1, 1, 1, 1), even=True)
    second, b = conv_instruction(rng, a, 16, "b", kernel=(1, 1))
    assert kinds(program([x], [first, second], [x, a, b], ["a", "b"])) == [SessionStep]


def deep(opcode, features, bias, factor):
    """A layer of 127s whose sums pass 2**24, where a float32 sum would lose bits."""
    image = opcode == "conv2d"
    x, y = spec("x", (1, features, 3, 3) if image else (1, features)), spec("y", (1, 2, 1, 1) if image else (1, 2))
    weight = np.full((2, features, 3, 3) if image else (2, features), 127, np.int8)
    weight[1] = np.random.default_rng(0).integers(-127, 128, weight[1].shape)
    attributes = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "group": 1} if image else {}
    constants = {"weight": weight, "bias": np.array([bias, -bias], np.int32), **scaling([factor, factor])}
    return single(opcode, [x], y, {**attributes, **clamp()}, constants)


@pytest.mark.parametrize(("opcode", "features"), [("conv2d", 700), ("fully_connected", 5000)])
def test_sums_beyond_float32_are_split_and_added_in_float64(opcode, features):
    for bias, factor in [(0, 2.0**-14), (1 << 28, 2.0**-20), (12345, 3.3e-6)]:
        item = deep(opcode, features, bias, factor)
        assert kinds(item) == [SessionStep]
        assert_same(item, seeds=range(5))


def test_a_large_bias_alone_does_not_split():
    item = deep("conv2d", 4, 2**30, 2.0**-24)
    assert kinds(item) == [SessionStep]
    assert_same(item)


def test_what_cannot_be_proven_exact_runs_plain():
    item = deep("conv2d", 7, 2**31 - 1, 2.0**-24)  # this bias can carry the accumulator out of int32
    assert kinds(item) == [PlainStep]


def test_most_sums_have_slopes_and_need_no_table():
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(30):
        a, b, y = (spec(name, (1, 2, 2, 2), rng.uniform(0.02, 0.1), rng.integers(-20, 20)) for name in "aby")
        item = single("add", [a, b], y, {"left_shift": 20, **clamp()}, sum_scaling(a.scale, b.scale, y.scale))
        sources = [Value(t, (-128 - t.zero_point, 127 - t.zero_point)) for t in (a, b)]
        found += fit_sum(Builder(True, True), operations(item)[0], tuple(sources)) is not None
    assert found >= 20


def test_both_types_in_one_program():
    item = both_types()
    assert_same(item, seeds=range(3))
    assert kinds(item).count(WideTableStep) == 4
    assert PlainStep in kinds(item)  # softmax, which has no form in onnxruntime


def test_int16_sums_beyond_float32_are_split():
    """The halves of 127s over so many channels pass 2**23, so pieces of the channels are added up in float64."""
    for opcode, features in (("conv2d", 90), ("fully_connected", 2000)):
        narrow = deep(opcode, features, 12345, 2.0**-22)
        tensors = tuple(replace(t, dtype="int16") for t in narrow.tensors)
        contract = find_contract("tflite-r8")
        (item,) = narrow.instructions
        constants = {**item.constants, **scaling([2.0**-22] * 2, contract.of(opcode))}
        item = replace(item, attributes={**item.attributes, **clamp(*contract.limits)}, constants=constants)
        wide = replace(narrow, contract=contract.name, tensors=tensors, instructions=(item,))
        assert kinds(wide) == [SessionStep]
        assert_same(wide, seeds=range(4))
