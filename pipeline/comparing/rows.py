"""From one graph and many targets to a table: every target checked, its host and the GPU beside it, fastest first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.checking.check import Demands, check, describe, place
from pipeline.checking.nouns import Check
from pipeline.comparing.nouns import Comparison, Kind, Price, Row, Time, Worth
from pipeline.comparing.subjects import Measured, Subject
from pipeline.cost.hosts import HostProfile
from pipeline.cost.model import Totals
from pipeline.graph.view import Graph
from pipeline.targets.profile import Target

WON_PER_DOLLAR = 1180.27
"""Average of 2020, the year of the street prices: World Bank, PA.NUS.FCRF, Republic of Korea (unverified)."""

DEMANDS = Demands(prices=False)


@dataclass(frozen=True)
class Candidate:
    """A target that is compared.

    Attributes:
        target: the chip.
        host: the processor beside it, ``None`` when nothing is known of it.
    """

    target: Target
    host: HostProfile | None


def compare(
    subject: Subject, candidates: Sequence[Candidate], advance: Callable[[], None] = lambda: None
) -> Comparison:
    """``subject`` on every one of ``candidates``, and on each of their hosts alone.

    Args:
        subject: the model.
        candidates: the targets.
        advance: called when one more of them is done.

    Raises:
        ModelError: a shape is not static.
    """
    name, graph, measured = subject.name, subject.graph, subject.measured
    hosts: dict[str, Row] = {}
    found = []
    macs = 0
    for candidate in candidates:
        host = candidate.host
        if host is not None and host.name not in hosts:
            hosts[host.name] = _host_row(name, graph, candidate.target, host)
        checked = check(name, graph, candidate.target, host, DEMANDS)
        beside = None if host is None else hosts[host.name].time
        found.append(_row(checked, candidate, beside, measured))
        macs = checked.macs
        advance()
    rows = sorted([*found, *hosts.values()], key=_slowness)
    return Comparison(name, macs, len(graph.nodes), tuple(rows), measured.floating, subject.notes)


def _slowness(row: Row) -> float:
    return float("inf") if row.time is None else row.time.ms


def _row(checked: Check, candidate: Candidate, beside: Time | None, measured: Measured) -> Row:
    """The row of a target; ``beside`` is what its host takes alone."""
    target, used = candidate.target, checked.cut.npu_partitions > 0
    time = None if target.operators_unknown and not used else _time(checked.totals)
    worth = _worth(time, beside, used)
    return Row(
        name=target.name,
        title=target.title,
        kind=Kind.GPU if target.takes_everything else Kind.NPU,
        host=checked.host,
        hypothetical=target.hypothetical,
        confidence=target.confidence,
        provenance=str(checked.totals.provenance),
        coverage=checked.coverage,
        taken=checked.macs_taken / checked.macs if checked.macs else checked.coverage,
        partitions=checked.cut.partitions,
        npu_partitions=checked.cut.npu_partitions,
        crossings=checked.cut.crossings,
        time=time,
        cpu_ms=None if beside is None else beside.ms,
        worth=Worth.UNKNOWN if worth is Worth.NO and target.operators_unknown else worth,
        energy_mj=checked.totals.energy_mj,
        known_energy_mj=checked.totals.known_energy_mj,
        energy_missing=checked.totals.energy_missing,
        price=_price(target),
        accuracy=measured.int8.get(target.name),
        missing=checked.totals.missing,
        notes=(*checked.notes, *measured.notes.get(target.name, ())),
    )


def _host_row(name: str, graph: Graph, target: Target, host: HostProfile) -> Row:
    """The row of ``host`` alone: ``target`` beside it gets nothing."""
    alone = describe(name, target, place(graph, target, host, lambda node: ("Not asked",), DEMANDS), prices=False)
    return Row(
        name=host.name,
        title=host.title,
        kind=Kind.CPU,
        host=host.name,
        hypothetical=False,
        confidence="measured" if host.measured else "unverified",
        provenance=str(alone.totals.provenance),
        coverage=0.0,
        taken=0.0,
        partitions=alone.cut.partitions,
        npu_partitions=0,
        crossings=0,
        time=_time(alone.totals),
        cpu_ms=alone.totals.ms,
        worth=None,
        energy_mj=alone.totals.energy_mj,
        known_energy_mj=alone.totals.known_energy_mj,
        energy_missing=alone.totals.energy_missing,
        price=None,
        accuracy=None,
        missing=alone.totals.missing,
        notes=(),
    )


def _time(total: Totals) -> Time | None:
    parts = (total.ms, total.low_ms, total.high_ms, total.npu_ms, total.cpu_ms)
    if any(ms is None for ms in parts):
        return None
    ms, low, high, npu, cpu = (ms or 0.0 for ms in parts)
    return Time(ms, low, high, npu, cpu, total.crossing_ms, total.launch_ms)


def _worth(time: Time | None, beside: Time | None, used: bool) -> Worth:
    """Whether the device beats its host, which takes ``beside`` alone."""
    if time is None or beside is None:
        return Worth.UNKNOWN
    if not used or time.ms >= beside.ms:
        return Worth.NO
    return Worth.YES if time.high_ms < beside.low_ms else Worth.UNCERTAIN


def _price(target: Target) -> Price | None:
    """The device's price in dollars; one in won is converted."""
    for name, rate in (("price_usd", 1.0), ("price_krw", WON_PER_DOLLAR)):
        figure = target.figures.get(name)
        if figure is not None and figure.value is not None:
            how = "" if rate == 1.0 else f"; {figure.value:,.0f} {figure.unit} at {rate:,.2f} per USD, average of 2020"
            return Price(figure.value / rate, figure.source + how, figure.confidence)
    return None
