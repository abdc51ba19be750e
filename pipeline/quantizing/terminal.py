"""A quantization for people: plain text in stable columns."""

from collections.abc import Iterator, Sequence

from pipeline.checking.nouns import NodeCheck
from pipeline.errors import ModelError
from pipeline.quantize.advising import advice
from pipeline.quantize.sensitivity import Sensitivity, culprit, first_divergence
from pipeline.quantizing.job import Done, conversions
from pipeline.report.formats import MISSING, milliseconds, plain, plural, size
from runtime.text import printable

MOST = 12
"""Layers that are shown unless all are asked for: those that lose most alone."""

MOST_NOTES = 12


def text(done: Done, gates: Sequence[str] = (), *, every_layer: bool = False) -> str:
    """What was tried and kept, the layers that lose most, and where the files are."""
    parts = [
        _trials(done),
        _ladder(done),
        _layers(done, every_layer),
        _verdict(done),
        _notes(done, gates),
        _files(done),
    ]
    return "\n\n".join("\n".join(map(printable, lines)) for lines in map(list, parts) if lines)


def _trials(done: Done) -> Iterator[str]:
    for trial in done.trials:
        level = "" if trial.sqnr_db is None else f"{trial.sqnr_db:7.2f} dB"
        yield f"{'kept' if trial.kept else '':<5}{level}  {trial.seconds:6.1f} s  {trial.what}"


def _ladder(done: Done) -> Iterator[str]:
    """Every quantization of the ladder: ``*`` marks the Pareto front of time and accuracy."""
    if done.ladder is None:
        return
    yield f"{'':<7} {'dB':>7} {'ms':>8} {'mJ':>8} {'cross':>5} {'+dB':>7} {'+ms':>8} {'dB/ms':>8}  rung"
    for p in done.ladder.points:
        mark = f"{'*' if p.front else ' '} {'kept' if p.kept else ''}"
        costs = f"{plain(p.price.ms):>8} {plain(p.price.mj):>8} {p.price.crossings:>5}"
        gains = f"{p.gain_db:>+7.2f} {plain(p.added.ms):>8} {plain(p.gain_per_ms):>8}"
        yield f"{mark:<7} {p.sqnr_db:>7.2f} {costs} {gains}  {p.rung}: {p.what}"
    floor = f"the floor of {done.order.floor:g} dB is {'' if done.ladder.reached else 'not '}reached"
    yield f"* on the Pareto front of milliseconds (estimated) and decibels; {floor} on the images that decide"


def _layers(done: Done, every: bool) -> Iterator[str]:
    rows = list(done.layers)
    shown = rows if every else sorted(sorted(rows, key=lambda r: r.alone_db)[:MOST], key=rows.index)
    prices = {node.name: node for node in done.placed.nodes}
    width = max((len(row.node) for row in shown), default=0)
    yield (
        f"{'layer':<{width}}  {'type':<18} {'on':<3} {'as':<7} {'ms':>8} {'alone dB':>8} {'so far dB':>9} {'cosine':>8}"
        "  worst channels (dB)"
    )
    for row in shown:
        price = prices[row.node]
        worst = ", ".join(f"{c} ({db:.0f})" for c, db in row.channels)
        figures = f"{plain(price.ms):>8} {row.alone_db:>8.1f} {row.sqnr_db:>9.1f} {row.cosine:>8.5f}"
        yield f"{row.node:<{width}}  {row.op:<18} {price.device:<3} {row.dtype:<7} {figures}  {worst}"
    if len(shown) < len(rows):
        yield f"{len(rows) - len(shown)} layers that lose less are not shown; --layers shows all"
    turns = conversions(done)
    if turns:
        known = [node.ms for node in turns if node.ms is not None]
        total = plain(sum(known)) if len(known) == len(turns) else MISSING
        yield f"{plural(len(turns), 'conversion')} between types: {total} ms (estimated)"


def _parts(done: Done, output: str) -> str:
    found = done.score.parts.get(output, {})
    return f" ({', '.join(f'{part} {db:.2f}' for part, db in found.items())})" if found else ""


