"""One quantization in a process of its own, so that its time and its memory are its alone.

``python -m pipeline.benches.quantization.child NAME SCHEME MODEL IMAGES OUT`` writes OUT, and beside it a ``.json``
with what it took. Whatever goes wrong is the process's own end: its last line on standard error says what.
"""

import errno
import gc
import importlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.benches.quantization.contenders import Contender, Job, named

QUIET = {"NNCF_CI": "1"}
"""Environment in which nobody sends telemetry."""

STATUS = Path("/proc/self/status")
SHORT = ("MemoryError", "std::bad_alloc", os.strerror(errno.ENOMEM), os.strerror(errno.ENOSPC))
"""What a process says at its end that had no room, in memory or on disk: not the tool's fault, and not for ever."""

LONGEST = 1800.0
"""Seconds after which a quantization is given up."""


@dataclass(frozen=True)
class Spent:
    """What a quantization took.

    Attributes:
        seconds: on the clock, imports left out.
        cpu_seconds: of all its threads.
        peak_mb: the most memory its process held, imports included, in units of 2**20 bytes; ``None`` where the system
            does not tell.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float | None


@dataclass(frozen=True)
class Failure:
    """A quantization that came to nothing, and why.

    Attributes:
        reason: in words.
        passing: whether another try may well end otherwise: it was killed, took too long, or had
            no room in memory or on disk.
    """

    reason: str
    passing: bool = False


def spawn(contender: Contender, job: Job) -> Spent | Failure:
    """Let ``contender`` do ``job`` in a process of its own."""
    words = [contender.name, job.scheme, str(job.model), str(job.images), str(job.out)]
    command = [sys.executable, "-m", __name__, *words]
    spent = job.out.with_suffix(".json")
    for left in job.out.parent.glob(f"{job.out.stem}.*"):  # of the contender before, its trials included
        left.unlink()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | QUIET, timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        return Failure(f"not done after {LONGEST:.0f} s", passing=True)
    if done.returncode < 0:
        return Failure(f"ended by signal {-done.returncode}", passing=True)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else f"exit code {done.returncode}"
        return Failure(reason, passing=any(word in done.stderr for word in SHORT))
    return Spent(**json.loads(spent.read_text())) if job.out.is_file() else Failure("it wrote no file")


def peak_mb() -> float | None:
    """The most memory that this process has held since it began, in units of 2**20 bytes."""
    if not STATUS.is_file():
        return None
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def main(words: list[str]) -> None:
    """Do what the command line says."""
    name, scheme, model, images, out = words
    contender = named(name)
    job = Job(Path(model), Path(images), Path(out), "per-channel" if scheme == "per-channel" else "per-tensor")
    for module in contender.modules:
        importlib.import_module(module)
    gc.collect()  # or what the imports left would be collected at some contender's cost
    wall, cpu = time.perf_counter(), time.process_time()
    contender.quantize(job)
    spent = Spent(time.perf_counter() - wall, time.process_time() - cpu, peak_mb())
    job.out.with_suffix(".json").write_text(json.dumps(asdict(spent)))


if __name__ == "__main__":
    main(sys.argv[1:])
