"""Train the network of the configuration's task with Lightning, on what the machine has."""

import json
from shutil import rmtree
from typing import Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping

from pipeline import tasks
from pipeline.config import TrainConfig
from pipeline.tasks.detection.learner import progress
from pipeline.tasks.detection.model import count_parameters
from pipeline.tasks.inference import infer_torch, load_weights
from pipeline.training.finetune import GRADIENT_NORM, calm
from pipeline.training.launch import Place, launch, place
from pipeline.training.recorder import HISTORY, WEIGHTS, Recorder, resumable
from pipeline.workspace import Context, Result


def run(context: Context) -> Result:
    """Train; go on where an earlier try was killed.

    Writes ``model.safetensors`` (the averaged weights of the epoch with the best AP50), ``history.json`` (one
    object per epoch) and ``checkpoints/`` (the last two epochs).

    Returns:
        ``ap50`` and ``ap`` of the weights written, ``epochs`` trained, ``parameters`` of the network. Nothing
        in a process that ``torchrun`` started beside the first: that one has the files, and may move them.

    Raises:
        ConfigError: the devices or processes wanted are not there.
        DataError: images or annotations are unusable.
        ModelError: the network cannot be built, or its loss stops being a number.
    """
    task = tasks.load(context.config)
    network = task.build()
    where = place(context.config.train)
    launch(fit, context, where)
    if where.rank:
        return Result({})
    rmtree(context.out / "cache", ignore_errors=True)
    load_weights(network, context.out / WEIGHTS)
    history = json.loads((context.out / HISTORY).read_text(encoding="utf-8"))
    if len(history) < context.config.train.epochs:
        context.progress.message(
            f"stopped early: no better for {context.config.train.patience} epochs (train.patience)"
        )
    scores = task.evaluate(task.detector(infer_torch(network, task)))
    return Result(
        {**scores, "epochs": float(len(history)), "parameters": float(count_parameters(network))},
        _gates(scores["ap50"], context.config.train.min_ap50),
    )


def _gates(ap50: float, floor: float) -> tuple[str, ...]:
    return (f"train.min_ap50 is {floor:.2%}, training reached {ap50:.2%}",) if ap50 < floor else ()


def fit(context: Context, where: Place) -> None:
    """Train in this process, one of ``where.world``."""
    config, out = context.config, context.out
    pl.seed_everything(config.train.seed, workers=True, verbose=False)
    found = resumable(out, context.progress)
    if found and _finished(found[1], config.train):
        return
    learner = tasks.load(config).learner(out / "cache" / str(where.rank), context.progress)
    with calm():
        trainer = pl.Trainer(
            accelerator=where.accelerator,
            devices=where.devices,
            num_nodes=where.nodes,
            strategy="ddp" if where.world > 1 else "auto",
            sync_batchnorm=where.accelerator == "gpu" and where.world > 1,
            precision=_precision(config.train, where),
            max_epochs=config.train.epochs,
            gradient_clip_val=GRADIENT_NORM,
            callbacks=[
                EarlyStopping("progress", mode="max", patience=config.train.patience, check_on_train_epoch_end=False),
                Recorder(out, context.progress),
            ],
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(learner, ckpt_path=found[0] if found else None, weights_only=True)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _precision(config: TrainConfig, where: Place) -> Literal["32-true", "bf16-mixed"]:
    if config.precision != "auto":
        return config.precision
    native = where.accelerator == "gpu" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if native else "32-true"


def _finished(history: list[dict[str, float]], config: TrainConfig) -> bool:
    """Whether training had come to its end, by number of epochs or by early stopping."""
    scores = [progress(epoch) for epoch in history]
    since_best = len(scores) - 1 - scores.index(max(scores))
    return len(history) >= config.epochs or since_best >= config.patience
