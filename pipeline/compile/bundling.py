"""Putting a partitioned model into a bundle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.compile.partitions import Partition, crossing, programs
from pipeline.graph.view import Graph
from pipeline.targets.profile import Target
from runtime.adapters.detection import BoxDecoder
from runtime.adapters.image import Preprocess, prepare
from runtime.bundle import (
    SCHEMA,
    GoldenEntry,
    Line,
    Manifest,
    PartitionEntry,
    Signer,
    Zone,
    open_bundle,
    pack_arrays,
    write_bundle,
)
from runtime.npu.schedule import Estimates
from runtime.session import Session


@dataclass(frozen=True)
class Use:
    """What the bundle is for.

    Attributes:
        name: the use case's.
        labels: class names.
        preprocess: how a frame becomes the input.
        decoder: how the outputs become boxes.
        lines: over which tracked objects are counted.
        provenance: where it comes from.
        zones: in which tracked objects are counted and timed.
        version: counted up by whoever publishes.
        signer: signs the bundle; nobody does when ``None``.
    """

    name: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    decoder: BoxDecoder
    lines: tuple[Line, ...]
    provenance: Mapping[str, str]
    zones: tuple[Zone, ...] = ()
    version: int = 0
    signer: Signer | None = None


def bundle(
    path: Path,
    use: Use,
    graph: Graph,
    partitions: Sequence[Partition],
    models: Sequence[bytes],
    target: Target,
    golden: Sequence[NDArray[np.uint8]] = (),
    estimates: Sequence[Estimates | None] = (),
) -> None:
    """Compile the NPU's partitions and write the bundle to ``path``.

    Args:
        path: replaced when all is written.
        use: what it is for.
        graph: the quantized model's view.
        partitions: its pieces in execution order.
        models: each as ONNX.
        target: the NPU.
        golden: images of the network's size, uint8 [H, W, 3]; what every partition makes of them, by the plain kernels,
            goes into the bundle as its golden vectors.
        estimates: what the cost model says of each partition; goes into its program.

    Raises:
        ModelError: an operator cannot be compiled.
        BundleError: the pieces do not fit together, a model holds what models in bundles may not, or the file cannot
            be written.
    """
    entries, payloads = [], {}
    compiled = programs(graph, partitions, target, estimates)
    for index, (partition, piece, program) in enumerate(zip(partitions, models, compiled, strict=True)):
        entry = _entry(index, partition, program is not None)
        payloads[entry.model] = piece
        if entry.program is not None and program is not None:
            payloads[entry.program] = program
        entries.append(entry)
    manifest = _manifest(use, target, graph, partitions, entries)
    write_bundle(path, manifest, payloads, use.signer)
    if golden:
        inputs, outputs = _golden(path, golden)
        files = {"golden/inputs.npz": pack_arrays(inputs), "golden/outputs.npz": pack_arrays(outputs)}
        entry_golden = GoldenEntry("golden/inputs.npz", "golden/outputs.npz", len(golden))
        write_bundle(path, replace(manifest, golden=entry_golden), {**payloads, **files}, use.signer)


def _entry(index: int, partition: Partition, compiled: bool) -> PartitionEntry:
    return PartitionEntry(
        device="npu" if compiled else "cpu",
        program=f"programs/{index}.npup" if compiled else None,
        model=f"models/{index}.onnx",
        inputs=tuple(t.wire for t in partition.inputs),
        outputs=tuple(t.wire for t in partition.outputs),
        nodes=tuple(n.name for n in partition.nodes),
    )


def _manifest(
    use: Use, target: Target, graph: Graph, partitions: Sequence[Partition], entries: Sequence[PartitionEntry]
) -> Manifest:
    tensors = {t.wire: crossing(t) for p in partitions for t in (*p.inputs, *p.outputs)}
    return Manifest(
        schema=SCHEMA,
        name=use.name,
        version=use.version,
        target=target.name,
        contract=target.contract,
        labels=use.labels,
        tensors=tuple(tensors.values()),
        inputs=tuple(t.wire for t in graph.inputs),
        outputs=tuple(t.wire for t in graph.outputs),
        output_names=graph.output_names,
        partitions=tuple(entries),
        preprocess=use.preprocess,
        decoder=use.decoder,
        lines=use.lines,
        zones=use.zones,
        provenance=use.provenance,
    )


def _golden(
    path: Path, images: Sequence[NDArray[np.uint8]]
) -> tuple[dict[str, NDArray[np.generic]], dict[str, NDArray[np.generic]]]:
    """``images`` and what every partition gives for them, by tensor, stacked; the plain kernels compute it."""
    opened = open_bundle(path)
    session, manifest = Session(opened, "plain"), opened.manifest
    spec = manifest.tensor(manifest.inputs[0])
    inputs = [prepare(image, manifest.preprocess, spec) for image in images]
    traces = [session.trace({spec.name: i}) for i in inputs]
    crossing_names = [name for entry in manifest.partitions for name in entry.outputs]
    return {spec.name: np.stack(inputs)}, {name: np.stack([t[name] for t in traces]) for name in crossing_names}
