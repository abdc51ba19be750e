"""One model quantized for one target: read, calibrate, try, write, and judge what was written."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from pipeline.checking.check import Demands, check
from pipeline.checking.nouns import Check, NodeCheck
from pipeline.cost import hosts
from pipeline.errors import ModelError
from pipeline.files import write_atomically
from pipeline.graph.files import read
from pipeline.graph.model import check as checked
from pipeline.graph.view import view
from pipeline.progress import counted
from pipeline.quantize import aimet, encodings, trials
from pipeline.quantize import recipe as recipes
from pipeline.quantize import scheme as schemes
from pipeline.quantize.advising import Means, advice
from pipeline.quantize.budget import Budget
from pipeline.quantize.calibrate import Calibration, float_outputs
from pipeline.quantize.calibrated import calibrated
from pipeline.quantize.engine import Engine
from pipeline.quantize.images import Preparation, Watched
from pipeline.quantize.journal import Journal, key_of
from pipeline.quantize.prepare import Prepared, prepare
from pipeline.quantize.ptq import Choosing
from pipeline.quantize.recipe import Calibrated, Recipe
from pipeline.quantize.records import opened
from pipeline.quantize.score import Score, score
from pipeline.quantize.sensitivity import Sensitivity, culprit, sensitivities
from pipeline.quantize.split import Split, split
from pipeline.quantize.trials import Search, Trial
from pipeline.quantizing import notes, rungs
from pipeline.quantizing.ladder import Ground, Ladder, climb, kept
from pipeline.quantizing.pareto import as_row
from pipeline.quantizing.price import pricer
from pipeline.report.results import LadderPoint
from pipeline.targets.profile import Target
from pipeline.workspace import Progress

MOST_LAYER_IMAGES = 8
"""Images for the table of layers; all are in memory at once."""


@dataclass(frozen=True)
class Order:
    """What is to be done.

    Attributes:
        model: a float ONNX file.
        calibration: a folder of pictures and arrays, or one array file.
        target: the chip.
        recipe: what to try.
        preparation: how pictures become the input.
        out: where the quantized file goes; its encodings and its recipe lie beside it.
        size: width and height, for a model that leaves them open.
        images: the most calibration images, taken evenly; ``None`` for all.
        encodings: ranges to take as they are, instead of choosing any.
        budget: seconds after which no other trial is begun; ``None`` for any time.
        floor: of the outputs' dB, below which the mixed-precision ladder is climbed; ``None`` for no ladder.
        export: where the encodings go for AIMET; ``None`` for nowhere. Recovery may have changed the weights, so the
            float model that they are of goes beside them.
    """

    model: Path
    calibration: Path
    target: Target
    recipe: Recipe
    preparation: Preparation
    out: Path
    size: tuple[int, int] | None = None
    images: int | None = None
    encodings: Path | None = None
    budget: float | None = None
    floor: float | None = None
    export: Path | None = None

    @property
    def journal(self) -> Path:
        """Where a search keeps what it has measured until it is over."""
        return self.out.with_suffix(".trials.jsonl")

    @property
    def encodings_out(self) -> Path:
        """Where the encodings go."""
        return self.out.with_suffix(".encodings.json")

    @property
    def recipe_out(self) -> Path:
        """Where the recipe goes, with the calibration's digest and what came out."""
        return self.out.with_suffix(".recipe.yaml")

    @property
    def float_out(self) -> Path:
        """Where the float model goes that exported encodings are of."""
        return (self.export or self.out).with_suffix(".float.onnx")

    @property
    def plot_out(self) -> Path:
        """Where the picture of a ladder goes."""
        return self.out.with_suffix(".ladder.svg")


