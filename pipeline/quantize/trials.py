"""Trying what a recipe names, pass by pass; what is kept is decided by the integer engine's outputs."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import onnx

from pipeline.graph.view import Graph, view
from pipeline.progress import counted
from pipeline.quantize import correction, equalization, ptq, qdq, rounding, writeback
from pipeline.quantize.budget import Budget
from pipeline.quantize.calibrate import Calibration, calibrate, float_outputs
from pipeline.quantize.encodings import Encodings
from pipeline.quantize.engine import Engine, Real
from pipeline.quantize.journal import Journal
from pipeline.quantize.ptq import Choosing
from pipeline.quantize.recipe import Recipe
from pipeline.quantize.samples import Sample
from pipeline.quantize.scheme import Scheme
from pipeline.quantize.score import Score, score
from pipeline.quantize.split import Split
from pipeline.quantize.walk import walk
from pipeline.quantize.ways import choosings, ranged, ways
from pipeline.targets.profile import Target
from pipeline.workspace import Progress, Quiet


@dataclass(frozen=True)
class State:
    """A quantization as far as it has come.

    Attributes:
        model: the float model, equalized or with weights and biases on their grids.
        calibration: what its activations took.
        choosing: how ranges are chosen.
        least_error: whether weight ranges are those with the least error.
        encodings: scales and zero points.
        exact: ``model`` before weights and biases were put on their grids; ``None`` where that is the same.
    """

    model: onnx.ModelProto
    calibration: Calibration
    choosing: Choosing
    least_error: bool
    encodings: Encodings
    exact: onnx.ModelProto | None = None

    @property
    def real(self) -> onnx.ModelProto:
        """The model with its weights and biases as real numbers want them."""
        return self.model if self.exact is None else self.exact

    def quantized(self) -> onnx.ModelProto:
        """The model with quantize/dequantize pairs."""
        return qdq.insert(self.model, self.encodings)


@dataclass(frozen=True)
class Trial:
    """Something that was tried.

    Attributes:
        what: in words.
        sqnr_db: the objective, on the judging images; ``None`` when it was not judged.
        kept: whether the end stands on it, or, as it is told, what follows so far.
        seconds: it took.
        known: whether the journal had its score, so that it was not measured again.
    """

    what: str
    sqnr_db: float | None
    kept: bool
    seconds: float
    known: bool = False

    def __str__(self) -> str:
        """The trial as a line."""
        level = "" if self.sqnr_db is None else f": {self.sqnr_db:.2f} dB, {'kept' if self.kept else 'rolled back'}"
        return f"{self.what}{level}"


@dataclass(frozen=True)
class Found:
    """What came of a recipe.

    Attributes:
        state: what was kept.
        trials: everything that was tried, in order.
        untried: what the budget left no time for.
        score: the outputs against the float model's, on the images that decided, so a little kind to itself; ``None``
            when the recipe decides nothing.
        path: those that the state stands on, in the order in which it came of them, which need not be that of trials.
    """

    state: State
    trials: tuple[Trial, ...]
    untried: tuple[str, ...]
    score: Score | None
    path: tuple[Trial, ...] = ()


@dataclass(frozen=True)
class Search:
    """How a search is run.

    Attributes:
        journal: what was measured before, and what is measured now.
        budget: after which nothing new is begun; the first trial is always made.
        progress: is told every trial, and counts what each of them runs.
        prefix: of the name of every trial, so that several searches share a journal.
    """

    journal: Journal = field(default_factory=Journal)
    budget: Budget = field(default_factory=Budget)
    progress: Progress = field(default_factory=Quiet)
    prefix: str = ""

    def tell(self, what: str, said: str, found: Score, numbers: Mapping[str, float]) -> None:
        """Say what came of a trial, with what is left of the budget, and record it with its ``numbers``."""
        left = str(self.budget)
        self.progress.message(f"{said} ({left})" if left else said)
        self.progress.trial(what, {**found.metrics, **numbers})

    def left_out(self, made: Sequence[Trial], untried: Sequence[str], where: str) -> tuple[str, ...]:
        """A sentence each: that the budget did not do for one trial, and what it left out, with how to go on."""
        limit, notes = self.budget.seconds, []
        if limit is None or not untried:
            return ()
        if len(made) == 1 and made[0].seconds > limit:
            notes.append(
                f"the budget of {limit:g} s is too small for one trial: the first took {made[0].seconds:.1f} s"
            )
        left = f"the budget of {limit:g} s left out {len(untried)} trials, {untried[0]} first"
        return (*notes, f"{left}; {where}")


_Floating = tuple[onnx.ModelProto, Calibration, Graph]
"""A float model, its statistics and its view."""

End = tuple[tuple[State, Score], Sequence[str]]
"""Where a way ended, and what that stands on."""


@dataclass
class _Trials:
    """The trials of one recipe, and of those that it goes through first.

    What a trial makes follows from its name: one that was judged on an earlier way is not judged again.
    """

    scheme: Scheme
    target: Target
    images: Split
    wanted: Sequence[Mapping[str, Real]]
    search: Search
    trials: list[Trial] = field(default_factory=list)
    untried: list[str] = field(default_factory=list)
    best: tuple[State, Score] | None = None
    """Of the way that is gone."""
    path: list[str] = field(default_factory=list)
    """What that stands on."""
    scores: dict[str, Score] = field(default_factory=dict)
    """Of all ways, by name."""

    def judge(self, what: str, made: Callable[[], State]) -> None:
        """Make a state, score it, and keep it if it is the best so far; what the journal knows is not run again."""
        start, what = time.monotonic(), f"{self.search.prefix}{what}"
        known = self.scores.get(what) or self.search.journal.known(what)
        if known is None and self._is_over():
            self.untried.append(what)
            return
        found, state = known, None
        if found is None:
            state = made()
            engine = Engine(state.quantized(), self.target)
            found = judged(what, engine, self.images.judging, self.wanted, self.search)
        kept = self.best is None or found.sqnr_db > self.best[1].sqnr_db
        if kept:
            self.best = state or made(), found
            self.path.append(what)
        if what in self.scores:
            return
        self.scores[what] = found
        trial = Trial(what, found.sqnr_db, kept, time.monotonic() - start, known is not None)
        self.trials.append(trial)
        self.search.tell(what, str(trial), found, {"seconds": trial.seconds, "kept": float(kept)})

    def improve(self, what: str, change: Callable[[State], State]) -> None:
        """As ``judge``, of what ``change`` makes of the best state so far."""
        if self.best is None:
            self.untried.append(f"{self.search.prefix}{what}")
            return
        before, _ = self.best
        self.judge(what, lambda: change(before))

    def begin(self) -> None:
        """Go another way."""
        self.best, self.path = None, []

    def found(self, ends: Sequence[End]) -> Found:
        """The best of ``ends``, each with its path; the first of those alike."""
        (state, scored), path = max(ends, key=lambda end: end[0][1].sqnr_db)
        made = [replace(trial, kept=trial.what in path) for trial in self.trials]
        stood = sorted((trial for trial in made if trial.kept), key=lambda trial: path.index(trial.what))
        return Found(state, tuple(made), tuple(dict.fromkeys(self.untried)), scored, tuple(stood))

    def _is_over(self) -> bool:
        return bool(self.scores) and self.search.budget.spent


def judged(
    what: str, engine: Engine, images: Sequence[Sample], wanted: Sequence[Mapping[str, Real]], search: Search
) -> Score:
    """The score of ``engine`` on ``images``, which are counted, as ``what``; one that the journal has is taken."""
    known = search.journal.known(what)
    if known is not None:
        return known
    search.progress.start(len(images), f"judging {what}")
    found = score(engine, counted(images, search.progress), wanted)
    search.journal.add(what, found)
    return found


def run(
    model: onnx.ModelProto,
    calibration: Calibration,
    images: Split,
    recipe: Recipe,
    target: Target,
    scheme: Scheme,
    search: Search | None = None,
) -> Found:
    """Quantize ``model`` as ``recipe`` says.

    Args:
        model: float, prepared.
        calibration: its statistics, with histograms if the recipe needs them.
        images: the calibration images.
        recipe: what to try.
        target: whose contract decides.
        scheme: of that target.
        search: with what journal and budget; none unless given.

    Raises:
        ConfigError: an override matches no activation.
        ModelError: the model cannot be quantized or compiled.
    """
    graph = view(model)
    if not recipe.judged:
        return _untested(model, calibration, scheme, choosings(recipe, graph)[0], recipe)
    wanted = float_outputs(model, images.judging)
    made = _Trials(scheme, target, images, wanted, search or Search())
    ends: list[End] = []
    for name, way in ways(recipe):
        made.begin()
        _go(made, (model, calibration, graph), name, way)
        _go_on(made, ends, name, way)
        ends += [(made.best, made.path)] if made.best is not None else []
    return made.found(ends)


def _go(trials: _Trials, floating: _Floating, name: str, recipe: Recipe) -> None:
    """Everything that ``recipe`` names, in order; what depends on what was kept before has its ``name`` in front."""
    model, calibration, graph = floating
    choices = choosings(recipe, graph)
    rescued = _rescue(trials, floating, replace(choices[0], choice="minmax")) if recipe.rescue else None
    for choosing in choices:
        for kind in recipe.weight_range:
            maker = partial(_state, model, graph, calibration, trials.scheme, choosing, kind == "mse")
            trials.judge(ranged(choosing, kind), maker)
    _equalize(trials, floating, recipe)
    stood = trials.path[-1:]
    _recover(trials, name, recipe)
    if rescued is not None and stood != [f"{trials.search.prefix}{rescued[0]}"]:
        what, made = rescued
        trials.judge(f"{what}, biases corrected, fast", lambda: expected(made(), recipe))


def _rescue(trials: _Trials, floating: _Floating, choosing: Choosing) -> tuple[str, Callable[[], State]] | None:
    """Try the extremes, with channels evened that would lose nearly all their levels otherwise.

    Returns:
        What that is called and how it is made; ``None`` where no channels were evened.
    """
    model, calibration, evened = equalization.rescue(floating[0], floating[1], trials.scheme, choosing.by_tensor)
    said = f"channels evened at {len(evened)} places, " if evened else ""
    what = f"{said}{ranged(choosing, 'max')}"
    maker = partial(_state, model, view(model), calibration, trials.scheme, choosing, False)
    trials.judge(what, maker)
    return (what, maker) if evened else None


def _untested(
    model: onnx.ModelProto, calibration: Calibration, scheme: Scheme, choosing: Choosing, recipe: Recipe
) -> Found:
    """The one thing that the recipe names, with channels evened that would lose nearly all their levels otherwise."""
    evened: tuple[str, ...] = ()
    if recipe.rescue:
        model, calibration, evened = equalization.rescue(model, calibration, scheme)
    said = f"channels evened at {len(evened)} places, {', '.join(evened[:1])} first: some were far beyond the others"
    state = _state(model, view(model), calibration, scheme, choosing, recipe.weight_range[0] == "mse")
    made = (Trial(said, None, True, 0.0),) * bool(evened)
    return Found(expected(state, recipe), made, (), None, made)


def _go_on(trials: _Trials, ends: Sequence[End], name: str, recipe: Recipe) -> None:
    """Where an earlier way ended higher, go on from there with what ``recipe`` fits to the engine's outputs."""
    before = max(ends, key=lambda end: end[0][1].sqnr_db, default=None)
    if before is None or trials.best is None or before[0][1].sqnr_db <= trials.best[1].sqnr_db:
        return
    trials.best, trials.path = before[0], [*before[1]]
    _fit(trials, f"{name}from the earlier end, ", recipe)


