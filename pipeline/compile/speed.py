"""How fast graphs are judged: nodes per second of opening, viewing, asking the rules and placing, by size."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.graph.opening import open_model
from pipeline.graph.view import view
from pipeline.targets.placement import place
from pipeline.targets.profile import Target
from pipeline.targets.rules import violations

SIZES = (100, 1_000, 10_000)

ROUNDS = 3
"""Times that each size is measured; the fastest counts."""


@dataclass(frozen=True)
class Speed:
    """How long a graph takes.

    Attributes:
        nodes: operators in the graph.
        open_s: seconds to read its file: parsing, checking, inferring shapes.
        judge_s: seconds to view it, ask every rule of every operator, and place it.
    """

    nodes: int
    open_s: float
    judge_s: float

    @property
    def nodes_per_second(self) -> float:
        """Operators per second of both together."""
        return self.nodes / (self.open_s + self.judge_s)


def speeds(target: Target, sizes: Sequence[int] = SIZES) -> tuple[Speed, ...]:
    """Processor seconds of this process for graphs of ``sizes`` operators on ``target``, the fastest of ``ROUNDS``."""
    with tempfile.TemporaryDirectory() as folder:
        return tuple(_speed(target, size, Path(folder) / f"{size}.onnx") for size in sizes)


def _speed(target: Target, size: int, path: Path) -> Speed:
    path.write_bytes(network(size).SerializeToString())
    opening, judging = [], []
    for _ in range(ROUNDS):
        began = time.process_time()
        opened = open_model(path)
        opening.append(time.process_time() - began)
        began = time.process_time()
        graph = view(opened.model)
        place(graph, lambda node: tuple(str(v) for v in violations(node, target)), target.partition.max_npu_partitions)
        judging.append(time.process_time() - began)
    return Speed(len(graph.nodes), min(opening), min(judging))


def network(size: int) -> onnx.ModelProto:
    """A network of ``size`` operators: blocks of convolutions, clamps, a pool, a residual, and an Erf that few take."""
    weight = numpy_helper.from_array(np.ones((8, 8, 1, 1), np.float32), "weight")
    nodes, last = [], "image"
    start = last
    for number in range(size):
        op = BLOCK[number % len(BLOCK)]
        inputs = {"Conv": [last, "weight"], "Add": [last, start]}.get(op, [last])
        node = helper.make_node(op, inputs, [f"t{number}"], name=f"{op}_{number}")
        if op == "MaxPool":
            node.attribute.append(helper.make_attribute("kernel_shape", [1, 1]))
        nodes.append(node)
        last = f"t{number}"
        start = last if op == "Add" else start
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, 16, 16]) for name in ("image", last)]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


BLOCK = ("Conv", "Relu", "Conv", "Sigmoid", "MaxPool", "Conv", "Add", "Relu", "Conv", "Erf")
"""The operators of a block, in order."""
