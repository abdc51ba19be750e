"""Real networks as ONNX files: torchvision's with random weights, the onnx package's light ones, and a pretrained OCR.

What torch exports is kept in ``.cache/zoo`` of the checkout, by the versions that made it; deleting it costs a minute.
"""

import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import torch
from torch import nn
from torchvision import models
from torchvision.models import detection, segmentation

from pipeline.graph.capture import capture
from pipeline.graph.model import save

CACHE = Path(__file__).parents[2] / ".cache" / "zoo"


class Heads(nn.Module):
    """SSDLite without its post-processing: from pixels to scores and offsets of every anchor."""

    def __init__(self) -> None:
        super().__init__()
        whole = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21)
        self.backbone, self.head = whole.backbone, whole.head

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.head(list(self.backbone(x).values()))
        return found["cls_logits"], found["bbox_regression"]


class Out(nn.Module):
    """The main output of a segmentation network."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.whole(x)["out"]


TORCHVISION: Mapping[str, tuple[Callable[[], nn.Module], int]] = {
    "mobilenet_v2": (models.mobilenet_v2, 64),
    "mobilenet_v3_large": (models.mobilenet_v3_large, 64),
    "resnet50": (models.resnet50, 64),
    "efficientnet_b0": (models.efficientnet_b0, 64),
    "squeezenet1_1": (models.squeezenet1_1, 64),
    "densenet121": (models.densenet121, 64),
    "deeplabv3_mobilenet_v3_large": (Out, 96),
    "ssdlite320_mobilenet_v3_large": (Heads, 320),
    "vit_b_16": (lambda: models.vit_b_16(image_size=32), 32),
    "swin_t": (models.swin_t, 64),
}
"""How to build each, and the height and width of its input, small where the architecture allows."""

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
PRETRAINED = importlib.util.find_spec("rapidocr_onnxruntime")
"""There is none for Python 3.13 and newer."""


def exported(name: str) -> Path:
    """The ONNX file of a torchvision network, exported where it is not in the cache."""
    versions = "-".join(importlib.metadata.version(d) for d in ("torch", "torchvision", "onnx", "onnxscript"))
    path = CACHE / versions / f"{name}.onnx"
    if not path.is_file():
        build, size = TORCHVISION[name]
        torch.manual_seed(0)
        network = build().eval()
        path.parent.mkdir(parents=True, exist_ok=True)
        made = capture(network, torch.zeros(1, 3, size, size), "image", outputs(network), 18)
        unfinished = path.with_suffix(".tmp")
        save(made, unfinished)
        unfinished.replace(path)
    return path


def outputs(network: nn.Module) -> list[str]:
    return ["scores", "boxes"] if isinstance(network, Heads) else ["output"]


def light() -> dict[str, Path]:
    """The onnx package's models of real architectures, whose weights are constants of one value."""
    return {path.stem: path for path in sorted(LIGHT.glob("*.onnx"))}


def pretrained() -> dict[str, Path]:
    """PaddlePaddle's text detector, text recogniser and direction classifier, as rapidocr-onnxruntime ships them."""
    if PRETRAINED is None or PRETRAINED.origin is None:
        return {}
    return {path.stem: path for path in sorted((Path(PRETRAINED.origin).parent / "models").glob("*.onnx"))}
