"""A quantization as JSON for scripts."""

import json
from dataclasses import asdict
from typing import Any

from pipeline.checking.nouns import NodeCheck
from pipeline.quantize.advising import Means, advice
from pipeline.quantize.sensitivity import Sensitivity, culprit, first_divergence
from pipeline.quantizing import ladder
from pipeline.quantizing.job import Done, conversions

SCHEMA = 1


def text(done: Done, gates: tuple[str, ...]) -> str:
    """The document as JSON text."""
    return json.dumps(document(done, gates), indent=1)


def document(done: Done, gates: tuple[str, ...]) -> dict[str, Any]:
    """What came out as plain data; ``layers`` are in execution order, ``trials`` in the order they were tried."""
    worst, first = culprit(done.layers), first_divergence(done.layers)
    prices = {node.name: node for node in done.placed.nodes}
    order = done.order
    return {
        "schema": SCHEMA,
        "model": order.model.as_posix(),
        "target": order.target.name,
        "out": order.out.as_posix(),
        "encodings": order.encodings_out.as_posix(),
        "recipe": order.recipe_out.as_posix(),
        "exported_encodings": None if order.export is None else order.export.as_posix(),
        "calibration": done.calibrated.model_dump(),
        "sqnr_db": done.score.sqnr_db,
        "outputs": {
            name: {"sqnr_db": db, "cosine": done.score.cosines[name]} for name, db in done.score.outputs.items()
        },
        "parts": {name: dict(each) for name, each in done.score.parts.items()},
        "top1_agreement": done.score.agreement,
        "judged_images": done.score.images,
        "held_out": done.held_out,
        "worst_layer": None if worst is None else worst.node,
        "first_divergence": None if first is None else first.node,
        "trials": [asdict(trial) for trial in done.trials],
        "untried": list(done.untried),
        "ladder": None if done.ladder is None else ladder.document(done.ladder),
        "plot": None if done.plot is None else done.plot.as_posix(),
        "layers": [_layer(row, prices[row.node], done.means) for row in done.layers],
        "conversions": [{"node": n.name, "device": n.device, "ms": n.ms} for n in conversions(done)],
        "notes": list(done.notes),
        "gates_missed": list(gates),
        "seconds": {name: round(value, 3) for name, value in done.seconds.items()},
    }


def _layer(row: Sensitivity, placed: NodeCheck, means: Means) -> dict[str, Any]:
    values = asdict(row)
    values["engine"] = values.pop("device")
    values["channels"] = [{"channel": c, "sqnr_db": db} for c, db in row.channels]
    why, fix = advice(row, means)
    return {**values, "device": placed.device, "ms": placed.ms, "why": why, "next": fix}
