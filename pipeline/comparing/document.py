"""A comparison for scripts: the JSON that ``pipeline compare --json`` prints."""

import json
from dataclasses import asdict
from typing import Any

from pipeline.comparing.nouns import Comparison, Row

SCHEMA = 1


def document(comparison: Comparison) -> dict[str, Any]:
    """``comparison`` as plain data, an object per row; what is not known is ``null``.

    Milliseconds, frames per second, millijoules, watts, dollars, fractions of 1.
    """
    accuracy = comparison.accuracy
    return {
        "schema": SCHEMA,
        "model": comparison.model,
        "macs": comparison.macs,
        "operators": comparison.operators,
        "float_accuracy": None if accuracy is None else asdict(accuracy),
        "notes": list(comparison.notes),
        "rows": [_row(row) for row in comparison.rows],
    }


def text(comparison: Comparison) -> str:
    """``comparison`` as JSON text that ends with a newline."""
    return json.dumps(document(comparison), indent=2, allow_nan=False) + "\n"


def _row(row: Row) -> dict[str, Any]:
    time, price = row.time, row.price
    return {
        "name": row.name, "title": row.title, "kind": str(row.kind), "host": row.host,
        "hypothetical": row.hypothetical, "confidence": row.confidence, "provenance": row.provenance,
        "coverage": row.coverage, "coverage_possible": row.taken,
        "partitions": row.partitions, "npu_partitions": row.npu_partitions, "crossings": row.crossings,
        "latency_ms": None if time is None else time.ms,
        "latency_low_ms": None if time is None else time.low_ms,
        "latency_high_ms": None if time is None else time.high_ms,
        "parts_ms": None if time is None else {
            "npu": time.npu_ms, "cpu": time.cpu_ms, "crossings": time.crossing_ms, "launches": time.launch_ms,
        },
        "cpu_ms": row.cpu_ms, "speedup": row.speedup, "worth": None if row.worth is None else str(row.worth),
        "fps": row.fps, "energy_mj": row.energy_mj, "known_energy_mj": row.known_energy_mj,
        "energy_missing": list(row.energy_missing), "fps_per_watt": row.fps_per_watt,
        "price_usd": None if price is None else price.usd, "price_source": None if price is None else price.source,
        "fps_per_dollar": row.fps_per_dollar,
        "accuracy": None if row.accuracy is None else asdict(row.accuracy),
        "missing": list(row.missing), "notes": list(row.notes),
    }  # fmt: skip
