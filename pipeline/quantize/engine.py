"""The quantized model on the integer engine of the target's contract, operator by operator.

Whatever the target covers, an operator runs in integers when the engine has a kernel for it; any other runs as ONNX
Runtime has its quantize/dequantize form. So a scale, a rounding or a bias is judged by the bits that ship.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx.utils import Extractor

from pipeline.compile.lower import lower
from pipeline.compile.partitions import Partition, crossing, partition
from pipeline.compile.support import no_kernel
from pipeline.graph.fusion import units
from pipeline.graph.view import Node, Tensor, quantize, view
from pipeline.quantize.samples import Sample, by_name
from pipeline.targets.placement import CPU, NPU, by_kernel, place
from pipeline.targets.profile import Target
from runtime.npu.contracts import find_contract
from runtime.npu.device import Device
from runtime.npu.program import Program
from runtime.tensors import TensorSpec

Array = NDArray[np.generic]
Real = NDArray[np.float32]


@dataclass(frozen=True)
class Unit:
    """Operators that run as one: an operator with its fused clamp.

    Attributes:
        nodes: the operators; the first names the unit, the last gives its output.
        device: ``npu`` when it runs in integers, ``cpu`` when ONNX Runtime runs it.
        reasons: why it is not in integers, each a sentence.
        piece: what it takes and gives.
        program: its integer program; ``None`` on the CPU.
    """

    nodes: tuple[Node, ...]
    device: str
    reasons: tuple[str, ...]
    piece: Partition
    program: Program | None

    @property
    def name(self) -> str:
        """The name of its first operator."""
        return self.nodes[0].name


class Engine:
    """A quantized model, ready to run unit by unit on tensors by their name on the wire.

    Attributes:
        graph: its view.
        units: its operators in order.
        original: what the float model calls the outputs, by their name in the quantized one.
        specs: every tensor that crosses between units, by its name on the wire.
    """

    def __init__(self, model: onnx.ModelProto, target: Target) -> None:
        """Compile every unit of ``model``; raises ``ModelError`` when an operator cannot be compiled."""
        self.graph = view(model)
        self._model = model
        self._target = target
        self._extractor: Extractor | None = None
        self._ready: dict[str, Device | ort.InferenceSession] = {}
        contract = find_contract(target.contract)
        placed = {p.node: p for p in place(self.graph, by_kernel(lambda n: no_kernel(n, contract)), None)}
        self.units = tuple(self._unit(nodes, placed[nodes[0].name].reasons) for nodes in units(self.graph))
        wires = [*self.graph.inputs, *(t for u in self.units for t in (*u.piece.inputs, *u.piece.outputs))]
        self._quantizations = {t.wire: t.quantization for t in wires if t.quantization is not None}
        self._unused = last_uses([u.piece for u in self.units], {t.wire for t in self.graph.outputs})
        self.original = dict(zip((t.name for t in self.graph.outputs), self.graph.output_names, strict=True))
        self.specs: Mapping[str, TensorSpec] = {t.wire: crossing(t) for t in wires}

    def _unit(self, nodes: tuple[Node, ...], reasons: tuple[str, ...]) -> Unit:
        device = CPU if reasons else NPU
        piece = partition(self.graph, nodes, device)
        program = None if reasons else lower(self.graph, nodes, piece.inputs, piece.outputs, self._target)
        return Unit(nodes, device, reasons, piece, program)

    def enter(self, image: Sample) -> dict[str, Array]:
        """The float ``image``, or one for each input, as the model's quantized inputs, by their names on the wire."""
        given = self.given(image)
        return {t.wire: self.rounded(t.wire, given[t.name]) for t in self.graph.inputs}

    def given(self, image: Sample) -> Mapping[str, Real]:
        """What ``image`` has for each input of the model, by the input's name."""
        return by_name(image, [t.name for t in self.graph.inputs])

    def run_unit(self, unit: Unit, values: MutableMapping[str, Array]) -> None:
        """Run ``unit`` on what it needs of ``values`` and add what it gives."""
        ready = self._prepared(unit)
        feeds = {t.wire: np.asarray(values[t.wire]) for t in unit.piece.inputs}  # a single number is an array too
        if isinstance(ready, Device):
            values.update(ready.run(feeds))
        else:
            names = [t.wire for t in unit.piece.outputs]
            values.update(zip(names, ready.run(names, feeds), strict=True))

    def run(self, image: Sample) -> dict[str, Real]:
        """The model's outputs for float inputs, as real numbers by output name."""
        values = self.enter(image)
        for index, unit in enumerate(self.units):
            self.run_unit(unit, values)
            for tensor in self._unused.get(index, ()):
                values.pop(tensor.wire, None)
        pairs = zip(self.graph.output_names, self.graph.outputs, strict=True)
        return {name: self.real(tensor.wire, values) for name, tensor in pairs}

    def real(self, wire: str, values: Mapping[str, Array]) -> Real:
        """The tensor ``wire`` among ``values`` as real numbers."""
        spec = self.specs[wire]
        return values[wire].astype(np.float32) if spec.scale is None else spec.dequantize(values[wire])

    def rounded(self, wire: str, values: Real) -> Array:
        """Real ``values`` as the tensor ``wire`` has them: rounded when it is quantized."""
        quantization = self._quantizations.get(wire)
        return values if quantization is None else quantize(values, quantization)

    def with_constants(self, unit: Unit, constants: Mapping[str, Array]) -> Unit:
        """``unit`` with other weights or biases in its first instruction, in the engine too."""
        if unit.program is None:
            return unit
        first, *rest = unit.program.instructions
        changed = replace(first, constants={**first.constants, **constants})
        made = replace(unit, program=replace(unit.program, instructions=(changed, *rest)))
        self.units = tuple(made if u is unit else u for u in self.units)
        self._ready.pop(unit.name, None)
        return made

    def _prepared(self, unit: Unit) -> Device | ort.InferenceSession:
        if unit.name not in self._ready:
            # One thread each: the threads of dozens of sessions that wait by spinning starve the one that works.
            self._ready[unit.name] = self._session(unit) if unit.program is None else Device(unit.program, threads=1)
        return self._ready[unit.name]

    def _session(self, unit: Unit) -> ort.InferenceSession:
        """A unit of the CPU as ONNX Runtime's session, its integers at both ends."""
        if self._extractor is None:
            self._extractor = Extractor(self._model)
        names = [t.wire for t in unit.piece.inputs], [t.wire for t in unit.piece.outputs]
        return session(self._extractor.extract_model(*names))


def last_uses(pieces: Sequence[Partition], kept: set[str]) -> Mapping[int, Sequence[Tensor]]:
    """For each piece's place the tensors that nothing behind it reads, but those ``kept``, by name on the wire."""
    final: dict[str, tuple[int, Tensor]] = {}
    for index, piece in enumerate(pieces):
        for tensor in (*piece.inputs, *piece.outputs):
            final[tensor.wire] = index, tensor
    uses: dict[int, list[Tensor]] = {}
    for wire, (index, tensor) in final.items():
        if wire not in kept:
            uses.setdefault(index, []).append(tensor)
    return uses


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """ONNX Runtime's session of ``model`` on the CPU, silent, nothing fused into anything inexact."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
