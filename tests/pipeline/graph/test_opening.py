"""Opening models of any origin: what is taken, what is refused, and with which words."""

import numpy as np
import onnx
import pytest
from anymodel import account, placed_on, same_in_pieces
from onnx import TensorProto, helper, numpy_helper, shape_inference
from smallmodels import raw, run_onnx, target

from pipeline.errors import ModelError
from pipeline.graph.opening import open_model

EYE = np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1)
TEXT = "g (float[1,2,4,4] x) => (float[1,2,4,4] y) { a = Conv (x, w) \n y = Relu (a) }"


def written(folder, built, **how):
    path = folder / "model.onnx"
    onnx.save(built, path, **how)
    return path


def refusal(path, dims=None):
    with pytest.raises(ModelError) as error:
        open_model(path, dims or {})
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def shapes(opened):
    return {t.name: t.shape for n in opened.graph.nodes for t in n.outputs}


BROKEN = {
    "empty": (b"", "holds no operators; it is empty or cut short"),
    "text": (b"hello, I am no model", "is not an ONNX file, or is cut short"),
    "torch": (b"PK\x03\x04" + bytes(99), "(it is a zip archive, as PyTorch writes: export it with torch.onnx.export)"),
    "keras": (b"\x89HDF\r\n" + bytes(99), "(it is HDF5, as Keras writes: convert it with tf2onnx)"),
    "lite": (b"\x1c\x00\x00\x00TFL3" + bytes(99), "(it is TensorFlow Lite: convert it with tf2onnx)"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "(it is a Git LFS pointer: run git lfs pull)"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_model_is_named(tmp_path, case):
    content, message = BROKEN[case]
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert message in refusal(path)


def test_a_missing_file_a_folder_and_an_impossible_name(tmp_path):
    assert refusal(tmp_path / "nowhere.onnx") == "cannot be read: No such file or directory"
    assert refusal(tmp_path) == "cannot be read: Is a directory"
    with pytest.raises(ModelError, match="cannot be read: embedded null byte"):
        open_model(tmp_path / "a\0b")


def test_more_than_two_gigabytes_in_one_file(tmp_path):
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)  # takes no room on the disk
    expected = "has 2147483648 bytes; an ONNX file holds at most 2 GB (save its weights as external data)"
    assert refusal(path) == expected


def test_a_truncated_model_is_told_at_any_length(tmp_path):
    built = raw(TEXT, w=EYE)
    del built.opset_import[1]  # whose loss would leave a whole model
    path = written(tmp_path, built)
    data = path.read_bytes()
    for size in range(0, len(data) - 1, 5):
        path.write_bytes(data[:size])
        refusal(path)


@pytest.fixture
def beside(tmp_path):
    """A model whose weight lies in a file of its own."""
    how = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    return written(tmp_path, raw(TEXT, w=EYE), **how)


def test_weights_beside_the_model(beside):
    weight = open_model(beside).graph.nodes[0].inputs[1]
    np.testing.assert_array_equal(weight.constant, EYE)
    side = beside.with_name("weights.bin")
    side.write_bytes(side.read_bytes()[:-1])
    assert refusal(beside) == "keeps weights in weights.bin, which ends before w does; it is cut short (copy it again)"
    side.unlink()
    message = "keeps weights in weights.bin, which cannot be read: No such file or directory"
    assert refusal(beside) == f"{message} (put weights.bin beside the model)"


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "link.bin"])
def test_weights_outside_the_folder_are_refused(beside, location):
    inner = beside.parent / "inner"
    inner.mkdir()
    (inner / "link.bin").symlink_to(beside.with_name("weights.bin"))
    model = onnx.load(beside, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    path = inner / "model.onnx"
    path.write_bytes(model.SerializeToString())
    text = refusal(path)
    assert text == f"keeps w in '{location}', outside its folder (save the model with its weights beside it)"


def test_wrong_numbers_about_the_weights(beside):
    model = onnx.load(beside, load_external_data=False)
    model.graph.initializer[0].external_data.add(key="offset", value="many")
    beside.write_bytes(model.SerializeToString())
    assert "where w lies" in refusal(beside)


def test_three_gigabytes_of_weights_stay_outside(tmp_path):
    """Twelve weights of 256 MB in one sparse file, the last one real: nothing is read that is not asked for."""
    side, rows = tmp_path / "weights.bin", 8192
    size = rows * rows * 4
    with side.open("wb") as file:
        file.truncate(12 * size)
        file.seek(11 * size)
        file.write(np.float32([1, 2, 3]).tobytes())
    text = f"g (float[1,{rows}] t0) => (float[1,{rows}] t12) {{"
    built = raw(text + "\n".join(f"t{i + 1} = MatMul (t{i}, w{i})" for i in range(12)) + "}")
    for i in range(12):
        tensor = TensorProto(name=f"w{i}", data_type=1, dims=[rows, rows], data_location=TensorProto.EXTERNAL)
        for key, value in (("location", "weights.bin"), ("offset", i * size), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        built.graph.initializer.append(tensor)
    opened = open_model(written(tmp_path, built))
    assert opened.model.ByteSize() < 10_000
    assert len(opened.graph.nodes) == 12
    np.testing.assert_array_equal(opened.graph.nodes[-1].inputs[1].constant[0, :4], [1, 2, 3, 0])
    assert all("must be a vector" not in r for p in placed_on(opened, target()) for r in p.reasons)


@pytest.mark.parametrize("opset", range(11, 24))
def test_opsets_11_to_23(tmp_path, opset):
    axes = "<axes = [1]>" if opset < 13 else ""
    body = f"""a = Conv (x, w) \n r = Clip (a, low, high) \n u = Unsqueeze {axes} (r{"" if axes else ", one"})
      q = Squeeze {axes} (u{"" if axes else ", one"}) \n s = Softmax <axis = 1> (q) \n y = Add (s, r)"""
    more = {} if axes else {"one": np.int64([1])}
    built = raw(f"g (float[1,2,4,4] x) => (float[1,2,4,4] y) {{ {body} }}", opset, w=EYE, low=np.float32(0),
        high=np.float32(6), **more)  # fmt: skip
    built.ir_version = 7
    opened = open_model(written(tmp_path, built))
    account(opened)
    image = np.random.default_rng(0).normal(size=(1, 2, 4, 4)).astype(np.float32)
    expected = run_onnx(built, {"x": image})["y"]
    np.testing.assert_array_equal(same_in_pieces(opened, placed_on(opened, target()), {"x": image})["y"], expected)
    converted = f"opset {opset} was converted to 13 by onnx.version_converter"
    assert opened.notes == ((converted,) if opset < 13 else ())


@pytest.mark.parametrize(("opset", "fix"), [(6, "export it with opset 18"), (24, "export it with opset 23 or older")])
def test_other_opsets_are_refused(tmp_path, opset, fix):
    path = written(tmp_path, raw(TEXT, opset, w=EYE))
    assert refusal(path) == f"is of opset {opset}; known are 7 to 23 ({fix})"


@pytest.mark.parametrize(("opset", "body"), [(8, "BatchNormalization <spatial = 0> (x, s, s, s, s)")])
def test_an_old_model_that_cannot_be_converted(tmp_path, opset, body):
    built = raw(f"g (float[1,2,4,4] x, float[2] s, float[4] t) => (float[1,2,n,m] y) {{ y = {body} }}", opset)
    text = refusal(written(tmp_path, built))
    assert text.startswith(f"is of opset {opset} and cannot be converted to 13: ")
    assert text.endswith("(export it with opset 13 or newer)")


OPEN = "g (float[N,2,h,w] x) => (float[N,2,h,w] y) { y = Relu (x) }"


def test_open_dimensions_are_fixed_by_name(tmp_path):
    path = written(tmp_path, raw(OPEN))
    opened = open_model(path, {"h": 4, "w": 6})
    assert shapes(opened) == {"y": (1, 2, 4, 6)}
    assert opened.notes == ("batch size N is taken as 1; --dim N=N takes another",)
    opened = open_model(path, {"h": 4, "w": 6, "N": 3})
    assert (shapes(opened), opened.notes) == ({"y": (3, 2, 4, 6)}, ())
    assert refusal(path) == "has open dimensions: h (of x, an input), w (of x, an input) (--dim h=N --dim w=N)"
    assert refusal(path, {"h": 4, "v": 6}) == "has no open dimension v (open: N, h, w)"
    path = written(tmp_path, raw(OPEN.replace("h,w", "height,width")))
    assert refusal(path, {"hight": 4, "width": 6}) == "has no open dimension hight (did you mean height?)"
    assert refusal(path, {"h": 0}) == "cannot have dimension h of 0 (--dim h=1 or more)"


def test_a_dimension_without_a_name_gets_one(tmp_path):
    built = raw(OPEN)
    for value in (built.graph.input[0], built.graph.output[0]):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.Clear()
    path = written(tmp_path, built)
    assert refusal(path) == "has open dimensions: x.2 (of x, an input), x.3 (of x, an input) (--dim x.2=N --dim x.3=N)"
    assert shapes(open_model(path, {"x.2": 5, "x.3": 5})) == {"y": (1, 2, 5, 5)}


def test_a_length_is_no_batch(tmp_path):
    path = written(tmp_path, raw("g (float[time,8] x) => (float[time,8] y) { y = Relu (x) }"))
    assert refusal(path) == "has open dimensions: time (of x, an input) (--dim time=N)"


def test_dimensions_that_depend_on_data_are_fixed_by_name(tmp_path):
    body = "n = NonZero (x) \n c = Cast <to = 1> (n) \n y = Exp (c)"
    path = written(tmp_path, raw(f"g (float[3,4] x) => (float[two,found] y) {{ {body} }}"))
    text = refusal(path)
    name = text.split("open dimensions: ")[1].split(" ")[0]
    assert text == f"has open dimensions: {name} (of n, made by NonZero NonZero) (--dim {name}=N)"
    assert shapes(open_model(path, {name: 5})) == {"n": (2, 5), "c": (2, 5), "y": (2, 5)}


def test_shapes_that_the_model_computes_are_followed(tmp_path):
    body = """s = Shape (x) \n b = Slice (s, zero, one) \n h = Slice (s, two, three) \n w = Slice (s, three, four)
      a = Mul (h, w) \n t = Concat <axis = 0> (b, c, a) \n f = Reshape (x, t) \n y = Softmax (f)"""
    constants = {n: np.int64([i]) for i, n in enumerate(["zero", "one", "two", "three", "four"])} | {"c": np.int64([2])}
    path = written(tmp_path, raw(f"g (float[N,2,4,h] x) => (float[b,c2,m] y) {{ {body} }}", **constants))
    opened = open_model(path, {"h": 5})
    assert shapes(opened) == {"f": (1, 2, 20), "y": (1, 2, 20)}
    account(opened)
    same_in_pieces(opened, placed_on(opened, target()))


def test_missing_shapes_are_inferred_and_wrong_ones_told(tmp_path):
    built = raw(TEXT, w=EYE)
    assert not built.graph.value_info
    assert shapes(open_model(written(tmp_path, built)))["a"] == (1, 2, 4, 4)
    built = shape_inference.infer_shapes(built)
    built.graph.value_info[0].type.tensor_type.shape.dim[2].dim_value = 7
    built.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 9
    opened = open_model(written(tmp_path, built))
    assert shapes(opened) == {"a": (1, 2, 4, 4), "y": (1, 2, 4, 4)}
    (note,) = opened.notes
    assert note.startswith("shapes that the model declares are not those that its operators make (")


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("Conv", "Convolve"),
        TEXT.replace("w)", "nothing)"),
        TEXT.replace("[1,2,4,4] x", "[1,3,4,4] x"),
        "g (float[1,2,4,4] x) => (float[1,2,4,4] y) { y = Concat (x, x) }",
    ],
)
def test_an_invalid_graph_is_told(tmp_path, text):
    assert refusal(written(tmp_path, raw(text, w=EYE))).startswith("is not valid ONNX: ")


