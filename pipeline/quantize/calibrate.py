"""Running the float model over calibration images, one at a time, to see what its activations take."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from pipeline.errors import DataError, ModelError
from pipeline.graph.fusion import fused_outputs
from pipeline.graph.view import Graph, Tensor
from pipeline.quantize.histogram import Histogram, averaging
from pipeline.quantize.samples import Sample, by_name
from runtime.delegates.cpu import LOAD_ERRORS

REDUCTIONS = ("ReduceMin", "ReduceMax", "ReduceMean")
Reading = tuple[Mapping[str, NDArray[np.float32]], Sequence[NDArray[np.float32]]]
"""Activations in full by name, and the reductions of all channels: the smallest, largest and mean value, [channels]."""

MOST = 4
"""Images that are run at once; each takes the memory of an inference."""

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
    """The axis that counts the channels of an activation: 1 of an image, the last of anything else with a batch.

    ``None`` without a batch, or where the number of channels is not known.
    """
    shape = tensor.shape or ()
    axis = 1 if len(shape) > 3 else len(shape) - 1
    return None if len(shape) < 2 or shape[axis] is None else axis


class Tap:
    """The float model with activations, and reductions of some, as outputs, run by ONNX Runtime image by image."""

    def __init__(
        self, model: onnx.ModelProto, names: Sequence[str], reduced: Sequence[Tensor] = (), threads: int = 0
    ) -> None:
        """Prepare ``model`` (float) for reading ``names``, and the extremes and means of ``reduced``.

        An image is run by so many ``threads``, by one per core with 0.

        Raises:
            ModelError: ONNX Runtime cannot run the model.
        """
        constants = {i.name for i in model.graph.initializer}
        tapped = onnx.ModelProto()
        tapped.CopyFrom(model)
        del tapped.graph.output[:]
        self.inputs = [i.name for i in model.graph.input if i.name not in constants]
        self.names = [n for n in names if n not in self.inputs]
        self.reductions = _reduce(tapped, reduced) if reduced else []
        tapped.graph.output.extend(onnx.ValueInfoProto(name=n) for n in (*self.names, *self.reductions))
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # What is read stays as the model has it; only what lies between may be fused.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.intra_op_num_threads = threads
        # Its threads would else burn a third of the processor time waiting for the next image or the next layer.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = ort.InferenceSession(tapped.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except LOAD_ERRORS as error:
            raise ModelError(f"ONNX Runtime cannot run it: {' '.join(str(error).split())}", where="model") from error

    def read(self, image: Sample) -> Mapping[str, NDArray[np.float32]]:
        """Every tapped activation for one sample, by name; the inputs are among them."""
        given = by_name(image, self.inputs)
        return {**given, **self._run(self.names, given)}

    def read_all(self, image: Sample) -> Reading:
        """As ``read``, and the smallest, the largest and the mean value of every channel of all that is reduced."""
        given = by_name(image, self.inputs)
        found = self._run([*self.names, *self.reductions], given)
        full = {**given, **{name: found[name] for name in self.names}}
        return full, [found[name] for name in self.reductions]

    def _run(self, names: Sequence[str], given: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        values = self.session.run(list(names), dict(given)) if names else []
        return dict(zip(names, values, strict=True))


def float_outputs(model: onnx.ModelProto, images: Iterable[Sample]) -> Sequence[Mapping[str, NDArray[np.float32]]]:
    """What the float ``model`` makes of each of ``images``: its outputs, and its inputs, by name.

    Raises:
        ModelError: ONNX Runtime cannot run it.
    """
    tap = Tap(model, [output.name for output in model.graph.output])
    return [tap.read(image) for image in images]


def widths(tensors: Sequence[Tensor]) -> NDArray[np.int64]:
    """How many values a reduction of each of ``tensors`` has: one a channel, or one where channels are not known."""
    axes = [channel_axis(tensor) for tensor in tensors]
    return np.array([1 if a is None else (t.shape or ())[a] for t, a in zip(tensors, axes, strict=True)], np.int64)


def _reduce(model: onnx.ModelProto, tensors: Sequence[Tensor]) -> Sequence[str]:
    """Append what reduces ``tensors`` to all but their channels, joined, and name what each of ``REDUCTIONS`` gives."""
    version = max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "@flat"))
    for op in REDUCTIONS:
        parts = []
        for tensor in tensors:
            name, kept = f"{tensor.name}@{op}", channel_axis(tensor)
            axes = [axis for axis in range(len(tensor.shape or ())) if axis != kept]
            if axes and version >= AXES_ARE_INPUTS:
                model.graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), f"{name}@axes"))
                model.graph.node.append(helper.make_node(op, [tensor.name, f"{name}@axes"], [name], keepdims=0))
            elif axes:
                model.graph.node.append(helper.make_node(op, [tensor.name], [name], axes=axes, keepdims=0))
            if kept is None:
                given = name if axes else tensor.name
                model.graph.node.append(helper.make_node("Reshape", [given, "@flat"], [f"{name}@flat"]))
            parts.append(name if kept is not None else f"{name}@flat")
        model.graph.node.append(helper.make_node("Concat", parts, [f"@{op}"], axis=0))
    return [f"@{op}" for op in REDUCTIONS]


class _Extremes:
    """What every channel of all reduced tensors took, side by side in arrays of float64 [all channels].

    The moving averages are of whole tensors, [tensors], as ``Histogram`` has them.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tensors
        self.ends = np.cumsum(widths(tensors))
        self.starts = self.ends - widths(tensors)
        self.channels = Channels(*(np.full(self.ends[-1], start) for start in (np.inf, -np.inf, 0.0)))
        self.averages = np.zeros((2, len(tensors)))
        self.seen = 0

    def take(self, low: NDArray[np.float32], high: NDArray[np.float32], mean: NDArray[np.float32]) -> None:
        """Take in the reductions of an image; raises ``ModelError`` for one that is not finite."""
        self.seen += 1
        finite = np.isfinite(mean) & np.isfinite(low) & np.isfinite(high)
        if not finite.all():
            place = int(np.searchsorted(self.ends, np.argmin(finite), side="right"))
            what = f"is not finite on calibration image {self.seen}"
            raise ModelError(what, where=self.tensors[place].name, fix="check the weights")
        np.minimum(self.channels.low, low, out=self.channels.low)
        np.maximum(self.channels.high, high, out=self.channels.high)
        self.channels.mean += mean
        ends = np.array([np.minimum.reduceat(low, self.starts), np.maximum.reduceat(high, self.starts)], np.float64)
        self.averages += averaging(self.seen) * (ends - self.averages)

    def by_tensor(self) -> tuple[Mapping[str, Histogram], Mapping[str, Channels]]:
        """The extremes of every tensor, and of those that have channels what each channel took."""
        histograms: dict[str, Histogram] = {}
        channels: dict[str, Channels] = {}
        whole = self.channels
        for place, (tensor, start, end) in enumerate(zip(self.tensors, self.starts, self.ends, strict=True)):
            own = Channels(whole.low[start:end], whole.high[start:end], whole.mean[start:end] / self.seen)
            low, high = (float(each) for each in self.averages[:, place])
            histograms[tensor.name] = Histogram(float(own.low.min()), float(own.high.max()), self.seen, low, high)
            if channel_axis(tensor) is not None:
                channels[tensor.name] = own
        return histograms, channels


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
    tap = Tap(model, [t.name for t in wanted] if histograms else [], wanted, threads=1)
    extremes = _Extremes(wanted)
    counted = {t.name: Histogram() for t in wanted} if histograms else {}
    for full, reductions in _side_by_side(tap.read_all, images):
        extremes.take(*reductions)
        for name, histogram in counted.items():
            histogram.update(full[name])
    if not extremes.seen:
        raise DataError("calibration got no images", fix="the training split must not be empty")
    plain, channels = extremes.by_tensor()
    return Calibration(counted or plain, channels, extremes.seen)


def _side_by_side(run: Callable[[Sample], Reading], images: Iterable[Sample]) -> Iterator[Reading]:
    """What ``run`` gives for each of ``images``, in order, as many at a time as there are cores, up to ``MOST``.

    A thread for each image takes less processor time than several threads for one, who wait for another at every layer.
    """
    count = min(os.cpu_count() or 1, MOST)
    rest = iter(images)
    with ThreadPoolExecutor(count) as pool:
        while some := list(islice(rest, count)):
            yield from pool.map(run, some)
