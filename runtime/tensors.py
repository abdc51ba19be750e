"""The nouns that cross between devices: a tensor's name, shape, type and quantization."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[np.generic]]
"""Tensors by name; the one type that partitions, delegates and sessions take and give."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor as a partition declares it.

    Attributes:
        name: unique within a bundle.
        shape: all dimensions known; activations are NCHW with N = 1.
        dtype: numpy name: ``int8`` for a quantized tensor, ``float32`` and others for CPU-only tensors.
        scale: real value of one step, ``real = scale * (q - zero_point)``; ``None`` when not quantized.
        zero_point: the integer that stands for real zero; ``None`` when not quantized.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None

    def dequantize(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        """Real values of ``values`` as float32; the identity for a tensor that is not quantized."""
        if self.scale is None or self.zero_point is None:
            return values.astype(np.float32)
        return (values.astype(np.int32) - self.zero_point).astype(np.float32) * np.float32(self.scale)
