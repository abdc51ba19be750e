"""Contenders in turn, so that a drift of the machine meets all alike; read the ratios."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

ROUNDS = 7
"""Turns of each contender, unless it says otherwise."""

Times = Mapping[str, Sequence[float]]
"""Seconds of each contender's turns."""


def contest(contenders: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> Times:
    """Seconds of ``rounds`` calls of every contender, in turn, after one that does not count."""
    for job in contenders.values():
        job()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, job in contenders.items():
            began = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - began)
    return times


def ratio(times: Times, first: str, second: str) -> float:
    """The median over the turns of the first contender's time by the second's."""
    return statistics.median(a / b for a, b in zip(times[first], times[second], strict=True))


def repeated(job: Callable[[], object], count: int) -> Callable[[], None]:
    """``job``, ``count`` times."""
    return partial(_repeat, job, count)


def _repeat(job: Callable[[], object], count: int) -> None:
    for _ in range(count):
        job()
