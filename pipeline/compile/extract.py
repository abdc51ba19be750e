"""Cutting pieces out of an ONNX model, in time that grows with the piece and not with the model."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data

from pipeline.errors import ModelError
from pipeline.graph.protos import reads

Array = NDArray[Any]
NOTHING: Mapping[str, Array] = MappingProxyType({})


class Pieces:
    """What pieces are cut from: a model with shapes, indexed once.

    Args:
        model: its nodes in topological order, every value named once.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        """Index the nodes by what they make."""
        graph = model.graph
        self._model = model
        self._nodes = graph.node
        self._makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._moving = {value.name for value in graph.input} - self._constants.keys()
        for node in graph.node:
            if not self._moving.isdisjoint(reads(node)):
                self._moving.update(node.output)
        self._infos = {v.name: v for values in (graph.value_info, graph.input, graph.output) for v in values}

    def cut(
        self, inputs: Iterable[str], outputs: Sequence[str], known: Mapping[str, Array] = NOTHING
    ) -> onnx.ModelProto:
        """The nodes that make ``outputs`` of ``inputs`` and of constants, as a model.

        Args:
            inputs: values that the piece is given.
            outputs: values that it gives.
            known: values that are constant although nodes compute them from others, as shapes are; where the piece
                reads one, it holds the value instead of those nodes.

        Raises:
            ModelError: a value is made of something else, or its weights lie in a file beside the model.
        """
        ends = dict.fromkeys(inputs)
        fixed = {name: values for name, values in known.items() if name in self._moving and name not in ends}
        indexes, values = self._needed({**ends, **fixed}, outputs)
        read = [name for index in indexes for name in reads(self._nodes[index])]
        constants = [self._constants[name] for name in values if name in self._constants]
        outside = next((c for c in constants if uses_external_data(c)), None)
        if outside is not None:
            raise ModelError("is too large for a piece of its own; it lies in a file", where=outside.name)
        constants += [numpy_helper.from_array(fixed[name], name) for name in dict.fromkeys(read) if name in fixed]
        odd = next((n for n in values if n not in self._constants and n not in self._makers and n not in ends), None)
        if odd is not None:
            raise ModelError("is neither given nor computed in this piece", where=odd)
        piece = onnx.ModelProto(ir_version=self._model.ir_version, producer_name=self._model.producer_name)
        piece.opset_import.extend(self._model.opset_import)
        piece.functions.extend(self._model.functions)
        graph = piece.graph
        graph.name = self._model.graph.name
        graph.node.extend(self._nodes[index] for index in indexes)
        graph.initializer.extend(constants)
        graph.input.extend(self._info(name) for name in ends)
        graph.output.extend(self._info(name) for name in outputs)
        inner = [name for index in indexes for name in self._nodes[index].output if name not in outputs]
        graph.value_info.extend(self._infos[name] for name in inner if name in self._infos)
        return piece

    def _needed(self, ends: Iterable[str], outputs: Iterable[str]) -> tuple[list[int], list[str]]:
        """The nodes behind ``outputs``, in the model's order, and all that they read and the outputs."""
        known = set(ends)
        waiting = [name for name in outputs if name not in known]
        indexes: set[int] = set()
        values = dict.fromkeys(waiting)
        while waiting:
            index = self._makers.get(waiting.pop())
            if index is None or index in indexes:
                continue
            indexes.add(index)
            found = [name for name in reads(self._nodes[index]) if name not in known]
            values.update(dict.fromkeys(found))
            waiting.extend(found)
        return sorted(indexes), list(values)

    def _info(self, name: str) -> onnx.ValueInfoProto:
        """Type and shape of a value; raises ``ModelError`` when the model does not say them."""
        if name not in self._infos:
            raise ModelError("crosses between pieces, and its type is not known", where=name)
        return self._infos[name]
