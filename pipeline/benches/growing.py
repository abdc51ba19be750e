"""How fast a graph is checked as it grows: opening its file, asking the rules, placing and pricing it."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.checking.check import Demands, check
from pipeline.checking.units import verdicts
from pipeline.cost.hosts import HostProfile
from pipeline.graph.opening import open_model
from pipeline.targets.placement import by_rules
from pipeline.targets.profile import Target

BLOCK = ("Conv", "Relu", "Conv", "Sigmoid", "MaxPool", "Conv", "Add", "Relu", "Conv", "Elu")
"""The operators of a block, in order; few NPUs take the last."""


@dataclass(frozen=True)
class Speed:
    """How long a graph takes, in processor seconds of this process.

    Attributes:
        nodes: operators in the graph.
        open_s: to read its file: parsing, checking, inferring shapes.
        judge_s: to ask every rule of every operator.
        check_s: for the check as a whole: the rules once more, placement, costs, and what the demands want of prices.
    """

    nodes: int
    open_s: float
    judge_s: float
    check_s: float

    @property
    def nodes_per_second(self) -> float:
        """Operators per second of opening and checking together."""
        return self.nodes / (self.open_s + self.check_s)


def speed(size: int, target: Target, host: HostProfile | None, demands: Demands) -> Speed:
    """How long the network of ``size`` operators takes on ``target`` beside ``host``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        path.write_bytes(network(size).SerializeToString())
        began = time.process_time()
        graph = open_model(path).graph
    opened = time.process_time()
    verdicts(graph, by_rules(target))
    judged = time.process_time()
    check("network", graph, target, host, demands)
    return Speed(len(graph.nodes), opened - began, judged - opened, time.process_time() - judged)


def network(size: int) -> onnx.ModelProto:
    """A network of ``size`` operators: ``BLOCK`` again and again, each adding what the one before it gave."""
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
