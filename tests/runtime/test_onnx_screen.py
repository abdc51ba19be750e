"""What a model in a bundle may hold."""

import numpy as np
import onnx
import pytest
import tiny
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

from runtime.bundle import open_bundle, write_bundle
from runtime.errors import BundleError, LimitError
from runtime.limits import Limits
from runtime.onnx_screen import screen
from runtime.operators import OPERATORS


def external(tensor):
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def test_a_sound_model_passes():
    screen(tiny.model(tiny.BODY, ("image",), ("c",)).SerializeToString(), "m")


def external_models():
    """External data in every place where a model can keep a tensor."""
    tensor = external(numpy_helper.from_array(np.ones(3, np.float32), "t"))
    sparse = helper.make_sparse_tensor(tensor, numpy_helper.from_array(np.arange(3), "i"), [4])
    graph = helper.make_graph([], "g", [], [], [tensor])
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    nested = helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=helper.make_graph([], "e", [], []))
    graphs = {
        "initializer": graph,
        "attribute": helper.make_graph([node], "g", [], []),
        "subgraph": helper.make_graph([nested], "g", [], []),
        "sparse": helper.make_graph([], "g", [], [], sparse_initializer=[sparse]),
        "list": helper.make_graph([helper.make_node("Abs", [], ["y"], tensors=[tensor])], "g", [], []),
    }
    return {name: helper.make_model(graph) for name, graph in graphs.items()}


@pytest.mark.parametrize("place", ["initializer", "attribute", "subgraph", "sparse", "list"])
def test_external_data_is_refused_wherever_it_is(place):
    data = external_models()[place].SerializeToString()
    with pytest.raises(BundleError, match=r"m: keeps a tensor in another file \(store it in the model\)"):
        screen(data, "m")


@pytest.mark.parametrize("data", [b"\x3a", b"\x3a\x05ab", b"\x80", b"\xff" * 12, b"\x0b", b"\x09\0\0"])
def test_what_is_not_protobuf_is_refused(data):
    with pytest.raises(BundleError, match="m: is not an ONNX model"):
        screen(data, "m")


def test_fixed_fields_are_skipped():
    screen(b"\x09" + bytes(8) + b"\x0d" + bytes(4), "m")


def graph_of(*nodes, **changes):
    parts = {"inputs": [], "outputs": [], "initializer": [], **changes}
    return helper.make_model(helper.make_graph(nodes, "g", **parts)).SerializeToString()


def test_a_bundle_is_screened_when_it_is_opened(tmp_path):
    manifest, payloads = tiny.whole()
    model = tiny.model((*tiny.BODY, *tiny.HEADS), ("image",), tiny.OUTPUTS)
    external(model.graph.initializer[0])
    write_bundle(tmp_path / "x.npub", manifest, {**payloads, "models/0.onnx": model.SerializeToString()})
    with pytest.raises(BundleError, match=r"x\.npub: models/0\.onnx: keeps a tensor in another file"):
        open_bundle(tmp_path / "x.npub")


@pytest.mark.parametrize(
    ("domain", "name", "message"),
    [
        ("", "Nothing", "uses the operator 'Nothing', which this runtime does not know"),
        ("com.microsoft", "EPContext", "uses the operator 'EPContext' of domain com.microsoft, which"),
        ("evil.example", "Abs", "uses operators of domain 'evil.example', not one of '', 'ai.onnx', 'com.microsoft'"),
    ],
)
def test_unknown_operators_and_domains(domain, name, message):
    node = helper.make_node(name, ["x"], ["y"], domain=domain)
    with pytest.raises(BundleError, match=f"m: {message}"):
        screen(graph_of(node), "m")
    branches = {
        "then_branch": helper.make_graph([node], "t", [], []),
        "else_branch": helper.make_graph([], "e", [], []),
    }
    with pytest.raises(BundleError, match=f"m: {message}"):
        screen(graph_of(helper.make_node("If", ["c"], ["y"], **branches)), "m")


