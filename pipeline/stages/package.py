"""Package the partitioned model with its runtime, open what was packaged, and prove it by running it."""

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from pipeline import keys, tasks
from pipeline.compile import plan
from pipeline.compile.bundling import Use, bundle
from pipeline.compile.deploy import build_deploy
from pipeline.compile.partitions import Partition
from pipeline.config import CocoData, RunConfig
from pipeline.cost import hosts
from pipeline.cost.estimates import estimates
from pipeline.cost.model import CostModel
from pipeline.errors import ModelError
from pipeline.graph.model import load
from pipeline.graph.view import Graph, view
from pipeline.stages.common import FLOAT_MODEL, MODEL
from pipeline.stages.samples import packaged_detector, save_samples
from pipeline.targets import library
from pipeline.targets.placement import NPU
from pipeline.tasks import Pixels, Task
from pipeline.tasks.inference import infer_onnx
from pipeline.workspace import Context, Result
from runtime import __version__, profiling
from runtime.adapters.image import letterbox
from runtime.app import play
from runtime.bundle import Bundle, Line, Zone, open_bundle
from runtime.npu.encoding import loads
from runtime.npu.schedule import Estimates
from runtime.npu.timeline import timeline
from runtime.player import Summary
from runtime.replay import Replay, replay
from runtime.session import Session

LIBRARIES = ("numpy", "onnx", "onnxruntime", "torch")
"""Distributions whose versions a bundle names as its provenance."""


def run(context: Context) -> Result:
    """Write the bundle and the deploy folder, replay the golden vectors, measure accuracy, play the clip.

    Writes ``NAME.npub``, ``deploy/``, ``samples/`` (frames as the float model and the bundle see them) and, with
    ``package.demo``, ``demo/events.jsonl``, ``demo/annotated.mp4`` and ``demo/summary.json``; ``profile.json`` and
    ``trace.json``, what ``npu-run profile`` says of the bundle.

    Returns:
        ``ap50`` and ``ap`` of the packaged bundle on the simulated NPU; ``golden_bytes`` compared and
        ``differing_bytes``; ``bundle_bytes``; ``npu_cycles`` and ``npu_ms``, an estimate of one inference, where the
        target's figures are public; of the demo its ``frames``,
        ``tracks``, the visitors counted, ``in`` and ``out``, and, where there are zones, their ``visits`` and
        mean length ``dwell_s`` in seconds.

    Raises:
        ModelError: a golden vector came out different, or an operator cannot be compiled.
        BundleError: the bundle cannot be written or opened.
    """
    config = context.config
    task = tasks.load(config)
    path = context.out / f"{config.name}.npub"
    _write(path, context, task)
    build_deploy(context.out / "deploy", path)
    opened = open_bundle(path)
    (context.out / "profile.json").write_text(json.dumps(profiling.facts(opened), indent=1) + "\n")
    (context.out / "trace.json").write_text(json.dumps(profiling.document(opened)) + "\n")
    replayed = _replay(opened)
    context.progress.message("measuring the bundle on the simulated NPU")
    session = Session(opened)
    scores = task.evaluate(task.detector(session.infer))
    floating = infer_onnx((context.inputs["quantize"] / FLOAT_MODEL).read_bytes(), task)
    as_packaged = packaged_detector(task, floating, opened.manifest.decoder)
    save_samples(context.out / "samples", task, as_packaged, session.detect)
    demo = _demo(opened, context) if config.package.demo else None
    return Result(
        {
            **scores,
            "golden_bytes": float(replayed.bytes),
            "differing_bytes": float(replayed.differing),
            "bundle_bytes": float(opened.size),
            **_estimated(opened),
            **({} if demo is None else _numbers(demo)),
        }
    )


