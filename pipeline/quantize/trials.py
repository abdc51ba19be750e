"""Trying what a recipe names, pass by pass; what is kept is decided by the integer engine's outputs."""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx

from pipeline.errors import ConfigError
from pipeline.graph.view import Graph, view
from pipeline.quantize import correction, equalization, ptq, qdq, rounding, writeback
from pipeline.quantize.calibrate import Calibration, Tap, calibrate
from pipeline.quantize.encodings import Encodings
from pipeline.quantize.engine import Engine, Real
from pipeline.quantize.ptq import Choosing
from pipeline.quantize.recipe import Recipe
from pipeline.quantize.scheme import Scheme
from pipeline.quantize.score import Score, score
from pipeline.quantize.walk import walk
from pipeline.targets.profile import Target


@dataclass(frozen=True)
class State:
    """A quantization as far as it has come.

    Attributes:
        model: the float model, equalized or with weights and biases on their grids.
        calibration: what its activations took.
        choosing: how ranges are chosen.
        least_error: whether weight ranges are those with the least error.
        encodings: scales and zero points.
    """

    model: onnx.ModelProto
    calibration: Calibration
    choosing: Choosing
    least_error: bool
    encodings: Encodings

    def quantized(self) -> onnx.ModelProto:
        """The model with quantize/dequantize pairs."""
        return qdq.insert(self.model, self.encodings)


