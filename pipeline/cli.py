"""The command ``pipeline``: its options, its only prints, and its exit codes.

0 fine, 1 an error that the user can mend, 2 wrong usage, 3 a gate was missed, 130 interrupted.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline import configfile, progress
from pipeline.commands import bench_quant, calibrate_host, check, compare, contracts, loading, quantize
from pipeline.commands.loading import Interrupted, Overrides, Runs
from pipeline.errors import ConfigError, GateMissedError, TargetError, UserError
from pipeline.run import STAGES, Options, plan, run
from pipeline.summary import RunSummary
from runtime.text import printable

THREADS = {"OMP_WAIT_POLICY": "passive", "OPENBLAS_NUM_THREADS": "1"}
"""Unless the user sets them, before torch and numpy are imported: threads that wait for each other spinning make
training and resizing about ten times slower where other work shares the processors."""

NAMES = tuple(stage.name for stage in STAGES)
EVERY = "all"


def _stage(name: str) -> str:
    if name not in NAMES:
        raise typer.BadParameter(f"{name} is not a stage; stages: {', '.join(NAMES)}")
    return name


def _stage_or_all(name: str) -> str:
    return name if name == EVERY else _stage(name)


ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The use case, as configs/cctv.yaml.")]
First = Annotated[
    str | None, typer.Option("--from", metavar="STAGE", parser=_stage, help="Run this stage and all after it again.")
]
Last = Annotated[str | None, typer.Option("--to", metavar="STAGE", parser=_stage, help="Stop after this stage.")]
Force = Annotated[
    list[str] | None,
    typer.Option(
        "--force", metavar="[STAGE]", parser=_stage_or_all, help="Run a stage again, or all without a name; repeatable."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run and why; change nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON; all else goes to standard error.")]

app = typer.Typer(
    help="From data to a bundle that runs on an NPU: train, quantize, export, coverage, partition, package.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich for a box around the help would take a fifth of its time
    add_completion=False,
)
config_app = typer.Typer(
    help="Configuration files: their schema, and whether one is valid.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(config_app, name="config")
keys_app = typer.Typer(help="Keys that sign bundles.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(keys_app, name="keys")

app.command("check")(check.check_command)
app.command("compare")(compare.compare_command)
app.command("quantize")(quantize.quantize_command)
app.command("contracts")(contracts.contracts_command)
app.command("calibrate-host")(calibrate_host.calibrate_host_command)
app.command("bench-quant")(bench_quant.bench_quant_command)


@app.command("run")
def run_command(
    config: ConfigFile,
    *,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    first: First = None,
    last: Last = None,
    force: Force = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Run every stage that is stale, and say why it is."""
    if first and last and NAMES.index(first) > NAMES.index(last):
        raise typer.BadParameter(f"--from {first} comes after --to {last}")
    loaded = loading.load(config, overrides)
    options = Options(
        runs=runs,
        profile=(profile := loading.profile(loaded)),
        host=loading.host(loaded, profile),
        first=first,
        last=last,
        force=NAMES if force and EVERY in force else tuple(force or ()),
        command=_command(config, overrides or (), runs),
    )
    if dry_run:
        _say_plan(plan(loaded, options), json)
        return
    with progress.console(sys.stderr if json else sys.stdout) as console:
        try:
            run(loaded, options, console, track=loading.tracking(loaded), tell=_say_json if json else _say_report)
        except KeyboardInterrupt:
            raise Interrupted(options.command) from None


@app.command("package")
def package_command(
    source: Annotated[Path, typer.Argument(metavar="CONFIG|BUNDLE", help="A use case, or a bundle that is made.")],
    *,
    sign: Annotated[
        Path | None, typer.Option(metavar="KEY", help="Private key, as pipeline keys new makes it.")
    ] = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
) -> None:
    """Package a use case, running what is stale before it; or sign a bundle where it lies."""
    if source.suffix != ".npub":
        signed = [] if sign is None else [f"package.sign={sign.absolute()}"]
        run_command(source, overrides=[*(overrides or ()), *signed], runs=runs)
        return
    if sign is None or overrides:
        raise typer.BadParameter("a bundle that is made can only be signed: pipeline package BUNDLE --sign KEY")
    from pipeline import keys  # noqa: PLC0415 (imports cryptography and numpy)
    from runtime.bundle import sign_bundle  # noqa: PLC0415

    sign_bundle(source, keys.signer(sign))
    print(f"{source}: signed")


@keys_app.command("new")
def keys_new_command(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="What the key is called.")] = "bundle",
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the two files go.")] = Path("keys"),
    expires: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The last day on which devices accept it.")
    ] = None,
) -> None:
    """Make a pair of keys: one to sign with and keep secret, one for devices."""
    from pipeline import keys  # noqa: PLC0415 (imports cryptography)

    pair = keys.new(name, out, None if expires is None else expires.date())
    print(
        f"key {pair.id}\n  {pair.private}: signs; keep it secret\n  {pair.public}: goes onto devices (npu-run --trust)"
    )


@config_app.command("schema")
def schema_command() -> None:
    """Print the JSON schema of a configuration file."""
    print(configfile.schema(), end="")


