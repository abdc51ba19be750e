"""Bundles of int16 and of mixed networks, from the float model to the replayed golden vectors."""

import numpy as np
import pytest
from smallmodels import calibrate, check, images, model, target

from pipeline.compile.bundling import Use, bundle
from pipeline.compile.partitions import cut, onnx_models
from pipeline.compile.support import kernels
from pipeline.graph.view import view
from pipeline.quantize import qdq
from pipeline.quantize.ptq import Choosing, quantize
from pipeline.quantize.scheme import of
from pipeline.targets.placement import by_kernel, place
from runtime.adapters.detection import BoxDecoder
from runtime.adapters.image import Preprocess
from runtime.bundle import open_bundle
from runtime.replay import replay

TEXT = """g (float[1,3,16,16] image) => (float[1,1,16,16] scores, float[1,4,16,16] boxes) {
    a = Relu (image)
    scores = Conv (a, w)
    boxes = Conv (a, v)
}"""


def chip(contract, activations):
    scheme = target().quantization.model_copy(update={"activations": activations, "symmetric": activations == "int16"})
    return target().model_copy(update={"contract": contract, "quantization": scheme})


@pytest.mark.parametrize(
    ("contract", "activations", "wide", "image"),
    [
        ("tflite-r8", "int16", (), "int16"),
        ("tflite-r1/tflite-r8", "int8", ("boxes",), "int8"),
        ("tflite-r1/tflite-r8", "int8", ("image", "a"), "int16"),
    ],
)
def test_a_bundle_replays_its_golden_vectors(tmp_path, contract, activations, wide, image):
    rng, where = np.random.default_rng(0), chip(contract, activations)
    weights = {n: rng.normal(size=(c, 3, 1, 1)).astype(np.float32) for n, c in (("w", 1), ("v", 4))}
    floating = model(TEXT, **weights)
    taken = calibrate(floating, view(floating), images((1, 3, 16, 16), low=0.0)).histograms
    scales = quantize(view(floating), taken, of(where), Choosing("minmax", wide=frozenset(wide)))
    lossy = check(qdq.insert(floating, scales), "test")
    whole = view(lossy)
    partitions = cut(whole, place(whole, by_kernel(kernels(contract)), None))
    about = Use("tiny", ("a",), Preprocess(16, 16, (0, 0, 0), (1, 1, 1)), BoxDecoder(1, 0.5, 0.5, 10), (), {})
    path, pixels = tmp_path / "b.npub", rng.integers(0, 256, (16, 16, 3), np.uint8)
    bundle(path, about, whole, partitions, onnx_models(lossy, partitions), where, golden=[pixels])
    opened = open_bundle(path)
    assert (opened.manifest.contract, opened.manifest.tensor("image_quantized").dtype) == (contract, image)
    assert replay(opened).differing == 0
    assert replay(opened, "cpu").passed