@dataclass(frozen=True)
class Trial:
    """Something that was tried.

    Attributes:
        what: in words.
        sqnr_db: the objective: of all outputs, averaged, on the judging images; ``None`` when it was not judged.
        kept: whether what follows stands on it.
        seconds: it took.
    """

    what: str
    sqnr_db: float | None
    kept: bool
    seconds: float

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
        score: the outputs against the float model's; ``None`` when the recipe decides nothing.
    """

    state: State
    trials: tuple[Trial, ...]
    score: Score | None


@dataclass
class _Search:
    """The trials of one recipe."""

    recipe: Recipe
    scheme: Scheme
    target: Target
    images: "Split"
    wanted: Sequence[Mapping[str, Real]]
    tell: Callable[[Trial], None]
    trials: list[Trial] = field(default_factory=list)
    best: tuple[State, Score] | None = None

    def judge(self, what: str, made: Callable[[], State]) -> None:
        """Make a state, score it, and keep it if it is the best so far."""
        start = time.perf_counter()
        state = made()
        found = score(Engine(state.quantized(), self.target), self.images.judging, self.wanted)
        kept = self.best is None or found.sqnr_db > self.best[1].sqnr_db
        if kept:
            self.best = state, found
        trial = Trial(what, found.sqnr_db, kept, time.perf_counter() - start)
        self.trials.append(trial)
        self.tell(trial)


@dataclass(frozen=True)
class Split:
    """The calibration images in their parts.

    Attributes:
        every: all of them; each iteration reads them again.
        learning: to round and correct with.
        judging: to decide with; others than those, unless there are too few.
    """

    every: Callable[[], Iterable[Real]]
    learning: Sequence[Real]
    judging: Sequence[Real]


def split(
    count: int,
    recipe: Recipe,
    every: Callable[[], Iterable[Real]],
    pick: Callable[[Sequence[int]], Sequence[Real]],
) -> tuple[Split, tuple[str, ...]]:
    """Every third image to judge with, the others to learn from, each evenly up to what ``recipe`` says; and notes.

    Args:
        count: how many images there are.
        recipe: how many to take.
        every: all of them, each time anew.
        pick: those at some places, ascending.
    """
    judging = _evenly(range(1, count, 3), recipe.judging_images)
    if not judging:
        same = pick(range(count))
        said = "the one calibration image is both learnt from and judged with; give 3 or more"
        return Split(every, same, same), (said,)
    learning = _evenly([place for place in range(count) if place % 3 != 1], recipe.learning_images)
    return Split(every, pick(learning), pick(judging)), ()


def _evenly(places: Sequence[int], most: int) -> Sequence[int]:
    return places if len(places) <= most else [places[i * len(places) // most] for i in range(most)]


def run(
    model: onnx.ModelProto,
    calibration: Calibration,
    images: Split,
    recipe: Recipe,
    target: Target,
    scheme: Scheme,
    tell: Callable[[Trial], None] = lambda trial: None,
) -> Found:
    """Quantize ``model`` as ``recipe`` says.

    Args:
        model: float, prepared.
        calibration: its statistics, with histograms if the recipe needs them.
        images: the calibration images.
        recipe: what to try.
        target: whose contract decides.
        scheme: of that target.
        tell: is told every trial.

    Raises:
        ConfigError: an override matches no activation.
        ModelError: the model cannot be quantized or compiled.
    """
    graph = view(model)
    first = _choosings(recipe, graph)[0]
    least = recipe.weight_range[0] == "mse"
    if not recipe.judged:
        return Found(_state(model, graph, calibration, scheme, first, least), (), None)
    outputs = [o.name for o in model.graph.output]
    tap = Tap(model, outputs)
    search = _Search(recipe, scheme, target, images, [tap.read(image) for image in images.judging], tell)
    for choosing in _choosings(recipe, graph):
        for kind in recipe.weight_range:
            made = _maker(model, graph, calibration, scheme, choosing, kind == "mse")
            search.judge(f"range {_said(choosing)}, weights {kind}", made)
    _equalize(search, model, calibration)
    _recover(search)
    if search.best is None:
        raise ConfigError("nothing could be tried", where="recipe")
    return Found(search.best[0], tuple(search.trials), search.best[1])


def _maker(
    model: onnx.ModelProto, graph: Graph, calibration: Calibration, scheme: Scheme, choosing: Choosing, least: bool
) -> Callable[[], State]:
    return lambda: _state(model, graph, calibration, scheme, choosing, least)


def _state(
    model: onnx.ModelProto, graph: Graph, calibration: Calibration, scheme: Scheme, choosing: Choosing, least: bool
) -> State:
    encodings = ptq.quantize(graph, calibration.histograms, scheme, choosing, least)
    return State(model, calibration, choosing, least, encodings)


def _choosings(recipe: Recipe, graph: Graph) -> Sequence[Choosing]:
    """Every way to choose ranges that the recipe names, its overrides in each."""
    names = {t.name for node in graph.nodes for t in node.outputs} | {t.name for t in graph.inputs}
    by_tensor: dict[str, str | tuple[float, float]] = {}
    for override in recipe.overrides:
        matching = [name for name in names if re.fullmatch(override.tensors, name)]
        if not matching:
            raise ConfigError(
                f"no activation is called {override.tensors}", where="overrides", fix="see --json: layers"
            )
        by_tensor.update(dict.fromkeys(matching, override.range))
    return [
        Choosing(choice, percentile, by_tensor)
        for choice in recipe.range
        for percentile in (recipe.percentiles if choice == "percentile" else recipe.percentiles[:1])
    ]


def _said(choosing: Choosing) -> str:
    return f"{choosing.choice} {choosing.percentile:g}" if choosing.choice == "percentile" else choosing.choice


def _equalize(search: _Search, model: onnx.ModelProto, calibration: Calibration) -> None:
    """Try every aim of equalization, each with the range choices again, for they depend on it."""
    for aim in search.recipe.equalize:
        moved, places = equalization.equalize(
            model, calibration.channels, search.scheme, aim, search.recipe.absorb_high_bias
        )
        if not places:
            return
        graph = view(moved)
        again = calibrate(moved, graph, search.images.every())
        for choosing in _choosings(search.recipe, graph):
            least = search.best is not None and search.best[0].least_error
            made = _maker(moved, graph, again, search.scheme, choosing, least)
            search.judge(f"equalized for {aim} at {places} places, range {_said(choosing)}", made)


def _recover(search: _Search) -> None:
    """Round the weights and correct the biases of the best state so far."""
    if search.best is None:
        return
    if search.recipe.bias_correction == "fast":
        state = search.best[0]
        search.judge("biases corrected, fast", lambda: _corrected(state))
    if search.recipe.rounding == "compensated":
        state = search.best[0]
        search.judge("weights rounded for the outputs", lambda: _walked(search, state, rounding.compensate))
    if search.recipe.bias_correction == "full":
        state = search.best[0]
        search.judge("biases corrected, full", lambda: _walked(search, state, correction.correct))


def _corrected(state: State) -> State:
    shifts = correction.expected_shifts(view(state.model), state.encodings, state.calibration.channels)
    return replace(state, model=writeback.shifted(state.model, shifts))


def _walked(search: _Search, state: State, change: Callable[..., bool]) -> State:
    """``state`` with ``change`` made at every unit that is better for it, on the engine, in order."""
    engine = Engine(state.quantized(), search.target)
    images = [*search.images.learning, *search.images.judging]
    learn = len(search.images.learning)
    if search.images.learning is search.images.judging:
        images = list(search.images.learning)
    changed = [step.node.name for step in walk(engine, state.model, images) if change(step, learn)]
    return replace(state, model=writeback.written(state.model, engine, changed))
