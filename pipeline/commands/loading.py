"""What commands about a use case begin with: its configuration, its target's profile, its tracking."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipeline import configfile
from pipeline.run import OpenTracker, Tracker
from pipeline.workspace import Progress

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, as train.epochs=3; repeatable."),
]
Runs = Annotated[Path, typer.Option("--runs", metavar="FOLDER", help="Where runs keep their files.")]


class Interrupted(Exception):  # noqa: N818 (an answer to Ctrl-C, not an error)
    """The user stopped the command; says what continues it.

    ``KeyboardInterrupt`` itself would become exit code 1 on its way out of typer.
    """


def load(config: Path, overrides: Sequence[str] | None) -> configfile.LoadedConfig:
    """The configuration; modules that lie beside it can be named in it, as a model's factory.

    Raises:
        ConfigError: it is wrong.
    """
    loaded = configfile.load(config, overrides or ())
    beside = str(config.parent.absolute())
    if beside not in sys.path:
        sys.path.append(beside)
    return loaded


def profile(loaded: configfile.LoadedConfig) -> Path:
    """The file of the target's profile; raises ``TargetError`` when there is none or it is wrong."""
    from pipeline.targets import library  # noqa: PLC0415 (imports onnx)

    path = library.find(loaded.config.target, library.folder(loaded.path))
    library.load(path)
    return path


def host(loaded: configfile.LoadedConfig, profile: Path) -> Path | None:
    """The file of the host's profile; raises ``TargetError`` when there is none of the name that is given."""
    from pipeline.cost import hosts  # noqa: PLC0415 (imports onnx)
    from pipeline.targets import library  # noqa: PLC0415

    name = loaded.config.partition.host or library.load(profile).host
    return None if name is None else hosts.resolve(name, loaded.path.parent / "hosts")


def tracking(loaded: configfile.LoadedConfig) -> OpenTracker | None:
    """What opens MLflow when a stage has to run, unless tracking is off."""
    if loaded.config.tracking == "off":
        return None

    def opened(loaded: configfile.LoadedConfig, commit: str, console: Progress) -> Tracker:
        from pipeline import tracking  # noqa: PLC0415 (imports mlflow)

        return tracking.open_tracker(loaded, commit, console)

    return opened
