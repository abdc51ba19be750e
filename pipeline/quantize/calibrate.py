"""Running the float model over calibration images, one at a time, to see what its activations take."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from pipeline.errors import DataError, ModelError
from pipeline.graph.fusion import fused_outputs
from pipeline.graph.view import Graph, Tensor
from pipeline.quantize.histogram import Histogram
from pipeline.quantize.samples import Sample, by_name
from runtime.delegates.cpu import LOAD_ERRORS

REDUCTIONS = ("ReduceMin", "ReduceMax", "ReduceMean")
AXES_ARE_INPUTS = 18
"""The operator set from which on these reductions take their axes as an input."""


@dataclass
class Channels:
    """What each channel of an activation took: all are float64 [C], ``mean`` averaged over the images."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean: NDArray[np.float64]

    @property
    def largest(self) -> NDArray[np.float64]:
        """The largest magnitude of each channel."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


@dataclass(frozen=True)
class Calibration:
    """Statistics of every activation of a float model; their size does not depend on the number of images.

    Attributes:
        histograms: by tensor; without counts when only extremes were asked for.
        channels: by tensor, of those that have channels.
        images: how many were seen.
    """

    histograms: Mapping[str, Histogram]
    channels: Mapping[str, Channels]
    images: int


def activations(graph: Graph) -> tuple[Tensor, ...]:
    """The real activation tensors of ``graph``: its inputs and every operator's float outputs."""
    produced = [t for node in graph.nodes for t in node.outputs]
    return tuple(t for t in (*graph.inputs, *produced) if t.dtype == "float32")


def channel_axis(tensor: Tensor) -> int | None:
    """The axis that counts the channels of an activation: 1 of an image, the last of anything else with a batch."""
    rank = len(tensor.shape or ())
    return None if rank < 2 else 1 if rank > 3 else rank - 1


class Tap:
    """The float model with activations, or reductions of them, as outputs, run by ONNX Runtime image by image."""

    def __init__(self, model: onnx.ModelProto, names: Sequence[str], reduced: Sequence[Tensor] = ()) -> None:
        """Prepare ``model`` (float) for reading ``names``, and the extremes and means of ``reduced``.

        Raises:
            ModelError: ONNX Runtime cannot run the model.
        """
        constants = {i.name for i in model.graph.initializer}
        tapped = onnx.ModelProto()
        tapped.CopyFrom(model)
        del tapped.graph.output[:]
        self.inputs = [i.name for i in model.graph.input if i.name not in constants]
        self.names = [n for n in names if n not in self.inputs]
        self.reduced = [t.name for t in reduced]
        for tensor in reduced:
            _reduce(tapped, tensor)
        wanted = [*self.names, *(_reduction(name, op) for name in self.reduced for op in REDUCTIONS)]
        tapped.graph.output.extend(onnx.ValueInfoProto(name=n) for n in wanted)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # What is read stays as the model has it; only what lies between may be fused.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        try:
            self.session = ort.InferenceSession(tapped.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except LOAD_ERRORS as error:
            raise ModelError(f"ONNX Runtime cannot run it: {' '.join(str(error).split())}", where="model") from error

    def read(self, image: Sample) -> Mapping[str, NDArray[np.float32]]:
        """Every tapped activation for one sample, by name; the inputs are among them."""
        given = by_name(image, self.inputs)
        return {**given, **self._run(self.names, given)}

    def read_all(
        self, image: Sample
    ) -> tuple[Mapping[str, NDArray[np.float32]], Mapping[str, Sequence[NDArray[np.float32]]]]:
        """As ``read``, and per channel the smallest, largest and mean value of what is reduced, each [C]."""
        reductions = {name: [_reduction(name, op) for op in REDUCTIONS] for name in self.reduced}
        given = by_name(image, self.inputs)
        found = self._run([*self.names, *(n for names in reductions.values() for n in names)], given)
        full = {**given, **{name: found[name] for name in self.names}}
        return full, {name: [found[n] for n in names] for name, names in reductions.items()}

    def _run(self, names: Sequence[str], given: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        values = self.session.run(list(names), dict(given)) if names else []
        return dict(zip(names, values, strict=True))


def _reduction(name: str, op: str) -> str:
    return f"{name}@{op}"


def _reduce(model: onnx.ModelProto, tensor: Tensor) -> None:
    """Append the reductions of ``tensor`` to all but its channels."""
    version = max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    kept = channel_axis(tensor)
    axes = [axis for axis in range(len(tensor.shape or ())) if axis != kept]
    for op in REDUCTIONS:
        name = _reduction(tensor.name, op)
        if version >= AXES_ARE_INPUTS:
            model.graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), f"{name}@axes"))
            node = helper.make_node(op, [tensor.name, f"{name}@axes"], [name], keepdims=0)
        else:
            node = helper.make_node(op, [tensor.name], [name], axes=axes, keepdims=0)
        model.graph.node.append(node)


def calibrate(model: onnx.ModelProto, graph: Graph, images: Iterable[Sample], histograms: bool = True) -> Calibration:
    """Statistics of every activation of ``model`` over ``images``.

    Memory does not grow with the number of images: each is read, counted and forgotten. Without ``histograms`` only
    extremes and means are taken, which ONNX Runtime reduces before anything leaves it; activations inside a fused
    operator are left out then.

    Raises:
        DataError: there is no image.
        ModelError: an activation is not finite, with its name.
    """
    every = activations(graph)
    skipped = frozenset() if histograms else fused_outputs(graph)
    wanted = [t for t in every if t.name not in skipped]
    tap = Tap(model, [t.name for t in wanted] if histograms else [], wanted)
    counted = {t.name: Histogram() for t in wanted}
    channels: dict[str, Channels] = {}
    seen = 0
    for image in images:
        seen += 1
        full, reductions = tap.read_all(image)
        for name, (low, high, mean) in reductions.items():
            if not (np.isfinite(mean).all() and np.isfinite(low).all() and np.isfinite(high).all()):
                raise ModelError(f"is not finite on calibration image {seen}", where=name, fix="check the weights")
            _take(channels, name, low, high, mean)
            if histograms:
                counted[name].update(full[name])
            else:
                counted[name].extremes(float(np.min(low)), float(np.max(high)))
    if not seen:
        raise DataError("calibration got no images", fix="the training split must not be empty")
    for each in channels.values():
        each.mean /= seen
    return Calibration(counted, {n: c for n, c in channels.items() if c.mean.ndim == 1}, seen)


def _take(
    channels: dict[str, Channels],
    name: str,
    low: NDArray[np.float32],
    high: NDArray[np.float32],
    mean: NDArray[np.float32],
) -> None:
    """Widen the extremes of ``name`` and add to its sum of means."""
    first = channels.get(name)
    if first is None:
        channels[name] = Channels(low.astype(np.float64), high.astype(np.float64), mean.astype(np.float64))
        return
    np.minimum(first.low, low, out=first.low)
    np.maximum(first.high, high, out=first.high)
    first.mean += mean
