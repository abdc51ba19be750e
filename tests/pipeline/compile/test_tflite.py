"""Programs as ``.tflite`` files: TFLite's own interpreters compute the same bytes; what has no form is said."""

from dataclasses import replace

import numpy as np
import pytest
from smallmodels import images, model, quantized
from smallmodels import program as compiled
from tflite_models import run_litert, run_micro

from pipeline.compile.tflite import channels_last, tflite, weight_scales
from pipeline.errors import ModelError
from pipeline.graph.tflite_writer import Op, Options, Tensor, network
from pipeline.graph.view import view
from runtime.npu.contracts import find_contract
from runtime.npu.device import Device


def normal(*shape):
    return np.random.default_rng([*shape]).normal(size=shape).astype(np.float32)


CASES = {
    "uneven pads and strides": ("1,4,10,8", "y = Conv <pads = [0,1,2,0], strides = [2,1]> (x, w)", normal(6, 4, 3, 3)),
    "SAME": ("1,4,9,9", "y = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w)", normal(6, 4, 3, 3)),
    "dilated": ("1,4,9,9", "y = Conv <pads = [2,2,2,2], dilations = [2,2]> (x, w)", normal(6, 4, 3, 3)),
    "no pads": ("1,4,9,9", "y = Conv (x, w)", normal(6, 4, 3, 3)),
    "depthwise": ("1,4,9,9", "y = Conv <group = 4, pads = [1,1,1,1]> (x, w)", normal(8, 1, 3, 3)),
    "clamped": ("1,4,9,9", "z = Conv (x, w) \n y = Clip (z, zero, six)", 9 * normal(6, 4, 1, 1)),
    "relu": ("1,4,9,9", "z = Conv (x, w) \n y = Relu (z)", normal(6, 4, 1, 1)),
    "resized": ("1,4,5,7", 'z = Conv (x, w) \n y = Resize <mode = "nearest"> (z, , sizes)', normal(4, 4, 1, 1)),
    "sum": ("1,4,5,7", "z = Conv (x, w) \n y = Add (x, z)", normal(4, 4, 1, 1)),
    "mean": ("1,4,5,7", "y = ReduceMean <axes = [2,3], keepdims = 1> (x)", None),
    "dense, a scale per channel": ("1,20", "y = MatMul (x, w)", normal(20, 6)),
    "dense, one scale": ("1,20", "y = MatMul (x, w)", normal(20, 6)),
}
TYPES = {
    "int8": ("tflite-r1", {}),
    "int16": ("tflite-r8", {"types": ("int16",), "activations": "int16", "contract": find_contract("tflite-r8")}),
}
"""Contract and scheme of the activations."""
SHARED = {"zero": np.float32(0), "six": np.float32(6), "sizes": np.array([1, 1, 2, 3], np.float32)}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", CASES)
def test_tflite_computes_the_same_bytes(case, dtype):
    shape, body, weight = CASES[case]
    size = tuple(int(n) for n in shape.split(","))
    made = ",".join("bcmn"[: len(size)])
    constants = SHARED if weight is None else {**SHARED, "w": weight}
    used = {
        name: value for name, value in constants.items() if name in body.replace(",", " ").replace(")", " ").split()
    }
    floating = model(f"g (float[{shape}] x) => (float[{made}] y) {{ {body} }}", 13, **used)
    per_channel = {"Conv": True, "MatMul": case.endswith("per channel")}
    contract, scheme = TYPES[dtype]
    lossy, _ = quantized(floating, images(size), per_channel, **scheme)
    program = compiled(lossy, contract)
    assert {spec.dtype for spec in program.tensors} == {dtype}
    content = tflite(program, weight_scales(view(lossy)))
    ends = np.iinfo(dtype)
    ((source,), (output,)) = program.inputs, program.outputs
    for seed in range(3):
        feed = np.random.default_rng(seed).integers(ends.min, ends.max + 1, size).astype(dtype)
        found = Device(program, fast=False).run({source: feed})[output]
        last = np.ascontiguousarray(np.moveaxis(feed, 1, -1)) if feed.ndim == 4 else feed
        peers = [run_micro(content, [last])]
        if case != "dense, one scale":  # LiteRT's FULLY_CONNECTED rounds in float64, rule R6
            peers.append(run_litert(content, [last]))
        for theirs in peers:
            assert theirs.shape == channels_last(found.shape)
            np.testing.assert_array_equal(np.moveaxis(theirs, -1, 1) if theirs.ndim == 4 else theirs, found)


REFUSED = {
    "another operator": ("y = MaxPool <kernel_shape = [2,2]> (x)", {}, "max_pool has no .tflite form here"),
    "groups": ("y = Conv <group = 2> (x, w)", {"w": normal(4, 2, 1, 1)}, "a convolution in groups has no"),
    "rows only": ("y = ReduceMean <axes = [2], keepdims = 1> (x)", {}, "a mean over other axes than an image's"),
    "flattened images": ("y = Reshape (x, s)", {"s": np.array([1, 64])}, "a reshape of images has no"),
    "from the far end": (
        'y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "ceil"> (x, , k)',
        {"k": np.array([1, 1, 2, 2], np.float32)},
        "resizes by other indices than TFLite's default",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_form_is_said(case):
    body, constants, message = REFUSED[case]
    made = "m,n" if "Reshape" in body else "b,c,m,n"
    floating = model(f"g (float[1,4,4,4] x) => (float[{made}] y) {{ {body} }}", 13, **constants)
    lossy, _ = quantized(floating, images((1, 4, 4, 4)))
    with pytest.raises(ModelError, match=message):
        tflite(compiled(lossy), weight_scales(view(lossy)))


def test_a_clamp_that_is_no_activation_is_said():
    lossy, _ = quantized(model("g (float[1,4,4,4] x) => (float[1,4,4,4] y) { y = Add (x, x) }"), images((1, 4, 4, 4)))
    program = compiled(lossy)
    (item,) = program.instructions
    cut = replace(item, attributes={**item.attributes, "act_min": -77})
    with pytest.raises(ModelError, match=r"its clamp to \(-77, 127\) is no activation of TFLite"):
        tflite(replace(program, instructions=(cut,)), {})


def test_a_field_that_the_schema_lacks_is_said():
    two = [Tensor((1, 4), (0.5,)), Tensor((1, 4), (0.5,))]
    with pytest.raises(AttributeError, match="AddOptions has no field padding"):
        network([Op("ADD", [0, 0], 1, Options("AddOptions", {"padding": 1}))], two, [0], [1])
