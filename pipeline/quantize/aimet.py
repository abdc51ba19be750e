"""Encodings as AIMET has them: read in its versions 0.6.1, 1.0.0 and 2.0.0, written in 1.0.0.

The versions differ in names; up to 1.0.0 a value is ``scale * (q + offset)`` with q unsigned, since 2.0.0
``y_scale * (q - y_zero_point)`` with q of ``output_dtype`` (AIMET's encoding specification).
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.files import read_whole
from pipeline.graph.fusion import fused_outputs
from pipeline.graph.view import Graph, Node
from pipeline.graph.weighted import channel_axis
from pipeline.quantize import encodings
from pipeline.quantize.calibrate import activations
from pipeline.quantize.encodings import ActivationEncoding, Encodings, WeightEncoding
from pipeline.quantize.ptq import SAME_SCALE, converted
from pipeline.quantize.scheme import Scheme
from pipeline.quantize.weights import has_weight

VERSIONS = ("0.6.1", "1.0.0", "2.0.0")
WRITTEN = "1.0.0"
"""The version that is written."""

UNSIGNED = {8: 128, 16: 32768}
"""What is taken off an unsigned integer of so many bits to make a signed one."""


@dataclass(frozen=True)
class _Entry:
    """One tensor: ``real = scale * (q - zero)`` with q signed, of ``bits``; one scale and zero, or one per channel."""

    bits: int
    scales: tuple[float, ...]
    zeros: tuple[int, ...]


def load(path: Path, graph: Graph, scheme: Scheme) -> Encodings:
    """The encodings in ``path``, AIMET's or ours, of the float ``graph``; ``scheme`` is that of the target.

    An activation that AIMET leaves out takes that of the input where the operator only moves data; any other stays
    real, as its operator does. Biases are taken from the scales that they must have.

    Raises:
        ModelError: the file is neither, is of another version, names no tensor of the model, or holds what no contract
            here has: other integers than 8 or 16 bits, weights with a zero point, scales for blocks.
    """
    try:
        document = json.loads(read_whole(path))
        version = document.get("version") if isinstance(document, dict) else None
        if version is None:
            return encodings.load(path)
        if version not in VERSIONS:
            fix = f"export it as {VERSIONS[1]}"
            raise ModelError(f"has version {version}; AIMET's {', '.join(VERSIONS)} are read", where=path, fix=fix)
        found = dict(_entries(document))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        said = f"is not an encodings file: {error}"
        raise ModelError(said, where=path, fix="export the encodings again") from error
    if not found.keys() & {t.name for t in activations(graph)}:
        fix = "export the encodings of this very file"
        raise ModelError("names no activation of the model", where=path, fix=fix)
    return _ours(graph, found, scheme, path)


def text(encodings: Encodings) -> str:
    """``encodings`` as a file of AIMET's version 1.0.0, which ``load`` reads back to the same scales and zero points.

    Biases are left out: their scales follow from the others'. So are conversions between types, which follow from the
    types of what they stand between. AIMET's int8 weights go down to -128, a contract's to -127: a weight below -127.5
    steps differs by one.
    """
    activations = [
        _written(name, bits := int(e.dtype.removeprefix("int")), (e.scale,), -e.zero_point - UNSIGNED[bits])
        for name, e in encodings.activations.items()
    ]
    parameters = [_written(name, 8, e.scales, -UNSIGNED[8], symmetric=True) for name, e in encodings.weights.items()]
    document = {"version": WRITTEN, "activation_encodings": activations, "param_encodings": parameters}
    return json.dumps(document, indent=1) + "\n"


def _written(
    name: str, bits: int, scales: Sequence[float], offset: int, *, symmetric: bool = False
) -> Mapping[str, Any]:
    kind = "PER_TENSOR" if len(scales) == 1 else "PER_CHANNEL"
    return {
        "name": name, "dtype": "INT", "bw": bits, "enc_type": kind, "is_sym": symmetric,
        "scale": list(scales), "offset": [offset] * len(scales),
    }  # fmt: skip


def _entries(document: Mapping[str, Any]) -> Iterator[tuple[str, _Entry]]:
    """Every tensor of the file that has integers."""
    if "encodings" in document:
        yield from ((e["name"], _second(e)) for e in document["encodings"] if e["output_dtype"] != "int32")
        return
    for section in (document["activation_encodings"], document["param_encodings"]):
        if isinstance(section, dict):
            yield from ((name, _zeroth(parts)) for name, parts in section.items() if parts[0]["dtype"] != "float")
        else:
            yield from ((e["name"], _first(e)) for e in section if e["dtype"] != "FLOAT")


def _zeroth(parts: Sequence[Mapping[str, Any]]) -> _Entry:
    scales, offsets = [p["scale"] for p in parts], [p["offset"] for p in parts]
    return _of_offsets(int(parts[0]["bitwidth"]), scales, offsets, parts[0].get("is_symmetric"))


def _first(entry: Mapping[str, Any]) -> _Entry:
    if entry["enc_type"] not in ("PER_TENSOR", "PER_CHANNEL"):
        raise ValueError(f"{entry['name']} has scales {entry['enc_type']}")
    return _of_offsets(int(entry["bw"]), entry["scale"], entry["offset"], entry.get("is_sym"))


def _of_offsets(bits: int, scales: Sequence[float], offsets: Sequence[float], symmetric: object) -> _Entry:
    """``symmetric`` is a truth value, or its name as 0.6.1 has it."""
    half = UNSIGNED.get(bits, 0)
    # A strictly symmetric tensor has one level fewer, so its offset is that of 255 levels.
    strict = 1 - half if str(symmetric).lower() == "true" else -half
    return _entry(bits, scales, [0 if int(o) == strict else -int(o) - half for o in offsets])


def _entry(bits: int, scales: Sequence[float], zeros: Sequence[int]) -> _Entry:
    if not scales or not zeros:
        raise ValueError(f"an entry has {len(scales)} scales and {len(zeros)} zero points")
    return _Entry(bits, tuple(map(float, scales)), tuple(zeros))


def _second(entry: Mapping[str, Any]) -> _Entry:
    kind, scales, zeros = str(entry["output_dtype"]), entry["y_scale"], entry.get("y_zero_point") or 0
    scales = scales if isinstance(scales, list) else [scales]
    zeros = zeros if isinstance(zeros, list) else [zeros] * len(scales)
    if any(isinstance(scale, list) for scale in scales):
        raise ValueError(f"{entry['name']} has scales for blocks")
    bits = int("".join(c for c in kind if c.isdigit()))
    half = UNSIGNED.get(bits, 0) if kind.startswith("u") else 0
    return _entry(bits, scales, [int(z) - half for z in zeros])


def _ours(graph: Graph, found: Mapping[str, _Entry], scheme: Scheme, path: Path) -> Encodings:
    inside = fused_outputs(graph)
    encoded: dict[str, ActivationEncoding] = {}
    for tensor in activations(graph):
        entry, maker = found.get(tensor.name), graph.producer(tensor.name)
        if tensor.name in inside:
            continue
        if entry is not None:
            encoded[tensor.name] = _activation(tensor.name, entry, path)
        elif maker is not None and maker.standard and maker.op in SAME_SCALE:
            given = encoded.get(maker.required(0).name)
            encoded |= {} if given is None else {tensor.name: given}
    weights = {
        node.required(1).name: _weight(node, found[node.required(1).name], path)
        for node in graph.nodes
        if has_weight(node, encoded) and node.required(1).name in found
    }
    return Encodings(encoded, weights, converted(graph, encoded, scheme))


def _activation(name: str, entry: _Entry, path: Path) -> ActivationEncoding:
    (scale, *others), (zero, *_) = entry.scales, entry.zeros
    half = UNSIGNED.get(entry.bits)
    if others or half is None:
        what = f"{len(entry.scales)} scales of {entry.bits} bits"
        raise ModelError(f"the activation {name} has {what}", where=path, fix="one scale of 8 or 16 bits")
    if entry.bits == 16 and zero != 0:
        fix = "quantize int16 activations symmetrically"
        raise ModelError(f"the activation {name} is int16 with zero point {zero}", where=path, fix=fix)
    if not -half <= zero < half:
        fix = f"zero points are from {-half} to {half - 1}"
        raise ModelError(f"the activation {name} is int8 with zero point {zero}", where=path, fix=fix)
    _require(scale, name, path)
    return ActivationEncoding(scale * (-half - zero), scale * (half - 1 - zero), scale, zero, f"int{entry.bits}")


def _weight(node: Node, entry: _Entry, path: Path) -> WeightEncoding:
    name, axis = node.required(1).name, channel_axis(node)
    if entry.bits != 8 or any(entry.zeros):
        what = f"the weight {name} has {entry.bits} bits and zero point {entry.zeros[0]}"
        raise ModelError(what, where=path, fix="quantize weights to symmetric int8")
    if len(entry.scales) > 1 and (axis is None or node.required(1).dims[axis] != len(entry.scales)):
        what = f"the weight {name} of shape {list(node.required(1).dims)} has {len(entry.scales)} scales"
        raise ModelError(what, where=path, fix="one scale, or one per output channel")
    for scale in entry.scales:
        _require(scale, name, path)
    return WeightEncoding(entry.scales, axis if len(entry.scales) > 1 else None)


def _require(scale: float, name: str, path: Path) -> None:
    if not (math.isfinite(scale) and scale > 0):
        raise ModelError(f"{name} has scale {scale}", where=path, fix="scales are above 0")
