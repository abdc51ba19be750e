"""Who quantizes: this project's presets and the toolkits, each as a function from a float model to a QDQ file.

Every tool is used as its documentation shows for int8 weights (symmetric) and int8 or uint8 activations (asymmetric),
with nothing tuned: what someone gets who follows the manual. They are imported where they run, in a process of
their own (``child``).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float32]
Scheme = Literal["per-channel", "per-tensor"]

TARGETS: Mapping[Scheme, str] = {"per-channel": "ethos-u55-256", "per-tensor": "stm32mp2"}
"""Whose scheme and contract are kept: a shipped chip for each way to scale weights; both have TFLite's arithmetic."""


@dataclass(frozen=True)
class Job:
    """What a contender is given.

    Attributes:
        model: a float ONNX file with one input, batch norms folded.
        images: a folder of ``.npy`` files, a float32 input each.
        out: the QDQ file to write.
        scheme: how weights are scaled.
    """

    model: Path
    images: Path
    out: Path
    scheme: Scheme

    @property
    def input(self) -> str:
        """Name of the model's input."""
        import onnx  # noqa: PLC0415 (the process measures what its tool needs)

        return str(onnx.load(self.model, load_external_data=False).graph.input[0].name)

    def read(self) -> Iterator[Real]:
        """The calibration images, one at a time."""
        return (np.load(path) for path in sorted(self.images.glob("*.npy")))


@dataclass(frozen=True)
class Contender:
    """A way to quantize.

    Attributes:
        name: in tables.
        modules: what it imports; the package of the first has to be installed.
        quantize: does it; writes ``Job.out``.
        dependencies: distributions beside its own package that it computes with.
    """

    name: str
    modules: tuple[str, ...]
    quantize: Callable[[Job], object]
    dependencies: tuple[str, ...] = ()

    @property
    def package(self) -> str:
        """What has to be installed, as Python imports it."""
        return self.modules[0].partition(".")[0]

    @property
    def ours(self) -> bool:
        """Whether it is this project's."""
        return self.package == "pipeline"


def _ours(preset: Literal["fast", "balanced", "best"], job: Job) -> None:
    from pipeline.quantize.images import Preparation  # noqa: PLC0415
    from pipeline.quantize.recipe import PRESETS  # noqa: PLC0415
    from pipeline.quantizing import job as quantizing  # noqa: PLC0415
    from pipeline.targets import library  # noqa: PLC0415
    from pipeline.targets.inheritance import SHIPPED  # noqa: PLC0415
    from pipeline.workspace import Quiet  # noqa: PLC0415

    target = library.load(SHIPPED / f"{TARGETS[job.scheme]}.yaml")
    order = quantizing.Order(job.model, job.images, target, PRESETS[preset], Preparation(), job.out)
    quantizing.quantize(order, Quiet(), quantizing.Clock())


def _onnxruntime(method: str, job: Job) -> None:
    from onnxruntime import quantization  # noqa: PLC0415

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._images, self._input = job.read(), job.input

        def get_next(self) -> dict[str, Real] | None:
            image = next(self._images, None)
            return None if image is None else {self._input: image}

    quantization.quantize_static(
        job.model,
        job.out,
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=job.scheme == "per-channel",
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod[method],
    )


def _nncf(fast: bool, job: Job) -> None:
    import nncf  # type: ignore[import-not-found,unused-ignore] # noqa: PLC0415
    import onnx  # noqa: PLC0415
    from nncf.quantization.advanced_parameters import (  # type: ignore[import-not-found,unused-ignore] # noqa: PLC0415
        AdvancedQuantizationParameters,
        OverflowFix,
        QuantizationParameters,
    )

    name, files = job.input, sorted(job.images.glob("*.npy"))
    data = nncf.Dataset(files, lambda path: {name: np.load(path)})
    # Left alone, it gives the inputs of depthwise convolutions a scale per channel, which no NPU's contract has.
    weights, activations = (QuantizationParameters(per_channel=each) for each in (job.scheme == "per-channel", False))
    made = nncf.quantize(
        onnx.load(job.model),
        data,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(files),
        fast_bias_correction=fast,
        advanced_parameters=AdvancedQuantizationParameters(
            overflow_fix=OverflowFix.DISABLE,  # for x86 without VNNI: it takes a bit of the first layer's weights
            activations_quantization_params=activations,
            weights_quantization_params=weights,
        ),
    )
    onnx.save(made, job.out)


def _aimet(job: Job) -> None:
    import onnx  # noqa: PLC0415
    from aimet_onnx import QuantizationSimModel  # noqa: PLC0415
    from aimet_onnx.common.quantsim_config import utils  # noqa: PLC0415
    from aimet_onnx.cross_layer_equalization import equalize_model  # noqa: PLC0415

    name, model = job.input, onnx.load(job.model)
    equalize_model(model)
    config = (
        utils.get_path_for_per_channel_config()
        if job.scheme == "per-channel"
        else utils.get_path_for_per_tensor_config()
    )
    simulated = QuantizationSimModel(model, config_file=config, providers=["CPUExecutionProvider"])
    simulated.compute_encodings({name: image} for image in job.read())
    made = simulated.to_onnx_qdq(export_int32_bias=True, prequantize_constants=True, force_activation_as="signed")
    onnx.save(made, job.out)


OURS = ("pipeline.quantizing.job",)
USED = ("onnx-ir", "onnxscript", "scipy")
"""What ours computes with."""

ORT = ("onnxruntime.quantization",)
NNCF = ("nncf", "nncf.onnx")
AIMET = ("aimet_onnx", "aimet_onnx.cross_layer_equalization")

CONTENDERS: Sequence[Contender] = (
    Contender("ours fast", OURS, partial(_ours, "fast"), USED),
    Contender("ours balanced", OURS, partial(_ours, "balanced"), USED),
    Contender("ours best", OURS, partial(_ours, "best"), USED),
    Contender("ORT min-max", ORT, partial(_onnxruntime, "MinMax")),
    Contender("ORT percentile", ORT, partial(_onnxruntime, "Percentile")),
    Contender("ORT entropy", ORT, partial(_onnxruntime, "Entropy")),
    Contender("NNCF fast", NNCF, partial(_nncf, True), ("openvino", "scipy")),
    Contender("NNCF full", NNCF, partial(_nncf, False), ("openvino", "scipy")),
    Contender("AIMET CLE", AIMET, _aimet, ("onnx-ir", "onnxscript", "scipy", "torch")),
)
"""All of them, in the order of the tables."""


def named(name: str) -> Contender:
    """The contender of that name; raises ``KeyError``."""
    return {each.name: each for each in CONTENDERS}[name]
