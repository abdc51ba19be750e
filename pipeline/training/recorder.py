"""What training keeps after every epoch, and how it finds its way back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import safetensors.torch
from pytorch_lightning.callbacks import Checkpoint
from safetensors import SafetensorError

from pipeline.files import write_atomically
from pipeline.tasks.detection.learner import Learner
from pipeline.training.checkpoints import DAMAGE, read_checkpoint
from pipeline.workspace import Progress

WEIGHTS = "model.safetensors"
HISTORY = "history.json"
CHECKPOINTS = "checkpoints"
_LAST, _PREVIOUS = "last.ckpt", "previous.ckpt"


class Recorder(Checkpoint):
    """Keeps the best weights, the history, and checkpoints of the last two epochs."""

    def __init__(self, out: Path, progress: Progress) -> None:
        """Files go into ``out``; ``progress`` counts steps and gets every epoch's metrics."""
        self._out = out
        self._progress = progress
        self.history: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """The history, which also holds the best AP50."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.history = list(state_dict["history"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell what a resumed run has already done."""
        steps = int(trainer.num_training_batches)
        self._progress.start(steps * (trainer.max_epochs or 0), "train")
        self._progress.advance(steps * len(self.history))
        for epoch in self.history:
            self._report(epoch)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Count a step."""
        self._progress.advance()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep what the epoch, validation included, has brought."""
        if not isinstance(pl_module, Learner):
            raise TypeError(f"{type(pl_module).__name__} is not a Learner")
        results = pl_module.results
        best = max((epoch["ap50"] for epoch in self.history), default=-1.0)
        self.history.append({"epoch": trainer.current_epoch, **results})
        if trainer.is_global_zero:
            if results["ap50"] > best:
                self._save_weights(pl_module)
            write_atomically(self._out / HISTORY, json.dumps(self.history, indent=1).encode())
        self._checkpoint(trainer)
        self._report(self.history[-1])
        self._progress.message(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: loss {results['loss']:.3f}, "
            f"AP50 {results['ap50']:.3f}, AP {results['ap']:.3f}"
        )

    def _save_weights(self, learner: Learner) -> None:
        # copies, since safetensors refuses two names of one tensor, as layers that share their weights have
        tensors = {name: t.detach().cpu().contiguous().clone() for name, t in learner.averaged.state_dict().items()}
        write_atomically(self._out / WEIGHTS, safetensors.torch.save(tensors))

    def _checkpoint(self, trainer: pl.Trainer) -> None:
        """All ranks: rank 0 moves the last checkpoint aside and writes a new one."""
        last = self._out / CHECKPOINTS / _LAST
        if trainer.is_global_zero:
            last.parent.mkdir(parents=True, exist_ok=True)
            if last.exists():
                last.replace(last.with_name(_PREVIOUS))
        trainer.save_checkpoint(last)

    def _report(self, epoch: Mapping[str, float]) -> None:
        for name, value in epoch.items():
            if name != "epoch":
                self._progress.metric(name, value, int(epoch["epoch"]))


def resumable(out: Path, progress: Progress) -> tuple[Path, list[dict[str, float]]] | None:
    """The newest checkpoint in ``out`` that can be read, with its history; says which could not, and why."""
    candidates = [path for name in (_LAST, _PREVIOUS) if (path := out / CHECKPOINTS / name).exists()]
    damage = _damage(out) if candidates else None
    if damage is not None:
        progress.message(f"{damage}; training starts again")
        return None
    for i, path in enumerate(candidates):
        try:
            history = read_checkpoint(path)["callbacks"][Recorder.__qualname__]["history"]
        except (*DAMAGE, KeyError, TypeError, ValueError) as error:
            then = f"goes on from {candidates[i + 1].name}" if i + 1 < len(candidates) else "starts again"
            reason = str(error).partition("\n")[0]
            progress.message(f"{path}: the checkpoint is damaged ({reason}); training {then}")
        else:
            progress.message(f"training goes on after epoch {len(history)}, from {path}")
            return path, history
    return None


def _damage(out: Path) -> str | None:
    """What is wrong with the best weights and the history, which a checkpoint does not bring back."""
    for path, read in ((out / WEIGHTS, safetensors.torch.load_file), (out / HISTORY, _read_json)):
        try:
            read(path)
        except (OSError, ValueError, SafetensorError) as error:
            return f"{path}: missing or damaged ({str(error).partition(chr(10))[0]})"
    return None


def _read_json(path: Path) -> object:
    value: object = json.loads(path.read_bytes())
    return value
