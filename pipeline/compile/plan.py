"""The plan: a model cut into partitions, as the partition stage leaves it for the package stage, in both directions.

``plan.json`` names each partition's device, operators, what it takes and gives, and its ONNX file beside it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import onnx

from pipeline.compile.partitions import Partition, crossing, onnx_models, partition
from pipeline.errors import ModelError
from pipeline.graph.view import Graph

PLAN = "plan.json"
SCHEMA = 1


def save(folder: Path, model: onnx.ModelProto, partitions: Sequence[Partition]) -> None:
    """Write ``plan.json`` and each partition of ``model`` as ``<index>.onnx`` into ``folder``."""
    for index, piece in enumerate(onnx_models(model, partitions)):
        (folder / f"{index}.onnx").write_bytes(piece)
    document = {"schema": SCHEMA, "partitions": [_describe(i, p) for i, p in enumerate(partitions)]}
    (folder / PLAN).write_text(json.dumps(document, indent=1) + "\n")


def _describe(index: int, part: Partition) -> dict[str, object]:
    return {
        "device": part.device,
        "model": f"{index}.onnx",
        "inputs": [asdict(crossing(t)) for t in part.inputs],
        "outputs": [asdict(crossing(t)) for t in part.outputs],
        "nodes": [n.name for n in part.nodes],
    }


def load(folder: Path, graph: Graph) -> tuple[tuple[Partition, ...], tuple[bytes, ...]]:
    """The partitions of ``graph`` that the plan in ``folder`` names, and each as an ONNX model.

    Raises:
        ModelError: the plan cannot be read, or is of another model.
    """
    path, fix = folder / PLAN, "run with --from partition"
    nodes = {n.name: n for n in graph.nodes}
    try:
        parts = json.loads(path.read_text())["partitions"]
        found = tuple(partition(graph, tuple(nodes.pop(n) for n in p["nodes"]), p["device"]) for p in parts)
        pieces = tuple((folder / p["model"]).read_bytes() for p in parts)
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"cannot be read: {error}", where=path, fix=fix) from error
    except KeyError as error:
        raise ModelError(f"does not fit the model: {error}", where=path, fix=fix) from error
    if nodes:
        raise ModelError(f"leaves out {next(iter(nodes))}", where=path, fix=fix)
    return found, pieces
