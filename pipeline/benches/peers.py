"""TFLite's two interpreters with their reference kernels, where they are installed."""

import importlib
import importlib.util
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

ARENA = 1 << 26
"""Bytes that tflite-micro may use."""

Run = Callable[[Sequence[NDArray[np.generic]]], list[NDArray[np.generic]]]
"""From a ``.tflite`` model's inputs to its outputs."""


def installed() -> bool:
    """Whether both are here, and with LiteRT the schema that files are written by."""
    return all(importlib.util.find_spec(name) is not None for name in ("ai_edge_litert", "tflite_micro"))


def litert(content: bytes) -> Run:
    """LiteRT on one thread, which is all that its reference kernels use."""
    module = importlib.import_module("ai_edge_litert.interpreter")
    kernels = module.OpResolverType.BUILTIN_REF
    interpreter = module.Interpreter(model_content=content, experimental_op_resolver_type=kernels, num_threads=1)
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def run(feeds: Sequence[NDArray[np.generic]]) -> list[NDArray[np.generic]]:
        for detail, feed in zip(inputs, feeds, strict=True):
            interpreter.set_tensor(detail["index"], feed)
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in outputs]

    return run


def micro(content: bytes, outputs: int) -> Run:
    """tflite-micro, which does not say how many outputs the model has."""
    interpreter = importlib.import_module("tflite_micro").runtime.Interpreter.from_bytes(content, arena_size=ARENA)

    def run(feeds: Sequence[NDArray[np.generic]]) -> list[NDArray[np.generic]]:
        for index, feed in enumerate(feeds):
            interpreter.set_input(feed, index)
        interpreter.invoke()
        return [np.array(interpreter.get_output(index)) for index in range(outputs)]

    return run
