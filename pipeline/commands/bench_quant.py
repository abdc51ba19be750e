"""``pipeline bench-quant``: this project's quantizer against other toolkits."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline import progress
from pipeline.commands import loading
from pipeline.commands.check import say
from pipeline.commands.loading import Runs
from pipeline.files import write_atomically

MARKDOWN, DOCUMENT = "table.md", "table.json"


def bench_quant_command(
    config: Annotated[Path, typer.Argument(metavar="[CONFIG]", help="Whose detector is among the models.")] = Path(
        "configs/cctv.yaml"
    ),
    *,
    only: Annotated[list[str] | None, typer.Option(metavar="MODEL", help="Only this model; repeatable.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of calibration images.")] = 3,
    force: Annotated[bool, typer.Option("--force", help="Measure again what earlier runs measured.")] = False,
    runs: Runs = Path("runs"),
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="For results; RUNS/bench-quant otherwise.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Quantize the same models with our presets and with other toolkits, and measure both alike.

    Models: the detector, the same with boxes and scores in one tensor, EfficientNet-Lite0, two small MobileNets
    trained here, two with skewed channels (skewed, and skewed-relu6 before a clamp) and one with outliers. Needs the
    `toolkits` extra for some.

    Each measurement is written down at once and not made again as long as model, images, code and toolkits are the
    same: what was stopped goes on, and several runs, also side by side, add up to one table.
    """
    from pipeline.benches.quantization import bench, measured, table  # noqa: PLC0415 (imports onnxruntime)

    loaded = loading.load(config, None)
    folder = out or runs / "bench-quant"
    with progress.console(sys.stderr) as console:
        try:
            found = bench.run(loaded.config, runs, folder, only or (), seeds, console, force)
        except KeyboardInterrupt:
            raise loading.Interrupted("the same command without --force; what was measured is kept") from None
    with measured.locked(folder / ".lock"):  # another command may be at its end too
        write_atomically(folder / DOCUMENT, (table.document(found) + "\n").encode())
        write_atomically(folder / MARKDOWN, (table.markdown(found) + "\n").encode())
    say(table.document(found) if json else table.markdown(found))
