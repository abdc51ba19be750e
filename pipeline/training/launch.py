"""Where training runs: processes, devices, machines; and the start of the processes of one machine."""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Literal

import torch
from torch import multiprocessing
from torch.multiprocessing.spawn import ProcessRaisedException, start_processes

from pipeline.config import RunConfig, TrainConfig
from pipeline.errors import ConfigError, UserError
from pipeline.workspace import Context, Progress, Quiet

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Place:
    """Which processes train together.

    Attributes:
        accelerator: what each process computes on.
        devices: processes per machine.
        nodes: machines.
        rank: this process among all; ``None`` while the processes of this machine are still to be started.
    """

    accelerator: Literal["cpu", "gpu"]
    devices: int
    nodes: int
    rank: int | None

    @property
    def world(self) -> int:
        """Processes on all machines."""
        return self.devices * self.nodes


def accelerator(config: TrainConfig) -> Literal["cpu", "gpu"]:
    """What ``config`` wants to compute on; raises ``ConfigError`` where that is not there."""
    gpus = torch.cuda.device_count()
    if config.accelerator == "gpu" and not gpus:
        raise ConfigError("there is no GPU here", where="train.accelerator", fix="set it to auto or cpu")
    return "gpu" if gpus and config.accelerator != "cpu" else "cpu"


def place(config: TrainConfig) -> Place:
    """Where ``config`` wants to train; ``torchrun``, when it started this process, has the last word.

    Raises:
        ConfigError: the machine lacks the devices, ``torchrun`` started other numbers of processes, several
            machines are wanted without it, or the batch is smaller than the number of processes.
    """
    kind, gpus = accelerator(config), torch.cuda.device_count()
    if torch.distributed.is_torchelastic_launched():
        found = _torchrun(config, kind)
    elif config.num_nodes > 1:
        raise ConfigError(
            f"{config.num_nodes} machines need a common start",
            where="train.num_nodes",
            fix="start with torchrun on each machine",
        )
    else:
        processes = (gpus if kind == "gpu" else 1) if config.devices == "auto" else config.devices
        found = Place(kind, processes, 1, 0 if processes == 1 else None)
    if kind == "gpu" and found.devices > gpus:
        raise ConfigError(f"{found.devices} of {gpus} GPUs wanted", where="train.devices", fix="set it to auto")
    if config.batch_size % found.world:
        raise ConfigError(
            f"a batch of {config.batch_size} cannot be shared evenly by {found.world} processes",
            where="train.batch_size",
            fix=f"set it to a multiple of {found.world}",
        )
    return found


def _torchrun(config: TrainConfig, kind: Literal["cpu", "gpu"]) -> Place:
    devices = int(os.environ["LOCAL_WORLD_SIZE"])
    nodes = int(os.environ["WORLD_SIZE"]) // devices
    if config.devices not in ("auto", devices) or config.num_nodes != nodes:
        raise ConfigError(
            f"torchrun started {devices} processes on {nodes} machines, the configuration has "
            f"devices {config.devices} and num_nodes {config.num_nodes}",
            where="train",
            fix="make them agree, or leave devices at auto",
        )
    return Place(kind, devices, nodes, int(os.environ["RANK"]))


Fit = Callable[[Context, Place], None]
"""Trains in one process; the place has this process's rank. A module-level function: other processes import it."""


def launch(fit: Fit, context: Context, where: Place) -> None:
    """Run ``fit`` here, or in as many processes of this machine as ``where`` has devices, and wait.

    Raises:
        UserError: one of the processes raised it.
    """
    if where.rank is not None:
        progress = context.progress if where.rank == 0 else Quiet()
        fit(Context(context.config, context.out, context.inputs, progress), where)
        return
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    order = _Order(fit, context.config, context.out, where, _free_port())
    processes = start_processes(  # type: ignore[no-untyped-call]
        _work, (order, queue), nprocs=where.devices, join=False, start_method="spawn"
    )
    errors: list[UserError] = []
    try:
        while not processes.join(_POLL_SECONDS):
            _relay(queue, context.progress, errors)
    except ProcessRaisedException as failure:
        _relay(queue, context.progress, errors)
        if errors:
            raise errors[0] from failure
        raise
    _relay(queue, context.progress, errors)


@dataclass(frozen=True)
class _Said:
    """One call of a ``Progress`` in another process, or the error that ended that process."""

    call: str
    arguments: tuple[object, ...]


class _Remote:
    """A ``Progress`` that sends what it is told to the process that started this one."""

    def __init__(self, queue: "SimpleQueue[_Said]") -> None:
        self._queue = queue

    def start(self, total: int, what: str) -> None:
        self._queue.put(_Said("start", (total, what)))

    def advance(self, n: int = 1) -> None:
        self._queue.put(_Said("advance", (n,)))

    def message(self, text: str) -> None:
        self._queue.put(_Said("message", (text,)))

    def metric(self, name: str, value: float, step: int) -> None:
        self._queue.put(_Said("metric", (name, value, step)))

    def trial(self, what: str, numbers: Mapping[str, float]) -> None:
        self._queue.put(_Said("trial", (what, dict(numbers))))


def _relay(queue: "SimpleQueue[_Said]", progress: Progress, errors: list[UserError]) -> None:
    """Tell ``progress`` what the queue holds; collect errors."""
    calls: dict[str, Callable[..., None]] = {
        "start": progress.start,
        "advance": progress.advance,
        "message": progress.message,
        "metric": progress.metric,
        "trial": progress.trial,
        "error": errors.append,
    }
    while not queue.empty():
        said = queue.get()
        calls[said.call](*said.arguments)


@dataclass(frozen=True)
class _Order:
    """What the started processes have in common."""

    fit: Fit
    config: RunConfig
    out: Path
    where: Place
    port: int


def _work(rank: int, order: _Order, queue: "SimpleQueue[_Said]") -> None:
    """What each started process runs; Lightning reads the environment."""
    os.environ |= {
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(order.port),
    }
    if order.where.accelerator == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // order.where.devices))
    progress: Progress = _Remote(queue) if rank == 0 else Quiet()
    try:
        order.fit(Context(order.config, order.out, {}, progress), replace(order.where, rank=rank))
    except UserError as error:
        queue.put(_Said("error", (error,)))
        raise


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
