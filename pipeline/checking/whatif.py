"""What-if: which rewrites would help on a target, ranked by what they gain, and applying the exact ones that do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from pipeline.checking.nouns import Check, Gain
from pipeline.checking.pricing import saved
from pipeline.rewrites.nouns import Kind
from pipeline.rewrites.rule import Rule
from pipeline.rewrites.table import RULES, candidates

Judge = Callable[[onnx.ModelProto], Check]
"""Checks a model on one target, without prices of fallbacks."""

Tell = Callable[[str], None]
"""Hears what is being tried."""

JOINT = "+"
"""Between the names of rules that are applied together."""

SMALLEST_MS = 1e-6
"""A gain below a nanosecond is rounding."""


@dataclass(frozen=True)
class Rewritten:
    """A model after the rewrites that were kept.

    Attributes:
        model: the rewritten model; the argument itself when nothing helped.
        gains: what each kept rewrite gained, in the order of application.
        check: of the rewritten model.
    """

    model: onnx.ModelProto
    gains: tuple[Gain, ...]
    check: Check


@dataclass(frozen=True)
class _Trial:
    """A model after a rewrite: what that gained, and its check."""

    gain: Gain
    model: onnx.ModelProto
    check: Check


def gains(model: onnx.ModelProto, before: Check, judge: Judge, tell: Tell) -> tuple[Gain, ...]:
    """What each rule that fits somewhere in ``model`` would gain, applied wherever it fits; best first.

    Ranked by milliseconds, then by coverage, energy, and how far the rule moves the model's results. A rewrite that
    brings more onto the NPU and loses time has a negative gain. Exact rules that take fallbacks away may need each
    other, so all of them together are tried too, and named with ``+`` between them.

    Raises:
        ModelError: ``model`` is quantized, or has an opset that the rules do not know.
    """
    found = [trial.gain for trial in _trials(model, before, judge, tell, RULES)]
    joint = _together(model, before, judge, tell)
    return tuple(sorted([*found, *([joint.gain] if joint else [])], key=_rank))


def apply_exact(model: onnx.ModelProto, before: Check, judge: Judge, tell: Tell) -> Rewritten:
    """``model`` with the exact rules that gain something, alone or together, best first, until none does.

    Each application is compared with the model before on random inputs, in ONNX Runtime.

    Raises:
        ModelError: as ``gains`` does.
    """
    rules = [rule for rule in RULES if rule.kind is Kind.EXACT]
    kept: list[Gain] = []
    while True:
        trials = _trials(model, before, judge, tell, rules)
        joint = _together(model, before, judge, tell)
        best = min([*trials, *([joint] if joint else [])], key=lambda trial: _rank(trial.gain), default=None)
        if best is None or not _helps(best.gain):
            return Rewritten(model, tuple(kept), before)
        model, before = best.model, best.check
        kept.append(best.gain)
        rules = [rule for rule in rules if rule.name not in best.gain.rule.split(JOINT)]


def _trials(model: onnx.ModelProto, before: Check, judge: Judge, tell: Tell, rules: Sequence[Rule]) -> list[_Trial]:
    """Each of ``rules`` that fits."""
    fitting = _fitting(model)
    found = []
    for rule in rules:
        if rule.name not in fitting:
            continue
        tell(rule.name)
        applied = rule.apply(model)
        if not applied.replacements:
            continue
        after = judge(applied.model)
        nodes = tuple(dict.fromkeys(name for r in applied.replacements for name in r.before))
        found.append(_Trial(_gain(rule.name, rule.kind, rule.sentence, nodes, before, after), applied.model, after))
    return found


def _fitting(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the rules that fit somewhere in ``model``."""
    return frozenset(candidate.rule for candidate in candidates(model))


def _together(model: onnx.ModelProto, before: Check, judge: Judge, tell: Tell) -> _Trial | None:
    """The exact rules after each of which the NPU refuses less, one after another; ``None`` for fewer than two."""
    current, check, fitting = model, before, _fitting(model)
    names: list[str] = []
    nodes: dict[str, None] = {}
    for rule in RULES:
        if rule.kind is not Kind.EXACT or rule.name not in fitting:
            continue
        applied = rule.apply(current)
        after = judge(applied.model)
        if len(after.refused) < len(check.refused):
            tell(f"together with {rule.name}" if names else rule.name)
            nodes.update(dict.fromkeys(name for r in applied.replacements for name in r.before))
            current, check = applied.model, after
            fitting = _fitting(current)
            names.append(rule.name)
    if len(names) < 2:
        return None
    sentence = f"{len(names)} exact rewrites that take fallbacks away, one after another."
    return _Trial(_gain(JOINT.join(names), Kind.EXACT, sentence, tuple(nodes), before, check), current, check)


def _gain(rule: str, kind: Kind, sentence: str, nodes: tuple[str, ...], before: Check, after: Check) -> Gain:
    return Gain(
        rule=rule,
        kind=kind,
        sentence=sentence,
        nodes=nodes,
        delta_ms=saved(before.totals.ms, after.totals.ms),
        delta_macs_on_npu=after.macs_on_npu - before.macs_on_npu,
        delta_coverage=after.coverage - before.coverage,
        delta_nodes_on_cpu=_on_cpu(before) - _on_cpu(after),
        delta_mj=saved(before.totals.energy_mj, after.totals.energy_mj),
    )


def _rank(gain: Gain) -> tuple[float, float, float, int]:
    """Smaller is better."""
    ms = gain.delta_ms if gain.delta_ms is not None and abs(gain.delta_ms) >= SMALLEST_MS else 0.0
    return -ms, -gain.delta_coverage, -(gain.delta_mj or 0.0), list(Kind).index(gain.kind)


def _helps(gain: Gain) -> bool:
    """Whether it saves time, or where no time is known brings more onto the NPU."""
    if gain.delta_ms is None:
        return (gain.delta_coverage, gain.delta_nodes_on_cpu) > (0.0, 0)
    return gain.delta_ms >= SMALLEST_MS


def _on_cpu(check: Check) -> int:
    return len(check.nodes) - check.nodes_on_npu
