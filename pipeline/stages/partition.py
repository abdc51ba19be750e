"""Cut the placed model into partitions, each of which runs on one device."""

import json
import math
from dataclasses import asdict

import numpy as np

from pipeline.compile.partitions import Partition, crossing, cut, onnx_models
from pipeline.graph.model import load
from pipeline.graph.view import view
from pipeline.stages.common import COVERAGE, MODEL, PLAN, load_coverage
from pipeline.targets.placement import NPU
from pipeline.workspace import Context, Result


def run(context: Context) -> Result:
    """Cut the model as the coverage stage placed it.

    Writes ``plan.json`` and each partition as ``<index>.onnx``.

    Returns:
        ``partitions``, ``npu_partitions``; ``crossings``: tensors that one partition gives and another takes, and their
        ``crossing_bytes`` per inference.
    """
    model = load(context.inputs["export"] / MODEL)
    partitions = cut(view(model), load_coverage(context.inputs["coverage"] / COVERAGE))
    for index, piece in enumerate(onnx_models(model, partitions)):
        (context.out / f"{index}.onnx").write_bytes(piece)
    plan = {"schema": 1, "partitions": [_describe(i, p) for i, p in enumerate(partitions)]}
    (context.out / PLAN).write_text(json.dumps(plan, indent=1) + "\n")
    taken = {t.wire for p in partitions for t in p.inputs}
    crossings = [crossing(t) for p in partitions for t in p.outputs if t.wire in taken]
    size = sum(math.prod(s.shape) * np.dtype(s.dtype).itemsize for s in crossings)
    return Result(
        {
            "partitions": float(len(partitions)),
            "npu_partitions": float(sum(p.device == NPU for p in partitions)),
            "crossings": float(len(crossings)),
            "crossing_bytes": float(size),
        }
    )


def _describe(index: int, partition: Partition) -> dict[str, object]:
    return {
        "device": partition.device,
        "model": f"{index}.onnx",
        "inputs": [asdict(crossing(t)) for t in partition.inputs],
        "outputs": [asdict(crossing(t)) for t in partition.outputs],
        "nodes": [n.name for n in partition.nodes],
    }
