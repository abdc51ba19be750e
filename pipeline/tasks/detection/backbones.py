"""Backbones of timm and torchvision under the detector's head."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from pipeline.errors import ModelError
from pipeline.tasks.detection.model import Detector

PROBE = 64
"""Width and height of the image that finds out where a backbone reaches strides 8 and 16."""


def backbone(
    labels: int, name: str = "timm/mobilenetv3_small_100", pretrained: bool = False, head: int = 64
) -> nn.Module:
    """The detector's top-down step and head on a backbone by name.

    Args:
        labels: number of classes.
        name: ``timm/NAME`` (a model with ``features_only``) or ``torchvision/NAME`` (a classification model).
        pretrained: start from the library's ImageNet weights, which it downloads.
        head: channels of the head.

    Raises:
        ModelError: there is no such model, it has no features at strides 8 and 16, or the download failed.
    """
    library, _, model = name.partition("/")
    if library not in _LIBRARIES or not model:
        raise ModelError(
            f"{name!r} names no backbone",
            where="train.model.options.name",
            fix="timm/NAME or torchvision/NAME, for example timm/mobilenetv3_small_100",
        )
    try:
        features = _LIBRARIES[library](model, pretrained)
    except OSError as error:
        raise ModelError(
            f"the weights of {name} could not be downloaded: {error}",
            where="train.model.options.pretrained",
            fix="set it to false to train from scratch",
        ) from None
    with torch.no_grad():
        fine, coarse = features.eval()(torch.zeros(1, 3, PROBE, PROBE))
    return Detector(features.train(), (fine.shape[1], coarse.shape[1]), head, labels)


class _Features(nn.Module):
    """A timm model with ``features_only`` and two outputs, as a pair."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        fine, coarse = self.model(images)
        return fine, coarse


class _Nodes(nn.Module):
    """A torchvision feature extractor with the outputs ``fine`` and ``coarse``, as a pair."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.model(images)
        return found["fine"], found["coarse"]


def _timm(model: str, pretrained: bool) -> nn.Module:
    import timm  # noqa: PLC0415 (slow to import, wanted by few configurations)

    if model not in timm.list_models():
        raise _unknown("timm", model, timm.list_models())
    info: Any = timm.create_model(model, features_only=True, pretrained=False).feature_info
    reductions = info.reduction()
    if not {8, 16} <= set(reductions):
        raise _without_strides(f"timm/{model}", reductions)
    wanted = (reductions.index(8), reductions.index(16))
    return _Features(timm.create_model(model, features_only=True, pretrained=pretrained, out_indices=wanted))


def _torchvision(model: str, pretrained: bool) -> nn.Module:

    known = models.list_models(module=models)
    if model not in known:
        raise _unknown("torchvision", model, known)
    network = models.get_model(model, weights="DEFAULT" if pretrained else None)
    try:
        strides = _strides(network)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"torchvision/{model} gives no features on {PROBE} x {PROBE} pixels: {error}",
            where="train.model.options.name",
            fix="use a convolutional backbone, or your own module:factory",
        ) from error
    if not {8, 16} <= set(strides.values()):
        raise _without_strides(f"torchvision/{model}", list(strides.values()))
    last = {stride: node for node, stride in strides.items()}
    return _Nodes(create_feature_extractor(network, {last[8]: "fine", last[16]: "coarse"}))


def _strides(network: nn.Module) -> dict[str, int]:
    """Strides of the nodes of ``network`` that give images, in the order in which they run."""
    nodes = get_graph_node_names(network)[1]
    with torch.no_grad():
        outputs = create_feature_extractor(network, nodes).eval()(torch.zeros(1, 3, PROBE, PROBE))
    return {
        node: PROBE // features.shape[-1]
        for node, features in outputs.items()
        if isinstance(features, Tensor) and features.ndim == 4 and features.shape[-1] > 1
    }


def _unknown(library: str, model: str, known: list[str]) -> ModelError:
    from difflib import get_close_matches  # noqa: PLC0415 (only for this message)

    near = get_close_matches(model, known, 3)
    return ModelError(
        f"{library} has no model {model!r}",
        where="train.model.options.name",
        fix=f"did you mean {' or '.join(near)}?" if near else f"see {library}'s list of models",
    )


def _without_strides(name: str, strides: list[int]) -> ModelError:
    return ModelError(
        f"{name} has features at strides {sorted(set(strides))}, the detector needs 8 and 16",
        where="train.model.options.name",
        fix="use another backbone, or your own module:factory",
    )


_LIBRARIES = {"timm": _timm, "torchvision": _torchvision}