@config_app.command("validate")
def validate_command(config: ConfigFile, overrides: Overrides = None) -> None:
    """Check a configuration file, the files it names, and its target."""
    loaded = loading.load(config, overrides)
    problems = configfile.missing_files(loaded)
    try:
        loading.host(loaded, loading.profile(loaded))
    except TargetError as error:
        problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    print(f"{config}: valid; target {loaded.config.target}; digest {loaded.digest[:12]}")


@app.command("targets")
def targets_command(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only this one: a target's name, or its YAML file.")
    ] = None,
    *,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print its page; without a name, the table.")] = False,
    config: Annotated[Path, typer.Option(metavar="CONFIG", help="List the targets beside it.")] = Path("configs/_"),
) -> None:
    """List the targets that a configuration can name, with what they are and how good their profile is."""
    from pipeline.targets import library, page  # noqa: PLC0415 (imports onnx)

    folder = library.folder(config)
    names = library.names(folder) if name is None else (name,)
    found = [library.load(library.resolve(each, folder)) for each in names]
    if markdown:
        check.say(page.overview(found) if name is None else page.markdown(found[0]))
        return
    width = max(len(target.name) for target in found)
    check.say("\n".join(f"{t.name:<{width}}  {t.title} (confidence: {page.confidence(t)})" for t in found))


@app.command("bench")
def bench_command(config: ConfigFile, overrides: Overrides = None, runs: Runs = Path("runs")) -> None:
    """Measure again what the README says: the packaged bundle beside its peers, then checks and estimates."""
    from pipeline.benches import bundle, check, npu, streams  # noqa: PLC0415 (imports torch)
    from pipeline.stages.common import MODEL  # noqa: PLC0415
    from pipeline.targets import library  # noqa: PLC0415

    loaded = loading.load(config, overrides)
    target, folder = library.load(loading.profile(loaded)), runs / loaded.config.name
    with progress.console(sys.stdout) as console:
        tables = (
            bundle.bench(loaded.config, folder, console),
            tuple(streams.rows(loaded.config, folder, console)),
            tuple(npu.rows(target, folder / "export" / MODEL, folder / "bench" / "throughput.svg", console)),
            tuple(check.rows(console)),
        )
    for rows in tables:
        widths = [max(len(row.what) for row in rows), max(len(row.value) for row in rows)]
        for row in rows:
            print(f"{row.what:<{widths[0]}}  {row.value:>{widths[1]}}  {row.how}")


@app.command("ui")
def ui_command(config: ConfigFile, port: Annotated[int, typer.Option(help="Where the page is served.")] = 5000) -> None:
    """Open MLflow on the runs of a use case."""
    tracking = configfile.load(config).config.tracking
    if tracking == "off":
        raise UserError("tracking is off", where=config, fix="leave tracking out of the file to keep runs in MLflow")
    if tracking.uri.startswith(("http://", "https://")):
        print(tracking.uri)
        return
    words = ["mlflow", "ui", "--backend-store-uri", tracking.uri, "--port", str(port)]
    raise typer.Exit(subprocess.run([sys.executable, "-m", *words], check=False).returncode)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; the only place where errors become exit codes."""
    for name, value in THREADS.items():
        os.environ.setdefault(name, value)
    words = _spell_out(sys.argv[1:] if arguments is None else arguments)
    try:
        app(words, prog_name="pipeline")
    except UserError as error:
        print(f"error: {_lines(error)}", file=sys.stderr)
        sys.exit(1)
    except GateMissedError as error:
        print(f"gate missed: {_lines(error)}", file=sys.stderr)
        sys.exit(3)
    except Interrupted as error:
        print(f"interrupted; continue with: {error}", file=sys.stderr)
        sys.exit(130)


def _lines(error: Exception) -> str:
    """What ``error`` says, for a terminal."""
    return "\n".join(map(printable, str(error).split("\n")))


def _spell_out(words: Sequence[str]) -> list[str]:
    """The words of ``run`` with ``all`` after each ``--force`` that names no stage; other words as they are."""
    if "run" not in words[:1]:
        return list(words)
    spelled: list[str] = []
    for word, following in zip(words, [*words, ""][1:], strict=True):
        spelled.append(word)
        if word == "--force" and following not in (*NAMES, EVERY):
            spelled.append(EVERY)
    return spelled


def _command(config: Path, overrides: Sequence[str], runs: Path) -> str:
    words = ["pipeline", "run", str(config), *(word for each in overrides for word in ("--set", each))]
    return shlex.join(words if runs == Path("runs") else [*words, "--runs", str(runs)])


def _say_plan(summary: RunSummary, as_json: bool) -> None:
    if as_json:
        _say_json(summary)
        return
    for stage in summary.stages:
        print(f"{stage.name}: {stage.state}" + (f" because {stage.why}" if stage.why else ""))


def _say_json(summary: RunSummary) -> None:
    from pipeline.report import json_report  # noqa: PLC0415 (only when asked for)

    print(json_report.text(summary), end="")


def _say_report(summary: RunSummary) -> None:
    from pipeline.report import terminal  # noqa: PLC0415 (only when there is something to report)

    print(f"\n{terminal.text(summary)}", flush=True)
