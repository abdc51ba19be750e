"""Backbones of timm and torchvision under the detector's head."""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.tasks.detection.model import Detector, TwoStages

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
    from torchvision import models  # noqa: PLC0415 (as above)

    known = models.list_models(module=models)
    if model not in known:
        raise _unknown("torchvision", model, known)
    network = models.get_model(model, weights="DEFAULT" if pretrained else None)
    layers = list(getattr(network, "features", network).children())
    sizes = _sizes(layers)
    strides = [PROBE // size for size in sizes]
    if not {8, 16} <= set(strides):
        raise _without_strides(f"torchvision/{model}", strides)
    first, second = (len(strides) - strides[::-1].index(stride) for stride in (8, 16))
    return TwoStages(nn.Sequential(*layers[:first]), nn.Sequential(*layers[first:second]))


def _sizes(layers: list[nn.Module]) -> list[int]:
    """Width of the features after each layer, as far as they are square images."""
    sizes: list[int] = []
    features = torch.zeros(1, 3, PROBE, PROBE)
    with torch.no_grad():
        for layer in layers:
            if isinstance(layer, nn.Linear):
                break
            features = layer.eval()(features)
            if not isinstance(features, Tensor) or features.ndim != 4 or features.shape[-1] == 0:
                break
            sizes.append(features.shape[-1])
    return sizes


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
