"""ONNX Runtime as the judge of models: what it takes is valid, whatever other tools say."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.errors import one_line
from runtime.delegates.cpu import LOAD_ERRORS

TYPES: Mapping[str, int] = MappingProxyType(
    {
        "tensor(float)": onnx.TensorProto.FLOAT,
        "tensor(double)": onnx.TensorProto.DOUBLE,
        "tensor(float16)": onnx.TensorProto.FLOAT16,
        "tensor(bfloat16)": onnx.TensorProto.BFLOAT16,
        "tensor(bool)": onnx.TensorProto.BOOL,
        **{
            f"tensor({sign}int{bits})": getattr(onnx.TensorProto, f"{sign.upper()}INT{bits}")
            for sign in ("", "u")
            for bits in (8, 16, 32, 64)
        },
    }
)
"""ONNX's element types by ONNX Runtime's names for them."""

PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")


def session(model: bytes) -> ort.InferenceSession:
    """A session that runs ``model`` operator by operator on one thread, without ONNX Runtime's own rewrites.

    Raises one of ``LOAD_ERRORS`` when ONNX Runtime does not take it.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def refusal(model: bytes) -> str | None:
    """Why ONNX Runtime does not take ``model``, on one line; ``None`` when it does."""
    try:
        session(model)
    except LOAD_ERRORS as error:
        return PREFIX.sub("", one_line(error))
    return None


def run(model: bytes, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The outputs of ``model`` by name; raises one of ``LOAD_ERRORS``."""
    opened = session(model)
    names = [output.name for output in opened.get_outputs()]
    return dict(zip(names, opened.run(names, dict(feeds)), strict=True))
