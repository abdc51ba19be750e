"""A quantized model in torch that can be trained: rounded as its encodings say, gradients pass straight through.

Straight-through estimator: https://arxiv.org/abs/1308.3432; fake quantization as in https://arxiv.org/abs/1712.05877.
The batch of the ONNX model is 1; here it may be any.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from pipeline.errors import DivergedError, ModelError
from pipeline.graph.view import Graph, Node, view
from pipeline.quantize.constants import copied, store
from pipeline.quantize.encodings import ActivationEncoding, Encodings, WeightEncoding, computed_in
from pipeline.quantize.operators import OPERATORS
from pipeline.quantize.weights import channel_bias, has_weight, source_encoding
from runtime.npu.contracts import Contract


class _Rounded(torch.autograd.Function):
    """Integers between limits and back, as real numbers; values beyond the limits get no gradient."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 (torch gives its context no public type)
        values: Tensor,
        scale: float,
        zero: int,
        limits: tuple[int, int],
    ) -> Tensor:
        scaled = values / scale
        integers = torch.trunc(scaled + torch.sign(scaled) * 0.5) + zero  # half away from zero, as contracts round
        inside = (integers >= limits[0]) & (integers <= limits[1])
        ctx.save_for_backward(inside)
        return (integers.clamp(*limits) - zero) * scale

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401 (torch gives its context no public type)
        gradient: Tensor,
    ) -> tuple[Tensor, None, None, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None


def rounded(values: Tensor, encoding: ActivationEncoding, limits: tuple[int, int]) -> Tensor:
    """An activation as its integers mean it: to the nearest, half away from zero, within ``limits``."""
    found: Tensor = _Rounded.apply(values, encoding.scale, encoding.zero_point, limits)
    return found


def rounded_weight(values: Tensor, encoding: WeightEncoding) -> Tensor:
    """A weight as its int8 means it: symmetric in [-127, 127], ties to even, as ``qdq.round_weight`` rounds."""
    scales = torch.tensor(encoding.scales, dtype=values.dtype, device=values.device)
    if encoding.axis is not None:
        along = [1] * values.ndim
        along[encoding.axis] = -1
        scales = scales.reshape(along)
    scaled = (values / scales).clamp(-127, 127)
    return (scaled + (torch.round(scaled) - scaled).detach()) * scales


def require_trainable(graph: Graph) -> None:
    """Raise ``ModelError`` for the operators of ``graph`` that cannot be trained with rounding, all by name."""
    odd = [f"{n.name} ({n.op})" for n in graph.nodes if not n.standard or n.op not in OPERATORS]
    if odd:
        others = f" and {len(odd) - 1} other operators, {', '.join(odd[1:4])} first," if len(odd) > 1 else ""
        fix = f"set it to ptq; trained are {', '.join(sorted(OPERATORS))}"
        raise ModelError(f"{odd[0]}{others} cannot be trained with rounding", where="quantize.mode", fix=fix)


class QuantizedNetwork(nn.Module):
    """A float ONNX model whose weights, biases and activations are rounded; its weights and biases are trained.

    Batch norms are folded before a model is quantized, so what is trained are the folded weights. Ranges stay as they
    are.
    """

    def __init__(self, model: onnx.ModelProto, encodings: Encodings, contract: Contract) -> None:
        """Take the float ``model`` apart.

        Raises:
            ModelError: as ``require_trainable``.
        """
        super().__init__()
        self._model, self._encodings = model, encodings
        kinds = {dtype: contract.by_type(dtype) for dtype in ("int8", "int16")}
        self._limits = {dtype: found.limits for dtype, found in kinds.items() if found is not None}
        self._graph = view(model)
        require_trainable(self._graph)
        self._weighted = {n.name for n in self._graph.nodes if has_weight(n, encodings.activations)}
        self._names: dict[str, str] = {}
        self.trained = nn.ParameterDict()
        for node in self._graph.nodes:
            if node.name in self._weighted:
                self._train(node)
            self._keep(node)

    def _keep(self, node: Node) -> None:
        """Make buffers of the other constants of ``node``, so that they follow to any device."""
        for tensor in node.inputs:
            if tensor is not None and tensor.constant is not None and tensor.name not in self._names:
                key = self._names[tensor.name] = f"c{len(self._names)}"
                self.register_buffer(key, torch.from_numpy(np.array(tensor.real)), persistent=False)

    def _train(self, node: Node) -> None:
        """Make parameters of the weight and the bias of ``node``."""
        for tensor in (node.required(1), node.input(2)):
            if tensor is not None and tensor.constant is not None and tensor.name not in self._names:
                key = self._names[tensor.name] = f"p{len(self._names)}"
                self.trained[key] = nn.Parameter(torch.from_numpy(tensor.real.astype(np.float32).copy()))

    def forward(self, image: Tensor) -> Mapping[str, Tensor]:
        """The outputs by name for inputs of any batch: float32 [N, ...]."""
        (given,) = self._graph.inputs
        values = {given.name: self._activation(given.name, image)}
        for node in self._graph.nodes:
            inputs = [None if t is None else self._input(node, index, values) for index, t in enumerate(node.inputs)]
            made = OPERATORS[node.op](node, inputs)
            outputs = made if isinstance(made, tuple) else (made,)
            for tensor, value in zip(node.outputs, outputs, strict=True):
                values[tensor.name] = self._activation(tensor.name, value)
        return {name: values[name] for name in self._graph.output_names}

    def _input(self, node: Node, index: int, values: Mapping[str, Tensor]) -> Tensor:
        tensor = node.required(index)
        if tensor.constant is None:
            return self._converted(node, tensor.name, values[tensor.name])
        key = self._names[tensor.name]
        own: Tensor = self.trained[key] if key in self.trained else self.get_buffer(key)
        if key not in self.trained or node.name not in self._weighted:
            return own
        if index == 1:
            encoding = self._encodings.weights.get(tensor.name)
            return own if encoding is None else rounded_weight(own, encoding)
        return self._bias(node, own)

    def _bias(self, node: Node, values: Tensor) -> Tensor:
        """The bias in int32 steps of the input's scale times the weight's."""
        encoding = self._encodings.weights.get(node.required(1).name)
        if encoding is None or channel_bias(node) is None:
            return values
        step = source_encoding(self._graph, node, self._encodings).scale
        scales = torch.tensor(encoding.scales, dtype=values.dtype, device=values.device) * step
        scaled = values / scales
        return (scaled + (torch.round(scaled) - scaled).detach()) * scales

    def _activation(self, name: str, values: Tensor) -> Tensor:
        encoding = self._encodings.activations.get(name)
        return values if encoding is None else rounded(values, encoding, self._limits[encoding.dtype])

    def _converted(self, node: Node, name: str, values: Tensor) -> Tensor:
        """An activation as ``node`` reads it: rounded to the type that it computes in."""
        kind = computed_in(self._graph, node, self._encodings.activations)
        own, read = self._encodings.activations.get(name), self._encodings.read(name, kind)
        return values if read is None or read == own else rounded(values, read, self._limits[read.dtype])

    def written(self) -> onnx.ModelProto:
        """A copy of the float model with the weights and biases as they are now.

        Raises:
            DivergedError: one is not finite any more.
        """
        made = copied(self._model)
        for node in view(made).nodes:
            for index in (1, 2) if node.name in self._weighted else ():
                tensor = node.input(index)
                key = "" if tensor is None else self._names[tensor.name]
                if key not in self.trained:
                    continue
                values = self.trained[key].detach().cpu().numpy().astype(np.float64)
                if not np.isfinite(values).all():
                    fix = "lower quantize.qat.learning_rate"
                    raise DivergedError("its weights became infinite while they were trained", where=node.name, fix=fix)
                store(made, node, index, values)
        return made
