"""Sessions on this host, and whether its integer kernels compute what they say: some saturate sums of products."""

import platform
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from runtime.npu.onnx_writer import Graph, Port

_CHANNELS = 64

DISABLED = ("ConvMulFusion", "ConvAddFusion", "MatMulScaleFusion", "MatMulAddFusion")
"""Graph optimizations that move a factor into weights and so change roundings."""


def open_session(model: bytes, threads: int, alone: bool = True) -> ort.InferenceSession:
    """A session on the CPU; ``threads`` inside one operator, 0 lets onnxruntime choose.

    Sessions that run in turn are not ``alone``: their threads do not wait by spinning, which would take the processors
    from the next one's, and they give their memory back, as dozens of arenas would keep much more than one.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    if not alone:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_cpu_mem_arena = False
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(DISABLED))


def prefers_unsigned() -> bool:
    """Whether sums of uint8 times int8 are sooner than those of int8 times int8: on x86 (VPDPBUSD takes that)."""
    return platform.machine().lower() in ("x86_64", "amd64")


def integer_kernels_exact() -> bool:
    """Whether a convolution of extreme integers keeps every bit.

    Processors without VNNI add pairs of 8-bit products in 16 bits, with saturation (``vpmaddubsw``); the sums here
    reach that limit wherever it exists, for signed and unsigned activations.
    """
    rng = np.random.default_rng(0)
    weight = rng.choice(np.array([-127, 127], np.int8), (16, _CHANNELS, 1, 1))
    weight[0] = 127
    for dtype in ("int8", "uint8"):
        info = np.iinfo(dtype)
        x = rng.choice(np.array([info.min, info.max], dtype), (1, _CHANNELS, 4, 8))
        x[..., 0, :] = info.max
        want = np.rint(np.einsum("oi,bihw->bohw", weight[..., 0, 0].astype(int), x.astype(int)) / 2.0**14)
        session = open_session(_probe(weight, x), 1)
        if (session.run(None, {"x": x})[0] != np.clip(want, info.min, info.max)).any():
            return False
    return True


def _probe(weight: NDArray[np.int8], x: NDArray[np.integer[Any]]) -> bytes:
    graph = Graph()
    one, zero = graph.constant(np.array(1, np.float32)), graph.constant(np.zeros((), x.dtype))
    factors = [graph.constant(np.full(16, 2.0**-14, np.float32)), graph.constant(np.zeros(16, np.int8))]
    graph.inputs.append(Port("x", x.dtype.name, x.shape))
    graph.outputs.append(Port("y", x.dtype.name, (1, 16, *x.shape[2:])))
    graph.node("QLinearConv", ["x", one, zero, graph.constant(weight), *factors, one, zero], "y")
    return graph.model()
