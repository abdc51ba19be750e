"""Float and integer model side by side, unit by unit, over a fixed number of images.

At each unit the walk knows what the float model computes and what the engine has computed so far, so a unit can be
judged alone or with all before it, and changed before anything behind it runs. Only live tensors are kept.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

from pipeline.graph.view import Graph, Node, Tensor, view
from pipeline.quantize.constants import initializers, users
from pipeline.quantize.engine import Array, Engine, Real, Unit, last_uses, session
from pipeline.quantize.samples import Sample


class Step:
    """One unit, with what goes into it.

    Attributes:
        unit: the operators; ``replace`` changes it.
        real_inputs: what the float model gives it, by tensor of the float model, one mapping per image.
        reals: what the float model computes, one mapping per image, by tensor of the float model.
        feeds: what the engine has for it, by name on the wire, one mapping per image.
        node: the first operator as the float model has it.
        sole: whether nobody else reads its constants, so that they may change.
    """

    def __init__(
        self,
        engine: Engine,
        unit: Unit,
        node: Node,
        sole: bool,
        real_inputs: Sequence[Mapping[str, Real]],
        reals: Sequence[Mapping[str, Real]],
        feeds: Sequence[Mapping[str, Array]],
    ) -> None:
        """Take what the walk has collected."""
        self.engine, self.unit, self.node, self.sole = engine, unit, node, sole
        self.real_inputs, self.reals, self.feeds = real_inputs, reals, feeds
        self._results: list[dict[str, Array]] | None = None

    def replace(self, constants: Mapping[str, Array]) -> None:
        """Give the unit's first instruction other weights or biases."""
        self.unit = self.engine.with_constants(self.unit, constants)
        self._results = None

    def results(self) -> Sequence[Mapping[str, Array]]:
        """What the engine computes from ``feeds``, by name on the wire, one mapping per image."""
        if self._results is None:
            self._results = [self._run(feeds) for feeds in self.feeds]
        return self._results

    def alone(self, images: int) -> Sequence[Mapping[str, Array]]:
        """What the engine computes from the float model's inputs, rounded: the first ``images``."""
        wires = [(t.wire, real_name(self.engine, t)) for t in self.unit.piece.inputs]
        rounded = [
            {wire: self.engine.rounded(wire, reals[name]) for wire, name in wires}
            for reals in self.real_inputs[:images]
        ]
        return [self._run(feeds) for feeds in rounded]

    def outputs(self) -> Sequence[tuple[str, str]]:
        """The unit's outputs: name on the wire and in the float model."""
        return [(t.wire, real_name(self.engine, t)) for t in self.unit.piece.outputs]

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        values = dict(feeds)
        self.engine.run_unit(self.unit, values)
        return {t.wire: values[t.wire] for t in self.unit.piece.outputs}


def walk(engine: Engine, model: onnx.ModelProto, images: Sequence[Sample]) -> Iterator[Step]:
    """Every unit of ``engine`` in order; what the user of a step replaces is what later steps see.

    Args:
        engine: the quantized model.
        model: the float model that it was made from, whose tensors have the same names.
        images: float inputs, see ``Engine.enter``; all are held, with the live tensors of each.
    """
    graph = view(model)
    nodes, counts = {n.name: n for n in graph.nodes}, users(graph)
    floats = Floats(model, graph)
    kept = {t.wire for t in engine.graph.outputs}
    uses, reads = last_uses([u.piece for u in engine.units], kept), _last_reads(engine, nodes)
    integers = [engine.enter(image) for image in images]
    reals: list[dict[str, Real]] = [_entering(engine, image) for image in images]
    for index, unit in enumerate(engine.units):
        feeds = [{t.wire: values[t.wire] for t in unit.piece.inputs} for values in integers]
        if unit.name not in nodes:  # brings a tensor to another type: nothing that the float model computes
            _convert(engine, unit, feeds, integers, reals)
        else:
            made, node = [floats.run(unit, values) for values in reals], nodes[unit.name]
            sole = all(counts[t.name] == 1 for t in node.inputs if t is not None and t.constant is not None)
            step = Step(engine, unit, node, sole, reals, made, feeds)
            yield step
            for values, result, real, new in zip(integers, step.results(), reals, made, strict=True):
                values.update(result)
                real.update(new)
        for values, real in zip(integers, reals, strict=True):
            for tensor in uses.get(index, ()):
                values.pop(tensor.wire, None)
            for name in reads.get(index, ()):
                real.pop(name, None)