def _state(
    model: onnx.ModelProto, graph: Graph, calibration: Calibration, scheme: Scheme, choosing: Choosing, least: bool
) -> State:
    encodings = ptq.quantize(graph, calibration.histograms, scheme, choosing, least)
    return State(model, calibration, choosing, least, encodings)


def _equalize(trials: _Trials, floating: _Floating, recipe: Recipe) -> None:
    """Try every aim of equalization, each with the range choices again, for they depend on it."""
    model, calibration, graph = floating
    choices, least = choosings(recipe, graph), trials.best is not None and trials.best[0].least_error
    for aim in recipe.equalize:
        moved, places = equalization.equalize(
            model, calibration, trials.scheme, aim, recipe.absorb_high_bias, choices[0].by_tensor
        )
        if not places:
            return
        again = _Again(moved, trials, calibration.images)
        for choosing in choices:
            what = f"equalized for {aim} at {places} places, {ranged(choosing, 'mse' if least else 'max')}"
            trials.judge(what, partial(again.state, choosing, least))


class _Again:
    """An equalized model, calibrated anew when it is first needed."""

    def __init__(self, model: onnx.ModelProto, trials: _Trials, images: int) -> None:
        self.model, self.trials, self.images, self.graph = model, trials, images, view(model)
        self._calibration: Calibration | None = None

    def state(self, choosing: Choosing, least: bool) -> State:
        if self._calibration is None:
            progress = self.trials.search.progress
            progress.start(self.images, "calibrating the equalized model")
            every = counted(self.trials.images.every(), progress)
            self._calibration = calibrate(self.model, self.graph, every)
        return _state(self.model, self.graph, self._calibration, self.trials.scheme, choosing, least)


