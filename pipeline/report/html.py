"""``report.html``: what a run came to, for people. One file that needs nothing else, not even a network."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import jinja2
from markupsafe import Markup

from pipeline.report import formats, results
from pipeline.report.formats import count, milliseconds, percent, plain, plural, points, size
from pipeline.report.graph_parts import parts
from pipeline.report.graph_picture import picture
from pipeline.report.headline import Accuracy, accuracies, float_ap50, verdict
from pipeline.report.results import Absent, Node
from pipeline.summary import RunSummary, StageSummary

LONG = 12
"""Tables with more rows start folded."""


@dataclass(frozen=True)
class Tile:
    """One number of the summary: what it is, its value, and what to compare it with."""

    label: str
    value: str
    note: str


def page(summary: RunSummary) -> str:
    """The whole page; the same summary and files give the same text. What cannot be shown says why, in its place."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {
            each.__name__: each
            for each in (percent, points, count, size, milliseconds, formats.seconds, plain, formats.decibel)
        }
    )
    environment.tests["absent"] = lambda value: isinstance(value, Absent)
    return environment.get_template("report.html").render(
        run=summary,
        long=LONG,
        verdict=verdict(summary),
        tiles=_tiles(summary),
        accuracy=_accuracy(summary),
        training=_training(summary),
        graph=_graph(summary),
        coverage=_coverage(summary),
        cost=results.check(summary),
        timeline=_timeline(summary),
        noise=_noise(summary),
        ladder=_ladder(summary),
        samples=_samples(summary),
        demo=results.demo(summary),
        stages=[(stage, _state(stage)) for stage in summary.stages],
        kinds=_kinds(summary.metrics),
        origin=_origin(summary),
    )


def _charts() -> ModuleType:
    """The charts, imported when there is something to draw, for matplotlib takes its time."""
    return import_module("pipeline.report.charts")


def _tiles(summary: RunSummary) -> list[Tile]:
    m = summary.metrics
    before, after = float_ap50(m), m.get("package.ap50", m.get("quantize.ap50"))
    change = None if before is None or after is None else after - before
    packaged = "package.ap50" in m
    crossings, differing = m.get("partition.crossings"), m.get("package.differing_bytes")
    cross = plural(round(crossings or 0), "crossing") + (
        f" of {size(m.get('partition.crossing_bytes'))}" if crossings else ""
    )
    return [
        Tile("AP50, float", percent(before), "float32, validation frames"),
        Tile(
            "AP50, simulated NPU" if packaged else "AP50, int8",
            percent(after),
            f"{points(change)} against float" + ("" if packaged else "; not packaged"),
        ),
        _tile("MACs on the NPU", percent(m.get("coverage.macs_on_npu")), _operators(m)),
        _tile(
            "Partitions",
            count(m.get("partition.partitions")),
            f"{count(m.get('partition.npu_partitions'))} on the NPU, {cross}",
        ),
        _tile(
            "Latency, estimated",
            milliseconds(m.get("partition.ms")),
            f"{milliseconds(m.get('partition.low_ms'))} to {milliseconds(m.get('partition.high_ms'))}",
        ),
        _tile("Bundle", size(m.get("package.bundle_bytes")), "model, programs, golden vectors"),
        _tile("Differing bytes", count(differing), f"of {count(m.get('package.golden_bytes'))} golden bytes"),
    ]


def _tile(label: str, value: str, note: str) -> Tile:
    """A tile whose note speaks of the value only when there is one."""
    return Tile(label, value, "not known in this run" if value == formats.MISSING else note)


def _operators(m: Mapping[str, float]) -> str:
    total, taken = m.get("coverage.nodes", 0.0), m.get("coverage.nodes_on_npu", 0.0)
    return f"{count(taken)} of {count(total)} operators, {plural(round(total - taken), 'fallback')}"


def _accuracy(summary: RunSummary) -> Mapping[str, object] | Absent:
    forms = accuracies(summary.metrics)
    if not any(form.ap50 is not None for form in forms):
        return Absent("Nothing has been measured yet.")
    base = float_ap50(summary.metrics)

    def change(form: Accuracy) -> float | None:
        return None if base is None or form.ap50 is None else form.ap50 - base

    return {"forms": [(form, change(form)) for form in forms], "chart": Markup(_charts().accuracy(forms))}


def _training(summary: RunSummary) -> Mapping[str, object] | Absent:
    epochs = results.history(summary)
    if isinstance(epochs, Absent):
        return epochs
    if not epochs:
        return Absent("The train stage recorded no epoch.")
    charts = _charts()
    best = max(epochs, key=lambda epoch: epoch.ap50)
    return {
        "epochs": len(epochs),
        "best": best,
        "parameters": summary.metrics.get("train.parameters"),
        "loss": Markup(charts.losses(epochs)),
        "scores": Markup(charts.scores(epochs)),
    }


def _graph(summary: RunSummary) -> Mapping[str, object] | Absent:
    found = parts(summary)
    if isinstance(found, Absent):
        return found
    devices = Counter(box.place for box in found.boxes)
    crossings = sum(arrow.crossing for arrow in found.arrows)
    label = f"The model as a graph: {devices['npu']} boxes on the NPU, {devices['cpu']} on the CPU"
    return {"whole": found.whole, "crossings": crossings, "picture": Markup(picture(found.boxes, found.arrows, label))}


