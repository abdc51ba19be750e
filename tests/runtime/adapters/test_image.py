"""The letterbox against Pillow and a plain integer loop; the tables against ONNX Runtime's QuantizeLinear."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from runtime.adapters.image import (
    PAD,
    Placement,
    Preprocess,
    coefficients,
    letterbox,
    normalize,
    quantize,
    resize,
)
from runtime.errors import SourceError
from runtime.tensors import TensorSpec

IMAGENET = Preprocess(8, 8, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SPEC = TensorSpec("image", (1, 3, 8, 8), "int8", 0.0187, -14)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def plain_axis(samples, size, bits_out):
    """One axis of the resize as loops over Python integers, from the filter's definition."""
    source = len(samples)
    taps = coefficients(source, size)
    drop = 14 - bits_out
    return [
        [(sum(int(taps[x, i]) * v[c] for i, v in enumerate(samples)) + (1 << (drop - 1))) >> drop for c in range(3)]
        for x in range(size)
    ]


def plain_resize(frame, width, height):
    columns = [plain_axis(frame[:, x].tolist(), height, 2) for x in range(frame.shape[1])]
    rows = [plain_axis([columns[x][y] for x in range(frame.shape[1])], width, -2) for y in range(height)]
    return np.array(rows, np.uint8)


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ((576, 768), (288, 384)),
        ((480, 640), (288, 384)),
        ((1080, 1920), (216, 384)),
        ((101, 67), (50, 90)),
        ((20, 30), (288, 384)),
        ((7, 1), (3, 5)),
    ],
)
def test_within_one_of_pillow(source, size):
    frame = noise(*source)
    ours = resize(frame, size[1], size[0])
    theirs = np.asarray(Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    assert ours.shape == (*size, 3)
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_within_one_of_pillow_at_any_size(rows, columns, height, width, seed):
    frame = noise(rows, columns, seed)
    theirs = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))
    assert np.abs(resize(frame, width, height).astype(int) - theirs).max() <= 1


@pytest.mark.parametrize(("source", "size"), [((24, 32), (12, 16)), ((9, 14), (5, 3)), ((6, 5), (11, 13))])
def test_equals_plain_integer_loops(source, size):
    frame = noise(*source, seed=3)
    assert np.array_equal(resize(frame, size[1], size[0]), plain_resize(frame, size[1], size[0]))


def test_halving_is_one_three_three_one():
    frame = noise(64, 64, seed=5).astype(int)
    taps = [1, 3, 3, 1]
    inner = sum(t * frame[1 + k : 61 + k : 2] for k, t in enumerate(taps))
    lines = (inner * 4 + 4) >> 3
    across = sum(t * lines[:, 1 + k : 61 + k : 2] for k, t in enumerate(taps))
    expected = (across + 16) >> 5
    ours = resize(frame.astype(np.uint8), 32, 32)
    assert np.array_equal(ours[1:31, 1:31], expected[:30, :30])


@given(st.integers(1, 3000), st.integers(1, 500))
@settings(max_examples=30, deadline=None)
def test_coefficients_are_a_partition_of_unity(source, size):
    taps = coefficients(source, size)
    assert (taps >= 0).all()
    assert (taps.sum(axis=1) == 1 << 14).all()


@given(st.integers(0, 255), st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=25, deadline=None)
def test_a_plain_colour_stays(value, rows, columns):
    frame = np.full((rows, columns, 3), value, np.uint8)
    assert (resize(frame, 24, 16) == value).all()


def test_brightest_partial_sum_is_exact_in_float32():
    assert 255 * 4 * (1 << 14) + (1 << 15) < 1 << 24


def test_letterbox_centres_and_pads():
    frame = np.full((100, 100, 3), 200, np.uint8)
    pixels, placement = letterbox(frame, 64, 32)
    assert placement == Placement(0.32, 16, 0)
    assert (pixels[:, 16:48] == 200).all()
    assert (pixels[:, :16] == PAD).all()
    assert (pixels[:, 48:] == PAD).all()


