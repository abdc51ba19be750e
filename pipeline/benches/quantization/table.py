"""A comparison as markdown for people and as JSON for scripts."""

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from pipeline.benches.quantization.bench import Comparison
from pipeline.benches.quantization.child import Failure, Spent
from pipeline.benches.quantization.contenders import TARGETS, Scheme, named
from pipeline.benches.quantization.judge import Judgement
from pipeline.benches.quantization.measured import Entry

SCHEMA = 1
OURS = "ours best"
"""The preset that is held against the peers' best."""

CONFIDENCE = 0.975
"""Where a two-sided interval of 95 % ends."""

QUICK, QUICK_PEER = "ours fast", "ORT min-max"
"""Whose times are compared."""


@dataclass(frozen=True)
class Drop:
    """What a contender loses on a case under a scheme.

    Attributes:
        mean: points below float, averaged over the draws; negative where int8 is better.
        spread: largest less smallest over the draws.
        sqnr_db: of the outputs, averaged over the draws.
        floats: the most operators that stayed in float; ``None`` when the engine could not take the file.
    """

    mean: float
    spread: float
    sqnr_db: float
    floats: int | None


@dataclass(frozen=True)
class Verdict:
    """Our best preset against the best peer on a case under a scheme.

    Attributes:
        case: its name.
        scheme: how weights are scaled.
        ours: our drop, in points, averaged over the draws that ``best_peer`` was measured on too.
        peer: the least drop of a peer, averaged over the same draws.
        best_peer: whose that is.
        noise: by how much the two may differ by chance, in points; see ``_noise``.
    """

    case: str
    scheme: Scheme
    ours: float
    peer: float
    best_peer: str
    noise: float

    @property
    def word(self) -> str:
        """``better`` or ``worse`` beyond the noise, else ``tie``.

        A drop below 0 counts as none: the aim is what the float model says, and where int8 is nearer to the labels
        than that, it is by luck, and by skill of nobody.
        """
        ours, peer = max(self.ours, 0.0), max(self.peer, 0.0)
        return "tie" if abs(ours - peer) <= self.noise else "better" if ours < peer else "worse"


def drops(entries: Sequence[Entry]) -> Mapping[tuple[str, Scheme, str], Drop | str]:
    """By case, scheme and contender what is lost, or why nothing came of one of the draws."""
    grouped: dict[tuple[str, Scheme, str], list[Entry]] = {}
    for entry in entries:
        grouped.setdefault((entry.case, entry.scheme, entry.contender), []).append(entry)
    return {key: _drop(group) for key, group in grouped.items()}


def _drop(group: Sequence[Entry]) -> Drop | str:
    failed = [entry.spent.reason for entry in group if isinstance(entry.spent, Failure)]
    if failed:
        return failed[0]
    judged = [(entry.floating, entry.judgement) for entry in group if entry.judgement is not None]
    lost = [floating - found.points for floating, found in judged]
    floats = [found.floats for _, found in judged]
    most = None if None in floats else max(each for each in floats if each is not None)
    level = statistics.mean(found.sqnr_db for _, found in judged)
    return Drop(statistics.mean(lost), max(lost) - min(lost), level, most)


def verdicts(entries: Sequence[Entry]) -> tuple[Verdict, ...]:
    """One for each case and scheme that we and a peer came through, with a draw in common."""
    found = drops(entries)
    pairs = dict.fromkeys((case, scheme) for case, scheme, _ in found)
    return tuple(verdict for pair in pairs if (verdict := _verdict(*pair, found, entries)) is not None)


def _verdict(
    case: str, scheme: Scheme, found: Mapping[tuple[str, Scheme, str], Drop | str], entries: Sequence[Entry]
) -> Verdict | None:
    """Ours and every peer are held against each other on the draws that both were measured on, and on no other."""
    here = [name for (c, s, name), drop in found.items() if (c, s) == (case, scheme) and isinstance(drop, Drop)]
    if OURS not in here:
        return None
    rows = [e for e in entries if (e.case, e.scheme) == (case, scheme)]
    shared = {name: pairs for name in here if not named(name).ours and (pairs := _pairs(rows, name))}
    if not shared:
        return None
    lost = {name: statistics.mean(floating - b.points for floating, _, b in pairs) for name, pairs in shared.items()}
    best = min(lost, key=lambda name: lost[name])
    ours = statistics.mean(floating - a.points for floating, a, _ in shared[best])
    return Verdict(case, scheme, ours, lost[best], best, _noise([(a, b) for _, a, b in shared[best]]))


