"""``pipeline quantize``: one float ONNX model to int8, for one target."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline import progress
from pipeline.commands.check import say
from pipeline.commands.loading import Interrupted
from pipeline.errors import GateMissedError

if TYPE_CHECKING:
    from pipeline.quantize.recipe import Recipe
    from pipeline.quantizing.job import Done, Order

Preset = Literal["fast", "balanced", "best"]
ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="A float ONNX file.")]
Calibration = Annotated[
    Path,
    typer.Option(
        "--calibration",
        metavar="PATH",
        help="A folder of images or .npy files, or one .npy or .npz; for several inputs .npz with an array of each.",
    ),
]
TargetName = Annotated[str, typer.Option("--target", metavar="NAME", help="A target's name, or its YAML file.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", metavar="FILE", help="What to try, as YAML.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Where to write; MODEL.int8.onnx unless given.")
]
EncodingsFile = Annotated[
    Path | None,
    typer.Option("--encodings", metavar="FILE", help="Take these scales as they are, ours or AIMET's; choose none."),
]
Export = Annotated[
    Path | None,
    typer.Option("--export-encodings", metavar="FILE", help="Write the scales for AIMET too, with their float model."),
]
Numbers = Annotated[str, typer.Option(metavar="R,G,B", help="Of pixels from 0 to 1, for images.")]
Size = Annotated[str | None, typer.Option("--size", metavar="WIDTHxHEIGHT", help="Where the model leaves it open.")]
Targets = Annotated[Path, typer.Option("--targets", metavar="FOLDER", help="Targets of your own.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON; all else goes to standard error.")]


def quantize_command(
    model: ModelFile,
    calibration: Calibration,
    target: TargetName,
    *,
    recipe: RecipeFile = None,
    preset: Annotated[Preset | None, typer.Option(help="How much to try, where there is no recipe.")] = None,
    out: Out = None,
    encodings: EncodingsFile = None,
    export_encodings: Export = None,
    mean: Numbers = "0",
    std: Numbers = "1",
    layout: Annotated[Literal["nchw", "nhwc"], typer.Option(help="Of the model's input, for images.")] = "nchw",
    fit: Annotated[
        Literal["letterbox", "crop", "stretch"], typer.Option(help="How images of another aspect fit.")
    ] = "letterbox",
    size: Size = None,
    images: Annotated[int | None, typer.Option(min=1, help="The most calibration images, taken evenly.")] = None,
    budget: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Begin no other trial after these.")
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Show every layer.")] = False,
    explain: Annotated[str | None, typer.Option(metavar="LAYER", help="Say all about one layer.")] = None,
    min_sqnr: Annotated[
        float | None, typer.Option(help="Gate: signal to noise of the outputs on average, in dB.")
    ] = None,
    ladder: Annotated[
        bool, typer.Option("--ladder", help="Below --min-sqnr, climb the mixed-precision ladder until it is reached.")
    ] = False,
    tracking: Annotated[
        str | None, typer.Option("--tracking", metavar="URI", help="MLflow; every trial is a run inside this one.")
    ] = None,
    targets: Targets = Path("targets"),
    json: Json = False,
) -> None:
    """Quantize a float model to int8 under a target's own scheme, judged on its integer engine.

    Exit code 3 when the gate is missed.
    """
    _require_together(recipe, preset, encodings, min_sqnr, ladder=ladder)
    means, deviations, pixels = _numbers(mean, "--mean"), _divisors(std), _size(size)
    from pipeline.quantize.images import Preparation  # noqa: PLC0415 (imports onnx)
    from pipeline.quantizing import document, job, terminal  # noqa: PLC0415
    from pipeline.targets import library  # noqa: PLC0415

    chip = library.load(library.resolve(target, targets))
    order = job.Order(
        model=model, calibration=calibration, target=chip, recipe=_recipe(recipe, preset, chip.name),
        preparation=Preparation(means, deviations, layout, fit), out=out or model.with_suffix(".int8.onnx"),
        size=pixels, images=images, encodings=encodings, budget=budget, floor=min_sqnr if ladder else None,
        export=_export(export_encodings),
    )  # fmt: skip
    _require_apart(order)
    with progress.console(sys.stderr if json else sys.stdout) as console:
        done = _run(order, console, tracking)
    missed = job.missed(done, min_sqnr)
    if explain is not None:
        say(terminal.explain(done, explain))
    else:
        say(document.text(done, missed) if json else terminal.text(done, missed, every_layer=layers))
    if missed:
        raise GateMissedError("; ".join(missed))


def _require_together(
    recipe: Path | None, preset: Preset | None, encodings: Path | None, min_sqnr: float | None, *, ladder: bool
) -> None:
    """Raise ``typer.BadParameter`` for options that exclude or lack each other."""
    if recipe is not None and preset is not None:
        raise typer.BadParameter("--recipe and --preset exclude each other")
    if min_sqnr is not None and math.isnan(min_sqnr):
        raise typer.BadParameter("is no number", param_hint="--min-sqnr")
    if ladder and min_sqnr is None:
        raise typer.BadParameter(
            "the ladder is climbed until a floor is reached: give --min-sqnr too", param_hint="--ladder"
        )
    if ladder and encodings is not None:
        raise typer.BadParameter("--encodings chooses nothing, --ladder does: leave one out")


def _export(path: Path | None) -> Path | None:
    """``--export-encodings``; raises ``typer.BadParameter`` for a name that other files have."""
    if path is not None and path.suffix in (".onnx", ".json", ".yaml"):
        fix = "call it .encodings, as AIMET does"
        raise typer.BadParameter(f"{path} may be another file of this model: {fix}", param_hint="--export-encodings")
    return path


def _require_apart(order: "Order") -> None:
    """Raise ``typer.BadParameter`` where something would be written over the model, the images or given encodings."""
    read = {path.resolve() for path in (order.model, order.calibration)}
    export = [] if order.export is None else [order.export, order.float_out]
    given = set() if order.encodings is None else {order.encodings.resolve()}
    written = [order.out, order.encodings_out, order.recipe_out, order.journal, order.plot_out, *export]
    lost = [path for path in written if path.resolve() in read]
    lost += [path for path in export if path.resolve() in given]
    if lost:
        raise typer.BadParameter(f"{lost[0]} is read, and would be written over: give another --out or name")


def _recipe(path: Path | None, preset: Preset | None, target: str) -> "Recipe":
    """The recipe in ``path``, for ``target``, or else that of ``preset``; raises ``ConfigError``."""
    from pipeline.quantize import recipe as recipes  # noqa: PLC0415 (imports onnx)

    return recipes.PRESETS[preset or "balanced"] if path is None else recipes.load(path, target)


def _run(order: "Order", console: progress.Console, uri: str | None) -> "Done":
    """What ``job.run`` does, tracked where there is a ``uri``; raises ``Interrupted`` on Ctrl-C."""
    from pipeline.quantizing import job  # noqa: PLC0415 (imports onnx)

    try:
        return job.run(order, console) if uri is None else _tracked(order, console, uri)
    except KeyboardInterrupt:
        raise Interrupted("the same command") from None


def _tracked(order: "Order", console: progress.Console, uri: str) -> "Done":
    """What ``job.run`` does, as an MLflow run with a nested one for each trial."""
    from pipeline import tracking  # noqa: PLC0415 (imports mlflow)
    from pipeline.quantizing import job  # noqa: PLC0415

    name = order.model.stem
    parameters = {key: str(value) for key, value in order.recipe.model_dump(mode="json", exclude_none=True).items()}
    opening = tracking.Opening(name, name, {"target": order.target.name, "stage": "quantize"}, parameters)
    tracker = tracking.open_search(uri, opening, console)
    try:
        done = job.run(order, tracker)
        numbers = {"sqnr_db": done.score.sqnr_db, **{f"seconds.{what}": s for what, s in done.seconds.items()}}
        for what, value in numbers.items():
            tracker.metric(what, value)
        for path in (order.recipe_out, order.encodings_out):
            tracker.file(path)
    except BaseException as error:
        tracker.close(error)
        raise
    tracker.close(None)
    return done


def _numbers(text: str, option: str) -> tuple[float, ...]:
    """``0.5,0.5,0.5`` as numbers; raises ``typer.BadParameter``."""
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
        raise typer.BadParameter(f"{text} is neither one number nor three with commas", param_hint=option)
    return values


def _divisors(text: str) -> tuple[float, ...]:
    """``--std`` as numbers other than 0; raises ``typer.BadParameter``."""
    values = _numbers(text, "--std")
    if 0 in values:
        raise typer.BadParameter(f"{text} divides by 0", param_hint="--std")
    return values


def _size(text: str | None) -> tuple[int, int] | None:
    """``640x480`` as width and height; raises ``typer.BadParameter``."""
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise typer.BadParameter(f"{text} is not WIDTHxHEIGHT", param_hint="--size")
    return int(width), int(height)
