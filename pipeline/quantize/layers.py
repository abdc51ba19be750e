"""The weights of a layer as numbers per output and input channel, which can be rescaled and bounded."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.graph.view import Node
from pipeline.quantize.bounds import Interval
from pipeline.quantize.weights import channel_bias

Values = NDArray[np.float64]


@dataclass
class Layer:
    """A weight in float64 while it is worked on: ``out`` and ``into`` are its axes of output and input channels."""

    values: Values
    bias: Values | None
    out: int
    into: int
    groups: int

    def out_largest(self) -> Values:
        """Largest magnitude per output channel: [O]."""
        return _largest(self.values, self.out)

    def into_largest(self) -> Values:
        """Largest magnitude per input channel: [I]."""
        if self.groups == 1:
            return _largest(self.values, self.into)
        grouped = self.values.reshape(self.groups, self.values.shape[0] // self.groups, self.values.shape[1], -1)
        found: Values = np.abs(grouped).max(axis=(1, 3)).reshape(-1)
        return found

    def divide_out(self, factor: Values) -> None:
        """Divide every output channel, and its bias, by its factor."""
        self.values /= _along(factor, self.out, self.values.ndim)
        if self.bias is not None:
            self.bias /= factor

    def multiply_into(self, factor: Values) -> None:
        """Multiply every input channel by its factor."""
        if self.groups == 1:
            self.values *= _along(factor, self.into, self.values.ndim)
        else:
            self.values *= self._spread(factor)

    def response(self, shift: Values) -> Values:
        """What a constant ``shift`` of every input channel adds to each output channel: [O]."""
        return self._summed(self.values, shift)

    def bound(self, given: Interval) -> Interval:
        """What the output channels stay within for any input within ``given``, of [I] channels; with 0: [O]."""
        rising, falling = np.maximum(self.values, 0), np.minimum(self.values, 0)
        bias = 0.0 if self.bias is None else self.bias
        high = self._summed(rising, given.high) + self._summed(falling, given.low) + bias
        low = self._summed(rising, given.low) + self._summed(falling, given.high) + bias
        return Interval(np.minimum(low, 0), np.maximum(high, 0))

    def _summed(self, values: Values, each: Values) -> Values:
        axes = tuple(a for a in range(values.ndim) if a != self.out)
        along = _along(each, self.into, values.ndim) if self.groups == 1 else self._spread(each)
        total: Values = (values * along).sum(axis=axes)
        return total

    def _spread(self, factor: Values) -> Values:
        """A factor per input channel shaped for a grouped weight [O, I/groups, ...]."""
        rows = np.repeat(factor.reshape(self.groups, -1), self.values.shape[0] // self.groups, axis=0)
        return rows.reshape(*rows.shape, *[1] * (self.values.ndim - 2))


def _largest(values: Values, axis: int) -> Values:
    found: Values = np.abs(values).max(axis=tuple(a for a in range(values.ndim) if a != axis))
    return found


def _along(factor: Values, axis: int, rank: int) -> Values:
    shape = [1] * rank
    shape[axis] = -1
    return factor.reshape(shape)


def layer(node: Node) -> Layer:
    """The weight of ``node``, a Conv, Gemm, MatMul or LayerNormalization; a bias has one value per channel."""
    values = node.required(1).real.astype(np.float64)
    bias = node.input(2)
    if node.op == "LayerNormalization":
        return Layer(values, None if bias is None else bias.real.astype(np.float64), 0, 0, 1)
    flat = channel_bias(node)
    own = None if flat is None else flat.copy()
    if node.op == "Conv":
        return Layer(values, own, 0, 1, node.int("group", 1))
    out = 0 if node.op == "Gemm" and node.int("transB", 0) else 1
    return Layer(values, own, out, 1 - out, 1)
