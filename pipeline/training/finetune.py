"""Training a network that was trained before, in this process, and how Lightning is kept quiet."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from pipeline.config import TrainConfig
from pipeline.errors import DivergedError
from pipeline.tasks.detection.learner import Learner
from pipeline.training.checkpoints import DAMAGE, read_checkpoint
from pipeline.training.launch import accelerator
from pipeline.workspace import Progress

GRADIENT_NORM = 10.0
"""Gradients are scaled down to this norm; only the first steps ever reach it."""


@dataclass(frozen=True)
class Kept:
    """Where a fine-tuning keeps its last whole epoch, and of what it is.

    Attributes:
        path: the checkpoint.
        key: of what is trained and how; a checkpoint of another key is not gone on from.
    """

    path: Path
    key: str


class _Epochs(Checkpoint):
    """Counts the steps of a training, and tells and keeps each epoch."""

    def __init__(self, learner: Learner, progress: Progress, what: str, kept: Kept) -> None:
        self._learner, self._progress, self._what, self._kept = learner, progress, what, kept
        self.history: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """The history, and what the training is of."""
        return {"history": self.history, "key": self._kept.key}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.history = list(state_dict["history"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count; tell what a resumed training has already done."""
        steps = int(trainer.num_training_batches)
        self._progress.start(steps * (trainer.max_epochs or 0), self._what)
        self._progress.advance(steps * len(self.history))
        for epoch, numbers in enumerate(self.history):
            self._tell(epoch, numbers)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Count a step."""
        self._progress.advance()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the epoch and keep it; raises ``DivergedError`` when its loss is not a number."""
        losses = self._learner.take_losses()
        if not losses.isfinite().all():
            what = f"the loss is not a number in epoch {trainer.current_epoch + 1}"
            raise DivergedError(what, fix="lower the learning rate")
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.history.append({"loss": float(losses.mean()), "learning_rate": float(rate)})
        self._kept.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._kept.path.with_suffix(".tmp")
        trainer.save_checkpoint(unfinished)
        unfinished.replace(self._kept.path)
        self._tell(trainer.current_epoch, self.history[-1])
        done = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self._progress.message(f"{self._what}: {done}: loss {self.history[-1]['loss']:.3f}")

    def _tell(self, epoch: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._progress.metric(name, value, epoch)


def finetune(learner: Learner, config: TrainConfig, progress: Progress, what: str, kept: Kept) -> None:
    """Train ``learner`` for ``config.epochs`` on one device, without looking at the validation split.

    Goes on after the last whole epoch that ``kept`` has. In float32 throughout, without TensorFloat-32: its 10 bits of
    fraction are fewer than the products of int8 that rounded weights and activations stand for. The same seed gives
    the same weights on a CPU; a GPU may sum the gradients of pixels that were repeated in any order. A network that
    draws random numbers of its own, as Dropout does, draws others after it was gone on with.

    Raises:
        ConfigError: the device that ``config.accelerator`` wants is not there.
        DivergedError: the loss of an epoch is not a number.
    """
    kind = accelerator(config)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    epochs = _Epochs(learner, progress, what, kept)
    with calm(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        pl.Trainer(
            accelerator=kind,
            devices=1,
            max_epochs=config.epochs,
            gradient_clip_val=GRADIENT_NORM,
            callbacks=[epochs],
            use_distributed_sampler=False,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(learner, ckpt_path=_resumable(kept, progress, what), weights_only=True)


def _resumable(kept: Kept, progress: Progress, what: str) -> Path | None:
    """The checkpoint of the same training, if there is one that can be read; says what is done with it."""
    if not kept.path.exists():
        return None
    try:
        state = read_checkpoint(kept.path)["callbacks"][_Epochs.__qualname__]
        key, done = state["key"], len(state["history"])
    except (*DAMAGE, KeyError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        progress.message(f"{what}: {kept.path}: the checkpoint is damaged ({reason}); it starts again")
        return None
    if key != kept.key:
        progress.message(f"{what}: the checkpoint is of another training; it starts again")
        return None
    progress.message(f"{what}: goes on after epoch {done}")
    return kept.path


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
