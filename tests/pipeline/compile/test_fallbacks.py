"""Fallbacks as files, and whether ONNX Runtime has kernels for them."""

import time

import numpy as np
import onnx
import onnxruntime
import pytest
from anymodel import placed_on
from onnx import TensorProto, helper, numpy_helper
from smallmodels import images, model, quantized, raw, run_onnx, target

from pipeline.compile.closure import require_kernels, without_kernel
from pipeline.compile.fallbacks import save_fallbacks
from pipeline.compile.partitions import cut
from pipeline.errors import ModelError
from pipeline.graph.model import check
from pipeline.graph.opening import open_model
from pipeline.graph.view import view
from pipeline.targets.placement import CPU, Placed

BODY = """g (float[1,2,4,4] x) => (float[1,2,4,4] y) {
  a = Conv (x, w) \n e = Erf (a) \n s = Shape (e) \n i = ArgMax <axis = 1> (e) \n c = Cast <to = 1> (i)
  m = Add (e, c) \n k = Greater (m, zero) \n p = Where (k, m, e) \n y = Elu (p) }"""
EYE = np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1)


@pytest.fixture
def opened(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(raw(BODY, w=EYE, zero=np.float32(0)), path)
    return open_model(path)


def fallbacks(opened):
    return [p.node for p in placed_on(opened, target()) if p.device == CPU]


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def run_saved(place):
    with np.load(place / "inputs.npz", allow_pickle=False) as stored:
        return run_onnx(onnx.load(place / "model.onnx"), dict(stored))


def test_each_fallback_runs_on_its_own_and_gives_what_the_model_gives(opened, tmp_path):
    names = fallbacks(opened)
    image = np.random.default_rng(3).normal(size=(1, 2, 4, 4)).astype(np.float32)
    made = save_fallbacks(opened.model, opened.graph, names, tmp_path / "out", {"x": image})
    assert [p.name for p in made] == [f"{i:05d}-{name}" for i, name in enumerate(names)]
    by_name = {n.name: n for n in opened.graph.nodes}
    probe = onnx.ModelProto.FromString(opened.model.SerializeToString())
    infos = {v.name: v for v in probe.graph.value_info}
    probe.graph.output.extend(infos[t.name] for name in names for t in by_name[name].outputs if t.name in infos)
    expected = run_onnx(probe, {"x": image})
    for place, name in zip(made, names, strict=True):
        for output, values in run_saved(place).items():
            np.testing.assert_array_equal(values, expected[output])
        stored = onnx.load(place / "model.onnx")
        onnx.checker.check_model(stored)
        assert [n.op_type for n in stored.graph.node] == [by_name[name].op]


def test_a_quantized_fallback_takes_and_gives_integers(tmp_path):
    text = "g (float[1,2,4,4] x) => (float[1,2,4,4] y) { a = Relu (x) \n e = Erf (a) \n y = Relu (e) }"
    lossy = quantized(model(text), images((1, 2, 4, 4)))[0]
    graph = view(lossy)
    (erf,) = [n for n in graph.nodes if n.op == "Erf"]
    (place,) = save_fallbacks(lossy, graph, [erf.name], tmp_path / "out")
    stored = onnx.load(place / "model.onnx")
    assert [n.op_type for n in stored.graph.node] == ["DequantizeLinear", "Erf", "QuantizeLinear"]
    (values,) = run_saved(place).values()
    assert values.dtype == np.int8


def test_the_same_arguments_give_the_same_bytes(opened, tmp_path):
    for name in ("a", "b"):
        save_fallbacks(opened.model, opened.graph, fallbacks(opened), tmp_path / name, seed=1)
    save_fallbacks(opened.model, opened.graph, fallbacks(opened), tmp_path / "c", seed=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") != contents(tmp_path / "c")


def test_names_of_nodes_become_safe_names_of_folders(tmp_path):
    built = raw("g (float[2] x) => (float[2] y) { a = Erf (x) \n b = Erf (a) \n y = Erf (b) }")
    for node, name in zip(built.graph.node, ["../../etc/passwd", "a/b\\c:d*?", "ü" * 300], strict=True):
        node.name = name
    ready = check(built, "test")
    made = save_fallbacks(ready, view(ready), [n.name for n in ready.graph.node], tmp_path / "out")
    assert [p.name for p in made] == ["00000-etc_passwd", "00001-a_b_c_d", "00002-Erf"]
    assert all(p.parent == tmp_path / "out" and run_saved(p) for p in made)


def test_a_model_that_cannot_run_gives_random_inputs(tmp_path):
    built = raw("g (float[1,4] x) => (float[1,4] y) { a = my.Thing (x) \n y = Erf (a) }")
    built.graph.value_info.append(helper.make_tensor_value_info("a", 1, [1, 4]))
    path = tmp_path / "model.onnx"
    onnx.save(built, path)
    opened = open_model(path)
    thing, erf = save_fallbacks(opened.model, opened.graph, ["Thing", "Erf"], tmp_path / "out")
    assert run_saved(erf)["y"].shape == (1, 4)
    assert (thing / "model.onnx").is_file()


def test_what_cannot_be_written_is_told_and_nothing_is_left(opened, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    made = save_fallbacks(opened.model, opened.graph, ["Erf"], taken)  # an empty folder may be used
    assert made[0].is_dir()
    with pytest.raises(ModelError, match=r"taken: is not an empty folder \(name a new one for the fallbacks\)"):
        save_fallbacks(opened.model, opened.graph, ["Erf"], taken)
    with pytest.raises(ModelError, match=r"model.onnx: is not an empty folder"):
        save_fallbacks(opened.model, opened.graph, ["Erf"], tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"cannot be written: (Not a directory|File exists)"):
        save_fallbacks(opened.model, opened.graph, ["Erf"], tmp_path / "model.onnx" / "out")
    with pytest.raises(ModelError, match="Erv: is no operator of the model"):
        save_fallbacks(opened.model, opened.graph, ["Erv"], tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "taken"]


def test_a_failure_on_the_way_leaves_nothing(opened, tmp_path, monkeypatch):
    written = []

    def fail(arrays):
        written.append(arrays)
        if len(written) > 1:
            raise OSError(28, "No space left on device")
        return b""

    monkeypatch.setattr("pipeline.compile.fallbacks._packed", fail)
    with pytest.raises(ModelError, match="out: cannot be written: No space left on device"):
        save_fallbacks(opened.model, opened.graph, fallbacks(opened), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def chain(length):
    """``length`` Erfs in a row."""
    nodes = [helper.make_node("Erf", [f"t{i}"], [f"t{i + 1}"], name=f"erf{i}") for i in range(length)]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("t0", f"t{length}")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    return check(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), "chain")


def test_time_grows_with_the_number_of_fallbacks_not_with_its_square(tmp_path):
    seconds = {}
    for length in (200, 2000):
        built = chain(length)
        graph = view(built)
        names = [n.name for n in graph.nodes]
        began = time.process_time()
        assert len(save_fallbacks(built, graph, names, tmp_path / f"{length}")) == length
        assert without_kernel(built, graph, names) == {}
        seconds[length] = time.process_time() - began
    assert seconds[2000] < 30 * max(seconds[200], 0.02)  # ten times the work; its square is 100


def test_operators_with_kernels_pass(opened):
    assert without_kernel(opened.model, opened.graph, [n.name for n in opened.graph.nodes]) == {}


def test_operators_without_kernels_are_named(tmp_path):
    text = """g (float[1,2,4,4] x, double[1,2,4,4] d) => (float[1,2,4,4] y, double[1,2,4,4] z) {
      a = Relu (x) \n t = my.Thing (a) \n y = Neg (t) \n z = Erf (d) \n }"""
    built = raw(text)
    built.graph.value_info.append(helper.make_tensor_value_info("t", 1, [1, 2, 4, 4]))
    path = tmp_path / "model.onnx"
    onnx.save(built, path)
    opened = open_model(path)
    found = without_kernel(opened.model, opened.graph, [n.name for n in opened.graph.nodes])
    assert found.keys() == {"Thing", "Erf"}
    version = onnxruntime.__version__
    assert found["Erf"] == f"ONNX Runtime {version} cannot run Erf: Could not find an implementation for Erf(13)"
    assert without_kernel(opened.model, opened.graph, ["Relu"]) == {}
    placed = [Placed(n.name, n.op, "cpu", ("test",), 0, 0) for n in opened.graph.nodes]
    with pytest.raises(ModelError, match=r"Thing: is a fallback that cannot run: ONNX Runtime .* and 1 more operators"):
        require_kernels(opened.model, opened.graph, cut(opened.graph, placed))


def test_two_forms_of_one_operator_are_asked_apart(tmp_path):
    text = "g (float[2] x, double[2] d) => (float[2] y, double[2] z) { y = Erf (x) \n z = Erf (d) }"
    path = tmp_path / "model.onnx"
    onnx.save(raw(text), path)
    opened = open_model(path)
    assert without_kernel(opened.model, opened.graph, ["Erf", "Erf#2"]).keys() == {"Erf#2"}


def test_a_weight_in_a_file_is_too_large_for_a_piece(tmp_path):
    built = raw("g (float[1,2] x) => (float[1,2] y) { y = MatMul (x, w) }", w=np.eye(2, dtype=np.float32))
    ready = check(built, "test")
    tensor = ready.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(np.eye(2, dtype=np.float32), "w"))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    (tmp_path / "w.bin").write_bytes(np.eye(2, dtype=np.float32).tobytes())
    with pytest.raises(ModelError, match="w: is too large for a piece of its own; it lies in a file"):
        save_fallbacks(ready, view(ready, tmp_path), ["MatMul"], tmp_path / "out")