Pair = tuple[float, Judgement, Judgement]
"""Of one draw: the float model's points, ours, and a peer."""


def _pairs(entries: Sequence[Entry], peer: str) -> Sequence[Pair]:
    """Ours and ``peer`` on every draw that both were judged on."""
    theirs = {e.seed: e.judgement for e in entries if e.contender == peer}
    both = [(e.floating, e.judgement, theirs.get(e.seed)) for e in entries if e.contender == OURS]
    return [(floating, a, b) for floating, a, b in both if a is not None and b is not None]


def _noise(pairs: Sequence[tuple[Judgement, Judgement]]) -> float:
    """Half the 95 % confidence interval of the mean difference in points of ``pairs``, one pair a draw.

    Chance comes in twice. The draws of calibration images: the differences' variance over the draws by their number;
    of one draw nothing is known of that, and nothing counted. The inputs to measure with, likewise from two blocks on:
    the block jackknife of the mean difference, ``(k - 1) / k`` times the summed squares about their mean of what it is
    with each of ``k`` blocks left out (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 11), for
    it takes any metric and sees that both were measured with the same inputs. The sum's degrees of freedom are Welch's
    and Satterthwaite's, its interval Student's.
    """
    differences = np.array([a.points - b.points for a, b in pairs])
    draws = len(differences)
    replicates = np.mean([np.subtract(a.replicates, b.replicates) for a, b in pairs], axis=0)
    blocks = len(replicates)
    parts: list[tuple[float, int]] = []
    if blocks > 1:
        parts.append(((blocks - 1) / blocks * float(((replicates - replicates.mean()) ** 2).sum()), blocks - 1))
    if draws > 1:
        parts.append((float(differences.var(ddof=1)) / draws, draws - 1))
    variance = sum(part for part, _ in parts)
    if variance == 0.0:
        return 0.0
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    return float(stats.t.ppf(CONFIDENCE, freedom)) * math.sqrt(variance)


def markdown(comparison: Comparison) -> str:
    """Tables of losses by scheme, of time, of memory, and what failed."""
    parts = [*(_losses(comparison.entries, scheme) for scheme in TARGETS), _times(comparison.entries)]
    parts += [_seconds(comparison.entries), _memory(comparison), _failures(comparison)]
    return "\n\n".join("\n".join(lines) for lines in map(list, parts) if lines)


def _losses(entries: Sequence[Entry], scheme: Scheme) -> Iterator[str]:
    found = {(c, name): drop for (c, s, name), drop in drops(entries).items() if s == scheme}
    if not found:
        return
    floats = {entry.case: f"{entry.case}, {entry.metric} {entry.floating:.1f}" for entry in entries}
    cases, names = list(dict.fromkeys(c for c, _ in found)), list(dict.fromkeys(name for _, name in found))
    yield f"Points lost, {scheme} weights (`{TARGETS[scheme]}`):"
    yield ""
    yield f"| | {' | '.join(floats[case] for case in cases)} |"
    yield "|---" * (len(cases) + 1) + "|"
    for name in names:
        yield f"| {name} | {' | '.join(_cell(found.get((case, name))) for case in cases)} |"
    said = {v.case: v for v in verdicts(entries) if v.scheme == scheme}
    words = [f"{said[case].word} ({said[case].best_peer})" if case in said else "" for case in cases]
    yield f"| {OURS} against the best peer | {' | '.join(words)} |"


def _cell(drop: Drop | str | None) -> str:
    if drop is None:
        return ""
    if isinstance(drop, str):
        return "failed"
    spread = f" ± {drop.spread / 2:.2f}" if drop.spread else ""
    return f"{drop.mean:.2f}{spread} ({drop.sqnr_db:.1f} dB)"


