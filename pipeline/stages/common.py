"""What several stages read from earlier ones in the same way."""

import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.targets.placement import Placed

FLOAT_MODEL = "float.onnx"
QUANTIZED_MODEL = "quantized.onnx"
MODEL = "model.onnx"
ENCODINGS = "encodings.json"
ERRORS = "errors.json"
RECIPE = "recipe.yaml"
JOURNAL = "trials.jsonl"
TRAINED = "trained"
TRAINED_JOURNAL = "trained.trials.jsonl"
LADDER = "ladder.json"
COVERAGE = "coverage.json"
CHECK = "check.json"


def save_coverage(path: Path, target: str, placed: Sequence[Placed]) -> None:
    """Write the placement as ``coverage.json``."""
    nodes = [
        {"name": p.node, "op": p.op, "device": p.device, "reasons": list(p.reasons), "macs": p.macs, "phase": p.phase}
        for p in placed
    ]
    path.write_text(json.dumps({"schema": 1, "target": target, "nodes": nodes}, indent=1) + "\n")
