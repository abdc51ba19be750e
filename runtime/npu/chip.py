"""The simulated chip that programs run on: it fails when, and only when, a fault says so."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from runtime.errors import DeviceError, ProgramError
from runtime.npu.device import Device
from runtime.npu.faults import LOADING, Fault, FaultKind
from runtime.npu.kernels import Values
from runtime.npu.machine import Flip, HardwareError, Machine
from runtime.npu.program import Program
from runtime.npu.schedule import Buffer, Schedule
from runtime.npu.timeline import timeline
from runtime.tensors import Tensors

THROTTLED = 4.0
"""How many times slower a hot device is; an assumption, for no profile says."""
WATCHDOG = 10.0
"""A job may take so many times what the timeline says before it counts as hung."""
UNKNOWN_MS = 1000.0
"""What a job may take where the target's public figures give no timeline."""


@dataclass(frozen=True)
class Job:
    """What came of running a program once.

    Attributes:
        outputs: by name.
        device_ms: that it took on the device, an estimate; ``None`` where the target's figures are not public.
        throttled: whether the device was too hot for its full clock.
        flipped: the bits that changed on their own without anyone noticing, as ``memory byte bit``.
    """

    outputs: dict[str, Values]
    device_ms: float | None
    throttled: bool = False
    flipped: tuple[str, ...] = ()


@dataclass
class Chip:
    """A device with its faults.

    Attributes:
        faults: what goes wrong, and when.
        seed: chooses which bits flip; the same one flips the same bits.
    """

    faults: Sequence[Fault] = ()
    seed: int = 0
    _machines: dict[Device, Machine] = field(default_factory=dict)

    def load(self, device: Device) -> None:
        """Put a program on the device; raises ``DeviceError`` for a fault that the driver notices then."""
        self._refuse({fault.kind for fault in self.faults if fault.covers(LOADING)}, device.program, None)

    def run(self, device: Device, tensors: Tensors, frame: int) -> Job:
        """Run a loaded program once, for a frame; they count from 0.

        Raises:
            DeviceError: a fault that the device or its driver notices.
            ProgramError: the tensors do not fit the program.
        """
        active = {fault.kind for fault in self.faults if fault.covers(frame)}
        program = device.program
        line = timeline(program)
        spent = None if line is None else line.ms
        self._refuse(active, program, spent)
        slower = THROTTLED if "throttle" in active else 1.0
        flips = tuple(
            flip for kind in ("sram", "weights") if kind in active for flip in self._flips(kind, program, frame)
        )
        outputs = self._flipped(device, tensors, flips) if flips else device.run(tensors)
        names = [memory.name for memory in program.schedule.memories] if program.schedule is not None else []
        found = tuple(f"{names[f.memory]} byte {f.address} bit {f.bit}" for f in flips)
        return Job(outputs, None if spent is None else spent * slower, slower > 1, found)

    def _refuse(self, active: set[FaultKind], program: Program, spent: float | None) -> None:
        """Raise what the driver would tell before the job has a result."""
        if "lost" in active:
            raise DeviceError("the device is gone", kind="lost")
        if "memory" in active and program.schedule is not None:
            last = len(program.schedule.memories) - 1
            need = program.schedule.peak(last)
            what = f"the device is out of memory: the program needs {need} bytes, another one holds all of them"
            raise DeviceError(what, kind="memory")
        if "memory" in active:
            raise DeviceError("the device is out of memory", kind="memory")
        if "timeout" in active:
            limit = UNKNOWN_MS if spent is None else WATCHDOG * spent
            raise DeviceError(f"the job did not finish within {limit:.4g} ms", kind="timeout")

    def _flips(self, kind: str, program: Program, frame: int) -> list[Flip]:
        """The bit that flips in this frame: of a buffer that is in use, in a step in which it is."""
        schedule = program.schedule
        if schedule is None:
            raise ProgramError(
                "has no schedule, so no memory in which a bit could flip", fix="compile the program again"
            )
        chance = random.Random(f"{self.seed} {kind} {frame}")
        buffer = chance.choice(_candidates(kind, schedule))
        step = 0 if kind == "weights" else chance.randint(min(buffer.first + 1, buffer.last), buffer.last)
        return [Flip(buffer.memory, buffer.address + chance.randrange(buffer.bytes), chance.randrange(8), step)]

    def _flipped(self, device: Device, tensors: Tensors, flips: tuple[Flip, ...]) -> dict[str, Values]:
        """The outputs with flipped bits, if nobody notices them."""
        if device not in self._machines:
            self._machines[device] = Machine(device.program)
        try:
            return self._machines[device].run(device.checked(tensors), flips)
        except HardwareError as error:
            raise DeviceError(f"the device found a memory error: {error}", kind="flip") from error
        except ProgramError as error:
            raise DeviceError(f"the device stopped: {error}", kind="flip") from error


def _candidates(kind: str, schedule: Schedule) -> list[Buffer]:
    if kind == "weights":
        return [b for b in schedule.buffers if b.holds == "parameters"]
    return [b for b in schedule.buffers if b.memory == 0] or list(schedule.buffers)