def _entering(engine: Engine, image: Sample) -> dict[str, Real]:
    given = engine.given(image)
    return {real_name(engine, t): given[t.name] for t in engine.graph.inputs}


def _last_reads(engine: Engine, nodes: Mapping[str, Node]) -> Mapping[int, Sequence[str]]:
    """For each unit's place the names of real values that nothing behind it reads.

    The float model's operators read a tensor by its own name where the engine reads it converted, so what reads the
    converted one reads both.
    """
    final: dict[str, int] = {}
    source: dict[str, str] = {}
    for index, unit in enumerate(engine.units):
        names = [real_name(engine, t) for t in (*unit.piece.inputs, *unit.piece.outputs)]
        if unit.name not in nodes:
            source[names[1]] = source.get(names[0], names[0])
        final |= {each: index for name in names for each in (name, source.get(name, name))}
    reads: dict[int, list[str]] = {}
    for name, index in final.items():
        reads.setdefault(index, []).append(name)
    return reads


def _convert(
    engine: Engine,
    unit: Unit,
    feeds: Sequence[Mapping[str, Array]],
    integers: Sequence[dict[str, Array]],
    reals: Sequence[dict[str, Real]],
) -> None:
    """Add the unit's output to ``integers``, and to ``reals`` as what the float model has for its input."""
    (source,), (result,) = unit.piece.inputs, unit.piece.outputs
    for fed, values, real in zip(feeds, integers, reals, strict=True):
        made = dict(fed)
        engine.run_unit(unit, made)
        values[result.wire] = made[result.wire]
        real[real_name(engine, result)] = real[real_name(engine, source)]


def real_name(engine: Engine, tensor: Tensor) -> str:
    """What the float model calls ``tensor`` of the quantized one: an output's pair stands behind ``NAME_real``."""
    return engine.original.get(tensor.name, tensor.name)


class Floats:
    """The float model's operators as ONNX Runtime sessions, one for each unit, made when first run."""

    def __init__(self, model: onnx.ModelProto, graph: Graph) -> None:
        """Prepare ``model``, whose view is ``graph``."""
        self._model = model
        self._protos = {n.name: n for n in model.graph.node}
        self._constants = initializers(model)
        self._given = {v.name: v for v in (*model.graph.input, *model.graph.output, *model.graph.value_info)}
        self._makers = {n.output[0]: n for n in model.graph.node if n.op_type == "Constant"}
        self._graph = {n.name: n for n in graph.nodes}
        self._ready: dict[str, tuple[ort.InferenceSession, list[str], list[str]]] = {}

    def run(self, unit: Unit, values: Mapping[str, Real]) -> dict[str, Real]:
        """What the operators of ``unit`` compute from ``values``, by tensor."""
        if unit.name not in self._ready:
            self._ready[unit.name] = self._session(unit)
        ready, inputs, outputs = self._ready[unit.name]
        found = ready.run(outputs, {name: values[name] for name in inputs})
        return dict(zip(outputs, found, strict=True))

    def _session(self, unit: Unit) -> tuple[ort.InferenceSession, list[str], list[str]]:
        nodes = [self._graph[n.name] for n in unit.nodes]
        made = {t.name for n in nodes for t in n.outputs}
        inputs = list(dict.fromkeys(t.name for n in nodes for t in n.activations if t.name not in made))
        outputs = [t.name for t in nodes[-1].outputs]
        protos = [self._protos[n.name] for n in nodes]
        read = list(dict.fromkeys(name for p in protos for name in p.input if name))
        constants = [self._constants[name] for name in read if name in self._constants]
        protos = [*(self._makers[name] for name in read if name in self._makers), *protos]
        ends = [self._given[name] for name in inputs], [self._given[name] for name in outputs]
        graph = helper.make_graph(protos, unit.name, *ends, constants)
        piece = helper.make_model(graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version)
        return session(piece), inputs, outputs


def as_real(engine: Engine, wire: str, values: Sequence[Mapping[str, Array]]) -> NDArray[np.float32]:
    """The tensor ``wire`` of every image as real numbers, stacked: [images, ...]."""
    return np.stack([engine.real(wire, each) for each in values])
