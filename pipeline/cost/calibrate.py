"""Measures this machine as a host: times chains of int8 operators in ONNX Runtime, one class after another."""

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from pipeline.cost import hosts
from pipeline.cost.hosts import HostProfile, Rate
from pipeline.cost.probes import LONG, PROBES, SHORT, Probe, chain, copies, real
from pipeline.cost.work import works
from pipeline.errors import TargetError
from pipeline.graph.view import view

REPEATS = 9
"""Timings of each model; the fastest counts, as the least disturbed."""
LEAST_SHARE = 0.1
"""Of an operator's time, what is left to its rate however much its overhead and its bytes explain."""

_HIDDEN = f"overhead and bytes explain its time, {LEAST_SHARE:.0%} of which is left to the rate"
COPIED = 1 << 20
"""Real numbers that are moved to see how fast that goes."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure_host(name: str = "this-machine", threads: int = 1) -> HostProfile:
    """The rates of the machine that this runs on, with ``threads`` threads. Takes a few seconds.

    A rate is what is left of an operator's time when the overhead and the bytes it moves are taken off; the overhead
    is that of an operator on a handful of numbers. Raises ``TargetError`` when the machine has fewer cores.
    """
    if threads > cores():
        fix = f"--threads {cores()} or fewer"
        raise TargetError(f"asks for {threads} threads of {cores()} cores", where="--threads", fix=fix)
    moved = 2 * 4 * COPIED * (LONG - SHORT)
    known = {"bytes_per_second": moved / _difference(copies(COPIED, SHORT), copies(COPIED, LONG), threads)}
    bounded: list[str] = []
    for rate, probes in PROBES.items():
        known[rate], hidden = _rate(rate, probes, known, threads)
        bounded += [rate] if hidden else []
    source = f"onnxruntime {onnxruntime.__version__}, {threads} threads, {platform.machine()}"
    rates = {
        key: Rate(value=value, confidence="fitted", source=f"{source}; {_HIDDEN}")
        if key in bounded
        else Rate(value=value, confidence="measured", source=source)
        for key, value in known.items()
    }
    title = f"{_processor()}, {threads} threads"
    return HostProfile(name=name, title=title, threads=threads, figures=rates)


def _rate(rate: str, probes: tuple[Probe, ...], known: Mapping[str, float], threads: int) -> tuple[float, bool]:
    """What the machine does per second over all ``probes``; for the overhead, the seconds of one operator.

    And whether overhead and bytes hid more than ``LEAST_SHARE`` leaves of a probe's time, which then counts.
    """
    done = seconds = 0.0
    hidden = False
    for probe in probes:
        spent = _difference(chain(probe, SHORT), chain(probe, LONG), threads) / (LONG - SHORT)
        if rate == "overhead_s":
            return spent, False
        work = next(w for w in works(view(real(probe, 1))) if w.op == probe.op)
        asked = hosts.demand(work)
        moved = (work.feature_bytes * work.passes + work.weight_bytes) / known["bytes_per_second"]
        done += 0.0 if asked is None else asked[1]
        left = spent - known["overhead_s"] - moved
        hidden = hidden or left < LEAST_SHARE * spent
        seconds += max(left, LEAST_SHARE * spent)
    return done / seconds, hidden


def _difference(short: onnx.ModelProto, long: onnx.ModelProto, threads: int) -> float:
    """Seconds that ``long`` takes longer than ``short``; at least a nanosecond."""
    return max(seconds(long, threads) - seconds(short, threads), 1e-9)


def seconds(model: onnx.ModelProto, threads: int) -> float:
    """The fastest of a few runs of ``model``, which has one float input, in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    feed = {given.name: np.ones(given.shape, np.float32)}
    session.run(None, feed)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - start)
    return min(times)


def _processor() -> str:
    """What the machine calls its processor."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
