"""Detection as the stages see it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import nn

from pipeline.config import RunConfig
from pipeline.tasks import Detector, Infer, Pixels, Sample
from pipeline.tasks.detection.data import Split, load_splits
from pipeline.tasks.detection.dataset import open_images
from pipeline.tasks.detection.factory import build_network
from pipeline.tasks.detection.learner import Decoding, Learner, LoadedSplit
from pipeline.tasks.detection.metric import average_precision
from pipeline.workspace import Progress
from runtime.adapters.detection import BoxDecoder, Detections, decode
from runtime.adapters.image import Preprocess, letterbox

EVALUATION_SCORE = 0.02
"""Score threshold for average precision, low because the metric weighs confident boxes itself."""

EVALUATION_IOU = 0.5
"""Non-maximum suppression for average precision; not the packaged application's, so that accuracy does not
change with its settings."""

EVALUATION_DETECTIONS = 100
"""Detections per image that COCO's average precision looks at."""


@dataclass(frozen=True)
class DetectionTask:
    """Boxes around objects; see :class:`pipeline.tasks.Task`."""

    config: RunConfig
    labels: tuple[str, ...]
    train: Split
    held_out: Split
    input_name: str = "image"
    output_names: tuple[str, ...] = ("scores", "boxes")

    @classmethod
    def load(cls, config: RunConfig) -> "DetectionTask":
        """Read and check the annotations.

        Raises:
            DataError: the data are missing, damaged or contradictory.
        """
        return cls(config, *load_splits(config.data))

    @property
    def preprocess(self) -> Preprocess:
        """How a frame becomes the network's input."""
        section = self.config.preprocess
        return Preprocess(*section.size, section.mean, section.std)

    def build(self) -> nn.Module:
        """A fresh network; raises ``ModelError`` when the configuration's cannot be built or used."""
        return self._built()[0]

    def _built(self) -> tuple[nn.Module, int]:
        return build_network(self.config.train.model, len(self.labels), self.config.preprocess.size)

    @cached_property
    def stride(self) -> int:
        """Input pixels per output cell of the configuration's network."""
        return self._built()[1]

    def learner(self, cache: Path, progress: Progress, network: nn.Module | None = None) -> Learner:
        """``network``, or a fresh one, with loss, metric and data; a video's frames are decoded into ``cache``.

        Raises:
            DataError: the video is damaged or too short.
            ModelError: the network cannot be built.
        """
        cache.mkdir(parents=True, exist_ok=True)
        splits = [
            LoadedSplit(split, open_images(split, self.preprocess, cache / f"{name}.raw", progress))
            for split, name in ((self.train, "train"), (self.held_out, "validation"))
        ]
        decoding = Decoding(self.preprocess, self._evaluation())
        return Learner(network or self.build(), self.config.train, decoding, splits[0], splits[1])

    def calibration(self) -> Iterator[Pixels]:
        """Evenly spaced training images at the network's size, uint8 [H, W, 3], one at a time."""
        count = min(self.config.quantize.calibration_images, len(self.train.images))
        wanted = np.unique(np.linspace(0, len(self.train.images) - 1, count).round().astype(int))
        for frame in self.train.frames(wanted.tolist()):
            yield letterbox(frame, self.preprocess.width, self.preprocess.height)[0]

    def validation(self) -> Iterator[Sample]:
        """The validation split, one sample at a time."""
        images = self.held_out.images
        for image, frame in zip(images, self.held_out.frames(range(len(images))), strict=True):
            index = "" if image.frame_index is None else f" (frame {image.frame_index})"
            yield Sample(frame, image.boxes, image.labels, f"{image.name}{index}")

    def evaluate(self, detect: Detector) -> dict[str, float]:
        """``ap50`` and ``ap`` of ``detect`` on the validation split."""
        found = [detect(sample.frame) for sample in self.validation()]
        return average_precision(found, [(image.boxes, image.labels) for image in self.held_out.images])

    def decoder(self, score_threshold: float) -> BoxDecoder:
        """The packaged application's decoder: thresholds of the ``package`` section."""
        package = self.config.package
        return BoxDecoder(self.stride, score_threshold, package.iou_threshold, package.max_detections)

    def _evaluation(self) -> BoxDecoder:
        return BoxDecoder(self.stride, EVALUATION_SCORE, EVALUATION_IOU, EVALUATION_DETECTIONS)

    def detector(self, infer: Infer) -> Detector:
        """Letterbox, ``infer``, decode as for evaluation."""
        preprocess, decoder = self.preprocess, self._evaluation()

        def detect(frame: Pixels) -> Detections:
            pixels, placement = letterbox(frame, preprocess.width, preprocess.height)
            return decode(infer(pixels), decoder, placement, (frame.shape[1], frame.shape[0]))

        return detect
