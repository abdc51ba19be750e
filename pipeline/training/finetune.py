"""Training a network that was trained before, in this process, and how Lightning is kept quiet."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from pipeline.config import TrainConfig
from pipeline.tasks.detection.learner import Learner
from pipeline.training.launch import place
from pipeline.workspace import Progress

GRADIENT_NORM = 10.0
"""Gradients are scaled down to this norm; only the first steps ever reach it."""


class _Counted(Callback):
    """Counts the steps of a training."""

    def __init__(self, progress: Progress, what: str) -> None:
        self._progress, self._what = progress, what

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        self._progress.start(int(trainer.num_training_batches) * (trainer.max_epochs or 0), self._what)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Count a step."""
        self._progress.advance()


def finetune(learner: Learner, config: TrainConfig, progress: Progress, what: str) -> None:
    """Train ``learner`` for ``config.epochs`` on one device, without looking at the validation split.

    Raises:
        ConfigError: the device that ``config.accelerator`` wants is not there.
    """
    where = place(config.model_copy(update={"devices": 1, "num_nodes": 1}))
    pl.seed_everything(config.seed, workers=True, verbose=False)
    with calm():
        pl.Trainer(
            accelerator=where.accelerator,
            devices=1,
            max_epochs=config.epochs,
            gradient_clip_val=GRADIENT_NORM,
            callbacks=[_Counted(progress, what)],
            use_distributed_sampler=False,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(learner)


@contextmanager
def calm() -> Iterator[None]:
    """Leave out what Lightning says about choices that were made here on purpose."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            warnings.filterwarnings("ignore", ".*GPU available but not used.*")
            warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
