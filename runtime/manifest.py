"""The manifest of a bundle: what it holds, how its pieces connect, and what must be true of it."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Literal

from runtime import strict_json
from runtime.adapters.detection import BoxDecoder
from runtime.adapters.image import QUANTIZED, Preprocess
from runtime.errors import BundleError
from runtime.limits import LIMITS, Limits
from runtime.tensors import TensorSpec

SCHEMA = 2
"""The schema that this runtime reads and writes."""

MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
"""The two files that a manifest does not list: itself, and who signed it."""

DTYPES = ("int8", "uint8", "int16", "int32", "int64", "float16", "float32", "bool")
MOST_CORNERS = 100
"""Of a zone."""
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


@dataclass(frozen=True)
class PartitionEntry:
    """A piece of the graph that runs on one device.

    Attributes:
        device: ``npu`` or ``cpu``.
        program: file of the compiled program; ``None`` for a CPU partition.
        model: file of the partition as ONNX (QDQ when quantized): what runs on the CPU, and for an NPU partition
            what ``--delegate cpu`` runs.
        inputs: tensors it reads.
        outputs: tensors it gives.
        nodes: graph nodes in it, in execution order.
    """

    device: Literal["npu", "cpu"]
    program: str | None
    model: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """A line over which tracked objects are counted: ``start`` and ``end`` as (x, y) in source pixels.

    Seen from ``start`` to ``end``, crossing from the right to the left is ``in``, from the left to the right ``out``.
    """

    name: str
    start: tuple[float, float]
    end: tuple[float, float]


@dataclass(frozen=True)
class Zone:
    """A polygon in which tracked objects are counted and timed: its corners as (x, y) in source pixels, in order."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class FileEntry:
    """A file in the bundle: SHA-256 in hexadecimal, and size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class GoldenEntry:
    """Golden vectors: two ``.npz`` files of arrays by tensor name, each ``count`` vectors stacked in front."""

    inputs: str
    outputs: str
    count: int


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself.

    Attributes:
        schema: version of this format.
        name: of the use case.
        version: counted up by whoever publishes; a device that checks signatures never goes back.
        target: the NPU the programs were compiled for.
        contract: the integer contract they were folded for.
        labels: of the classes, in the order of the score channels.
        tensors: every tensor that enters, leaves or crosses between partitions.
        inputs: names of the tensors that enter; one image [1, 3, height, width].
        outputs: names of the tensors that leave, in the order of ``output_names``.
        output_names: what the outputs are called by the post-processing.
        partitions: in execution order.
        preprocess: how a frame becomes the input.
        decoder: how outputs become boxes.
        lines: over which tracked objects are counted.
        zones: in which tracked objects are counted and timed.
        provenance: where the bundle comes from: configuration digest, versions, commit.
        golden: golden vectors, if any.
        files: every other file in the bundle; filled in by ``write_bundle``.
    """

    schema: int
    name: str
    version: int
    target: str
    contract: str
    labels: tuple[str, ...]
    tensors: tuple[TensorSpec, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    output_names: tuple[str, ...]
    partitions: tuple[PartitionEntry, ...]
    preprocess: Preprocess
    decoder: BoxDecoder
    lines: tuple[Line, ...] = ()
    zones: tuple[Zone, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    golden: GoldenEntry | None = None
    files: Mapping[str, FileEntry] = field(default_factory=dict)

    def tensor(self, name: str) -> TensorSpec:
        """The tensor called ``name``; it exists in a manifest that was checked."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> Mapping[str, TensorSpec]:
        return MappingProxyType({spec.name: spec for spec in self.tensors})


def parse_manifest(data: bytes, where: object, limits: Limits = LIMITS) -> Manifest:
    """The manifest in ``data``, checked.

    Raises:
        LimitError: it is too long, too deep or has too many values, or a tensor is too large.
        BundleError: not JSON, of a newer or unknown schema, with unknown, missing or mistyped keys, or
            contradicting itself (see :func:`check`).
    """
    limits.hold("json_bytes", len(data), f"has {len(data)} bytes", where)
    depth, values = strict_json.measure(data, depth=limits.json_depth, values=limits.json_values)
    limits.hold("json_depth", depth, "has lists or objects too deep inside each other", where)
    limits.hold("json_values", values, "has too many values", where)
    value = strict_json.parse(data, where)
    schema = value.get("schema")
    if type(schema) is int and schema > SCHEMA:
        what = f"written by a newer version: schema {schema}, this runtime reads {SCHEMA}"
        raise BundleError(what, where=where, fix="update the runtime")
    if "schema" in value and schema != SCHEMA:
        raise BundleError(f"schema is {schema!r}, this runtime reads {SCHEMA}", where=where)
    manifest = strict_json.build(Manifest, value, where)
    check(manifest, where, limits)
    return manifest


def check(manifest: Manifest, where: object, limits: Limits = LIMITS) -> None:
    """Refuse a manifest whose parts do not fit together.

    Raises:
        LimitError: a tensor has too many dimensions or elements.
        BundleError: the first thing found, in the words of the manifest.
    """
    total = 0
    for spec in manifest.tensors:
        at = f"tensor {spec.name[:80]}"
        limits.hold("tensor_rank", len(spec.shape), f"{at} has {len(spec.shape)} dimensions", where)
        elements = math.prod(max(1, size) for size in spec.shape)
        limits.hold("tensor_elements", elements, f"{at} has shape {str(list(spec.shape))[:120]}", where)
        total += elements
    limits.hold("all_elements", total, f"has tensors of {total} elements together", where)
    for problem in _problems(manifest):
        raise BundleError(problem, where=where)


def _problems(manifest: Manifest) -> Iterable[str]:
    """Sentences, one per contradiction."""
    yield from _name_problems(manifest)
    for spec in manifest.tensors:
        yield from _tensor_problems(spec)
    yield from _flow_problems(manifest)
    yield from _file_problems(manifest)
    yield from _image_problems(manifest)


def _name_problems(manifest: Manifest) -> Iterable[str]:
    listed = {
        "labels": manifest.labels,
        "tensors": tuple(spec.name for spec in manifest.tensors),
        "inputs": manifest.inputs,
        "outputs": manifest.outputs,
        "output_names": manifest.output_names,
    }
    for key, names in listed.items():
        if not names:
            yield f"{key} is empty"
        yield from _repeated(key, names)
    yield from _place_problems(manifest)
    if len(manifest.outputs) != len(manifest.output_names):
        yield f"outputs has {len(manifest.outputs)} names and output_names {len(manifest.output_names)}"
    if manifest.version < 0:
        yield f"version is {manifest.version}; it must be at least 0"
    for key in ("name", "target", "contract"):
        if not getattr(manifest, key):
            yield f"{key} is empty"


def _place_problems(manifest: Manifest) -> Iterable[str]:
    """What is wrong with lines and zones."""
    yield from _repeated("lines", tuple(line.name for line in manifest.lines))
    yield from _repeated("zones", tuple(zone.name for zone in manifest.zones))
    for line in manifest.lines:
        if line.start == line.end or not all(map(math.isfinite, (*line.start, *line.end))):
            yield f"line {line.name} goes from {line.start} to {line.end}; it needs two different points"
    for zone in manifest.zones:
        if not 3 <= len(set(zone.points)) == len(zone.points) <= MOST_CORNERS:
            yield f"zone {zone.name} has {len(zone.points)} corners; it needs 3 to {MOST_CORNERS}, each another point"


def _repeated(key: str, names: tuple[str, ...]) -> Iterable[str]:
    for name in sorted(name for name, count in Counter(names).items() if count > 1):
        yield f"{key} names {name} twice"


def _tensor_problems(spec: TensorSpec) -> Iterable[str]:
    at = f"tensor {spec.name}"
    if spec.dtype not in DTYPES:
        yield f"{at} has dtype {spec.dtype}, not one of {', '.join(DTYPES)}"
    if any(size < 1 for size in spec.shape):
        yield f"{at} has shape {list(spec.shape)}; every size must be at least 1"
    if (spec.scale is None) != (spec.zero_point is None):
        yield f"{at} has only one of scale and zero_point"
    if spec.scale is not None and spec.scale <= 0:
        yield f"{at} has scale {spec.scale}; it must be above 0"
    if spec.zero_point is not None and spec.dtype == "int8" and not -128 <= spec.zero_point <= 127:
        yield f"{at} has zero_point {spec.zero_point}, which is not an int8"


def _flow_problems(manifest: Manifest) -> Iterable[str]:
    known = {spec.name for spec in manifest.tensors}
    ready = set(manifest.inputs)
    for name in (*manifest.inputs, *manifest.outputs):
        if name not in known:
            yield f"tensor {name} is not in tensors"
    if not manifest.partitions:
        yield "partitions is empty"
    for index, partition in enumerate(manifest.partitions):
        at = f"partitions[{index}]"
        for name in (*partition.inputs, *partition.outputs):
            if name not in known:
                yield f"{at} names tensor {name}, which is not in tensors"
        for name in partition.inputs:
            if name not in ready:
                yield f"{at} reads tensor {name} before a partition gives it"
        for name in partition.outputs:
            if name in ready:
                yield f"{at} gives tensor {name}, which exists already"
        yield from _repeated(f"{at}.inputs", partition.inputs)
        yield from _repeated(f"{at}.outputs", partition.outputs)
        ready.update(partition.outputs)
    for name in manifest.outputs:
        if name not in ready:
            yield f"no partition gives the output {name}"


def _file_problems(manifest: Manifest) -> Iterable[str]:
    for name, entry in manifest.files.items():
        if not safe_name(name) or name in (MANIFEST, SIGNATURE):
            yield f"files has {name!r}, which is not a plain relative path"
        if not re.fullmatch(r"[0-9a-f]{64}", entry.sha256) or entry.size < 0:
            yield f"files has no SHA-256 and size of {name}"
    for index, partition in enumerate(manifest.partitions):
        if (partition.program is not None) != (partition.device == "npu"):
            yield f"partitions[{index}] runs on {partition.device} and has program {partition.program}"
        needed = [partition.model] if partition.program is None else [partition.program, partition.model]
        for name in needed:
            if name not in manifest.files:
                yield f"partitions[{index}] names file {name}, which is not in files"
    if manifest.golden is not None:
        for name in (manifest.golden.inputs, manifest.golden.outputs):
            if name not in manifest.files:
                yield f"golden names file {name}, which is not in files"
        if manifest.golden.count < 1:
            yield "golden.count must be at least 1"


def _image_problems(manifest: Manifest) -> Iterable[str]:
    pre, decoder = manifest.preprocess, manifest.decoder
    if pre.width < 1 or pre.height < 1 or min(pre.std) <= 0:
        yield "preprocess: width and height must be at least 1, std above 0"
    if decoder.stride < 1 or decoder.max_detections < 1:
        yield "decoder: stride and max_detections must be at least 1"
    if not (0 <= decoder.score_threshold <= 1 and 0 <= decoder.iou_threshold <= 1):
        yield "decoder: thresholds must be in 0..1"
    if len(manifest.inputs) != 1:
        yield f"inputs has {len(manifest.inputs)} names; the preprocessing gives one image"
    shape = (1, 3, pre.height, pre.width)
    for spec in (spec for spec in manifest.tensors if spec.name in manifest.inputs):
        if spec.shape != shape:
            yield f"input {spec.name} has shape {list(spec.shape)}, the preprocessing gives {list(shape)}"
        if spec.dtype not in (("float32",) if spec.scale is None else QUANTIZED):
            kinds = " or ".join(QUANTIZED)
            yield f"input {spec.name} is {spec.dtype}; the preprocessing gives float32, or {kinds} with a scale"
    yield from _output_problems(manifest)


def _output_problems(manifest: Manifest) -> Iterable[str]:
    if sorted(manifest.output_names) != ["boxes", "scores"]:
        yield f"output_names is {list(manifest.output_names)}; the decoder takes scores and boxes"
        return
    named = dict(zip(manifest.output_names, manifest.outputs, strict=True))
    scores, boxes = (manifest.tensor(named[key]).shape for key in ("scores", "boxes"))
    if len(scores) != 4 or scores[:2] != (1, len(manifest.labels)):
        yield f"scores has shape {list(scores)}; for {len(manifest.labels)} labels it is [1, labels, rows, columns]"
    if len(boxes) != 4 or boxes[:2] != (1, 4) or boxes[2:] != scores[2:]:
        yield f"boxes has shape {list(boxes)}; it is [1, 4, rows, columns], with the rows and columns of scores"


def safe_name(name: str) -> bool:
    """Whether ``name`` is a plain relative path: letters, digits, ``._-`` and ``/``, no part starting with a dot."""
    return _NAME.fullmatch(name) is not None
