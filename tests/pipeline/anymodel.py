"""A model of any origin on a target: every node accounted for, placed in both ways, and in pieces the same as whole."""

from collections import Counter
from functools import cache

import numpy as np
import onnx

from pipeline.checking.check import Demands, check
from pipeline.compile.extract import Pieces
from pipeline.compile.partitions import Partition, cut, onnx_model, onnx_models
from pipeline.compile.support import no_kernel
from pipeline.cost import hosts
from pipeline.graph.peer import run, session
from pipeline.graph.protos import reads
from pipeline.targets.placement import CPU, NPU, Placed, by_target, place

NUMPY = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16, "tensor(int64)": np.int64,
    "tensor(int32)": np.int32, "tensor(int8)": np.int8, "tensor(uint8)": np.uint8, "tensor(bool)": np.bool_,
    "tensor(int16)": np.int16, "tensor(uint16)": np.uint16,
}  # fmt: skip


def random_inputs(model, seed=0):
    """Inputs for ``model`` by name: normal numbers for real types, 0 and 1 for others."""
    generator = np.random.default_rng(seed)
    feeds = {}
    for given in session(model.SerializeToString()).get_inputs():
        kind = np.dtype(NUMPY[given.type])
        values = generator.normal(size=given.shape) if kind.kind == "f" else generator.integers(0, 2, given.shape)
        feeds[given.name] = np.asarray(values).astype(kind)
    return feeds


def live_operators(model):
    """The operators of ``model`` that its outputs depend on and that compute on what changes, pairs left out.

    Not by way of the view: walks the file from its inputs forward and from its outputs backward.
    """
    moving = {i.name for i in model.graph.input}
    nodes = []
    for node in model.graph.node:
        if moving.intersection(reads(node)) or node.op_type.startswith(("Random", "Bernoulli")):
            moving.update(node.output)
            nodes.append(node)
    wanted = {o.name for o in model.graph.output}
    live = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(reads(node))
            live.append(node)
    return live


def account(opened):
    """Every node of the file is an operator of the view, or half of a pair, or computes a shape that is known."""
    seen = Counter(n.name for n in opened.graph.nodes)
    assert set(seen.values()) <= {1}
    for node in live_operators(opened.model):
        if node.name not in seen:
            assert node.op_type in ("QuantizeLinear", "DequantizeLinear") or _computes_shape(opened, node), node.name
    assert set(seen) <= {n.name for n in opened.model.graph.node}


def _computes_shape(opened, node):
    """Whether what ``node`` makes follows from shapes alone: behind a Shape, before any operator on data."""
    makers = {name: n for n in opened.model.graph.node for name in n.output}
    waiting, kept = [node], {n.name for n in opened.graph.nodes}
    while waiting:
        current = waiting.pop()
        if current.name in kept:
            return False
        if current.op_type != "Shape":
            waiting.extend(makers[name] for name in reads(current) if name in makers)
    return True


def placed_on(opened, profile, judge=None):
    """The placement of the opened model on a target: complete, with a reason for every fallback.

    By default the simulated NPU must have a kernel as well.
    """
    judge = judge or by_target(profile, no_kernel)
    placed = place(opened.graph, judge, profile.partition.max_npu_partitions)
    assert [p.node for p in placed] == [n.name for n in opened.graph.nodes]
    for each in placed:
        assert each.device in (NPU, CPU)
        assert (each.device == CPU) == bool(each.reasons)
        assert all(reason.strip() for reason in each.reasons)
    return placed


@cache
def host_of(name):
    return hosts.load(hosts.find(name, hosts.folder()))


def cost_placed(opened, profile):
    """The cheapest placement, with every number that a check gives; where costs are not public, all the NPU takes."""
    host = None if profile.host is None else host_of(profile.host)
    checked = check("model", opened.graph, profile, host, Demands(prices=False))
    assert [n.name for n in checked.nodes] == [n.name for n in opened.graph.nodes]
    assert (
        checked.cut.optimal_ms is None
        or checked.cut.lower_bound_ms is None
        or (checked.cut.lower_bound_ms <= checked.cut.optimal_ms + 1e-9)
    )
    phases = {name: phase for phase, (_, names) in enumerate(checked.partitions) for name in names}
    return tuple(Placed(n.name, n.op, n.device, n.reasons, n.macs, phases[n.name]) for n in checked.nodes)


def run_pieces(opened, placed, feeds, done=None):
    """The values of the model's outputs by their wire, computed piece by piece in ONNX Runtime.

    Pieces in ``done``, by the names of their operators, are not run again: what they read is always the same.
    """
    values, cutter, done = dict(feeds), Pieces(opened.model), {} if done is None else done
    for part in cut(opened.graph, placed):
        names = tuple(n.name for n in part.nodes)
        if names not in done or done[names].keys() != {t.wire for t in part.outputs}:
            piece = onnx_model(cutter, part).SerializeToString()
            done[names] = run(piece, {t.wire: values[t.wire] for t in part.inputs})
        values |= done[names]
    return {t.wire: values[t.wire] for t in opened.graph.outputs}


def run_whole(opened, feeds):
    """The same from the whole model at once, its inputs and outputs on the wire."""
    (everything,) = onnx_models(opened.model, [_whole(opened.graph)])
    return run(everything, feeds)


def wire_inputs(opened, feeds):
    """The model's inputs as they cross to a device: computed by the file's own QuantizeLinear where quantized."""
    inputs = [t for t in opened.graph.inputs if t.wire not in feeds]
    if not inputs:
        return feeds
    given = onnx.ModelProto()
    given.CopyFrom(opened.model)
    infos = {v.name: v for v in given.graph.value_info}
    given.graph.output.extend(infos[t.wire] for t in inputs)
    made = run(given.SerializeToString(), feeds)
    return {t.wire: feeds.get(t.wire, made.get(t.wire)) for t in opened.graph.inputs}


def _whole(graph):
    return Partition(NPU, graph.nodes, graph.inputs, graph.outputs)


def same_in_pieces(opened, placed, feeds=None):
    """Assert that the pieces of a placement compute bit for bit what the whole does."""
    feeds = wire_inputs(opened, random_inputs(opened.model) if feeds is None else feeds)
    whole, pieces = run_whole(opened, feeds), run_pieces(opened, placed, feeds)
    assert whole.keys() == pieces.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(pieces[name], values, err_msg=name)
    return whole
