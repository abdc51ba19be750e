"""From ONNX operators to work: shapes, kinds, bytes and how far weights compress."""

import numpy as np
import onnx
import pytest

from pipeline.cost.density import density
from pipeline.cost.nouns import Activation, Kind
from pipeline.cost.work import works
from pipeline.errors import ModelError
from pipeline.graph.model import check
from pipeline.graph.view import view


def only(body, given, out, constants=""):
    """The works of a graph written in ONNX's text form."""
    text = f'<ir_version: 8, opset_import: ["" : 17]> g ({given}) => ({out}) {constants} {{ {body} }}'
    return works(view(check(onnx.parser.parse_model(text), "test")))


def test_a_grouped_and_a_transposed_convolution():
    (item,) = only(
        "y = Conv<group = 2, strides = [2, 2], dilations = [1, 1], kernel_shape = [3, 3]>(x, w)",
        "float[1, 8, 9, 9] x, float[6, 4, 3, 3] w", "float[1, 6, 4, 4] y",
    )  # fmt: skip
    assert (item.kind, item.groups, item.in_channels, item.channels) == (Kind.CONV, 2, 8, 6)
    assert (item.height, item.width, item.stride, item.macs) == (4, 4, (2, 2), 6 * 16 * 4 * 9)
    assert item.in_bytes == (8 * 81, 6 * 4 * 9)  # the weights are computed here, so they are an input
    (item,) = only(
        "y = ConvTranspose<strides = [2, 2], kernel_shape = [2, 2]>(x, w)",
        "float[1, 8, 4, 4] x, float[8, 6, 2, 2] w", "float[1, 6, 8, 8] y",
    )  # fmt: skip
    assert (item.kind, item.stride, item.kernel, item.height) == (Kind.CONV, (1, 1), (2, 2), 8)
    assert item.macs == 8 * 16 * 6 * 4


def test_a_product_of_one_row_is_dense_and_one_of_many_a_convolution_of_one_row():
    (one,) = only("y = MatMul(x, w)", "float[1, 64] x, float[64, 10] w", "float[1, 10] y")
    assert (one.kind, one.in_channels, one.channels, one.macs) == (Kind.FC, 64, 10, 640)
    (many,) = only("y = MatMul(x, w)", "float[1, 197, 64] x, float[64, 10] w", "float[1, 197, 10] y")
    assert (many.kind, many.width, many.in_channels, many.macs) == (Kind.CONV, 197, 64, 197 * 640)


@pytest.mark.parametrize(
    ("body", "out", "kernel"),
    [
        ("y = GlobalAveragePool(x)", "float[1, 8, 1, 1] y", (6, 5)),
        ("y = ReduceMean<axes = [2, 3]>(x)", "float[1, 8, 1, 1] y", (6, 5)),
        ("y = ReduceMean<axes = [1]>(x)", "float[1, 1, 6, 5] y", (1, 8)),
        ("y = MaxPool<kernel_shape = [2, 3], strides = [2, 1]>(x)", "float[1, 8, 3, 3] y", (2, 3)),
    ],
)
def test_pools_have_a_window(body, out, kernel):
    (item,) = only(body, "float[1, 8, 6, 5] x", out)
    assert (item.kind, item.kernel) == (Kind.POOL, kernel)


@pytest.mark.parametrize(
    ("body", "kind", "passes"),
    [
        ("y = Softmax(x)", Kind.LUT, 5), ("y = Sigmoid(x)", Kind.LUT, 1), ("y = Abs(x)", Kind.ELEMENTWISE, 1),
        ("y = Transpose<perm = [0, 1]>(x)", Kind.COPY, 1), ("y = Flatten(x)", Kind.VIEW, 1),
        ("y = CumSum(x, a)", Kind.OTHER, 1),
    ],
)  # fmt: skip
def test_kinds_without_weights(body, kind, passes):
    given = "float[4, 6] x, int64[1] a" if "a)" in body else "float[4, 6] x"
    (item,) = only(body, given, "float[4, 6] y")
    assert (item.kind, item.passes) == (kind, passes)


def test_a_fused_clamp_is_no_work_of_its_own_but_another_one_is():
    items = only("a = Add(x, x)  b = Relu(a)  y = Relu(b)", "float[1, 2, 3, 4] x", "float[1, 2, 3, 4] y")
    assert [(w.op, w.activation) for w in items] == [("Add", Activation.CLAMP), ("Relu", Activation.NONE)]
    assert items[0].outputs == ("b",)


def test_integers_keep_their_width_and_real_numbers_become_int8():
    (item,) = only("y = Gather(x, i)", "float[10, 4] x, int64[3] i", "float[3, 4] y")
    assert (item.in_bytes, item.out_bytes) == ((40, 24), 12)


def test_a_shape_that_is_not_known_is_an_error():
    with pytest.raises(ModelError, match="has no static shape"):
        only("y = Relu(x)", "float[N, 4] x", "float[N, 4] y")


def test_density_is_the_entropy_of_the_weights():
    random = np.random.default_rng(0)
    assert density(np.zeros((4, 100), np.int8)) < 0.01
    assert density(random.choice(np.array([-1, 1], np.int8), (8, 512))) == pytest.approx(1 / 8, rel=0.05)
    normal = np.clip(np.rint(random.normal(0, 32, (64, 64))), -127, 127).astype(np.int8)
    assert density(normal) == pytest.approx(0.895, abs=0.01)  # what Vela 5.2.0's encoder makes of such weights
    assert density(random.integers(-128, 128, (64, 64)).astype(np.int8)) <= 1.0
    real = random.normal(0, 1, (16, 256)).astype(np.float32)
    assert density(real * 1000) == pytest.approx(density(real))
