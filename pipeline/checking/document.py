"""A check for scripts: the JSON that ``pipeline check --json`` prints."""

import json
import math
from typing import Any

from pipeline.checking.nouns import Check, Gain, Price

SCHEMA = 1


def document(check: Check, gates_missed: tuple[str, ...] = ()) -> dict[str, Any]:
    """``check`` as plain data; what is not known is ``null``.

    Milliseconds, megabytes (10^6 bytes), millijoules, bytes, multiply-accumulates. Under ``fallbacks`` a positive
    delta is what the fallback costs; under ``rewrites`` a positive one is what the rewrite saves or moves to the NPU.
    """
    total, cut = check.totals, check.cut
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "model": check.model,
        "target": check.target,
        "host": check.host,
        "nodes": [
            {
                "name": n.name, "op": n.op, "device": n.device, "reasons": list(n.reasons), "macs": n.macs,
                "ms": _number(n.ms), "mj": _number(n.mj), "bytes": n.bytes, "bound": n.bound,
            }
            for n in check.nodes
        ],
        "fallbacks": [_price(price) for price in check.fallbacks],
        "fallback_ops": [
            {"op": p.op, "nodes": list(p.nodes), "delta_ms": _number(p.delta_ms), "delta_mj": _number(p.delta_mj)}
            for p in check.fallback_ops
        ],
        "partition": {
            "optimal_ms": _number(cut.optimal_ms), "greedy_ms": _number(cut.greedy_ms), "cpu_ms": _number(cut.cpu_ms),
            "gap_percent": _number(cut.gap_percent), "lower_bound_ms": _number(cut.lower_bound_ms),
            "partitions": cut.partitions, "npu_partitions": cut.npu_partitions, "crossings": cut.crossings,
        },
        "totals": {
            "latency_ms": _number(total.ms), "latency_low_ms": _number(total.low_ms),
            "latency_high_ms": _number(total.high_ms), "energy_mj": _number(total.energy_mj),
            "relative_energy": _number(total.relative_energy),
            "macs": check.macs, "macs_on_npu": check.macs_on_npu, "nodes": len(check.nodes),
            "nodes_on_npu": check.nodes_on_npu, "crossing_bytes": total.crossing_bytes, "bytes": dict(total.bytes),
            "provenance": str(total.provenance), "missing": list(total.missing),
            "energy_missing": list(total.energy_missing), "known_energy_mj": _number(total.known_energy_mj),
        },
        "notes": list(check.notes),
        "gates_missed": list(gates_missed),
    }  # fmt: skip
    if check.rewrites is not None:
        found["rewrites"] = [_gain(gain) for gain in check.rewrites]
    return found


def text(check: Check, gates_missed: tuple[str, ...] = ()) -> str:
    """``check`` as JSON text that ends with a newline."""
    return json.dumps(document(check, gates_missed), indent=2, allow_nan=False) + "\n"


def _price(price: Price) -> dict[str, Any]:
    return {
        "node": price.node, "op": price.op, "delta_ms": _number(price.delta_ms), "delta_mb": _number(price.delta_mb),
        "delta_mj": _number(price.delta_mj), "parts_ms": {name: _number(ms) for name, ms in price.parts.items()},
    }  # fmt: skip


def _gain(gain: Gain) -> dict[str, Any]:
    return {
        "rule": gain.rule, "class": str(gain.kind), "nodes": list(gain.nodes), "delta_ms": _number(gain.delta_ms),
        "delta_macs_on_npu": gain.delta_macs_on_npu, "delta_mj": _number(gain.delta_mj),
        "delta_nodes_on_cpu": gain.delta_nodes_on_cpu, "sentence": gain.sentence,
    }  # fmt: skip


def _number(value: float | None) -> float | None:
    """A number that JSON can say."""
    return value if value is not None and math.isfinite(value) else None
