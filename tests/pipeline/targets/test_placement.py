"""Placement of whole graphs: which fallback a policy blames, and how the time grows."""

import time

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from smallmodels import graph, target

from pipeline.graph.model import check
from pipeline.graph.nouns import Graph, Node, Tensor
from pipeline.graph.view import view
from pipeline.targets.placement import CPU, NPU, place
from pipeline.targets.rules import violations


def judge(profile):
    return lambda node: tuple(str(v) for v in violations(node, profile))


def chain(length, every=10):
    """Convolutions and activations in a row, with an Erf that no Edge TPU takes at each ``every``-th place."""
    ops = ["Erf" if i % every == every - 1 else ("Conv", "Relu", "MaxPool")[i % 3] for i in range(length)]
    weight = numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w")
    more = {"MaxPool": {"kernel_shape": [1, 1]}}
    nodes = [
        helper.make_node(op, [f"t{i}", "w"] if op == "Conv" else [f"t{i}"], [f"t{i + 1}"], **more.get(op, {}))
        for i, op in enumerate(ops)
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4, 8, 8]) for n in ("t0", f"t{length}")]
    made = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [weight])
    return view(check(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), "chain"))


def seconds(seen, limit):
    best = np.inf
    for _ in range(3):
        began = time.process_time()
        placed = place(seen, judge(target()), limit)
        best = min(best, time.process_time() - began)
    assert len(placed) == len(seen.nodes)
    return best


@pytest.mark.parametrize("limit", [1, None])
def test_time_grows_with_the_graph_not_with_its_square(limit):
    small, large = seconds(chain(1_000), limit), seconds(chain(10_000), limit)
    assert large < 2
    assert large < 30 * max(small, 0.005)  # ten times the work, with room for a busy machine; its square is 100


def test_the_first_fallback_before_is_blamed():
    body = """a = Relu (x) \n b = Erf (a) \n c = Relu (b) \n d = Erf (c) \n e = Relu (d) \n f = Erf (a)
              k = MaxPool <kernel_shape = [1,1]> (f) \n y = Sum (k, e)"""
    seen = graph(f"g (float[1,4,6,6] x) => (float[1,4,6,6] y) {{ {body} }}")
    placed = {p.op + p.node[-1]: p for p in place(seen, judge(target()), 1)}
    by_position = [(p.op, p.device, p.reasons) for p in placed.values()]
    said = "The target takes one NPU partition; it comes after {}, which is a fallback"
    erfs = [n.name for n in seen.nodes if n.op == "Erf"]
    late = [reasons for op, device, reasons in by_position if op in ("Relu", "MaxPool") and device == CPU]
    assert [device for op, device, _ in by_position if op == "Relu"] == [NPU, CPU, CPU]
    assert late == [(said.format(erfs[0]),), (said.format(erfs[0]),), (said.format(erfs[2]),)]


def test_a_gpu_runs_it_all():
    seen = graph("g (float[1,4,6,6] x) => (float[1,4,6,6] y) { a = Erf (x) y = my.Thing (a) }")
    assert {p.device for p in place(seen, judge(target("jetson-xavier-nx-gpu")), None)} == {NPU}


def test_a_graph_of_one_node_is_placed():
    ends = tuple(Tensor(name, (1, 4), "float32") for name in "xy")
    seen = Graph((Node("relu", "Relu", "", ends[:1], ends[1:]),), ends[:1], ends[1:], ("y",), 18)
    (placed,) = place(seen, judge(target()), 1)
    assert (placed.device, placed.phase) == (NPU, 1)
