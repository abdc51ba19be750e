"""Fits a target's constants to its rows of the calibration table, and to all but one to predict that one.

Least squares of relative errors over the logarithms of the constants, by Gauss-Newton; every constant only scales a
part of the time, so that few steps are enough.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.cost.fitted import Fit
from pipeline.cost.validation.silicon import Measured, answer, cost_model

STEPS = 12
NUDGE = 1e-3
LIMITS: Mapping[str, float] = {"share": 1.0}
"""The largest value that a constant can have; others have none."""


def fit(rows: Sequence[Measured], start: Fit) -> Fit:
    """``start`` with the constants that it has fitted anew to ``rows``, all of one target."""
    names = list(start.times)
    point = np.log([start.times[name] for name in names])
    for _ in range(STEPS):
        here = _errors(rows, start, names, point)
        slopes = np.array(
            [(_errors(rows, start, names, moved) - here) / NUDGE for moved in point + NUDGE * np.eye(len(names))]
        )
        step = np.linalg.lstsq(slopes.T, -here, rcond=None)[0]
        point = np.minimum(point + np.clip(step, -1, 1), np.log([LIMITS.get(name, np.inf) for name in names]))
        if np.abs(step).max() < NUDGE:
            break
    return _with(start, names, point)


def left_out(rows: Sequence[Measured], start: Fit) -> tuple[float, ...]:
    """The relative error of each of ``rows`` under constants that were fitted to the others."""
    errors = []
    for index, row in enumerate(rows):
        others = fit([*rows[:index], *rows[index + 1 :]], start)
        errors.append(answer(row, cost_model(row.target, others)).error)
    return tuple(errors)


def _with(start: Fit, names: Sequence[str], point: NDArray[np.float64]) -> Fit:
    return replace(start, **dict(zip(names, np.exp(point).tolist(), strict=True)))


def _errors(
    rows: Sequence[Measured], start: Fit, names: Sequence[str], point: NDArray[np.float64]
) -> NDArray[np.float64]:
    model = cost_model(rows[0].target, _with(start, names, point))
    return np.array([answer(row, model).error for row in rows])


def energy(watts: Sequence[float], rates: Sequence[float], relative: float) -> tuple[float, float]:
    """Static watts and millijoules per unit of ``relative`` energy through two ways to run one network.

    Args:
        watts: of the board, measured.
        rates: inferences per second, measured.
        relative: energy of the network in the cost model's units, the same both ways.
    """
    (short, long), (little, much) = (
        [1e3 / rate for rate in rates],
        [1e3 * w / r for w, r in zip(watts, rates, strict=True)],
    )
    static = (much - little) / (long - short)
    return static, (little - static * short) / relative
