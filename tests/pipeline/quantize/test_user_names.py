"""A user's own values are never overwritten by the names that quantize/dequantize pairs take."""

import numpy as np
from smallmodels import images, model, quantized, run_onnx

TEXT = """g (float[1,1,1,4] x) => (float[1,1,1,4] y) {
    norm = Relu (x)
    norm_quantized = Mul (norm, norm_scale)
    y = Add (norm_quantized, y_real)
}"""


def test_values_that_are_called_like_ours_stay(tmp_path):
    constants = {"norm_scale": np.float32(7), "y_real": np.zeros((1, 1, 1, 4), np.float32)}
    seen = images((1, 1, 1, 4), count=4, low=0.0)
    plain = model(TEXT, **constants)
    lossy, _ = quantized(plain, seen)
    found, expected = run_onnx(lossy, {"x": seen[0]})["y"], run_onnx(plain, {"x": seen[0]})["y"]
    assert np.abs(expected).max() > 1
    assert np.abs(found - expected).max() < 0.1