def test_nodes_out_of_order_are_sorted(tmp_path):
    built = raw("g (float[2] x) => (float[2] y) { a = Relu (x) \n b = Exp (a) \n c = Neg (a) \n y = Add (b, c) }")
    nodes = [onnx.NodeProto.FromString(built.graph.node[i].SerializeToString()) for i in (3, 2, 0, 1)]
    del built.graph.node[:]
    built.graph.node.extend(nodes)
    opened = open_model(written(tmp_path, built))
    assert [n.op for n in opened.graph.nodes] == ["Relu", "Neg", "Exp", "Add"]
    assert opened.notes == ("nodes stood before what they read; they were sorted",)


def test_a_cycle_is_told(tmp_path):
    built = raw("g (float[2] x) => (float[2] y) { a = Add (x, y) \n y = Relu (a) }")
    with pytest.raises(ModelError, match="Add Add computes a value from itself"):
        open_model(written(tmp_path, built))
    built = raw("g (float[2] x) => (float[2] y) { y = Relu (a) \n a = Add (x, lost) }")
    with pytest.raises(ModelError, match="is not valid ONNX: Add Add reads lost, which nothing makes"):
        open_model(written(tmp_path, built))


def test_an_unknown_domain_is_one_fallback(tmp_path):
    built = raw("g (float[1,2,4,4] x) => (float[1,2,4,4] y) { a = my.Thing (x) \n y = Relu (a) }")
    path = written(tmp_path, built)
    hint = "(give the model a value_info with its shape, or cut the model before it)"
    assert refusal(path) == f"a (made by Thing Thing) has no known shape {hint}"
    built.graph.value_info.append(helper.make_tensor_value_info("a", 1, [1, 2, 4, 4]))
    thing, relu = placed_on(open_model(written(tmp_path, built)), target("rk3588"))
    assert thing.reasons == ("The NPU must have the operator; it has no my.Thing",)
    assert relu.device == "npu"


