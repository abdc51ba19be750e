"""When the device fails: the host computes with the same integer kernels, so with the same bits, until it is back."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from runtime.errors import DeviceError
from runtime.npu.chip import Chip, Job
from runtime.npu.device import Device
from runtime.npu.faults import LOADING
from runtime.tensors import Tensors

LONGEST_WAIT = 64
"""Frames between two attempts, at most."""


@dataclass(frozen=True)
class Health:
    """What became of a device's jobs.

    Attributes:
        jobs: partitions that were to run on the device, one per frame each.
        on_host: of them, those that the host computed.
        failures: attempts that failed, by kind.
        recoveries: how often the device came back.
        throttled: jobs that ran on a hot device.
        flips: bits that flipped unnoticed, as a drill knows them.
        device_ms: of all jobs that ran there, an estimate; ``None`` where the target's figures are not public.
    """

    jobs: int
    on_host: int
    failures: Mapping[str, int]
    recoveries: int
    throttled: int
    flips: tuple[str, ...]
    device_ms: float | None


@dataclass
class Supervisor:
    """Decides for each job whether the device or the host runs it; one for all partitions on a device, from any thread.

    After the n-th failure in a row it waits 2 ** (n - 1) frames, at most ``LONGEST_WAIT``, before it asks the device
    again. Frames count, not seconds, for a simulated device has no clock of its own.

    Attributes:
        chip: the device.
        say: takes a sentence when the device fails, slows down, or comes back.
    """

    chip: Chip
    say: Callable[[str], None] = lambda line: None
    _failures: Counter[str] = field(default_factory=Counter)
    _in_a_row: int = 0
    _retry: int = 0
    _jobs: int = 0
    _on_host: int = 0
    _recoveries: int = 0
    _throttled: int = 0
    _hot: bool = False
    _flips: list[str] = field(default_factory=list)
    _device_ms: float | None = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self, device: Device) -> None:
        """Put a program on the device; where that fails, the host computes until the device is asked again."""
        try:
            self.chip.load(device)
        except DeviceError as error:
            with self._lock:
                self._failed(error, LOADING)

    def run(self, device: Device, tensors: Tensors, frame: int) -> Tensors:
        """The program's outputs for a frame, from the device or, bit for bit the same, from the host.

        Raises:
            ProgramError: the tensors do not fit the program.
        """
        with self._lock:
            self._jobs += 1
            waits = self._in_a_row > 0 and frame < self._retry
            self._on_host += waits
        if waits:
            return device.run(tensors)
        try:
            job = self.chip.run(device, tensors, frame)
        except DeviceError as error:
            with self._lock:
                self._on_host += 1
                self._failed(error, frame)
            return device.run(tensors)
        with self._lock:
            self._succeeded(job, frame)
        return job.outputs

    def _failed(self, error: DeviceError, frame: int) -> None:
        self._failures[error.kind] += 1
        self._in_a_row += 1
        wait = min(2 ** (self._in_a_row - 1), LONGEST_WAIT)
        self._retry = frame + wait
        again = f"asked again in {wait} frame{'s' if wait > 1 else ''}"
        when = "loading" if frame == LOADING else f"frame {frame}"
        self.say(f"{when}: {error}; the host computes, with the same bits; the device is {again}")

    def _succeeded(self, job: Job, frame: int) -> None:
        if self._in_a_row:
            self._in_a_row = 0
            self._recoveries += 1
            self.say(f"frame {frame}: the device is back")
        self._throttled += job.throttled
        if job.throttled != self._hot:
            self._hot = job.throttled
            self.say(f"frame {frame}: the device is {'hot and slower' if job.throttled else 'cool again'}")
        self._flips += [f"frame {frame}: {flip}" for flip in job.flipped]
        known = job.device_ms is not None and self._device_ms is not None
        self._device_ms = (self._device_ms or 0.0) + (job.device_ms or 0.0) if known else None

    def health(self) -> Health:
        """What became of all jobs so far."""
        return Health(
            jobs=self._jobs,
            on_host=self._on_host,
            failures=dict(sorted(self._failures.items())),
            recoveries=self._recoveries,
            throttled=self._throttled,
            flips=tuple(self._flips),
            device_ms=self._device_ms,
        )


@dataclass
class Supervised:
    """A partition whose jobs a supervisor watches; its n-th run is that of frame n."""

    device: Device
    supervisor: Supervisor
    frames: int = 0

    def run(self, tensors: Tensors) -> Tensors:
        """See ``Executable``."""
        frame, self.frames = self.frames, self.frames + 1
        return self.supervisor.run(self.device, tensors, frame)
