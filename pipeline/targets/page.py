"""The page of a target: its profile as Markdown, figures with confidence and source, rules as sentences."""

from collections.abc import Iterable, Sequence

from pipeline.targets.profile import RuleUse, Target
from pipeline.targets.rules import sentence

UNKNOWN = "unknown"


def markdown(target: Target) -> str:
    """The page of ``target``; ends with a line break. ``pipeline targets NAME --markdown`` prints it."""
    sources = _Sources()
    parts = [
        f"# {target.title}",
        "<!-- written by `pipeline targets NAME --markdown`; change the profile instead -->",
        _summary(target),
        *_notes(target),
        "## Figures",
        _figures(target, sources),
        "## Quantization and arithmetic",
        _quantization(target, sources),
        "## Partitions",
        _partitions(target, sources),
        "## Operators",
        *_operators(target, sources),
        *_absent(target),
        "## Unknown",
        _list(target.unknown()) or "Nothing that the profile asks for.",
        "## Sources",
        sources.text(),
    ]
    return "\n\n".join(parts) + "\n"


def overview(targets: Iterable[Target]) -> str:
    """All ``targets`` in one table, as Markdown; ends with a line break."""
    rows = [(f"`{t.name}`", t.title, confidence(t), str(len(t.operators) or "-")) for t in targets]
    return _table(("target", "what it is", "confidence", "operators"), rows) + "\n"


def confidence(target: Target) -> str:
    """How good the profile is, as lists of targets say it."""
    return f"{target.confidence}, hypothetical" if target.hypothetical else target.confidence


class _Sources:
    """Numbers the sources in the order in which the page cites them."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def cite(self, source: str) -> str:
        number = self._numbers.setdefault(source, len(self._numbers) + 1)
        return f"[{number}]"

    def text(self) -> str:
        return "\n".join(f"{number}. {_cell(source)}" for source, number in self._numbers.items())


def _summary(target: Target) -> str:
    kind = "No such chip exists. " if target.hypothetical else ""
    host = target.host or "unknown"
    return (
        f"{kind}Target `{target.name}`, confidence of the profile: {target.confidence}. "
        f"Host: {host}. Cost model: {target.cost_model}."
    )


def _notes(target: Target) -> list[str]:
    return [_list(target.notes)] if target.notes else []


def _figures(target: Target, sources: _Sources) -> str:
    rows = [
        (name, UNKNOWN if f.value is None else f"{f.value:,.12g}", f.unit, f.confidence, sources.cite(f.source))
        for name, f in target.figures.items()
    ]
    return _table(("figure", "value", "unit", "confidence", "source"), rows)


def _quantization(target: Target, sources: _Sources) -> str:
    scheme = target.quantization
    weights = ", ".join(f"{op} {kind.replace('_', ' ')}" for op, kind in scheme.weights.items())
    symmetric = "symmetric" if scheme.symmetric else "asymmetric"
    lines = [
        f"Activations: {scheme.activations}, {symmetric}, per tensor. Bias: {scheme.bias}.",
        f"Weights: {weights}.",
        f"Inputs share one scale: {', '.join(scheme.shared_scales) or 'of no operator'}.",
        f"Confidence: {scheme.confidence} {sources.cite(scheme.source)}.",
        f"Contract: `{target.contract}` ({target.contract_confidence}). {target.contract_note}",
    ]
    return _list(lines)


def _partitions(target: Target, sources: _Sources) -> str:
    limit = target.partition.max_npu_partitions
    count = "Any number of NPU partitions" if limit is None else f"At most {limit} NPU partition{'s' * (limit > 1)}"
    return f"{count} ({target.partition.confidence} {sources.cite(target.partition.source)})."


def _operators(target: Target, sources: _Sources) -> list[str]:
    if target.takes_everything is not None:
        return [f"Everything: {target.takes_everything}."]
    known = [] if target.operators_unknown is None else [f"The list is not complete: {target.operators_unknown}."]
    if not target.operators:
        return [*known, "None is known, so every operator is a fallback."]
    rows = [
        (name, _demands(op.rules), op.precision, op.confidence, sources.cite(op.source))
        for name, op in target.operators.items()
    ]
    everywhere = ["Every operator:\n\n" + _list(sentence(use) for use in target.rules)] if target.rules else []
    return [*known, *everywhere, _table(("operator", "rules", "computed in", "confidence", "source"), rows)]


def _demands(uses: Sequence[RuleUse]) -> str:
    return ". ".join(sentence(use) for use in uses) + "." if uses else "-"


def _absent(target: Target) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for op, reason in target.absent.items():
        reasons.setdefault(reason, []).append(op)
    if not reasons:
        return []
    return ["Not on the NPU:", _list(f"{', '.join(ops)}: {reason}" for reason, ops in reasons.items())]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
