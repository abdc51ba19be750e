"""The mixed-precision ladder: what is tried, in order, when int8 on the NPU misses the floor of accuracy.

Better ranges, then recovery, which cost nothing on the device; then layer by layer a weight scale per channel on the
host where the NPU takes none, int16 activations where its contract has them, and last real numbers on the host. Within
a rung the layers that lose most alone are tried one at a time. The fastest that reaches the floor by itself is taken;
where none does, they are added up until it is reached, in the order of the decibels that each gains per millisecond
that it adds, crossings included. Weights were rounded against the noise of int8, so where int16 does not do by itself
they are rounded anew.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx

from pipeline.quantize import rounding, trials
from pipeline.quantize.calibrate import Calibration, float_outputs
from pipeline.quantize.engine import Engine, Real
from pipeline.quantize.recipe import PRESETS, Recipe
from pipeline.quantize.scheme import Scheme
from pipeline.quantize.score import Score
from pipeline.quantize.sensitivity import sensitivities
from pipeline.quantize.split import Split
from pipeline.quantize.trials import Found, Search, State, Trial
from pipeline.quantize.variants import Variant, varied
from pipeline.quantizing.pareto import Point, as_row, marked
from pipeline.quantizing.price import Price, Pricer
from pipeline.quantizing.rungs import RUNGS, Offer
from pipeline.targets.profile import Target

SCHEMA = 1

LAYER_IMAGES = 4
"""Images by which layers are put in order; all are in memory at once."""


@dataclass(frozen=True)
class Ground:
    """What a ladder stands on.

    Attributes:
        model: the float model, prepared.
        calibration: its statistics, with histograms.
        images: the calibration images.
        recipe: what was asked for.
        target: whose engine decides.
        scheme: of that target.
        search: with what journal and budget.
        price: what a quantized model is estimated to cost.
        measure: the accuracy of a quantized model, where there is one beside signal to noise; else gives ``None``.
        enough: whether a signal to noise in dB and an accuracy reach the floor.
        confirm: asked of a quantized model that is ``enough``, whether it reaches the floor on other images too;
            ``None`` where ``enough`` is all.
    """

    model: onnx.ModelProto
    calibration: Calibration
    images: Split
    recipe: Recipe
    target: Target
    scheme: Scheme
    search: Search
    price: Pricer
    measure: Callable[[onnx.ModelProto], float | None]
    enough: Callable[[float, float | None], bool]
    confirm: Callable[[onnx.ModelProto], bool] | None = None


@dataclass(frozen=True)
class Ladder:
    """How far was climbed.

    Attributes:
        points: everything that was judged, in order; those on the Pareto front are marked.
        state: the last one that was kept: of those that were stood on the one that reaches the floor, or the first with
            the best accuracy, or where none was measured the last.
        reached: whether it reaches the floor.
        untried: what the budget left no time for.
    """

    points: tuple[Point, ...]
    state: State
    reached: bool
    untried: tuple[str, ...]


def kept(made: Sequence[Trial], ladder: Ladder | None) -> tuple[str, ...]:
    """What was kept of a search, such as its path, and of the ladder above it, in order."""
    points = () if ladder is None else ladder.points[1:]
    return (*(t.what for t in made if t.kept), *(f"{p.rung}: {p.what}" for p in points if p.kept))


def document(ladder: Ladder) -> Mapping[str, Any]:
    """The ladder as plain data for JSON; ``points`` in the order in which they were judged."""
    rows = [as_row(point) for point in ladder.points]
    return {"schema": SCHEMA, "reached": ladder.reached, "untried": list(ladder.untried), "points": rows}


Scored = tuple[Point, Score]


@dataclass
class _Climb:
    """A ladder while it is climbed: the quantization that it stands on, and everything that was judged."""

    ground: Ground
    wanted: Sequence[Mapping[str, Real]]
    state: State
    score: Score
    price: Price
    done: bool = False
    """Whether the floor is reached by what it stands on."""
    best: tuple[float, int, State] | None = None
    """The best accuracy that was measured, how many points there were by then, and of what."""
    points: list[Point] = field(default_factory=list)
    untried: list[str] = field(default_factory=list)

    def step(self, rung: str, what: str, layers: Sequence[str], state: State, known: Score | None = None) -> Scored:
        """Judge ``state`` and add its point; a score that is ``known``, or in the journal, is not measured again.

        One that is ``known`` has been recorded as a trial by the search that measured it, and is not again.
        """
        start, name, search = time.monotonic(), f"{rung}: {what}", self.ground.search
        model = state.quantized()
        found = known or search.journal.known(name)
        if found is None:
            found = trials.judged(
                name, Engine(model, self.ground.target), self.ground.images.judging, self.wanted, search
            )
        price = self.ground.price(model)
        gain, added = found.sqnr_db - self.score.sqnr_db, price.minus(self.price)
        seconds = time.monotonic() - start
        point = Point(rung, what, tuple(layers), found.sqnr_db, None, price, gain, added, seconds)
        self.points.append(point)
        if known is not None:
            search.progress.message(_said(point))
            return point, found
        numbers = {"seconds": seconds, "crossings": float(price.crossings)}
        search.tell(name, _said(point), found, numbers if price.ms is None else {**numbers, "ms": price.ms})
        return point, found

    def keep(self, scored: Scored, state: State) -> None:
        """Stand on a point, measure its accuracy and see whether that is enough."""
        point, found = scored
        self.state, self.score, self.price = state, found, point.price
        ground, model = self.ground, state.quantized()
        accuracy = ground.measure(model)
        self.points[self.points.index(point)] = replace(point, kept=True, accuracy=accuracy)
        if accuracy is not None:
            ground.search.progress.message(f"{point.rung}: {point.what}: accuracy {accuracy:.4f}")
            if self.best is None or accuracy > self.best[0]:
                self.best = accuracy, len(self.points), state
        enough = ground.enough(found.sqnr_db, accuracy)
        self.done = enough and (ground.confirm is None or ground.confirm(model))

    def reaches(self, found: Score, state: State) -> bool:
        """Whether ``state``, which scores ``found``, reaches the floor."""
        ground, model = self.ground, state.quantized()
        enough = ground.enough(found.sqnr_db, None) or ground.enough(found.sqnr_db, ground.measure(model))
        return enough and (ground.confirm is None or ground.confirm(model))

    def ended(self) -> Ladder:
        """What was climbed; of a floor that was missed, only as far as the accuracy rose."""
        points, state = self.points, self.state
        if self.best is not None and not self.done:
            _, length, state = self.best
            points = [*points[:length], *(replace(point, kept=False) for point in points[length:])]
        return Ladder(marked(points), state, self.done, tuple(self.untried))


def _said(point: Point) -> str:
    more = "" if point.added.ms is None else f", {point.added.ms:+.3g} ms"
    crossings = f", {point.added.crossings:+d} crossings" if point.added.crossings else ""
    return f"{point.rung}: {point.what}: {point.sqnr_db:.2f} dB ({point.gain_db:+.2f}{more}{crossings})"


def climb(ground: Ground, asked: Found) -> Ladder:
    """Climb from ``asked``, what the recipe gave, until the floor is reached or nothing is left.

    Raises:
        ModelError: a variant cannot be compiled.
    """
    wanted = float_outputs(ground.model, ground.images.judging)
    score = asked.score
    if score is None:
        engine = Engine(asked.state.quantized(), ground.target)
        score = trials.judged("as asked: int8", engine, ground.images.judging, wanted, ground.search)
    climbing = _Climb(ground, wanted, asked.state, score, ground.price(asked.state.quantized()))
    climbing.keep(climbing.step("as asked", "int8", (), asked.state, asked.score), asked.state)
    for rung, recipe in _recipes(ground.recipe):
        if not climbing.done:
            _again(climbing, rung, recipe)
    for name, layered in RUNGS.items():
        if climbing.done or not layered.able(ground.target, ground.scheme, climbing.state):
            continue
        if ground.search.budget.spent:
            climbing.untried.append(name)
        else:
            tried = _layers(climbing, name, layered.offer)
            if layered.anew and not climbing.done:
                _anew(climbing, name, tried)
    return climbing.ended()


def _recipes(asked: Recipe) -> Sequence[tuple[str, Recipe]]:
    """The recipes above ``asked``, without those that name nothing new."""
    best = PRESETS["best"]
    own = ("learning_images", "judging_images", "overrides", "power_of_two")
    same = {name: getattr(asked, name) for name in own}
    ranges = {name: getattr(best, name) for name in ("range", "percentiles", "weight_range")}
    found = []
    if not (set(best.range) <= set(asked.range) and set(best.weight_range) <= set(asked.weight_range)):
        found.append(("better range", Recipe().model_copy(update={**ranges, **same})))
    recovered = (asked.equalize, asked.rounding, asked.bias_correction)
    if recovered != (best.equalize, best.rounding, best.bias_correction):
        found.append(("recovery", best.model_copy(update=same)))
    return found


def _again(climbing: _Climb, rung: str, recipe: Recipe) -> None:
    """Search with another recipe, and stand on what it finds if that is better."""
    ground, state = climbing.ground, climbing.state
    if ground.search.budget.spent:
        climbing.untried.append(rung)
        return
    if rung == "recovery":
        chosen = {"range": (state.choosing.choice,), "percentiles": (state.choosing.percentile,)}
        recipe = recipe.model_copy(update={**chosen, "weight_range": ("mse" if state.least_error else "max",)})
    search = replace(ground.search, prefix=f"{rung}: ")
    found = trials.run(ground.model, ground.calibration, ground.images, recipe, ground.target, ground.scheme, search)
    climbing.untried += found.untried
    best = found.path[-1].what.removeprefix(search.prefix)
    scored = climbing.step(rung, best, (), found.state, found.score)
    if scored[0].gain_db > 0:
        climbing.keep(scored, found.state)


def _layers(climbing: _Climb, rung: str, offered: Offer) -> Sequence[tuple[Point, State]]:
    """Try what is ``offered`` of each layer apart, then add up what gains, best first, until the floor is reached.

    Returns:
        What was tried apart, in that order.
    """
    ground, base = climbing.ground, climbing.state
    rows = sensitivities(
        Engine(base.quantized(), ground.target),
        base.real,
        ground.images.judging[:LAYER_IMAGES],
        ground.search.progress,
    )
    tried: list[tuple[Scored, Variant, State]] = []
    seen = [base.encodings]
    for what, variant in offered(ground.target, ground.scheme, base, sorted(rows, key=lambda row: row.alone_db)):
        if ground.search.budget.spent:
            climbing.untried.append(f"{rung}: {what}")
            continue
        state = varied(base, variant, ground.scheme)
        if state.encodings not in seen:  # what shares a scale is changed together, by whichever name
            seen.append(state.encodings)
            tried.append((climbing.step(rung, what, _changed(variant), state), variant, state))
    stood, together = "", Variant()
    for scored, variant, alone in sorted(tried, key=lambda each: _order(ground, *each[0]), reverse=True):
        joined = together | variant
        if climbing.done or scored[0].gain_db <= 0 or joined == together:
            continue
        what = scored[0].what if joined == variant else f"{stood} + {scored[0].what}"
        state = alone if joined == variant else varied(base, joined, ground.scheme)
        if _added(climbing, what, state, joined, scored):
            stood, together = what, joined
    return [(scored[0], state) for scored, _, state in tried]


def _anew(climbing: _Climb, rung: str, tried: Sequence[tuple[Point, State]]) -> None:
    """Round the weights again for what was ``tried``, and stand on the fastest that reaches the floor so.

    What changes most is rounded first; if that does not reach the floor nothing does, and it is stood on if it is
    better. Then the fastest is looked for among those that nothing beats in time and decibels, halving them each time.
    """
    if not tried:
        return
    widest = max(tried, key=lambda each: len(each[0].layers))
    if not _rounded(climbing, rung, *widest, instead=False):
        return
    fronts = marked([point for point, _ in tried])
    rest = [each for each, point in zip(tried, fronts, strict=True) if point.front and each is not widest]
    rest = sorted((each for each in rest if _time(each[0]) < _time(widest[0])), key=lambda each: _time(each[0]))
    low, high = 0, len(rest)
    while low < high:
        middle = (low + high) // 2
        if _rounded(climbing, rung, *rest[middle], instead=True):
            high = middle
        else:
            low = middle + 1


def _rounded(climbing: _Climb, rung: str, point: Point, state: State, *, instead: bool) -> bool:
    """Whether ``state`` with weights rounded anew reaches the floor; then, or if it is just better, it is stood on.

    ``instead`` of what is stood on, which reaches the floor: only if this one does too.
    """
    ground, what = climbing.ground, f"{point.what}, weights rounded anew"
    if ground.search.budget.spent:
        climbing.untried.append(f"{rung}: {what}")
        return False
    made = trials.walked(state, rounding.compensate, ground.images, ground.target, ground.search.progress)
    scored = climbing.step(rung, what, point.layers, made)
    if instead:
        if not climbing.reaches(scored[1], made):
            return False
        climbing.points = [replace(p, kept=p.kept and p.rung != rung) for p in climbing.points]
    elif scored[0].gain_db <= 0:
        return False
    climbing.keep(scored, made)
    return climbing.done


def _order(ground: Ground, point: Point, found: Score) -> tuple[bool, float, tuple[float, int, float]]:
    """Those that reach the floor alone come first, the fastest of them before all; the others by their worth."""
    reaches = ground.enough(found.sqnr_db, None)
    return reaches, -_time(point) if reaches else 0.0, point.worth


def _time(of: Point | Price) -> float:
    """Milliseconds; one that is not known is longer than any."""
    ms = of.ms if isinstance(of, Price) else of.price.ms
    return math.inf if ms is None else ms


def _changed(variant: Variant) -> Sequence[str]:
    """The operators and activations that depart."""
    return sorted(variant.layers | variant.wide)


def _added(climbing: _Climb, what: str, state: State, joined: Variant, scored: Scored) -> bool:
    """Stand on ``joined`` if that is better than what is stood on; ``scored`` is what the last of it came to alone."""
    if what != scored[0].what:
        if climbing.ground.search.budget.spent:
            climbing.untried.append(f"{scored[0].rung}: {what}")
            return False
        scored = climbing.step(scored[0].rung, what, _changed(joined), state)
    if scored[1].sqnr_db <= climbing.score.sqnr_db:
        return False
    climbing.keep(scored, state)
    return True