def test_local_functions_are_written_out(tmp_path):
    built = raw("g (float[1,2,4,4] x) => (float[1,2,4,4] y) { y = my.Twice (x) }")
    twice = helper.make_function(
        "my", "Twice", ["i"], ["o"], [helper.make_node("Add", ["i", "i"], ["o"])], [helper.make_opsetid("", 18)]
    )
    built.functions.append(twice)
    opened = open_model(written(tmp_path, built))
    assert [n.op for n in opened.graph.nodes] == ["Add"]


def test_constants_that_are_no_numbers_are_named(tmp_path):
    weight = EYE.copy()
    weight[0, 1] = np.nan
    path = written(tmp_path, raw(TEXT, w=weight))
    assert refusal(path) == "the constant w holds NaN (the training diverged; export a good epoch)"
    weight[0, 1] = -np.inf
    path = written(tmp_path, raw(TEXT, w=weight))
    assert refusal(path) == "the weight w holds infinity (export it from finite weights)"
    masked = raw("g (float[2] x) => (float[2] y) { y = Add (x, m) }", m=np.float32([0, -np.inf]))
    assert len(open_model(written(tmp_path, masked)).graph.nodes) == 1


def test_nan_behind_a_quantization_is_named(tmp_path):
    body = "q = QuantizeLinear (w, s, z) \n v = DequantizeLinear (q, s, z) \n y = Conv (x, v)"
    built = raw(f"g (float[1,2,4,4] x) => (float[1,2,4,4] y) {{ {body} }}", w=EYE * np.float32(np.nan), s=np.float32(1),
        z=np.int8(0))  # fmt: skip
    assert refusal(written(tmp_path, built)).startswith("the constant w holds NaN")


