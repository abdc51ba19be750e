"""Cut the placed model into partitions, each of which runs on one device."""

import math

import numpy as np

from pipeline.compile import plan
from pipeline.compile.closure import require_kernels
from pipeline.compile.partitions import crossing, cut
from pipeline.graph.model import load
from pipeline.graph.view import view
from pipeline.stages.common import COVERAGE, MODEL, load_coverage
from pipeline.targets.placement import NPU
from pipeline.workspace import Context, Result


def run(context: Context) -> Result:
    """Cut the model as the coverage stage placed it.

    Writes ``plan.json`` and each partition as ``<index>.onnx``.

    Returns:
        ``partitions``, ``npu_partitions``; ``crossings``: tensors that one partition gives and another takes, and their
        ``crossing_bytes`` per inference.

    Raises:
        ModelError: ONNX Runtime has no kernel for a fallback.
    """
    model = load(context.inputs["export"] / MODEL)
    graph = view(model)
    partitions = cut(graph, load_coverage(context.inputs["coverage"] / COVERAGE))
    require_kernels(model, graph, partitions)
    plan.save(context.out, model, partitions)
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