def _verdict(done: Done) -> Iterator[str]:
    outputs = ", ".join(f"{name} {db:.2f} dB{_parts(done, name)}" for name, db in done.score.outputs.items())
    agreed = "" if done.score.agreement is None else f", top-1 agrees on {done.score.agreement:.1%}"
    kind = "images that decided nothing" if done.held_out else "images, those that decided"
    yield f"outputs: {outputs}{agreed} ({done.score.images} {kind}; integer engine of {done.order.target.contract})"
    first, worst = first_divergence(done.layers), culprit(done.layers)
    if first is not None:
        yield f"first to diverge: {first.node} ({first.op}), {first.sqnr_db:.1f} dB"
    if worst is not None:
        why, fix = advice(worst, done.means)
        yield f"loses most alone: {worst.node} ({worst.op}), {worst.alone_db:.1f} dB: {why}; next: {fix}"


def _notes(done: Done, gates: Sequence[str]) -> Iterator[str]:
    yield from (f"gate missed: {gate}" for gate in gates)
    yield from (f"note: {note}" for note in done.notes[:MOST_NOTES])
    if len(done.notes) > MOST_NOTES:
        yield f"{len(done.notes) - MOST_NOTES} more notes are in --json"


def _files(done: Done) -> Iterator[str]:
    spent = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in done.seconds.items())
    yield f"{spent}; {done.calibrated.images} calibration images, {done.calibrated.digest[:12]}"
    plot = "" if done.plot is None else f", {done.plot.name}"
    yield f"wrote {done.order.out}, {done.order.encodings_out.name}, {done.order.recipe_out.name}{plot}"
    if done.order.export is not None:
        yield f"wrote {done.order.export} for AIMET, and {done.order.float_out.name}, the float model that it is of"


def explain(done: Done, layer: str) -> str:
    """Everything that is known of one layer; raises ``ModelError`` with the nearest names when there is none."""
    rows = [row for row in done.layers if layer in (row.node, row.tensor)]
    if not rows:
        near = [row.node for row in done.layers if layer.lower() in row.node.lower()][:5]
        fix = f"did you mean {', '.join(near)}?" if near else "--layers shows all"
        raise ModelError("is no layer of the quantized model", where=layer, fix=fix)
    return "\n".join(printable(line) for row in rows for line in _explained(done, row))


def _explained(done: Done, row: Sensitivity) -> Iterator[str]:
    price = next(node for node in done.placed.nodes if node.name == row.node)
    why, fix = advice(row, done.means)
    yield f"{row.node} ({row.op}) gives {row.tensor}"
    yield f"  range       float {row.low:.6g} to {row.high:.6g}; {_step(row)}"
    yield f"  alone       {row.alone_db:.1f} dB, from the float model's inputs"
    yield f"  so far      {row.sqnr_db:.1f} dB, cosine {row.cosine:.6f}, largest difference {row.largest:.4g}"
    yield f"  saturated   {row.saturated:.2%} of its values are beyond an end of the range"
    for channel, level in row.channels:
        yield f"  channel     {channel}: {level:.1f} dB"
    reasons = f": {'; '.join(price.reasons)}" if price.reasons else ""
    yield f"  placement   on the {price.device.upper()} of {done.order.target.name}{reasons}"
    yield f"  cost        {_cost(done, price)}"
    yield f"  why         {why}"
    yield f"  next        {fix}"


def _step(row: Sensitivity) -> str:
    return f"one step of {row.dtype} is {row.scale:.6g}" if row.scale else f"{row.dtype}, not quantized"


def _cost(done: Done, price: NodeCheck) -> str:
    """What a layer costs where it runs, estimated, beside the whole."""
    whole = done.placed.totals.ms
    share = f" of {milliseconds(whole)} in all" if whole is not None else ""
    energy = "" if price.mj is None else f", {plain(price.mj)} mJ"
    macs = f"{price.macs / 1e6:.4g} million MACs, " if price.macs else ""
    work = f"{macs}{size(price.bytes)} moved, bound by {price.bound}"
    return f"{milliseconds(price.ms)}{share}, estimated{energy}; {work}"
