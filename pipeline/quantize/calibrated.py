"""Calibration as a run does it: the images are counted, and what was seen is told by its digest."""

import onnx

from pipeline.graph.view import view
from pipeline.progress import counted
from pipeline.quantize.calibrate import Calibration, calibrate
from pipeline.quantize.images import Watched
from pipeline.quantize.recipe import Calibrated
from pipeline.workspace import Progress


def calibrated(
    model: onnx.ModelProto, images: Watched, total: int, histograms: bool, progress: Progress
) -> tuple[Calibration, Calibrated]:
    """What ``model`` takes on ``images``, ``total`` of them, and how many there were, with their digest.

    Raises:
        DataError: an image is unusable, there is none, or each is one value throughout.
        ModelError: ONNX Runtime cannot run the model.
    """
    progress.start(total, "calibrating")
    found = calibrate(model, view(model), counted(images, progress), histograms)
    return found, Calibrated(images=found.images, digest=images.digest())