def _write(path: Path, context: Context, task: Task) -> None:
    package = context.config.package
    use = Use(
        name=context.config.name,
        labels=task.labels,
        preprocess=task.preprocess,
        decoder=task.decoder(package.score_threshold),
        lines=tuple(Line(line.name, line.start, line.end) for line in package.lines),
        zones=tuple(Zone(zone.name, zone.points) for zone in package.zones),
        provenance={**context.provenance, **_versions()},
        version=package.version,
        signer=None if package.sign is None else keys.signer(package.sign),
    )
    graph = view(load(context.inputs["export"] / MODEL))
    partitions, models = plan.load(context.inputs["partition"], graph)
    target = library.load(context.profile)
    host = None if context.host is None else hosts.load(context.host)
    bundle(
        path,
        use,
        graph,
        partitions,
        models,
        target,
        _golden(task, package.golden),
        _estimates(graph, partitions, CostModel(target, host)),
    )


def _estimates(graph: Graph, partitions: Sequence[Partition], model: CostModel) -> list[Estimates | None]:
    """What the cost model says of each partition of the NPU."""
    return [
        estimates(model, graph, {n.name for n in p.nodes}, [t.wire for t in p.inputs], [t.wire for t in p.outputs])
        if p.device == NPU
        else None
        for p in partitions
    ]


def _versions() -> Mapping[str, str]:
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {f"version.{name}": version for name, version in {"pipeline": __version__, **versions}.items()}


def _golden(task: Task, count: int) -> list[Pixels]:
    samples = zip(task.validation(), range(count), strict=False)
    return [letterbox(s.frame, task.preprocess.width, task.preprocess.height)[0] for s, _ in samples]


def _replay(opened: Bundle) -> Replay:
    replayed = replay(opened)
    if not replayed.passed:
        raise ModelError(
            f"{replayed.differing} of {replayed.bytes} bytes of its golden vectors came out different",
            where=opened.path,
            fix="this is a bug of the simulated NPU: report it with the bundle",
        )
    return replayed


def _estimated(opened: Bundle) -> dict[str, float]:
    """Cycles and milliseconds of the NPU's programs per inference, as far as the target's figures are public."""
    names = [entry.program for entry in opened.manifest.partitions if entry.program is not None]
    found = [line for line in (timeline(loads(opened.read(name))) for name in names) if line is not None]
    cycles, times = [line.cycles for line in found], [line.ms for line in found]
    known = {
        "npu_cycles": None if None in cycles else sum(value or 0.0 for value in cycles),
        "npu_ms": None if None in times else sum(value or 0.0 for value in times),
    }
    return {name: value for name, value in known.items() if value is not None}


def _demo(opened: Bundle, context: Context) -> Summary:
    folder = context.out / "demo"
    folder.mkdir(exist_ok=True)
    context.progress.start(_frames(context.config), "playing the bundle")
    summary = play(
        opened,
        str(_source(context.config)),
        events=folder / "events.jsonl",
        annotate=folder / "annotated.mp4",
        listen=lambda _: context.progress.advance(),
    )
    # Host seconds differ from run to run; what is kept must not.
    facts = {k: v for k, v in asdict(summary).items() if k not in ("seconds", "fps", "cold_start_s", "source")}
    (folder / "summary.json").write_text(json.dumps(facts, indent=1) + "\n")
    return summary


def _source(config: RunConfig) -> Path:
    return config.data.validation_images if isinstance(config.data, CocoData) else config.data.video


def _frames(config: RunConfig) -> int:
    return 0 if isinstance(config.data, CocoData) else config.data.validation_frames[1]


def _numbers(demo: Summary) -> dict[str, float]:
    zones = demo.zones.values()
    visits = sum(zone.visits for zone in zones)
    stayed = {"dwell_s": sum(zone.visits * zone.dwell_s for zone in zones) / visits} if visits else {}
    return {
        "frames": float(demo.frames),
        "tracks": float(demo.tracks or 0),
        "in": float(sum(line["in"] for line in demo.counts.values())),
        "out": float(sum(line["out"] for line in demo.counts.values())),
        **({"visits": float(visits), **stayed} if zones else {}),
    }
