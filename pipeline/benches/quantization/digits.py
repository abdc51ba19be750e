"""Small networks on scikit-learn's handwritten digits, and the same with what is known to break quantizers.

The networks are torchvision's MobileNetV2 and MobileNetV3-small, trained here. The pathologies change no function:
a channel is scaled where it is made and scaled back where it is read; before a clamp only one that never comes to its
limit, and only down.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from safetensors.torch import save
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy, interpolate
from torchvision import models
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.transforms import v2

from pipeline.benches.quantization.cases import Case, accuracy, saved
from pipeline.files import write_atomically
from pipeline.graph.capture import capture
from pipeline.tasks.inference import load_weights
from pipeline.workspace import Progress

SIZE = 64
EPOCHS = 12
BATCH = 64
RATE = 3e-3
"""The largest, of AdamW on a one-cycle schedule."""

DECAY = 1e-2
SEED = 0
TRAINED = 1000
"""Of 1,797 digits; the others are for validation."""

MOVES = v2.RandomAffine(degrees=12, translate=(0.1, 0.1), scale=(0.8, 1.1), fill=-1)
"""Shifts, turns and sizes to train with."""

OPSET = 18
SKEW = 1000.0
"""Largest over smallest factor of a layer's channels."""

CEILING = 6.0
"""Of a ReLU6."""

OUTLIER = 64.0
OUTLIERS = 2
"""Channels of a layer that are made so much larger than the others."""


def digits() -> tuple[torch.Tensor, NDArray[np.int64]]:
    """All digits, float32 [1797, 3, SIZE, SIZE] in -1..1, and their labels."""
    found = load_digits()
    small = torch.from_numpy(found.images.astype(np.float32))[:, None] / 8 - 1
    large = interpolate(small, (SIZE, SIZE), mode="bilinear")
    return large.repeat(1, 3, 1, 1), found.target.astype(np.int64)


