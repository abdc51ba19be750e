"""Cutting a placed graph into partitions: which operators, what each takes and gives, and its own ONNX model."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from pipeline.compile.extract import Pieces
from pipeline.compile.lower import lower
from pipeline.compile.memories import layout
from pipeline.compile.proofs import prove
from pipeline.compile.scheduling import schedule
from pipeline.errors import ModelError
from pipeline.graph.view import Graph, Node, Tensor
from pipeline.targets.placement import NPU, Placed
from pipeline.targets.profile import Target
from runtime.npu.encoding import dumps
from runtime.npu.schedule import Estimates
from runtime.tensors import TensorSpec


@dataclass(frozen=True)
class Partition:
    """A piece of the graph that runs on one device.

    Attributes:
        device: ``npu`` or ``cpu``.
        nodes: its operators in topological order.
        inputs: the tensors it takes.
        outputs: the tensors it gives.
    """

    device: str
    nodes: tuple[Node, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def cut(graph: Graph, placed: Sequence[Placed]) -> tuple[Partition, ...]:
    """The partitions of ``graph`` in execution order, one per phase of its placement; no two wait for each other.

    Raises:
        ModelError: the placement is not one of this graph, or an output of the graph is not computed.
    """
    by_name = {p.node: p for p in placed}
    odd = sorted(by_name.keys() ^ {n.name for n in graph.nodes})
    if odd:
        raise ModelError("the placement is of another model", where=odd[0], fix="run with --from coverage")
    for tensor, name in zip(graph.outputs, graph.output_names, strict=True):
        if graph.producer(tensor.name) is None:
            raise ModelError("is an output that no operator computes", where=name, fix="remove it")
    members: dict[int, list[Node]] = {}
    for node in graph.nodes:
        members.setdefault(by_name[node.name].phase, []).append(node)
    phases = sorted(members)
    return tuple(partition(graph, tuple(members[phase]), by_name[members[phase][0].name].device) for phase in phases)


def partition(graph: Graph, nodes: tuple[Node, ...], device: str) -> Partition:
    """The partition of ``graph`` that holds ``nodes``, with the tensors that cross its border."""
    members = {n.name for n in nodes}
    made = [t for n in nodes for t in n.outputs]
    own = {t.name for t in made}
    taken = {t.name: t for n in nodes for t in n.activations if t.name not in own}
    given = [t for t in made if graph.is_output(t.name) or any(c.name not in members for c in graph.consumers(t.name))]
    return Partition(device, nodes, tuple(taken.values()), tuple(given))


def crossing(tensor: Tensor) -> TensorSpec:
    """The tensor as it crosses between devices: integers when it is quantized.

    Raises:
        ModelError: it has a scale per channel, which no device's activations have.
    """
    quantization = tensor.quantization
    if quantization is None:
        return TensorSpec(tensor.wire, tensor.dims, tensor.dtype)
    if quantization.scale.size > 1:
        fact = f"is an activation with {quantization.scale.size} scales, one per channel"
        raise ModelError(fact, where=tensor.name, fix="quantize activations per tensor")
    scale, zero = float(quantization.scale), int(quantization.zero_point)
    return TensorSpec(tensor.wire, tensor.dims, quantization.dtype, scale, zero)


def onnx_models(model: onnx.ModelProto, partitions: Sequence[Partition]) -> tuple[bytes, ...]:
    """Each partition of the quantized ``model`` as an ONNX model of its own, in their order.

    Its inputs and outputs are the values that cross: the integers of quantized tensors. The same input gives the
    same bytes.

    Raises:
        ModelError: a tensor that crosses has no static shape.
    """
    for tensor in (t for p in partitions for t in (*p.inputs, *p.outputs)):
        _ = tensor.dims  # a piece must know the shapes of what it takes and gives
    pieces = Pieces(model)
    return tuple(onnx_model(pieces, p).SerializeToString(deterministic=True) for p in partitions)


def onnx_model(pieces: Pieces, part: Partition) -> onnx.ModelProto:
    """One partition cut out of the model that ``pieces`` indexes; raises ``ModelError`` as ``Pieces.cut``."""
    plain = (t for n in part.nodes for t in n.inputs if t is not None and t.quantization is None)
    known = {t.name: t.constant for t in plain if t.constant is not None}
    return pieces.cut([t.wire for t in part.inputs], [t.wire for t in part.outputs], known)


def programs(
    graph: Graph, partitions: Sequence[Partition], target: Target, estimates: Sequence[Estimates | None] = ()
) -> tuple[bytes | None, ...]:
    """Each NPU partition as a compiled program, ``None`` for those of the CPU.

    Args:
        graph: the whole quantized graph.
        partitions: its pieces.
        target: the NPU.
        estimates: what the cost model says of each partition; the programs have no times without.

    Raises:
        ModelError: an operator cannot be compiled, or some input could make one of its integers overflow.
    """
    chip = layout(target)
    made = []
    for part, estimate in itertools.zip_longest(partitions, estimates):
        program = lower(graph, part.nodes, part.inputs, part.outputs, target) if part.device == NPU else None
        if program is not None:
            prove(program)
        made.append(None if program is None else dumps(schedule(program, chip, estimate)))
    return tuple(made)
