"""What a part of the compiler refuses when it is given what placement should have kept from it."""

from dataclasses import replace

import numpy as np
import pytest
from smallmodels import graph, images, model, pair, program, quantized

from pipeline.compile import fold
from pipeline.compile.extract import Pieces
from pipeline.compile.partitions import crossing
from pipeline.errors import ModelError
from pipeline.graph.nouns import Quantization
from pipeline.graph.view import view
from runtime.npu.contracts import find_contract

CONTRACT = find_contract("tflite-r1")
TWO = "g (float[1,4,6,6] x) => (float[1,4,6,6] y) { a = Relu (x) \n y = Conv (a, w, b) }"
FLOAT = model(TWO, w=np.ones((4, 4, 1, 1), np.float32), b=np.ones(4, np.float32))


def conv():
    lossy, _ = quantized(FLOAT, images((1, 4, 6, 6)))
    return next(n for n in view(lossy).nodes if n.op == "Conv")


def parameters(node, weight):
    return fold.conv_parameters(node, weight, node.outputs[0], CONTRACT)


@pytest.mark.parametrize("factor", [0.0, -1.0, np.nan, np.inf])
def test_a_factor_that_is_none(factor):
    with pytest.raises(ModelError, match=r"Conv: has the requantization factor .* \(check the scales\)"):
        fold.fold(conv(), [factor], CONTRACT)


def test_a_tensor_without_a_scale_and_of_a_type_that_the_contract_lacks():
    (given,) = graph("g (float[1,4] x) => (float[1,4] y) { y = Relu (x) }").inputs
    with pytest.raises(ModelError, match=r"x: is not quantized \(quantize the model\)"):
        fold.scale(given)
    wide = replace(given, quantization=Quantization(np.array(0.5, np.float32), np.array(0, np.int16), None, "q"))
    with pytest.raises(ModelError, match="x: is int16, an NPU tensor must be int8 with one scale"):
        fold.spec(wide, CONTRACT)
    assert fold.spec(wide, find_contract("tflite-r1/tflite-r8")).dtype == "int16"


def test_a_weight_that_is_not_symmetric_int8():
    node = conv()
    weight = node.required(1)
    crooked = replace(weight, quantization=replace(weight.quantization, zero_point=np.int8(3)))
    other = replace(node, inputs=(node.inputs[0], crooked, *node.inputs[2:]))
    for given, values in ((node, None), (node, weight.constant.astype(np.uint8)), (other, weight.constant)):
        with pytest.raises(ModelError, match="Conv: needs a constant, symmetric int8 weight"):
            parameters(given, values)


def test_a_bias_that_is_computed_or_real():
    node = conv()
    bias = node.input(2)
    for constant, message in ((None, "has a computed bias"), (np.ones(4, np.float32), "its bias is not int32")):
        given = replace(node, inputs=(*node.inputs[:2], replace(bias, constant=constant)))
        with pytest.raises(ModelError, match=f"Conv: {message}"):
            parameters(given, node.required(1).constant)


def between(op, fine, coarse):
    body = f"{pair('a', 'x', fine)} r = {op} (a) {pair('y', 'r', coarse)}"
    return model(f"g (float[1,4] x) => (float[1,4] y) {{ {body} }}")


def test_a_softmax_whose_input_has_no_size():
    with pytest.raises(ModelError, match=r"Softmax: its input's scale 1e-08 is too small"):
        program(between("Softmax", 1e-8, 1 / 256))


def test_a_hard_swish_into_too_fine_a_scale():
    with pytest.raises(ModelError, match=r"HardSwish: its output's scale 1e-06 is too fine for an input of scale 1"):
        program(between("HardSwish", 1.0, 1e-6))


def test_a_piece_that_is_not_given_what_it_is_made_of():
    with pytest.raises(ModelError, match="x: is neither given nor computed in this piece"):
        Pieces(FLOAT).cut([], ["y"])
    blind = model(TWO, w=np.ones((4, 4, 1, 1), np.float32), b=np.ones(4, np.float32))
    del blind.graph.value_info[:]
    with pytest.raises(ModelError, match="a: crosses between pieces, and its type is not known"):
        Pieces(blind).cut(["a"], ["y"])


def test_an_activation_with_a_scale_per_channel_cannot_cross():
    (given,) = graph("g (float[1,4] x) => (float[1,4] y) { y = Relu (x) }").inputs
    many = replace(given, quantization=Quantization(np.ones(4, np.float32), np.zeros(4, np.int8), 1, "q"))
    with pytest.raises(ModelError, match="x: is an activation with 4 scales, one per channel"):
        crossing(many)
