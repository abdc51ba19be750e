"""``pipeline compare``: one model on many targets, side by side."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import progress
from pipeline.commands import loading
from pipeline.commands.check import Dims, HostName, dimensions, say
from pipeline.planning import Options

if TYPE_CHECKING:
    from pipeline.comparing.nouns import Comparison
    from pipeline.comparing.subjects import Subject

CONFIGS = (".yaml", ".yml")
"""What a use case's file ends with; anything else is a model."""

Model = Annotated[
    Path, typer.Argument(metavar="MODEL|CONFIG", help="An ONNX file, or a use case: then accuracy is measured too.")
]
Wanted = Annotated[
    str, typer.Option("--targets", metavar="all|NAME,...", help="Names of targets or YAML files, commas between them.")
]
Folder = Annotated[
    Path | None,
    typer.Option("--targets-folder", metavar="FOLDER", help="Targets of your own; of a use case, those beside it."),
]
Html = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with plots, too.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what of a use case is stale and why; change nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON; all else goes to standard error.")]


def compare_command(
    subject: Model,
    *,
    targets: Wanted = "all",
    folder: Folder = None,
    host: HostName = None,
    dims: Dims = None,
    overrides: loading.Overrides = None,
    runs: loading.Runs = Path("runs"),
    html: Html = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Put targets side by side for one model: coverage, time, energy, price, and whether the NPU is worth it.

    A use case is trained once, and quantized and measured once for all targets that agree in scheme and contract.
    Beside the NPUs stand a GPU and each target's host alone.
    """
    is_config = subject.suffix in CONFIGS
    _check_options(is_config, dims, overrides, dry_run)
    from pipeline.comparing import candidates, rows, subjects  # noqa: PLC0415 (imports onnx)

    beside = folder or (subject.parent / "targets" if is_config else Path("targets"))
    profiles = candidates.profiles(targets, beside)
    compared = candidates.load(profiles, host)
    command = _command(subject, targets, overrides, runs)
    use = _Use(subject, overrides, runs, profiles, command) if is_config else None
    if use is not None and dry_run:
        say("\n".join(use.outlook()))
        return
    with progress.console(sys.stderr if json else sys.stdout) as console:
        model = use.measure(console) if use else subjects.of_file(subject, dimensions(dims))
        console.start(len(compared), "comparing")
        found = rows.compare(model, compared, console.advance)
    _tell(found, html, json)


def _check_options(is_config: bool, dims: object, overrides: object, dry_run: bool) -> None:
    """Raise ``typer.BadParameter`` for an option that such a subject does not have."""
    if is_config and dims:
        raise typer.BadParameter("a use case says its size in preprocess.size", param_hint="--dim")
    if not is_config and (overrides or dry_run):
        raise typer.BadParameter("only a use case has it", param_hint="--set" if overrides else "--dry-run")


def _command(subject: Path, targets: str, overrides: Sequence[str] | None, runs: Path) -> str:
    """What continues this comparison after a failure."""
    words = ["pipeline", "compare", str(subject), "--targets", targets]
    words += [word for each in overrides or () for word in ("--set", each)]
    return shlex.join(words if runs == Path("runs") else [*words, "--runs", str(runs)])


class _Use:
    """A use case as it is compared."""

    def __init__(
        self, config: Path, overrides: Sequence[str] | None, runs: Path, profiles: Sequence[Path], command: str
    ) -> None:
        from pipeline.comparing import quantized  # noqa: PLC0415 (imports onnx)

        self.loaded = loading.load(config, overrides)
        profile = loading.profile(self.loaded)
        self.options = Options(runs, profile, command=command, host=loading.host(self.loaded, profile))
        self.forms = quantized.forms(self.loaded, self.options, profiles)

    def outlook(self) -> Sequence[str]:
        from pipeline.comparing import quantized  # noqa: PLC0415

        return tuple(quantized.outlook(self.loaded, self.options, self.forms))

    def measure(self, console: progress.Console) -> "Subject":
        from pipeline.comparing import quantized  # noqa: PLC0415

        track = loading.tracking(self.loaded)
        try:
            return quantized.measure(self.loaded, self.options, self.forms, console, track)
        except KeyboardInterrupt:
            raise loading.Interrupted(self.options.command) from None


def _tell(found: "Comparison", html: Path | None, json: bool) -> None:
    from pipeline.comparing import document, terminal  # noqa: PLC0415

    if html is not None:
        from pipeline.comparing import page  # noqa: PLC0415 (imports matplotlib)

        page.write(html, found)
    say(document.text(found) if json else terminal.text(found))