@dataclass(frozen=True)
class Done:
    """What came out.

    Attributes:
        order: what was asked for.
        calibrated: images and their digest.
        trials: everything that was tried.
        untried: what the budget left no time for.
        score: of the written file on the engine.
        held_out: whether no choice was made by the images of the score, as where a ladder is climbed until they reach
            the floor too; ranges were taken from them in any case.
        layers: what each loses.
        ladder: what was climbed, ``None`` without one.
        plot: the picture of it, ``None`` without one, as where no time is known.
        placed: where the target runs each operator, and at what price.
        means: what there is against what layers lose.
        notes: what was changed, left out or looks odd, each a sentence.
        seconds: of reading, ``calibrating``, ``quantizing`` and ``judging``.
    """

    order: Order
    calibrated: Calibrated
    trials: tuple[Trial, ...]
    untried: tuple[str, ...]
    score: Score
    held_out: bool
    layers: tuple[Sensitivity, ...]
    ladder: Ladder | None
    plot: Path | None
    placed: Check
    means: Means
    notes: tuple[str, ...]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Quantized:
    """A quantized file, before it is judged.

    Attributes:
        prepared: the float model as it was quantized.
        calibration: what its activations took.
        calibrated: images and their digest.
        parts: the images that were learnt from, that decide, and that are held out.
        search: its journal and what is left of its budget.
        found: what the recipe gave, with its trials.
        ladder: what was climbed above that, ``None`` without one.
        written: the model as whoever reads the file finds it.
        notes: about the model and the images, each a sentence.
    """

    prepared: Prepared
    calibration: Calibration
    calibrated: Calibrated
    parts: Split
    search: Search
    found: trials.Found
    ladder: Ladder | None
    written: onnx.ModelProto
    notes: tuple[str, ...]

    @property
    def state(self) -> trials.State:
        """What was kept."""
        return self.found.state if self.ladder is None else self.ladder.state

    @property
    def untried(self) -> tuple[str, ...]:
        """What the budget left no time for."""
        return (*self.found.untried, *(() if self.ladder is None else self.ladder.untried))


def run(order: Order, progress: Progress) -> Done:
    """Do what ``order`` says; raises as ``quantize``."""
    clock = Clock()
    made = quantize(order, progress, clock)
    parts, state, found = made.parts, made.state, made.found
    engine = Engine(made.written, order.target)
    scored = _judged(engine, made.prepared, parts, progress)
    layers = sensitivities(engine, state.real, parts.judging[:MOST_LAYER_IMAGES], progress)
    clock.lap("judging")
    _save(order, state, scored, {"calibrated": made.calibrated, "kept": kept(found.path, made.ladder)})
    if order.export is not None:
        _write(order.export, aimet.text(state.encodings).encode())
        _write(order.float_out, state.model.SerializeToString(deterministic=True))
    plot = None if made.ladder is None else _plotted(order, made.ladder)
    if not made.untried:
        made.search.journal.finish()
    left_out = made.search.left_out(found.trials, made.untried, f"the same command goes on from {order.journal.name}")
    odd = (*notes.fallbacks(engine), *notes.oddities(made.prepared.model, made.calibration, state))
    means = _means(order, state, climbed=made.ladder is not None)
    apart = made.ladder is None and (parts.held_out is not parts.judging or not order.recipe.judged)
    return Done(
        order, made.calibrated, found.trials, made.untried, scored, apart, layers, made.ladder, plot,
        _placed(order, made.written), means, (*made.notes, *left_out, *odd), clock.laps,
    )  # fmt: skip


def quantize(order: Order, progress: Progress, clock: "Clock") -> Quantized:
    """Read, calibrate, quantize and write the file, and book the time of each.

    Raises:
        DataError: the images are missing, damaged, of another shape, not finite, or all one value.
        ModelError: the model cannot be quantized: see ``pipeline.quantize.prepare.prepare``; or a file cannot be
            written.
        ConfigError: an override of the recipe matches nothing.
    """
    prepared = prepare(order.model, order.size)
    images = opened(order.calibration, prepared.inputs, order.preparation, order.images)
    clock.lap("reading")
    histograms = order.recipe.needs_histograms or order.floor is not None
    watched = Watched(images, images.source, images.channels)
    calibration, seen = calibrated(prepared.model, watched, len(images), histograms, progress)
    clock.lap("calibrating")
    parts, split_notes = split(
        len(images), order.recipe, lambda: images, lambda places: [images.image(place) for place in places]
    )
    searched = order.encodings is None and (order.recipe.judged or order.floor is not None)
    key = key_of(prepared.model, seen.digest, order.recipe, order.target)
    journal = Journal(order.journal, key) if searched else Journal()
    search = Search(journal, Budget(order.budget), progress)
    if searched:
        notes.before(prepared, calibration, order.recipe, order.target, progress)
    found = _quantize(order, prepared, calibration, parts, search)
    ladder = None if order.floor is None else _climbed(order, order.floor, prepared, calibration, parts, search, found)
    written = _written(order.out, found.state if ladder is None else ladder.state)
    clock.lap("quantizing")
    said = (*prepared.notes, *split_notes)
    return Quantized(prepared, calibration, seen, parts, search, found, ladder, written, said)


