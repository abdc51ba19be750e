"""The few facts that every reader of a report looks for first, computed once for all reports."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pipeline.report.formats import plural
from pipeline.summary import RunSummary


@dataclass(frozen=True)
class Accuracy:
    """How accurate the model is in one of its forms.

    Attributes:
        form: short name of the form.
        what: what computed it.
        ap50: average precision at an overlap of one half, 0..1; ``None`` when it was not measured.
        ap: COCO's average precision, 0..1.
    """

    form: str
    what: str
    ap50: float | None
    ap: float | None


@dataclass(frozen=True)
class Verdict:
    """Whether the run came to what was asked for; ``reasons`` are sentences."""

    mood: Literal["good", "bad", "open"]
    sentence: str
    reasons: tuple[str, ...] = ()


_FORMS = (
    ("float, torch", "the trained weights in torch, float32", "train."),
    ("float, ONNX", "the same network in ONNX Runtime, float32", "quantize.float_"),
    ("int8", "the quantized network on the integer engine, every operator in integers", "quantize."),
    ("packaged", "the bundle on the simulated NPU, fallbacks on the CPU", "package."),
)


def accuracies(metrics: Mapping[str, float]) -> tuple[Accuracy, ...]:
    """The model's forms in the order in which the stages make them."""
    return tuple(
        Accuracy(form, what, metrics.get(f"{prefix}ap50"), metrics.get(f"{prefix}ap")) for form, what, prefix in _FORMS
    )


def float_ap50(metrics: Mapping[str, float]) -> float | None:
    """The AP50 that all others are compared with: the float ONNX model's, or torch's when there is no other."""
    return metrics.get("quantize.float_ap50", metrics.get("train.ap50"))


def verdict(summary: RunSummary) -> Verdict:
    """The run in one line."""
    failed = [f"{stage.name}: {stage.why}" for stage in summary.stages if stage.state == "failed"]
    if failed:
        return Verdict("bad", "The run failed.", tuple(failed))
    if summary.gates:
        return Verdict("bad", f"{plural(len(summary.gates), 'gate')} missed.", summary.gates)
    open_stages = [stage.name for stage in summary.stages if not stage.current]
    if open_stages:
        return Verdict("open", f"Not complete: {', '.join(open_stages)} not up to date. No gate is missed so far.")
    return Verdict("good", "Every stage is up to date and every gate is kept.")