def test_letterbox_of_a_frame_that_fits_is_the_frame():
    frame = noise(32, 64)
    pixels, placement = letterbox(frame, 64, 32)
    assert np.array_equal(pixels, frame)
    assert placement == Placement(1.0, 0, 0)


def test_letterbox_of_a_sliver_keeps_one_pixel():
    pixels, _ = letterbox(noise(1, 1000), 64, 32)
    assert (pixels != PAD).any(axis=(1, 2)).sum() == 1


def test_letterbox_takes_a_view():
    frame = noise(50, 40)
    assert np.array_equal(letterbox(frame[:, ::-1], 20, 20)[0], letterbox(frame[:, ::-1].copy(), 20, 20)[0])


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
    ],
)
def test_letterbox_refuses_what_is_no_frame(frame):
    with pytest.raises(SourceError, match=r"a frame is .* \(give uint8 \[height, width, 3\]"):
        letterbox(frame, 8, 8)


def test_normalize_is_the_formula():
    pixels = noise(8, 8)
    expected = (pixels.transpose(2, 0, 1) / 255.0 - np.reshape(IMAGENET.mean, (3, 1, 1))) / np.reshape(
        IMAGENET.std, (3, 1, 1)
    )
    real = normalize(pixels, IMAGENET)
    assert real.dtype == np.float32
    assert np.array_equal(real, expected[None].astype(np.float32))


def onnx_quantize(real, scale, zero_point, kind="int8"):
    node = onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])
    graph = onnx.helper.make_graph(
        [node],
        "q",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, real.shape)],
        [onnx.helper.make_tensor_value_info("y", getattr(onnx.TensorProto, kind.upper()), real.shape)],
        [
            onnx.helper.make_tensor("s", onnx.TensorProto.FLOAT, [], [scale]),
            onnx.helper.make_tensor("z", getattr(onnx.TensorProto, kind.upper()), [], [zero_point]),
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": real})[0]


@pytest.mark.parametrize(("scale", "zero_point"), [(1 / 255, -128), (0.0187, -14), (2.0**-6, 3), (0.001, 127)])
@pytest.mark.parametrize("pre", [IMAGENET, Preprocess(8, 8)])
def test_quantize_is_onnx_quantizelinear(pre, scale, zero_point):
    pixels = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    spec = TensorSpec("image", (1, 3, 16, 16), "int8", scale, zero_point)
    assert np.array_equal(quantize(pixels, pre, spec), onnx_quantize(normalize(pixels, pre), scale, zero_point))


@pytest.mark.parametrize("scale", [1 / 32767, 0.0001, 2.0**-14])
def test_quantize_to_int16_is_onnx_quantizelinear(scale):
    pixels = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    spec, real = TensorSpec("image", (1, 3, 16, 16), "int16", scale, 0), normalize(pixels, IMAGENET)
    found = quantize(pixels, IMAGENET, spec)
    assert found.dtype == np.int16
    assert np.array_equal(found, onnx_quantize(real, scale, 0, "int16"))


@pytest.mark.parametrize(
    "spec", [TensorSpec("image", (1, 3, 8, 8), "float32"), TensorSpec("image", (1, 3, 8, 8), "uint8", 0.1, 0)]
)
def test_quantize_refuses_a_float_tensor(spec):
    with pytest.raises(SourceError, match="image is not quantized to int8 or int16"):
        quantize(noise(8, 8), IMAGENET, spec)


def test_dequantized_input_is_within_half_a_step():
    pixels = noise(8, 8)
    inside = np.abs(normalize(pixels, IMAGENET)) < 2.0
    error = np.abs(SPEC.dequantize(quantize(pixels, IMAGENET, SPEC)) - normalize(pixels, IMAGENET))
    assert error[inside].max() <= 0.5 * SPEC.scale * 1.001
