"""The peers that run ``.tflite`` models, and models of one operator. No TensorFlow needed."""

import numpy as np
import pytest

pytest.importorskip(
    "ai_edge_litert.schema_py_generated", reason="building .tflite models needs ai-edge-litert (extra dev, Linux)"
)
writer = pytest.importorskip("pipeline.graph.tflite_writer", reason="building .tflite models needs the workstation")
Op, Tensor, network, PADDING = writer.Op, writer.Tensor, writer.network, writer.PADDING

ARENA = 1 << 24
"""Bytes that tflite-micro may use."""


def model(operator, tensors, inputs, output, options=None):
    """A ``.tflite`` file with one ``operator`` that reads all tensors but the last, which it writes."""
    return network([Op(operator, list(range(len(tensors) - 1)), output, options)], tensors, inputs, [output])


def options(name, **fields):
    """The builtin options ``name`` with these fields."""
    return writer.Options(name, fields)


def run_micro(content, feeds, outputs=1):
    """Output of tflite-micro; a list of several."""
    micro = pytest.importorskip("tflite_micro", reason="the reference is tflite-micro (extra dev, Linux x86-64)")
    interpreter = micro.runtime.Interpreter.from_bytes(content, arena_size=ARENA)
    for index, feed in enumerate(feeds):
        interpreter.set_input(feed, index)
    interpreter.invoke()
    found = [np.array(interpreter.get_output(index)) for index in range(outputs)]
    return found[0] if outputs == 1 else found


def run_litert(content, feeds, outputs=1):
    """Output of LiteRT's reference kernels; a list of several."""
    interpreter = open_litert(content)
    for detail, feed in zip(interpreter.get_input_details(), feeds, strict=True):
        interpreter.set_tensor(detail["index"], feed)
    interpreter.invoke()
    found = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
    return found[0] if outputs == 1 else found


def open_litert(content, threads=1):
    """LiteRT's interpreter with its reference kernels, ready to invoke."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs ai-edge-litert (extra dev, Linux)")
    interpreter = litert.Interpreter(
        model_content=content,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
        num_threads=threads,
    )
    interpreter.allocate_tensors()
    return interpreter
