"""Find objects and box them: data, model, loss and metric."""

from pipeline.config import RunConfig
from pipeline.tasks.detection.task import DetectionTask


def load(config: RunConfig) -> DetectionTask:
    """Read the annotations that ``config.data`` names.

    Raises:
        DataError: the data are missing, damaged or contradictory.
    """
    return DetectionTask.load(config)
