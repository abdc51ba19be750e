"""``pipeline check``: one ONNX model against one target."""

import re
import sys
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import progress
from pipeline.errors import GateMissedError, UserError
from pipeline.files import exists

if TYPE_CHECKING:
    from pipeline.placing.problem import Device

APPLIES = ("exact",)
"""What ``--apply`` can be."""

SIZE = re.compile(r"[1-9][0-9]{0,8}")
"""A size of a dimension."""

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file, float or quantized with QDQ pairs.")]
TargetName = Annotated[str, typer.Option("--target", metavar="NAME", help="A target's name, or its YAML file.")]
HostName = Annotated[
    str | None, typer.Option("--host", metavar="NAME", help="Another host than the target's: a name or a YAML file.")
]
Dims = Annotated[
    list[str] | None, typer.Option("--dim", metavar="NAME=N", help="Fix a dynamic dimension of the model; repeatable.")
]
Place = Annotated[
    list[str] | None,
    typer.Option("--place", metavar="NAME=npu|cpu", help="Demand a device, by an operator's name or pattern."),
]
Targets = Annotated[Path, typer.Option("--targets-folder", metavar="FOLDER", help="Targets of your own.")]
Json = Annotated[bool, typer.Option("--json", help="Print the check as JSON; all else goes to standard error.")]


def check_command(
    model: ModelFile,
    target: TargetName,
    *,
    host: HostName = None,
    dims: Dims = None,
    place: Place = None,
    partitions: Annotated[
        int | None, typer.Option("--max-npu-partitions", min=1, help="Override the target's own policy.")
    ] = None,
    what_if: Annotated[bool, typer.Option("--what-if", help="Try every rewrite, and rank them by gain.")] = False,
    apply: Annotated[str | None, typer.Option(metavar="exact", help="Write the model with what helps.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where --apply writes.")] = None,
    save_fallbacks: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write each fallback as a small ONNX with inputs.")
    ] = None,
    nodes: Annotated[bool, typer.Option("--nodes", help="Show every operator.")] = False,
    targets: Targets = Path("targets"),
    min_macs_on_npu: Annotated[float | None, typer.Option(min=0, max=1, help="Gate: fraction of MACs.")] = None,
    max_ms: Annotated[float | None, typer.Option(min=0, help="Gate: milliseconds.")] = None,
    max_crossings: Annotated[int | None, typer.Option(min=0, help="Gate: tensors between devices.")] = None,
    max_partitions: Annotated[int | None, typer.Option(min=0, help="Gate: on both devices.")] = None,
    max_mb: Annotated[float | None, typer.Option(min=0, help="Gate: 10^6 bytes over the link.")] = None,
    max_mj: Annotated[float | None, typer.Option(min=0, help="Gate: millijoules.")] = None,
    json: Json = False,
) -> None:
    """Say what a target's NPU takes of a model, what it costs, what each fallback costs, and where to cut.

    Exit code 3 when a gate is missed.
    """
    if apply is not None and apply not in APPLIES:
        raise typer.BadParameter(f"{apply} cannot be applied; {' or '.join(APPLIES)} can", param_hint="--apply")
    if (apply is None) != (out is None):
        raise typer.BadParameter("--apply and --out go together")
    if out is not None and exists(out) and exists(model) and out.samefile(model):
        raise typer.BadParameter(f"{out} is the model itself; name another file", param_hint="--out")
    from pipeline.checking import document, gates, subject, terminal  # noqa: PLC0415 (imports onnx)
    from pipeline.checking.check import Demands  # noqa: PLC0415

    demands = Demands(_places(place), partitions)
    limits = gates.Gates(min_macs_on_npu, max_ms, max_crossings, max_partitions, max_mb, max_mj)
    with progress.console(sys.stderr if json else sys.stdout) as console:
        opened = subject.open_subject(model, dimensions(dims), target, targets, host)
        checked = opened.check(demands)
        if save_fallbacks is not None:
            opened.save_fallbacks(checked, save_fallbacks)
        if what_if:
            checked = opened.what_if(checked, demands, console)
        if apply and out:
            checked = opened.apply_exact(checked, demands, console, out)
    missed = gates.missed(checked, limits)
    say(document.text(checked, missed) if json else terminal.text(checked, missed, every_node=nodes))
    if missed:
        raise GateMissedError("; ".join(missed))


def say(text: str) -> None:
    """Print ``text``, which ends its last line or not; raises ``UserError`` when that fails, as on a full disk."""
    try:
        print(text, end="" if text.endswith("\n") else "\n", flush=True)
    except BrokenPipeError:  # whoever reads has read enough; typer ends the command
        raise
    except OSError as error:
        sys.stdout = StringIO()  # what is left in the old one would fail again at the end
        raise UserError(f"cannot be written: {error.strerror or error}", where="standard output") from error


def dimensions(words: Sequence[str] | None) -> Mapping[str, int]:
    """``NAME=N`` options as a mapping; raises ``typer.BadParameter``."""
    found: dict[str, int] = {}
    for word in words or ():
        name, _, size = word.rpartition("=")
        if not name or not SIZE.fullmatch(size):
            raise typer.BadParameter(f"{word} is not NAME=N with N from 1 to 999999999", param_hint="--dim")
        if found.get(name, int(size)) != int(size):
            raise typer.BadParameter(f"{name} is given two sizes", param_hint="--dim")
        found[name] = int(size)
    return found


def _places(words: Sequence[str] | None) -> Mapping[str, "Device"]:
    """``NAME=npu|cpu`` options as a mapping; raises ``typer.BadParameter``."""
    found: dict[str, Device] = {}
    for word in words or ():
        name, _, device = word.rpartition("=")
        if not name or device not in ("npu", "cpu"):
            raise typer.BadParameter(f"{word} is not NAME=npu or NAME=cpu", param_hint="--place")
        if found.get(name, device) != device:
            raise typer.BadParameter(f"{name} is placed on two devices", param_hint="--place")
        found[name] = "npu" if device == "npu" else "cpu"
    return found