@pytest.mark.parametrize("text", ["g (float[1,0,4] x) => (float[1,0,4] y) { y = Relu (x) }",
    "g (float[4] x) => (float[n] y) { y = Slice (x, i, i) }"])  # fmt: skip
def test_tensors_that_hold_nothing_are_named(tmp_path, text):
    message = refusal(written(tmp_path, raw(text, i=np.int64([1]))))
    assert message in (
        "x (an input) holds nothing: its dimension 1 is 0",
        "y (made by Slice Slice) holds nothing: its dimension 0 is 0",
    )


def test_a_text_constant_or_a_sparse_one_is_refused(tmp_path):
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.float32([1]), "v"), numpy_helper.from_array(np.int64([0]), "i"), [2]
    )
    built = raw("g (float[2] x) => (float[2] y) { y = Add (x, c) }")
    built.graph.node.insert(0, helper.make_node("Constant", [], ["c"], name="thin", sparse_value=sparse))
    with pytest.raises(ModelError, match="Sparse tensors are not supported"):
        open_model(written(tmp_path, built))


def conditional():
    def branch(op, name):
        node = helper.make_node(op, ["a", "w"], [name])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, 1, [1, 2, 3, 3])])

    text = """g (float[1,2,3,3] x) => (float[1,2,3,3] y) { a = Relu (x) \n m = ReduceSum <keepdims = 0> (x)
      c = Greater (m, zero) \n y = Neg (a) }"""
    built = raw(text, w=np.full((1, 2, 1, 1), 3, np.float32), zero=np.float32(0))
    branches = {"then_branch": branch("Add", "t"), "else_branch": branch("Mul", "e")}
    built.graph.node.insert(3, helper.make_node("If", ["c"], ["i"], name="choose", **branches))
    built.graph.node[4].input[0] = "i"
    return built


def test_control_flow_runs_in_a_piece_of_its_own(tmp_path):
    opened = open_model(written(tmp_path, conditional()))
    account(opened)
    placed = placed_on(opened, target("rk3588"))
    assert {p.op: p.device for p in placed} == {
        "Relu": "npu",
        "ReduceSum": "cpu",
        "Greater": "cpu",
        "If": "cpu",
        "Neg": "cpu",
    }
    for sign in (1, -1):
        image = np.full((1, 2, 3, 3), sign, np.float32)
        expected = run_onnx(conditional(), {"x": image})["y"]
        np.testing.assert_array_equal(same_in_pieces(opened, placed, {"x": image})["y"], expected)
