"""A kind of use: its data, model, loss and metric, behind one protocol that every stage works with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.config import RunConfig
from pipeline.workspace import Progress
from runtime.adapters.detection import BoxDecoder, Detections
from runtime.adapters.image import Preprocess
from runtime.tensors import Tensors

if TYPE_CHECKING:
    from torch import nn

    from pipeline.tasks.detection.learner import Learner

Pixels = NDArray[np.uint8]
Detector = Callable[[Pixels], Detections]
Infer = Callable[[Pixels], Tensors]


@dataclass(frozen=True)
class Sample:
    """A frame with what is in it.

    Attributes:
        frame: uint8 [H, W, 3], RGB, at the source's size.
        boxes: float32 [N, 4]: left, top, right, bottom in source pixels.
        labels: int64 [N], indices into the task's labels.
        name: which image or frame this is, for messages.
    """

    frame: Pixels
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    name: str


class Task(Protocol):
    """What the stages ask of a kind of use."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the network's outputs."""

    @property
    def preprocess(self) -> Preprocess:
        """How a frame becomes the network's input."""

    @property
    def input_name(self) -> str:
        """Name of the network's input."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the network's outputs, in the order in which ``forward`` returns them."""

    def build(self) -> "nn.Module":
        """A fresh network as the configuration describes it; raises ``ModelError`` when it cannot be built."""

    def learner(self, cache: Path, progress: Progress, network: "nn.Module | None" = None) -> "Learner":
        """``network``, or a fresh one, with loss, metric and data for Lightning; decoded frames go into ``cache``."""

    def calibration(self) -> Iterator[Pixels]:
        """Evenly spaced images of the training split, uint8 [H, W, 3] at the network's size, one at a time."""

    def validation(self) -> Iterator[Sample]:
        """The validation split, one sample at a time."""

    def evaluate(self, detect: Detector) -> dict[str, float]:
        """``ap50`` and ``ap`` (COCO, 0..1) of ``detect`` on the validation split."""

    def decoder(self, score_threshold: float) -> BoxDecoder:
        """How the packaged application decodes the network's outputs."""

    def detector(self, infer: Infer) -> Detector:
        """Letterbox, ``infer`` and decode with the low score threshold that ``evaluate`` wants."""


def load(config: RunConfig) -> Task:
    """The task that ``config`` describes; reads its annotations.

    Raises:
        DataError: the data are missing, damaged or contradictory.
    """
    from pipeline.tasks import detection  # noqa: PLC0415 (imports torch only when a task is wanted)

    return detection.load(config)
