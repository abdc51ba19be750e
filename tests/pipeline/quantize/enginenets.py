"""A small network with a residual, a clamp, a depthwise convolution and a classifier, and its pieces."""

import numpy as np
from smallmodels import PER_CHANNEL, images, model, run_onnx, target

from pipeline.graph.view import view
from pipeline.quantize import qdq
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.engine import Engine
from pipeline.quantize.ptq import Choosing, quantize
from pipeline.quantize.scheme import Scheme

SHAPE = (1, 3, 12, 12)
WIDTH = 12


def normal(seed, *shape, scale=1.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def net(middle="Clip (a, zero, six)"):
    return model(
        "g (float[1,3,12,12] x) => (float[1,6] y) { a = Conv <pads = [1,1,1,1]> (x, w1, b1)"
        f" b = {middle} \n c = Conv <group = 12, pads = [1,1,1,1]> (b, w2, b2) \n d = Relu (c)"
        " e = Conv (d, w3) \n f = Add (e, b) \n p = GlobalAveragePool (f) \n q = Flatten (p)"
        " y = Gemm <transB = 1> (q, w4, b4) }",
        w1=normal(1, 12, 3, 3, 3, scale=0.4), b1=normal(2, 12), w2=normal(3, 12, 1, 3, 3, scale=0.4),
        b2=normal(4, 12, scale=0.3), w3=normal(5, 12, 12, 1, 1, scale=0.3), w4=normal(6, 6, 12), b4=normal(7, 6),
        zero=np.float32(0), six=np.float32(6),
    )  # fmt: skip


def encodings(floating, per_channel=True):
    scheme = Scheme(dict.fromkeys(PER_CHANNEL, per_channel))
    taken = calibrate(floating, view(floating), images(SHAPE, count=8)).histograms
    return quantize(view(floating), taken, scheme, Choosing("minmax"))


def lossy(floating, per_channel=True):
    return qdq.insert(floating, encodings(floating, per_channel))


def engine(floating, per_channel=True):
    return Engine(lossy(floating, per_channel), target("kirin-970"))


def wanted(floating, seen):
    return [run_onnx(floating, {"x": image}) for image in seen]


def smooth(count, seed):
    """Images whose neighbours are alike, as those of the world are."""
    generator = np.random.default_rng(seed)
    tiles = [np.kron(generator.uniform(-1, 1, (3, 3, 3)), np.ones((1, 4, 4))) for _ in range(count)]
    return [(t + generator.uniform(-0.1, 0.1, t.shape)).clip(-1, 1).astype(np.float32)[None] for t in tiles]