def _climbed(
    order: Order,
    floor: float,
    prepared: Prepared,
    calibration: Calibration,
    parts: Split,
    search: Search,
    found: trials.Found,
) -> Ladder:
    """The mixed-precision ladder above what the recipe gave, until the figure that is told reaches ``floor`` too."""

    def confirm(model: onnx.ModelProto) -> bool:
        return _judged(Engine(model, order.target), prepared, parts, search.progress).sqnr_db >= floor

    scheme = schemes.of(order.target, order.recipe.power_of_two)
    price = pricer(order.target, hosts.named(order.target.host), Demands(prices=False))
    ground = Ground(
        prepared.model, calibration, parts, order.recipe, order.target, scheme, search, price,
        measure=lambda model: None, enough=lambda db, accuracy: db >= floor,
        confirm=None if parts.held_out is parts.judging else confirm,
    )  # fmt: skip
    return climb(ground, found)


def _judged(engine: Engine, prepared: Prepared, parts: Split, progress: Progress) -> Score:
    """The figure that is told: of images that no choice but a ladder's end is made by, where there are enough."""
    progress.start(len(parts.held_out), "judging the outputs")
    wanted = float_outputs(prepared.model, parts.held_out)
    return score(engine, counted(parts.held_out, progress), wanted)


def _written(path: Path, state: trials.State) -> onnx.ModelProto:
    """The quantized model, as whoever reads ``path`` finds it."""
    _write(path, checked(state.quantized(), path).SerializeToString(deterministic=True))
    return read(path)


def _save(order: Order, state: trials.State, scored: Score, used: Mapping[str, object]) -> None:
    """The encodings and the recipe beside the quantized file, with what was ``used`` and what came out."""
    saved = order.recipe.model_copy(update={"target": order.target.name, **used, "metrics": scored.metrics})
    _write(order.encodings_out, state.encodings.text().encode())
    _write(order.recipe_out, recipes.dump(saved).encode())


def _plotted(order: Order, ladder: Ladder) -> Path | None:
    """Draw ``ladder`` beside the quantized file; ``None`` when no time is known, so that there is nothing to draw."""
    if all(point.price.ms is None for point in ladder.points):
        return None
    from pipeline.report import charts, drawing  # noqa: PLC0415 (imports matplotlib)

    points = [LadderPoint.model_validate(as_row(point)) for point in ladder.points]
    _write(order.plot_out, drawing.alone(charts.ladder(points, order.floor)).encode())
    return order.plot_out


def conversions(done: Done) -> Sequence[NodeCheck]:
    """What brings a tensor from one type to another: operators of the written file that the float model has not."""
    known = {row.node for row in done.layers}
    return [node for node in done.placed.nodes if node.op == "QuantizeLinear" and node.name not in known]


def missed(done: Done, min_sqnr: float | None) -> tuple[str, ...]:
    """The gate, with the layer, the reason and what to try next, if the outputs have less than ``min_sqnr`` dB."""
    if min_sqnr is None or done.score.sqnr_db >= min_sqnr:
        return ()
    worst = culprit(done.layers)
    because = ""
    if worst is not None:
        why, fix = advice(worst, done.means)
        because = f"; {worst.node} ({worst.op}) loses most, {worst.alone_db:.1f} dB alone: {why}; next: {fix}"
    return (f"the outputs have {done.score.sqnr_db:.2f} dB, the floor is {min_sqnr:g} dB{because}",)


class Clock:
    """Seconds by what they were spent on, in ``laps``."""

    def __init__(self) -> None:
        """Start."""
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Book the time since the last lap."""
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


def _quantize(order: Order, prepared: Prepared, calibration: Calibration, parts: Split, search: Search) -> trials.Found:
    """What the recipe makes of the model, or the encodings that were given."""
    if len(search.journal):
        many = "s" * (len(search.journal) > 1)
        search.progress.message(f"goes on after {len(search.journal)} trial{many} that {order.journal.name} has")
    scheme = schemes.of(order.target, order.recipe.power_of_two)
    if order.encodings is None:
        return trials.run(prepared.model, calibration, parts, order.recipe, order.target, scheme, search)
    given = aimet.load(order.encodings, view(prepared.model), scheme)
    encodings.require_scheme(given, scheme, order.encodings)
    state = trials.State(prepared.model, calibration, Choosing(), False, given)
    return trials.Found(trials.expected(state, order.recipe), (), (), None)


def _placed(order: Order, model: onnx.ModelProto) -> Check:
    """Where the target runs what was written, with the prices of its own host."""
    host = hosts.named(order.target.host)
    return check(str(order.out), view(model), order.target, host, Demands(prices=False))


def _means(order: Order, state: trials.State, *, climbed: bool) -> Means:
    scheme = schemes.of(order.target, order.recipe.power_of_two)
    return rungs.means(order.target, scheme, state, order.recipe, climbed)


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as error:
        fix = "make room there, or choose another place with --out"
        raise ModelError(f"cannot be written: {error.strerror or error}", where=path, fix=fix) from error
