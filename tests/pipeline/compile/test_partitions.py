"""Placement and partitions of random graphs: complete, acyclic, within the policy, and the same bytes in pieces."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smallmodels import images, model, pair, quantized, run_onnx, target

from pipeline.compile.partitions import crossing, cut, onnx_models, programs
from pipeline.compile.support import no_kernel
from pipeline.errors import ModelError
from pipeline.graph.fusion import fused_activation
from pipeline.graph.view import view
from pipeline.targets.placement import CPU, NPU, by_kernel, by_target, place

OPERATORS = {"Conv": 1, "Relu": 1, "MaxPool": 1, "Sigmoid": 1, "Add": 2, "Concat": 2, "Erf": 1, "Elu": 1, "Max": 2}
"""Number of inputs; Erf and Elu have no kernel, Max has none but is on the Edge TPU."""

WEIGHT = np.linspace(-1, 1, 4, dtype=np.float32).reshape(2, 2, 1, 1)


@st.composite
def graphs(draw):
    """The text of a random graph on tensors [1, 2, 3, 3]; every operator reaches an output."""
    lines, tensors, unread = [], ["x"], set()
    for number in range(draw(st.integers(1, 9))):
        op = draw(st.sampled_from(sorted(OPERATORS)))
        # Mostly the newest tensors, so that chains (and fusions) happen.
        reads = [draw(st.sampled_from(tensors[-3:])) for _ in range(OPERATORS[op])]
        made, arguments = f"t{number}", ", ".join(reads)
        if op == "Conv":
            lines.append(f"{made} = Conv ({arguments}, w)")
        elif op == "MaxPool":
            lines.append(f"{made} = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> ({arguments})")
        elif op == "Concat":
            lines.append(f"{made}c = Concat <axis = 1> ({arguments})")
            lines.append(f"{made} = Conv ({made}c, w4)")
        else:
            lines.append(f"{made} = {op} ({arguments})")
        tensors.append(made)
        unread = (unread - set(reads)) | {made}
    outputs = sorted(unread | {draw(st.sampled_from(tensors[1:]))})
    heads = ", ".join(f"float[1,2,3,3] {name}" for name in outputs)
    return "g (float[1,2,3,3] x) => (" + heads + ") {" + "\n".join(lines) + "}"


def lossy_model(text):
    w4 = np.concatenate([WEIGHT, WEIGHT], axis=1)
    return quantized(model(text, w=WEIGHT, w4=w4), images((1, 2, 3, 3), count=2))[0]


JUDGES = [by_kernel(no_kernel), by_target(target(), no_kernel), by_target(target("conv-only"), no_kernel)]


def ancestors(graph, node):
    found = {}
    waiting = [node]
    while waiting:
        for before in graph.predecessors(waiting.pop()):
            if before.name not in found:
                found[before.name] = before
                waiting.append(before)
    return found


@settings(deadline=None, max_examples=30, derandomize=True)
@given(graphs(), st.sampled_from(JUDGES), st.sampled_from([1, 2, None]))
def test_random_graphs_are_placed_and_cut(text, judge, limit):
    lossy = lossy_model(text)
    graph = view(lossy)
    placed = place(graph, judge, limit)
    by_name = {p.node: p for p in placed}
    partitions = cut(graph, placed)
    assert [p.node for p in placed] == [n.name for n in graph.nodes]
    check_complete(graph, partitions)
    check_order(graph, partitions)
    check_policy(graph, by_name, partitions, judge, limit)
    check_crossings(graph, partitions)
    check_bytes(graph, lossy, partitions)
    for data, partition in zip(programs(graph, partitions, target()), partitions, strict=True):
        assert (data is None) == (partition.device == CPU)


def check_complete(graph, partitions):
    members = [n.name for p in partitions for n in p.nodes]
    assert sorted(members) == sorted(n.name for n in graph.nodes)
    where = {n.name: i for i, p in enumerate(partitions) for n in p.nodes}
    for node in graph.nodes:
        clamp = fused_activation(graph, node)
        assert clamp is None or where[clamp.name] == where[node.name]


def check_order(graph, partitions):
    known = {t.wire for t in graph.inputs}
    for partition in partitions:
        assert {t.wire for t in partition.inputs} <= known
        known |= {t.wire for t in partition.outputs}
    assert {t.wire for t in graph.outputs} <= known
    devices = [p.device for p in partitions]
    assert all(a != b for a, b in pairwise(devices))


def check_policy(graph, placed, partitions, judge, limit):
    npu = [p for p in partitions if p.device == NPU]
    assert limit is None or len(npu) <= limit
    for node in graph.nodes:
        own = placed[node.name]
        assert (own.device == CPU) == bool(own.reasons)
        before = ancestors(graph, node)
        if limit == 1 and own.device == NPU:
            fallbacks = [n for n in before.values() if placed[n.name].device == CPU]
            assert not any(placed[a].device == NPU for f in fallbacks for a in ancestors(graph, f))
        if own.reasons and own.reasons[0].startswith("The target takes"):
            named = own.reasons[0].split("comes after ")[1].split(",")[0]
            assert named in before
            assert placed[named].device == CPU
            assert not placed[named].reasons[0].startswith("The target takes")
            assert any(placed[a].device == NPU for a in ancestors(graph, before[named]))
        elif own.device == CPU and not own.reasons[0].startswith("It is fused"):
            assert own.reasons == judge(node)


def check_crossings(graph, partitions):
    made = {t.wire: i for i, p in enumerate(partitions) for n in p.nodes for t in n.outputs}
    outputs = {t.wire for t in graph.outputs}
    for index, partition in enumerate(partitions):
        read = {t.wire for n in partition.nodes for t in n.activations}
        later = {t.wire for p in partitions[index + 1 :] for n in p.nodes for t in n.activations}
        own = {wire for wire, where in made.items() if where == index}
        assert {t.wire for t in partition.inputs} == read - own
        assert {t.wire for t in partition.outputs} == own & (later | outputs)
        assert len({t.wire for t in partition.inputs}) == len(partition.inputs)


def check_bytes(graph, lossy, partitions):
    """The pieces one after the other, against the whole model with every crossing as an output."""
    (real,) = images((1, 2, 3, 3), count=1, seed=5)
    source = graph.inputs[0].quantization
    integers = np.clip(np.rint(real / source.scale) + source.zero_point, -128, 127).astype(np.int8)
    values = {graph.inputs[0].wire: integers}
    for partition, piece in zip(partitions, onnx_models(lossy, partitions), strict=True):
        values |= run_onnx(piece, {t.wire: values[t.wire] for t in partition.inputs})
    tapped = type(lossy)()
    tapped.CopyFrom(lossy)
    del tapped.graph.output[:]
    wires = [t.wire for p in partitions for t in p.outputs]
    tapped.graph.output.extend(type(lossy.graph.output[0])(name=w) for w in wires)
    for name, expected in run_onnx(tapped, {"x": real}).items():
        assert expected.dtype == np.int8
        np.testing.assert_array_equal(values[name], expected)


def placed_devices(text, limit=1, judge=JUDGES[1]):
    graph = view(lossy_model(text))
    placed = place(graph, judge, limit)
    return {p.node: p.device for p in placed}, {p.node: p.reasons for p in placed}, cut(graph, placed)


SHAPE = "g (float[1,2,3,3] x) => (float[1,2,3,3] y)"


def test_leading_fallbacks_cost_no_partition():
    text = SHAPE + "{ a = Erf (x) \n b = Conv (a, w) \n c = Conv (x, w) \n y = Add (b, c) }"
    devices, _, partitions = placed_devices(text)
    assert devices == {"Erf": CPU, "Conv": NPU, "Conv#2": NPU, "Add": NPU}
    assert [p.device for p in partitions] == [CPU, NPU]


def test_what_comes_after_a_fallback_stays_on_the_cpu_and_says_after_which():
    text = SHAPE + "{ l = Elu (x) \n a = Conv (l, w) \n b = Erf (a) \n c = Conv (b, w)"
    text += " d = Conv (a, w) \n y = Add (c, d) }"
    devices, reasons, partitions = placed_devices(text)
    assert devices == {"Elu": CPU, "Conv": NPU, "Erf": CPU, "Conv#2": CPU, "Conv#3": NPU, "Add": CPU}
    expected = ("The target takes one NPU partition; it comes after Erf, which is a fallback",)
    assert reasons["Conv#2"] == reasons["Add"] == expected
    assert [p.device for p in partitions] == [CPU, NPU, CPU]


def test_two_partitions_when_the_target_takes_two():
    text = SHAPE + "{ a = Conv (x, w) \n b = Erf (a) \n c = Conv (b, w) \n d = Erf (c) \n y = Conv (d, w) }"
    devices, reasons, partitions = placed_devices(text, limit=2)
    assert [p.device for p in partitions] == [NPU, CPU, NPU, CPU]
    assert devices["Conv#3"] == CPU
    assert reasons["Conv#3"] == ("The target takes 2 NPU partitions; it comes after Erf#2, which is a fallback",)
    assert [p.device for p in placed_devices(text, limit=None)[2]] == [NPU, CPU, NPU, CPU, NPU]


def test_a_fused_clamp_goes_with_its_operator():
    text = SHAPE + "{ a = Conv (x, w) \n y = Clip (a, low, high) }"
    lossy, _ = quantized(model(text, w=WEIGHT, low=np.float32(0), high=np.float32(0.5)), images((1, 2, 3, 3)))
    graph = view(lossy)
    placed = place(graph, JUDGES[1], 1)
    assert [p.device for p in placed] == [CPU, CPU]
    assert placed[0].reasons == ("It is fused with Clip, which is not on the NPU",)
    assert "it clips to 0.0..0.5" in placed[1].reasons[0]


def test_real_numbers_stay_on_the_cpu_of_a_quantized_model():
    text = SHAPE + f"{{ {pair('a', 'x', 0.1)} b = Relu (a) \n y = MaxPool <kernel_shape = [1,1]> (b) }}"
    placed = place(view(model(text)), by_kernel(no_kernel), None)
    assert [p.reasons for p in placed] == [("The NPU computes with integers; b is not quantized",)] * 2


def test_a_float_model_can_be_judged_before_it_is_quantized():
    text = SHAPE + "{ a = Conv (x, w) \n y = Erf (a) }"
    placed = place(view(model(text, w=WEIGHT)), JUDGES[1], 1)
    assert [(p.device, p.macs) for p in placed] == [(NPU, 2 * 9 * 2), (CPU, 0)]


def test_a_placement_of_another_model_is_refused():
    graph = view(lossy_model(SHAPE + "{ y = Conv (x, w) }"))
    placed = place(graph, JUDGES[0], None)
    with pytest.raises(ModelError, match=r"Other: the placement is of another model \(run with --from coverage\)"):
        cut(graph, [replace(placed[0], node="Other"), *placed])


def test_an_output_that_is_an_input_is_refused():
    text = "g (float[1,2] x) => (float[1,2] y, float[1,2] x) { y = Relu (x) }"
    graph = view(model(text))
    with pytest.raises(ModelError, match="x: is an output that no operator computes"):
        cut(graph, place(graph, JUDGES[0], None))


def test_a_crossing_without_a_shape_is_named():
    lossy = model("g (float[1,n] x) => (float[1,n] y) { a = Erf (x) \n y = Relu (a) }")
    graph = view(lossy)
    partitions = cut(graph, place(graph, JUDGES[0], None))
    with pytest.raises(ModelError, match="x: has no static shape"):
        onnx_models(lossy, partitions)


def test_crossings_carry_their_quantization():
    graph = view(lossy_model(SHAPE + "{ a = Conv (x, w) \n y = Erf (a) }"))
    spec = crossing(graph.nodes[0].outputs[0])
    assert (spec.name, spec.shape, spec.dtype) == ("a_quantized", (1, 2, 3, 3), "int8")
    assert spec.scale == float(graph.nodes[0].outputs[0].quantization.scale)
    floating = view(model(SHAPE + "{ y = Erf (x) }"))
    assert crossing(floating.inputs[0]).scale is None


def test_pieces_are_the_same_bytes_every_time():
    lossy = lossy_model(SHAPE + "{ a = Conv (x, w) \n b = Erf (a) \n y = Conv (b, w) }")
    graph = view(lossy)
    partitions = cut(graph, place(graph, JUDGES[0], None))
    assert onnx_models(lossy, partitions) == onnx_models(lossy, partitions)
    assert programs(graph, partitions, target()) == programs(graph, partitions, target())