def train(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, progress: Progress) -> nn.Module:
    """``network`` trained for ``EPOCHS`` with ``MOVES``; deterministic on a machine."""
    generator = torch.Generator().manual_seed(SEED)
    steps = EPOCHS * math.ceil(len(images) / BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    network.train()
    for _ in range(EPOCHS):
        for batch in torch.split(torch.randperm(len(images), generator=generator), BATCH):
            loss = cross_entropy(network(torch.stack([MOVES(each) for each in images[batch]])), labels[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
        progress.advance()
    return network.eval()


def mobilenet_v2() -> nn.Module:
    """MobileNetV2 of half width, clamped at 6."""
    network: nn.Module = models.mobilenet_v2(num_classes=10, width_mult=0.5)
    return network


def mobilenet_v3() -> nn.Module:
    """MobileNetV3-small: HardSwish, squeeze and excitation."""
    network: nn.Module = models.mobilenet_v3_small(num_classes=10)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1  # torchvision's 0.01 is for long trainings
    return network


def unclamped() -> nn.Module:
    """MobileNetV2 with ReLU: a channel may be scaled without changing the function."""
    network = mobilenet_v2()
    for block in network.modules():
        for name, module in block.named_children():
            if isinstance(module, nn.ReLU6):
                setattr(block, name, nn.ReLU())
    return network


Factors = Callable[[torch.Tensor], torch.Tensor]
"""From the largest that each channel of a layer ever is before its activation, [C], to what it is scaled by, [C]."""


def scale(network: nn.Module, images: torch.Tensor, factors: Factors) -> nn.Module:
    """``network``, in place, with every inner channel of its blocks scaled where it is made and back where it is read.

    ``images`` are all that it is ever judged with: what ``factors`` are given are the largest values on them.
    """
    largest = _largest(network, images)
    with torch.no_grad():
        for block in _blocks(network):
            _, depthwise, project, _ = block.conv
            for norm, reader in ((block.conv[0][1], depthwise[0]), (depthwise[1], project)):
                factor = factors(largest[norm])
                norm.weight *= factor
                norm.bias *= factor
                reader.weight /= factor[:, None, None, None] if reader.groups > 1 else factor[None, :, None, None]
    return network


def _blocks(network: nn.Module) -> list[InvertedResidual]:
    return [m for m in network.modules() if isinstance(m, InvertedResidual) and len(m.conv) == 4]


def _largest(network: nn.Module, images: torch.Tensor) -> Mapping[nn.Module, torch.Tensor]:
    """The largest that each channel of the blocks' norms is on ``images``, [C], by norm."""
    found: dict[nn.Module, torch.Tensor] = {}

    def note(norm: nn.Module, _: object, made: torch.Tensor) -> None:
        now = made.amax((0, 2, 3))
        found[norm] = torch.maximum(found.get(norm, now), now)

    handles = [layer[1].register_forward_hook(note) for block in _blocks(network) for layer in block.conv[:2]]
    with torch.no_grad():
        for batch in torch.split(images, BATCH):
            network(batch)
    for handle in handles:
        handle.remove()
    return found


def skew(generator: torch.Generator) -> Factors:
    """Factors spread evenly in logarithms over ``SKEW``."""
    return lambda largest: SKEW ** (torch.rand(len(largest), generator=generator) - 0.5)


def skew_below(generator: torch.Generator) -> Factors:
    """Factors spread evenly in logarithms from 1 down to 1 / ``SKEW``; 1 for channels that come to the clamp."""

    def factors(largest: torch.Tensor) -> torch.Tensor:
        found = SKEW ** -torch.rand(len(largest), generator=generator)
        return torch.where(largest < CEILING, found, 1.0)

    return factors


def outliers(generator: torch.Generator) -> Factors:
    """``OUTLIER`` for ``OUTLIERS`` channels, 1 for the others."""

    def factors(largest: torch.Tensor) -> torch.Tensor:
        found = torch.ones(len(largest))
        found[torch.randperm(len(largest), generator=generator)[:OUTLIERS]] = OUTLIER
        return found

    return factors


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "mobilenet-v2": mobilenet_v2,
    "mobilenet-v3": mobilenet_v3,
    "relu": unclamped,
}
"""What is trained, by the name of its weights' file."""

CHANGES: Mapping[str, tuple[str, Callable[[torch.Generator], Factors] | None]] = {
    "mobilenet-v2": ("mobilenet-v2", None),
    "mobilenet-v3": ("mobilenet-v3", None),
    "skewed": ("relu", skew),
    "skewed-relu6": ("mobilenet-v2", skew_below),
    "outliers": ("relu", outliers),
}
"""By the name of a case: what is trained for it, and with what it is then scaled."""


def case(name: str, folder: Path, progress: Progress) -> Case:
    """The case of that name; its network is trained once and then kept in ``folder``, for as long as ``key`` stays."""
    kind, change = CHANGES[name]
    images, labels = digits()
    order = np.random.default_rng(0).permutation(len(images))
    learning, judging = order[:TRAINED], order[TRAINED:]
    network = trained(kind, folder, images[learning], labels[learning], progress)
    if change is not None:
        network = scale(network, images, change(torch.Generator().manual_seed(0)))
    model = saved(capture(network, images[:1], "image", ["logits"], OPSET), folder / f"{name}.onnx")
    every = [image.numpy()[None] for image in images]
    pool, inputs = [every[i] for i in learning], [every[i] for i in judging]
    return Case(name, "top-1", model, pool, inputs, accuracy(labels[judging].tolist()))


def key(network: nn.Module, images: torch.Tensor, labels: NDArray[np.int64]) -> str:
    """What a training is of: settings, layers, data, versions of torch and torchvision; 12 hexadecimal digits."""
    settings = repr((EPOCHS, BATCH, RATE, DECAY, SEED, MOVES, network, torch.__version__, torchvision.__version__))
    sha = hashlib.sha256(settings.encode())
    for values in (images.numpy(), labels):
        sha.update(np.ascontiguousarray(values).data)
    return sha.hexdigest()[:12]


def trained(kind: str, folder: Path, images: torch.Tensor, labels: NDArray[np.int64], progress: Progress) -> nn.Module:
    """The network ``kind``: what ``folder`` has of the same training, or trained now and kept there."""
    torch.manual_seed(SEED)
    network = NETWORKS[kind]()
    path = folder / f"{kind}-{key(network, images, labels)}.safetensors"
    if path.is_file():
        progress.message(f"{path} is there already, and not trained again")
        return load_weights(network, path).eval()
    progress.start(EPOCHS, f"training {kind}")
    network = train(network, images, torch.from_numpy(labels), progress)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(network.state_dict()))
    return network