def _coverage(summary: RunSummary) -> Mapping[str, object] | Absent:
    nodes = results.coverage(summary)
    if isinstance(nodes, Absent):
        return nodes
    fallbacks = [node for node in nodes if node.device == "cpu"]
    return {
        "fallbacks": fallbacks,
        "taken": [node for node in nodes if node.device == "npu"],
        "operators": _by_operator(nodes),
        "macs": sum(node.macs for node in nodes),
    }


def _by_operator(nodes: Sequence[Node]) -> list[tuple[str, int, int, int]]:
    """Operator type, how many, how many on the NPU, and their MACs; most MACs first."""
    total, taken, macs = Counter[str](), Counter[str](), Counter[str]()
    for node in nodes:
        total[node.op] += 1
        taken[node.op] += node.device == "npu"
        macs[node.op] += node.macs
    return [(op, total[op], taken[op], macs[op]) for op in sorted(total, key=lambda op: (-macs[op], op))]


def _timeline(summary: RunSummary) -> Mapping[str, object] | Absent:
    """The NPU's programs, layer by layer, and when their engines are busy."""
    programs, events = results.profile(summary), results.trace(summary)
    if isinstance(programs, Absent):
        return programs
    if not any(program.layers for program in programs):
        return Absent("No program of the bundle carries estimates.")
    drawable = not isinstance(events, Absent) and any(event.dur > 0 for event in events)
    return {
        "programs": programs,
        "chart": Markup(_charts().timeline(events)) if drawable else None,
        "unknown": sorted({name for p in programs if p.estimates is not None for name in p.estimates.unknown}),
    }


def _noise(summary: RunSummary) -> Mapping[str, object] | Absent:
    rows = results.errors(summary)
    if isinstance(rows, Absent):
        return rows
    if not rows:
        return Absent("No layer runs in integers from the image on, so there is nothing to compare.")
    charts = _charts()
    return {
        "rows": sorted(rows, key=lambda row: row.sqnr_db),
        "chart": Markup(charts.noise(rows)),
        "loudest": charts.LOUDEST,
    }


def _ladder(summary: RunSummary) -> Mapping[str, object] | Absent | None:
    """What was tried to reach the floor of AP50, against its estimated time."""
    found = results.ladder(summary)
    if found is None or isinstance(found, Absent):
        return found
    drawable = any(point.ms is not None for point in found.points)
    return {"found": found, "chart": Markup(_charts().ladder(found.points)) if drawable else None}


def _samples(summary: RunSummary) -> list[tuple[str, str]] | Absent:
    found = results.samples(summary)
    if isinstance(found, Absent):
        return found
    return [(name, f"data:image/jpeg;base64,{base64.b64encode(data).decode()}") for name, data in found]


def _state(stage: StageSummary) -> str:
    return "ran" if stage.ran else stage.state


def _kinds(m: Mapping[str, float]) -> list[tuple[str, str, str, str]]:
    """What, how much, how it was found (measured, simulated, computed, estimated), and what that means."""
    scored = percent(m.get("package.ap50", m.get("quantize.ap50")))
    cycles = m.get("package.npu_cycles")
    return [
        ("AP50 and AP of int8", scored, "measured", "On all validation frames, by the integer engine that ships."),
        (
            "NPU arithmetic",
            f"{count(m.get('package.differing_bytes'))} differing bytes",
            "simulated",
            "Bit for bit after the target's integer contract, on this computer; no chip was used.",
        ),
        (
            "NPU cycles per inference",
            count(cycles),
            "estimated",
            "A priori from the figures of the target's profile; never compared with a device.",
        ),
        (
            "Latency per inference",
            milliseconds(m.get("partition.ms")),
            "estimated",
            "By closed forms of the chip, its host and the link between them; see Cost for how far to trust it.",
        ),
        (
            "MACs on the NPU",
            percent(m.get("coverage.macs_on_npu")),
            "computed",
            "From the graph's shapes and the target's rules; rules carry their sources in the profile.",
        ),
        (
            "float ONNX against torch",
            plain(m.get("export.torch_difference"), 3),
            "measured",
            "Largest absolute difference of the outputs on the first validation frame.",
        ),
        ("Bundle size", size(m.get("package.bundle_bytes")), "measured", "The file as it is deployed."),
        ("Seconds per stage", "see Stages", "measured", "Host time on this computer; says nothing about the device."),
    ]


def _origin(summary: RunSummary) -> Mapping[str, object]:
    """Where the results come from: versions of libraries and digests of the files that matter."""
    versions: dict[str, str] = {}
    files: list[tuple[str, int, str]] = []
    for stage in summary.stages:
        record = results.record(summary, stage.name)
        if record is None:
            continue
        versions |= {name: str(version) for name, version in record.key.get("libraries", {}).items()}
        wanted = (".npub", ".onnx", ".safetensors")
        files += [
            (f"{stage.name}/{name}", output.size, output.sha256)
            for name, output in sorted(record.outputs.items())
            if name.endswith(wanted) and "checkpoints/" not in name
        ]
    return {"versions": sorted(versions.items()), "files": files}
