"""``pipeline calibrate-host``: this machine as the host of a target."""

from pathlib import Path
from typing import Annotated

import typer


def calibrate_host_command(
    *,
    threads: Annotated[int, typer.Option(min=1, help="Threads of ONNX Runtime.")] = 1,
    name: Annotated[str, typer.Option(metavar="NAME", help="What the profile is called.")] = "this-machine",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where it is written; else NAME.yaml.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Measure how fast this machine runs each class of operator, and write it as a host profile.

    ``pipeline check --host FILE`` prices fallbacks with it.
    """
    from pipeline.cost import calibrate, hosts  # noqa: PLC0415 (imports onnxruntime)

    path = out or Path(f"{name}.yaml")
    hosts.writable(path, replace=force)
    profile = calibrate.measure_host(name, threads)
    hosts.save(profile, path)
    print(f"{profile.name}: {profile.title}")
    for rate, figure in profile.figures.items():
        print(f"  {rate:<32} {figure.value:>10.4g}")
    print(f"written to {path}; price fallbacks with: pipeline check MODEL --target TARGET --host {path}")