def _recover(trials: _Trials, name: str, recipe: Recipe) -> None:
    """Round the weights and correct the biases of the best state so far; what is cheap is tried before what is not."""
    if recipe.bias_correction != "off":
        trials.improve(f"{name}biases corrected, fast", _corrected)
    _fit(trials, name, recipe)


def _fit(trials: _Trials, name: str, recipe: Recipe) -> None:
    """Round weights for the engine's outputs and correct biases by them, from the best state so far."""
    if recipe.rounding == "compensated":
        trials.improve(f"{name}weights rounded for the outputs", partial(_walked, trials, rounding.compensate))
    if recipe.bias_correction == "full":
        trials.improve(f"{name}biases corrected, full", partial(_walked, trials, correction.correct))


def expected(state: State, recipe: Recipe) -> State:
    """``state``, its biases corrected without trying where ``recipe`` says so."""
    return _corrected(state) if recipe.bias_correction == "expected" else state


def _corrected(state: State) -> State:
    shifts = correction.expected_shifts(view(state.model), state.encodings, state.calibration.channels)
    return replace(state, model=writeback.shifted(state.model, shifts), exact=state.real)


def _walked(trials: _Trials, change: Callable[..., bool], state: State) -> State:
    return walked(state, change, trials.images, trials.target, trials.search.progress)


def walked(state: State, change: Callable[..., bool], images: Split, target: Target, progress: Progress) -> State:
    """``state`` with ``change`` made at every unit that is better for it, on the engine, in order.

    What a unit should compute is what the float model does, whatever the weights and biases of ``state`` have become.
    """
    engine = Engine(state.quantized(), target)
    every = [*images.learning, *images.judging]
    learn = len(images.learning)
    if images.learning is images.judging:
        every = list(images.learning)
    progress.start(len(engine.units), "correcting operators")
    steps = counted(walk(engine, state.real, every), progress)
    changed = [step.node.name for step in steps if change(step, learn)]
    return replace(state, model=writeback.written(state.model, engine, changed), exact=state.real)
