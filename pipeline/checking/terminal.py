"""A check for people: plain text in stable columns."""

from collections.abc import Iterator, Sequence

from pipeline.checking.nouns import Check, Gain, NodeCheck, OpPrice, Price
from pipeline.report.formats import count, percent, plain, plural, size
from runtime.text import printable

MOST = 10
"""Types of fallbacks that are shown; of the others only the number is told."""

FEW = 3
"""Reasons, and operators, of one type that are shown."""


def text(check: Check, gates_missed: Sequence[str] = (), *, every_node: bool = False) -> str:
    """The check, without a newline at its end: totals, cut, fallbacks with their prices, rewrites, gates, notes."""
    parts = [_totals(check), _cut(check), _fallbacks(check), _rewrites(check)]
    if every_node:
        parts.insert(0, _nodes(check.nodes))
    parts += [(f"gate missed: {gate}" for gate in gates_missed), (f"note: {note}" for note in check.notes)]
    blocks = ["\n".join(map(printable, lines)) for lines in map(list, parts) if lines]
    host = f", host {check.host}" if check.host else ""
    return "\n\n".join([printable(f"{check.model} on {check.target}{host}"), *blocks])


def _nodes(nodes: Sequence[NodeCheck]) -> Iterator[str]:
    width = max((len(node.name) for node in nodes), default=0)
    yield f"{'operator':<{width}}  {'type':<18} {'on':<3} {'ms':>9} {'mJ':>9} {'MACs':>13}  why not on the NPU"
    for n in nodes:
        why = "; ".join(n.reasons)
        figures = f"{plain(n.ms):>9} {plain(n.mj):>9} {count(n.macs):>13}"
        yield f"{n.name:<{width}}  {n.op:<18} {n.device:<3} {figures}  {why}".rstrip()


def _totals(check: Check) -> Iterator[str]:
    total = check.totals
    band = "" if total.low_ms is None else f"{plain(total.low_ms)} to {plain(total.high_ms)} ms, {total.provenance}"
    yield f"{'latency':<17}{_ms(total.ms):>12}  {band}".rstrip()
    if total.ms is not None:
        crossings = f"crossings {plain(total.crossing_ms)}, launches {plain(total.launch_ms)}"
        yield f"{'':<29}  NPU {plain(total.npu_ms)}, CPU {plain(total.cpu_ms)}, {crossings}"
    rated = "rated power times time"
    if total.energy_missing:
        without = f"{' and '.join(total.energy_missing)} not known"
        rated = without if total.known_energy_mj is None else f"{without}; {plain(total.known_energy_mj)} mJ without"
    yield f"{'energy':<17}{_unit(total.energy_mj, 'mJ'):>12}  {rated}"
    on_npu = f"{check.nodes_on_npu} of {plural(len(check.nodes), 'operator')}"
    yield f"{'MACs on the NPU':<17}{percent(check.coverage):>12}  {on_npu}; {count(check.macs)} MACs"
    moved = ", ".join(f"{name} {size(amount)}" for name, amount in total.bytes.items())
    yield f"{'over the link':<17}{size(total.crossing_bytes):>12}  {plural(check.cut.crossings, 'crossing')}; {moved}"


def _cut(check: Check) -> Iterator[str]:
    cut = check.cut
    yield f"{'partitions':<17}{count(cut.partitions):>12}  {cut.npu_partitions} on the NPU"
    if cut.by_cost:
        gap = "proven" if cut.gap_percent == 0 else f"gap {plain(cut.gap_percent)} %"
        yield (
            f"optimal {_ms(cut.optimal_ms)} ({gap}, lower bound {_ms(cut.lower_bound_ms)}), "
            f"greedy {_ms(cut.greedy_ms)}, all on the CPU {_ms(cut.cpu_ms)}"
        )
    elif cut.cpu_ms is not None:
        yield f"all on the CPU {_ms(cut.cpu_ms)}"


def _fallbacks(check: Check) -> Iterator[str]:
    if not check.fallbacks:
        left = len(check.nodes) - check.nodes_on_npu
        yield "no fallbacks: the NPU takes every operator" + (f"; {left} run on the CPU all the same" if left else "")
        return
    yield f"{plural(len(check.fallbacks), 'fallback')}: what would be saved if the NPU took them, by type and alone"
    prices: dict[str, list[Price]] = {}
    for price in check.fallbacks:
        prices.setdefault(price.op, []).append(price)
    for together in check.fallback_ops[:MOST]:
        yield from _type(check, together, prices[together.op])
    if len(check.fallback_ops) > MOST:
        rest = sum(len(together.nodes) for together in check.fallback_ops[MOST:])
        yield f"  and {rest} more, of {plural(len(check.fallback_ops) - MOST, 'type')}"


def _type(check: Check, together: OpPrice, alone: Sequence[Price]) -> Iterator[str]:
    """The fallbacks of one type: all together, each reason once, the dearest by name."""
    reasons: dict[str, None] = {}
    members = frozenset(together.nodes)
    for node in check.nodes:
        if node.name in members:
            reasons.update(dict.fromkeys(node.reasons))
    yield f"  {_saved(together.delta_ms):>12}  {len(together.nodes)} {together.op}"
    for why in list(reasons)[:FEW]:
        yield f"{'':16}{why}"
    if len(reasons) > FEW:
        yield f"{'':16}and {len(reasons) - FEW} other reasons"
    for price in alone[:FEW]:
        yield f"{'':16}{_saved(price.delta_ms):>12}  {price.node}"
    if len(alone) > FEW:
        yield f"{'':16}and {len(alone) - FEW} more"


def _rewrites(check: Check) -> Iterator[str]:
    if check.rewrites is None:
        return
    if not check.rewrites:
        yield "no rewrite fits"
        return
    yield "rewrites, best first (time saved, MACs moved to the NPU):"
    for gain in check.rewrites:
        yield f"  {_saved(gain.delta_ms):>12} {gain.delta_macs_on_npu:>+13,}  {_rewrite(gain)}"


def _rewrite(gain: Gain) -> str:
    return f"{gain.rule} ({gain.kind}, {plural(len(gain.nodes), 'operator')}): {gain.sentence}"


def _ms(value: float | None) -> str:
    return _unit(value, "ms")


def _saved(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.3f} ms"


def _unit(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{plain(value)} {unit}"
