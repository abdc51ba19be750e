"""Small questions to ONNX protobufs: what a node reads, which values are constant, in what order nodes can run."""

import heapq
from collections.abc import Iterator, Mapping, Sequence

import onnx
from onnx import numpy_helper

from pipeline.errors import ModelError


def reads(node: onnx.NodeProto) -> tuple[str, ...]:
    """The values that ``node`` reads, in order: its inputs, then what graphs nested in it take from around them."""
    own = [name for name in node.input if name]
    return tuple(dict.fromkeys((*own, *(name for graph in nested(node) for name in _captured(graph)))))


def nested(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that ``node`` holds: the branches of an If, the body of a Loop or Scan."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _captured(graph: onnx.GraphProto) -> Iterator[str]:
    """The values that the nodes of a nested graph take from outside it."""
    known = {i.name for i in graph.input} | {i.name for i in graph.initializer}
    for node in graph.node:
        yield from (name for name in reads(node) if name not in known)
        known.update(node.output)
    yield from (o.name for o in graph.output if o.name not in known)


def constants(graph: onnx.GraphProto) -> Mapping[str, onnx.TensorProto]:
    """The initializers and the tensors of Constant nodes, by the value they give."""
    found = {i.name: i for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].type == onnx.AttributeProto.TENSOR:
            found[node.output[0]] = node.attribute[0].t
    return found


def value_bytes(tensor: onnx.TensorProto) -> bytes:
    """What makes two constants equal: type, shape and values."""
    array = numpy_helper.to_array(tensor)
    return f"{array.dtype} {array.shape} ".encode() + array.tobytes()


def ordered(nodes: Sequence[onnx.NodeProto], known: set[str], where: object) -> list[onnx.NodeProto]:
    """``nodes`` so that each comes after what it reads, otherwise in their order.

    Args:
        nodes: of one graph.
        known: values that are there before any of them runs.
        where: what errors name.

    Raises:
        ModelError: some wait for each other, or for a value that nothing makes.
    """
    made = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = [{made[name] for name in reads(node) if name in made} for node in nodes]
    followers: list[list[int]] = [[] for _ in nodes]
    for index, wanted in enumerate(needs):
        for before in wanted:
            followers[before].append(index)
    missing = [len(wanted) for wanted in needs]
    ready = [index for index, count in enumerate(missing) if count == 0]
    result: list[onnx.NodeProto] = []
    while ready:
        index = heapq.heappop(ready)
        result.append(nodes[index])
        for follower in followers[index]:
            missing[follower] -= 1
            if missing[follower] == 0:
                heapq.heappush(ready, follower)
    stuck = next((node for node, count in zip(nodes, missing, strict=True) if count), None)
    if stuck is not None:
        raise ModelError(f"{stuck.op_type} {stuck.name} computes a value from itself", where=where)
    for node in result:
        odd = next((name for name in reads(node) if name not in made and name not in known), None)
        if odd is not None:
            raise ModelError(
                f"is not valid ONNX: {node.op_type} {node.name} reads {odd}, which nothing makes", where=where
            )
    return result