def _times(entries: Sequence[Entry]) -> Iterator[str]:
    ratios = _ratios(entries)
    if not ratios:
        return
    yield f"Calibration and quantization, {QUICK} over {QUICK_PEER}, median of pairs:"
    yield ""
    yield "| | time | CPU time |"
    yield "|---|---|---|"
    for case, (wall, cpu) in ratios.items():
        yield f"| {case} | {wall:.2f} | {cpu:.2f} |"


def _seconds(entries: Sequence[Entry]) -> Iterator[str]:
    """Processor time by contender and case."""
    spent: dict[tuple[str, str], list[float]] = {}
    for entry in entries:
        if isinstance(entry.spent, Spent):
            spent.setdefault((entry.contender, entry.case), []).append(entry.spent.cpu_seconds)
    cases = list(dict.fromkeys(case for _, case in spent))
    if not spent:
        return
    yield "Processor seconds of a calibration and quantization, median over schemes and draws:"
    yield ""
    yield f"| | {' | '.join(cases)} |"
    yield "|---" * (len(cases) + 1) + "|"
    for name in dict.fromkeys(name for name, _ in spent):
        found = [spent.get((name, case)) for case in cases]
        yield f"| {name} | {' | '.join(f'{statistics.median(each):.1f}' if each else '' for each in found)} |"


def _ratios(entries: Sequence[Entry]) -> Mapping[str, tuple[float, float]]:
    """By case, our quick preset's time over its peer's: on the clock, and of the processors."""
    spent = {(e.case, e.scheme, e.seed, e.contender): e.spent for e in entries if isinstance(e.spent, Spent)}
    pairs: dict[str, list[tuple[float, float]]] = {}
    for (case, scheme, seed, name), ours in spent.items():
        peer = spent.get((case, scheme, seed, QUICK_PEER))
        if name == QUICK and peer is not None:
            ratio = ours.seconds / peer.seconds, ours.cpu_seconds / peer.cpu_seconds
            pairs.setdefault(case, []).append(ratio)
    return {
        case: (statistics.median(wall for wall, _ in found), statistics.median(cpu for _, cpu in found))
        for case, found in pairs.items()
    }


def _memory(comparison: Comparison) -> Iterator[str]:
    counts = sorted({peak.images for peak in comparison.peaks})
    if not counts:
        return
    found = {(peak.contender, peak.images): peak.spent for peak in comparison.peaks}
    yield "Peak memory of the process, MiB, by calibration images:"
    yield ""
    yield f"| | {' | '.join(str(count) for count in counts)} |"
    yield "|---" * (len(counts) + 1) + "|"
    for name in dict.fromkeys(name for name, _ in found):
        yield f"| {name} | {' | '.join(_peak(found.get((name, count))) for count in counts)} |"


def _peak(spent: Spent | Failure | None) -> str:
    if spent is None:
        return ""
    return "failed" if isinstance(spent, Failure) else "unknown" if spent.peak_mb is None else f"{spent.peak_mb:,.0f}"


def _failures(comparison: Comparison) -> Iterator[str]:
    yield from (f"- {name}: left out: {why}" for name, why in comparison.missing.items())
    for (case, scheme, name), drop in drops(comparison.entries).items():
        if isinstance(drop, str):
            yield f"- {case}, {scheme}, {name}: {drop}"
    reasons = {(e.contender, e.judgement.why) for e in comparison.entries if e.judgement and e.judgement.why}
    yield from (f"- {name} was run in ONNX Runtime, for the engine says: {why}" for name, why in sorted(reasons))


def document(comparison: Comparison) -> str:
    """Everything, as JSON."""
    found = {
        "schema": SCHEMA,
        "targets": dict(TARGETS),
        "entries": [asdict(entry) for entry in comparison.entries],
        "verdicts": [{**asdict(verdict), "word": verdict.word} for verdict in verdicts(comparison.entries)],
        "peaks": [asdict(peak) for peak in comparison.peaks],
        "missing": dict(comparison.missing),
    }
    return json.dumps(found, indent=1)
