"""The program format: one encoding, and every way to be wrong has its sentence."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from npu_programs import clamp, feeds, network, program, scaling, single, spec, sum_scaling

from runtime.errors import ProgramError
from runtime.npu import encoding
from runtime.npu.device import Device
from runtime.npu.encoding import MAX_HEADER_BYTES, VERSION, dumps, loads
from runtime.npu.program import Instruction

X = spec("x", (1, 4, 6, 6))
CONV = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "group": 1, **clamp()}
WEIGHTS = {"weight": np.ones((8, 4, 3, 3), np.int8), "bias": np.zeros(8, np.int32), **scaling(np.full(8, 0.01))}
POOL = {"kernel": (2, 2), "strides": (2, 2), "pads": (0, 0, 0, 0)}


def conv(attributes=None, constants=None, output=None):
    return single(
        "conv2d",
        [X],
        output or spec("y", (1, 8, 4, 4)),
        {**CONV, **(attributes or {})},
        {**WEIGHTS, **(constants or {})},
    )


def repacked(content, change):
    """The file with its header changed by ``change(header)``."""
    length = struct.unpack_from("<I", content, 8)[0]
    blob = content[12 + length + -(12 + length) % 16 :]
    header = json.loads(content[12 : 12 + length])
    change(header)
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    prefix = content[:8] + struct.pack("<I", len(text)) + text
    return prefix + bytes(-len(prefix) % 16) + blob


def test_round_trip_is_exact_and_deterministic():
    item = network(1)
    content = dumps(item)
    again = loads(content)
    assert dumps(again) == content == dumps(network(1))
    assert again.tensors == item.tensors
    assert (again.inputs, again.outputs, again.target) == (item.inputs, item.outputs, item.target)
    assert again.device == item.device
    for ours, theirs in zip(again.instructions, item.instructions, strict=True):
        assert (ours.opcode, ours.inputs, ours.output) == (theirs.opcode, theirs.inputs, theirs.output)
        assert ours.attributes == theirs.attributes
        for name, array in theirs.constants.items():
            assert ours.constants[name].dtype == array.dtype
            np.testing.assert_array_equal(ours.constants[name], array)


def test_attribute_order_does_not_change_the_bytes():
    item = conv()
    turned = replace(item.instructions[0], attributes=dict(reversed(item.instructions[0].attributes.items())))
    assert dumps(replace(item, instructions=(turned,))) == dumps(item)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "wrong magic"),
        (b"ONNX" + bytes(40), "wrong magic"),
        (b"NPUP" + struct.pack("<II", VERSION + 1, 0), r"format version 3, newer than 2 \(update the runtime\)"),
        (b"NPUP" + struct.pack("<II", 0, 0), "unknown format version 0"),
        (b"NPUP" + struct.pack("<II", VERSION, MAX_HEADER_BYTES + 1), "the header claims 16777217 bytes"),
        (b"NPUP" + struct.pack("<II", VERSION, 100), r"ends inside the header \(12 of 112 bytes\)"),
        (b"NPUP" + struct.pack("<II", VERSION, 4) + b"\xff{}}", "cannot be read: UnicodeDecodeError"),
        (b"NPUP" + struct.pack("<II", VERSION, 4) + b"{{{{", "cannot be read: JSONDecodeError"),
        (b"NPUP" + struct.pack("<II", VERSION, 60000) + b"[" * 60000, "too many values, or too deep"),
        (b"NPUP" + struct.pack("<II", VERSION, 2) + b"[]", "the header is not an object"),
        (b"NPUP" + struct.pack("<II", VERSION, 2) + b"{}", "header: missing key"),
    ],
)
def test_what_is_not_a_program_is_refused(content, message):
    with pytest.raises(ProgramError, match=message):
        loads(content)


def first(header):
    return header["instructions"][0]


HEADER_CHANGES = {
    "unknown key": (lambda h: h.update(extra=1), "header: unknown key .'extra'."),
    "key of another type": (lambda h: h.update(target=3), "header: target must be of type str"),
    "tensor is no object": (lambda h: h["tensors"].append(3), "tensor 2: is not an object"),
    "figure": (lambda h: h["device"].update(clock_hz=True), "device.clock_hz: True is not a number"),
    "figure not finite": (lambda h: h["device"].update(clock_hz=float("inf")), "device.clock_hz: inf is not a legal"),
    "input name": (lambda h: h["inputs"].append(3), "inputs: a tensor name is not a string"),
    "shape": (lambda h: h["tensors"][0].update(shape=[1, True]), "tensor 0: expected integers"),
    "attribute": (lambda h: first(h)["attributes"].update(group="1"), "attribute group: expected integers"),
    "constant type": (
        lambda h: first(h)["constants"]["bias"].update(dtype="float16"),
        "'float16' is not a constant's type",
    ),
    "constant empty": (lambda h: first(h)["constants"]["bias"].update(shape=[0]), "constant bias: shape .0,. has"),
    "constant too large": (
        lambda h: first(h)["constants"]["bias"].update(shape=[1 << 40, 1 << 40]),
        "constant bias: shape .* has more than 67108864 elements",
    ),
    "constant of many dimensions": (  # found by make fuzz: numpy has 64 at most, and raised ValueError
        lambda h: first(h)["constants"]["bias"].update(shape=[1] * 200 + [8]),
        "constant bias: has 201 dimensions, more than 8",
    ),
    "offset past the end": (
        lambda h: first(h)["constants"]["bias"].update(offset=1 << 20),
        "offset 1048576 .* outside",
    ),
    "offset negative": (lambda h: first(h)["constants"]["bias"].update(offset=-16), "offset -16 .* outside"),
    "offset unaligned": (lambda h: first(h)["constants"]["bias"].update(offset=1), "offset 1 .* outside"),
    "offset shared": (lambda h: first(h)["constants"]["shift"].update(offset=0), "not in canonical form|legal are"),
}


@pytest.mark.parametrize("name", HEADER_CHANGES)
def test_a_wrong_header_is_refused(name):
    change, message = HEADER_CHANGES[name]
    with pytest.raises(ProgramError, match=message):
        loads(repacked(dumps(conv()), change))


def test_constants_that_share_bytes_are_refused_before_they_are_copied(monkeypatch):
    """A thousand tables in the bytes of one would be a thousand times the file once it is written again to compare."""
    tables = {f"t{i}": np.zeros(256, np.int8) for i in range(2)}
    steps = tuple(
        Instruction("lookup", name, (source,), target, {}, {"table": table})
        for (name, table), source, target in zip(tables.items(), "xy", "yz", strict=True)
    )
    names = tuple(spec(name, (1, 4, 6, 6)) for name in "xyz")
    content = dumps(program([names[0]], steps, names))
    shared = repacked(content, lambda h: h["instructions"][1]["constants"]["table"].update(offset=0))[:-256]
    monkeypatch.setattr(encoding, "_encode", None)
    with pytest.raises(ProgramError, match="constants of 512 bytes lie in 256: some share bytes"):
        loads(shared)


def test_tensors_that_are_too_many_elements_together(monkeypatch):
    monkeypatch.setattr(encoding, "MAX_TOTAL", 271)
    with pytest.raises(ProgramError, match="tensors of 272 elements together, more than 271"):
        loads(dumps(conv()))


@pytest.mark.parametrize("header", [b"[" * 17 + b"]" * 17, b"[" + b"0," * (1 << 20) + b"0]"])
def test_json_that_is_too_deep_or_too_much(header):
    with pytest.raises(ProgramError, match="the header has too many values, or too deep inside each other"):
        loads(b"NPUP" + struct.pack("<II", VERSION, len(header)) + header)


def test_trailing_bytes_and_spaces_are_not_canonical():
    content = dumps(conv())
    for other in (content + bytes(16), repacked(content, lambda h: h["device"].update(clock_hz=5e8)) + b"\0"):
        with pytest.raises(ProgramError, match="canonical form"):
            loads(other)


Y = spec("y", (1, 4, 6, 6))
FACTOR = scaling(0.5)
BAD = {
    "contract": (replace(conv(), contract="r9"), "'r9' is not an integer contract"),
    "opcode": (single("erf", [X], Y), r"instruction 0 \(erf 'the_erf'\): unknown opcode \(known: conv2d"),
    "dtype": (single("reshape", [X], replace(Y, dtype="float32")), "tensor 'y': type 'float32' is not int8"),
    "scale": (single("reshape", [X], replace(Y, scale=0.0)), "tensor 'y': scale 0.0 is not above 0"),
    "no scale": (single("reshape", [X], replace(Y, scale=None)), "tensor 'y': scale None"),
    "zero point": (single("reshape", [X], replace(Y, zero_point=128)), "tensor 'y': zero point 128 is not int8"),
    "rank": (single("reshape", [X], spec("y", (1,) * 9)), "tensor 'y': 9 dimensions"),
    "empty": (single("reshape", [X], spec("y", (1, 0))), "tensor 'y': shape .* has a dimension below 1"),
    "too large": (single("reshape", [X], spec("y", (1 << 14, 1 << 14))), "more than 67108864 elements"),
    "declared twice": (program([X], conv().instructions, [X, X]), "tensor 'x': declared twice"),
    "never written": (
        program([X], conv().instructions, [X, spec("y", (1, 8, 4, 4)), spec("z", (1,))]),
        "tensor 'z': no",
    ),
    "no output": (replace(conv(), outputs=()), "outputs: a program needs at least one"),
    "output twice": (replace(conv(), outputs=("y", "y")), "outputs: a name occurs twice"),
    "unknown output": (replace(conv(), outputs=("z",)), "outputs: 'z' is not a declared tensor"),
    "output not written": (
        program([X], single("reshape", [X], Y).instructions, [X, Y, spec("z", (1,))], ["z"]),
        "output 'z': no instruction writes it",
    ),
    "before written": (
        program([X], [Instruction("reshape", "r", ("y",), "z")], [X, Y, spec("z", (1, 144))]),
        "'y' is used before",
    ),
    "written twice": (program([X], [Instruction("reshape", "r", ("x",), "x")], [X]), "output 'x' is written twice"),
    "unknown target": (program([X], [Instruction("reshape", "r", ("x",), "q")], [X], ["x"]), "'q' is not a declared"),
    "inputs": (single("add", [X], Y, {"left_shift": 20, **clamp()}, sum_scaling(1, 1, 1)), "cannot take 1 inputs"),
    "no inputs": (program([X], [Instruction("concat", "c", (), "y", {"axis": 0})], [X, Y]), "cannot take 0 inputs"),
    "attribute": (single("reshape", [X], Y, {"axis": 1}), "unknown attribute .'axis'."),
    "no attribute": (single("concat", [X], Y), "missing attribute .'axis'."),
    "constant": (single("reshape", [X], Y, {}, FACTOR), "unknown constant .'multiplier'."),
    "no constant": (single("lookup", [X], Y), "missing constant .'table'."),
    "output shape": (
        conv(output=spec("y", (1, 8, 5, 5))),
        r"its output has shape \(1, 8, 4, 4\), but 'y' declares \(1, 8, 5, 5\)",
    ),
    "kind": (conv({"group": (1,)}), "group must be an integer"),
    "count": (conv({"pads": (0, 0)}), "pads must be 4 integers"),
    "group": (conv({"group": 3}), "weight takes 4 x 3 channels, the input has 4"),
    "groups": (
        conv({"group": 2}, {"weight": np.ones((9, 2, 3, 3), np.int8), "bias": np.zeros(9, np.int32)}),
        "9 output channels do not divide into 2 groups",
    ),
    "stride": (conv({"strides": (0, 1)}), r"strides = \(0, 1\) is outside"),
    "pads": (conv({"pads": (0, -1, 0, 0)}), "pads = .* is outside"),
    "window": (conv({"dilations": (3, 3)}), r"window \(7, 7\) exceeds the padded input \(6, 6\)"),
    "padding": (conv({"pads": (4096,) * 4}), "more than 67108864 elements"),
    "bounds": (conv({"act_min": 5, "act_max": 4}), "act_min 5 is above act_max 4"),
    "bound": (conv({"act_max": 128}), "act_max = 128 is outside"),
    "weight type": (conv(constants={"weight": np.ones((8, 4, 3, 3), np.int32)}), "weight is int32, expected int8"),
    "weight rank": (conv(constants={"weight": np.ones((8, 36), np.int8)}), r"weight has shape \[8, 36\]"),
    "bias": (conv(constants={"bias": np.zeros(7, np.int32)}), r"bias has shape \[7\], expected \[8\]"),
    "multiplier": (conv(constants={"multiplier": np.full(8, 5, np.int32)}), "factor 0 has multiplier 5"),
    "shift": (conv(constants={"shift": np.full(8, 31, np.int32)}), "shift 31; legal are"),
    "zero factor": (conv(constants={"multiplier": np.zeros(8, np.int32)}), "factor 0 has multiplier 0, shift -6"),
    "conv rank": (single("conv2d", [spec("x", (4, 6))], Y, CONV, WEIGHTS), "expected 3 or 4 dimensions"),
    "features": (
        single(
            "fully_connected",
            [spec("x", (1, 5))],
            spec("y", (1, 8)),
            clamp(),
            {**WEIGHTS, "weight": np.ones((8, 4), np.int8)},
        ),
        r"weight has shape \[8, 4\]",
    ),
    "broadcast": (single("mul", [X, spec("z", (1, 3, 6, 6))], Y, clamp(), FACTOR), "do not broadcast"),
    "add shift": (
        single("add", [X, spec("z", X.shape)], Y, {"left_shift": 20, **clamp()}, scaling([0.5, 0.5, 2.0])),
        "factor 2 has .* shift 2; legal are",
    ),
    "left shift": (
        single("add", [X, spec("z", X.shape)], Y, {"left_shift": 23, **clamp()}, sum_scaling(1, 1, 1)),
        "left_shift = 23 is outside",
    ),
    "table": (single("lookup", [X], Y, {}, {"table": np.zeros(255, np.int8)}), r"table has shape \[255\]"),
    "pool pads": (single("max_pool", [X], Y, {**POOL, "pads": (2, 0, 0, 0)}), "reach past the kernel"),
    "pool scales": (
        single("average_pool", [X], spec("y", (1, 4, 3, 3), 0.4), POOL),
        "x and y must have the same scale",
    ),
    "concat zero": (single("concat", [X], replace(Y, zero_point=1), {"axis": 1}), "must have the same scale and zero"),
    "concat shapes": (single("concat", [X, spec("z", (1, 4, 5, 6))], Y, {"axis": 1}), "z of shape .* does not join"),
    "axes": (single("mean", [X], Y, {"axes": (2, 4)}, FACTOR), r"axes \(2, 4\) do not fit"),
    "axes kind": (single("mean", [X], Y, {"axes": 2}, FACTOR), "axes must be a list of integers"),
    "rows": (
        single(
            "resize_nearest",
            [X],
            Y,
            {},
            {"rows": np.arange(7, dtype=np.int32), "columns": np.arange(6, dtype=np.int32)},
        ),
        "rows points outside the input's 6",
    ),
    "elements": (single("reshape", [X], spec("y", (1, 145))), "different numbers of elements"),
    "permutation": (single("transpose", [X], Y, {"permutation": (0, 1, 2, 2)}), "repeats an axis"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_illegal_program_is_refused(name):
    item, message = BAD[name]
    with pytest.raises(ProgramError, match=message):
        dumps(item)
    with pytest.raises(ProgramError, match=message):
        Device(item)


def test_mutated_bytes_never_crash_the_reader():
    """Either the file is refused with ProgramError, or it is a legal program that runs or reports an overflow."""
    rng = np.random.default_rng(0)
    content = dumps(network(2))
    end = 12 + struct.unpack_from("<I", content, 8)[0]
    refused = 0
    for case in range(2000):
        broken = bytearray(content)
        for _ in range(int(rng.integers(1, 4))):
            broken[int(rng.integers(end if case % 4 else len(content)))] = int(rng.integers(256))
        try:
            item = loads(bytes(broken))
        except ProgramError:
            refused += 1
            continue
        assert dumps(item) == bytes(broken)
        if case % 10 == 0:
            try:
                Device(item, fast=False).run(feeds(item))
            except ProgramError as error:
                assert "int32" in str(error)  # noqa: PT017 (both outcomes are legal)
    assert refused > 1000


def test_truncation_is_always_refused():
    content = dumps(network(3))
    for length in range(0, len(content), 61):
        with pytest.raises(ProgramError):
            loads(content[:length])
