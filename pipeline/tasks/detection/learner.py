"""The detector with its loss, metric and data, as Lightning wants it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, DistributedSampler

from pipeline.config import TrainConfig
from pipeline.errors import ModelError
from pipeline.tasks.detection.augment import Augment
from pipeline.tasks.detection.data import Split
from pipeline.tasks.detection.dataset import (
    EpochSampler,
    Images,
    TrainingBatch,
    TrainingSet,
    ValidationSet,
    collate,
)
from pipeline.tasks.detection.factory import named_outputs
from pipeline.tasks.detection.loss import detection_loss
from pipeline.tasks.detection.metric import average_precision
from runtime.adapters.detection import BoxDecoder, Detections, decode
from runtime.adapters.image import Preprocess

AVERAGE_DECAY = 0.98
"""Of the moving average of the weights, per step, after a warm-up; the average is what is validated and kept."""

WARM_UP = 0.2
"""Fraction of the steps in which the learning rate rises."""


@dataclass(frozen=True)
class LoadedSplit:
    """A split and its letterboxed images."""

    split: Split
    images: Images


@dataclass(frozen=True)
class Decoding:
    """From pixels to the network and from its outputs to boxes."""

    preprocess: Preprocess
    decoder: BoxDecoder


def follow_weights(averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
    """Move ``averaged`` towards ``current``, both of one type and device; ``updates`` came before this one.

    The decay rises as (1 + updates) / (10 + updates) up to ``AVERAGE_DECAY``, so that the untrained weights
    are soon forgotten (as TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``).
    """
    count = float(updates)
    decay = min(AVERAGE_DECAY, (1 + count) / (10 + count))
    for old, new in zip(averaged, current, strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)


def progress(epoch: Mapping[str, float]) -> float:
    """How far training has come, to tell whether it still moves: AP50, or below it, while nothing is found, -loss."""
    return epoch["ap50"] if epoch["ap50"] > 0 else -epoch["loss"]


class Learner(pl.LightningModule):
    """Trains ``network``; ``average`` holds the moving average of its weights.

    After each validation ``results`` has ``loss``, ``ap50``, ``ap`` and ``learning_rate`` of the epoch, the
    same on every rank.
    """

    def __init__(
        self,
        network: nn.Module,
        config: TrainConfig,
        decoding: Decoding,
        train: LoadedSplit,
        validation: LoadedSplit,
    ) -> None:
        """Batches are at the network's size."""
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.average = AveragedModel(self.network, multi_avg_fn=follow_weights, use_buffers=True).requires_grad_(False)
        self.results: dict[str, float] = {}
        self._config = config
        self._decoder = decoding.decoder
        self._train = train
        self._validation = validation
        self._found: dict[int, Detections] = {}
        self._losses: list[Tensor] = []
        statistics = [
            torch.tensor(values).view(1, 3, 1, 1) * 255
            for values in (decoding.preprocess.mean, decoding.preprocess.std)
        ]
        self._mean: Tensor
        self._std: Tensor
        self.register_buffer("_mean", statistics[0], persistent=False)
        self.register_buffer("_std", statistics[1], persistent=False)

    @property
    def averaged(self) -> nn.Module:
        """The network with the averaged weights."""
        return self.average.module

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and boxes of the network in training for uint8 images [N, 3, H, W]."""
        return self._outputs(self.network, images)

    def _outputs(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        normal = (images.float() - self._mean) / self._std
        return named_outputs(network(normal.contiguous(memory_format=torch.channels_last)), self._config.model.factory)

    def train_dataloader(self) -> DataLoader[Any]:
        """This rank's share of the training split; ``batch_size`` counts all ranks together."""
        split, images = self._train.split, self._train.images
        dataset = TrainingSet(images, split, Augment(self._config.augment, self._config.seed))
        world, rank = self.trainer.world_size, self.trainer.global_rank
        sampler = EpochSampler(
            dataset,
            num_replicas=world,
            rank=rank,
            shuffle=True,
            seed=self._config.seed,
        )
        batch = min(self._config.batch_size // world, len(sampler))
        return self._loader(dataset, sampler, batch, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """This rank's share of the validation split."""
        dataset = ValidationSet(self._validation.images)
        world, rank = self.trainer.world_size, self.trainer.global_rank
        sampler: DistributedSampler[int] = DistributedSampler(dataset, num_replicas=world, rank=rank, shuffle=False)
        return self._loader(dataset, sampler, self._config.batch_size, drop_last=False)

    def _loader(self, dataset: Any, sampler: Any, batch_size: int, drop_last: bool) -> DataLoader[Any]:  # noqa: ANN401 (torch's types are not covariant)
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=self._config.workers,
            collate_fn=collate if drop_last else None,
            pin_memory=self.device.type == "cuda",
        )

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        scores, distances = self(batch.images)
        loss = detection_loss(scores, distances, batch.boxes, batch.labels, self._decoder.stride)
        self._losses.append(loss.detach())
        return loss

    def take_losses(self) -> Tensor:
        """The loss of each step [steps] since they were last taken; NaN alone where there was none."""
        losses = torch.stack(self._losses) if self._losses else torch.tensor([torch.nan])
        self._losses = []
        return losses

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401 (Lightning's hook)
        """Follow the network with the average."""
        self.average.update_parameters(self.network)

    def on_validation_epoch_start(self) -> None:
        """Batch statistics differ between ranks; those of rank 0 count.

        Raises:
            ModelError: the loss of this epoch is not a number.
        """
        if self._losses and not torch.stack(self._losses).isfinite().all():
            raise ModelError(
                f"the loss is not a number in epoch {self.current_epoch + 1}",
                where="train.learning_rate",
                fix="lower it, and check preprocess.mean and preprocess.std",
            )
        if self.trainer.world_size > 1:
            for buffer in self.average.buffers():
                torch.distributed.broadcast(buffer, 0)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Boxes that the averaged network finds in one batch."""
        images, positions = batch
        scores, distances = (output.float().cpu().numpy() for output in self._outputs(self.average, images))
        for i, position in enumerate(positions.tolist()):
            truth = self._validation.split.images[position]
            outputs = {"scores": scores[i : i + 1], "boxes": distances[i : i + 1]}
            placement = self._validation.images[position][1]
            self._found[position] = decode(outputs, self._decoder, placement, (truth.width, truth.height))

    def on_validation_epoch_end(self) -> None:
        """Combine what all ranks found, and measure it."""
        found = self._gathered()
        truth = [(image.boxes, image.labels) for image in self._validation.split.images]
        loss = self.trainer.strategy.reduce(self.take_losses().mean().to(self.device), reduce_op="mean")
        rate = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
        self.results = {
            "loss": float(loss),
            **average_precision([found[i] for i in range(len(truth))], truth),
            "learning_rate": float(rate),
        }
        self.log("progress", progress(self.results), sync_dist=True)
        self._found = {}

    def _gathered(self) -> dict[int, Detections]:
        if self.trainer.world_size == 1:
            return self._found
        shares: list[dict[int, Detections]] = [{} for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather_object(shares, self._found)
        return {position: detections for share in shares for position, detections in share.items()}

    def configure_optimizers(self) -> Any:  # noqa: ANN401 (Lightning's union of nine types)
        """AdamW with one cycle of the learning rate over all epochs."""
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": self._config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=self._config.learning_rate,
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            self._config.learning_rate,
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=WARM_UP,
            cycle_momentum=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
