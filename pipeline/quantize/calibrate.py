"""Running the float model over calibration images, one at a time, to see what its activations take."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.errors import DataError, ModelError
from pipeline.graph.view import Graph, Tensor
from pipeline.quantize.histogram import Histogram
from runtime.delegates.cpu import LOAD_ERRORS


def activations(graph: Graph) -> tuple[Tensor, ...]:
    """The real activation tensors of ``graph``: its inputs and every operator's float outputs."""
    produced = [t for node in graph.nodes for t in node.outputs]
    return tuple(t for t in (*graph.inputs, *produced) if t.dtype == "float32")


class Tap:
    """The float model with all its activations as outputs, run by ONNX Runtime image by image."""

    def __init__(self, model: onnx.ModelProto, names: Sequence[str]) -> None:
        """Prepare ``model`` (float, one input, ``names`` as in its graph) for reading ``names``.

        Raises:
            ModelError: the model has not exactly one input, or ONNX Runtime cannot run it.
        """
        constants = {i.name for i in model.graph.initializer}
        given = [i.name for i in model.graph.input if i.name not in constants]
        if len(given) != 1:
            raise ModelError(f"has {len(given)} inputs, {', '.join(given)}; calibration feeds one", where="model")
        tapped = onnx.ModelProto()
        tapped.CopyFrom(model)
        del tapped.graph.output[:]
        self.input = given[0]
        self.names = [n for n in names if n != self.input]
        tapped.graph.output.extend(onnx.ValueInfoProto(name=n) for n in self.names)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # Every tensor must be seen as the model has it, so nothing may be fused away.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self.session = ort.InferenceSession(tapped.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except LOAD_ERRORS as error:
            raise ModelError(f"ONNX Runtime cannot run it: {' '.join(str(error).split())}", where="model") from error

    def read(self, image: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """Every tapped activation for one input, by name; the input is among them."""
        values = self.session.run(self.names, {self.input: image})
        return {self.input: image, **dict(zip(self.names, values, strict=True))}


def calibrate(model: onnx.ModelProto, graph: Graph, images: Iterable[NDArray[np.float32]]) -> Mapping[str, Histogram]:
    """Histograms of every activation of ``model`` over ``images`` (each float32 [1, 3, H, W]).

    Memory does not grow with the number of images: each is read, counted and forgotten.

    Raises:
        DataError: there is no image.
        ModelError: an activation is not finite, with its name.
    """
    names = [t.name for t in activations(graph)]
    tap = Tap(model, names)
    histograms = {name: Histogram() for name in names}
    seen = 0
    for image in images:
        seen += 1
        for name, values in tap.read(image).items():
            if not np.isfinite(values).all():
                raise ModelError(f"is not finite on calibration image {seen}", where=name, fix="check the weights")
            histograms[name].update(values)
    if not seen:
        raise DataError("calibration got no images", fix="the training split must not be empty")
    return histograms