def test_a_domain_that_is_imported_and_not_used_is_fine():
    """Exporters leave such imports behind."""
    graph = helper.make_graph([], "g", [], [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("pkg.onnxscript.torch_lib", 1)])
    screen(model.SerializeToString(), "m")


def test_functions():
    body = [helper.make_node("Abs", ["x"], ["y"])]
    function = helper.make_function("", "f", ["x"], ["y"], body, [helper.make_opsetid("", 18)])
    model = helper.make_model(helper.make_graph([], "g", [], []), functions=[function])
    with pytest.raises(BundleError, match="m: has functions of its own"):
        screen(model.SerializeToString(), "m")


def shaped(sizes):
    """A model with a tensor of these sizes in each place where one can be declared, by place."""
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)
    tensor = TensorProto(name="t", data_type=1, dims=sizes)
    sparse = onnx.SparseTensorProto(dims=sizes)
    sparse.values.name = "t"
    sequence = onnx.ValueInfoProto(name="s")
    sequence.type.sequence_type.elem_type.CopyFrom(info.type)
    return {
        "input": graph_of(inputs=[info]),
        "output": graph_of(outputs=[info]),
        "inner": graph_of(value_info=[info]),
        "sequence": graph_of(inputs=[sequence]),
        "initializer": graph_of(initializer=[tensor]),
        "sparse": graph_of(sparse_initializer=[sparse]),
        "attribute": graph_of(helper.make_node("Constant", [], ["y"], value=tensor)),
    }


@pytest.mark.parametrize("place", sorted(shaped([1])))
def test_giant_shapes_wherever_they_are(place):
    screen(shaped([1024, 1024])[place], "m")
    with pytest.raises(
        LimitError, match=r"a tensor of shape \[1048576, 1048576\] \(the limit is tensor_elements = 67108864"
    ):
        screen(shaped([1 << 20, 1 << 20])[place], "m")
    with pytest.raises(LimitError, match="a tensor with too many dimensions"):
        screen(shaped([1] * 9)[place], "m")
    with pytest.raises(BundleError, match="a tensor with a negative size"):
        screen(shaped([-5])[place], "m")


@pytest.mark.parametrize("tensor", [b"\x08\x64\x08\x64\x08\x64", b"\x0a\x03\x64\x64\x64"], ids=["one by one", "packed"])
def test_sizes_count_however_they_are_written(tensor):
    model = b"\x3a" + bytes([len(tensor) + 2]) + b"\x2a" + bytes([len(tensor)]) + tensor
    screen(model, "m")
    with pytest.raises(LimitError, match=r"shape \[100, 100, 100\]"):
        screen(model, "m", Limits(tensor_elements=999_999))


def test_names_in_place_of_sizes_are_fine():
    screen(graph_of(inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])]), "m")


def test_too_many_nodes_fields_and_graphs():
    nodes = [helper.make_node("Abs", ["x"], ["y"])] * 20
    with pytest.raises(
        LimitError, match=r"has too many nodes \(the limit is model_nodes = 19; --limits can raise it\)"
    ):
        screen(graph_of(*nodes), "m", Limits(model_nodes=19))
    with pytest.raises(LimitError, match="has too many fields"):
        screen(graph_of(*nodes), "m", Limits(model_fields=50))
    graph = helper.make_graph([], "g", [], [])
    for _ in range(9):
        node = helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "g", [], [])
    with pytest.raises(LimitError, match="has graphs or types too deep inside each other"):
        screen(helper.make_model(graph).SerializeToString(), "m")


def test_the_known_operators_are_the_standard_ones_and_exist():
    schemas = onnx.defs.get_all_schemas_with_history()
    standard = {schema.name for schema in schemas if schema.domain == "" and schema.since_version <= 28}
    assert standard == OPERATORS[""] == OPERATORS["ai.onnx"]
    microsoft = {schema.name for schema in get_all_operator_schema() if schema.domain == "com.microsoft"}
    assert microsoft >= OPERATORS["com.microsoft"]
    assert "EPContext" in microsoft - OPERATORS["com.microsoft"]
