"""Sample frames for the report: what the float model and the packaged bundle find in the same picture."""

import re
from itertools import islice
from pathlib import Path

from pipeline.report.samples import side_by_side
from pipeline.tasks import Detector, Infer, Pixels, Task
from runtime.adapters.detection import BoxDecoder, Detections, decode
from runtime.adapters.image import letterbox

COUNT, STEP = 3, 60
"""How many validation frames are kept, and every which; the first is always one of them."""


def save_samples(folder: Path, task: Task, float_detect: Detector, npu_detect: Detector) -> None:
    """Write ``<position>-<frame>.jpg`` into ``folder`` for a few validation frames, spread evenly.

    Raises:
        DataError: the frames cannot be read.
        OSError: the folder cannot be written.
    """
    folder.mkdir(exist_ok=True)
    chosen = islice(task.validation(), 0, (COUNT - 1) * STEP + 1, STEP)
    for position, sample in zip(range(0, COUNT * STEP, STEP), chosen, strict=False):
        picture = side_by_side(sample.frame, float_detect(sample.frame), npu_detect(sample.frame), sample.boxes)
        name = re.sub(r"[^\w.]+", "_", sample.name).strip("_")
        (folder / f"{position:03}-{name}.jpg").write_bytes(picture)


def packaged_detector(task: Task, infer: Infer, decoder: BoxDecoder) -> Detector:
    """``infer`` as a detector that decodes as the packaged application does, so that the two can be compared."""

    def detect(frame: Pixels) -> Detections:
        pixels, placement = letterbox(frame, task.preprocess.width, task.preprocess.height)
        return decode(infer(pixels), decoder, placement, (frame.shape[1], frame.shape[0]))

    return detect
