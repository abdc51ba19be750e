import numpy as np
import onnxruntime
import pytest

from runtime.npu.onnx_writer import ELEMENT_TYPES, Graph, Port

onnx = pytest.importorskip("onnx", reason="compares the writer with the onnx package (extra pipeline)")
reference = pytest.importorskip("onnx.reference", reason="compares with the onnx package (extra pipeline)")


def small_model():
    graph = Graph([Port("x", "int8", (1, 2, 3, 3))])
    real = graph.node("Cast", ["x"], to=ELEMENT_TYPES["float32"])
    weight = graph.constant(np.arange(-8, 8, dtype=np.float32).reshape(2, 2, 2, 2))
    conv = graph.node("Conv", [real, weight], pads=(1, 0, 1, 0), group=1, kernel_shape=(2, 2))
    scales = graph.constant(np.array([1, 1, 2, 2], np.float32))
    wide = graph.node(
        "Resize", [conv, "", scales], mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"
    )
    picked = graph.node("Gather", [wide, graph.constant(np.array([-1, 0], np.int32))], axis=-1)
    double = graph.node("Mul", [graph.node("Cast", [picked], to=11), graph.constant(np.array(0.5))])
    shape = graph.constant(np.array([1, -1], np.int64))
    graph.node("Reshape", [double, shape], "y")
    graph.outputs.append(Port("y", "float64", (1, 32)))
    return graph.model()


def test_the_onnx_package_accepts_and_reads_what_is_written():
    model = onnx.load_from_string(small_model())
    onnx.checker.check_model(model, full_check=True)
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in conv.attribute}
    assert attributes == {"pads": [1, 0, 1, 0], "group": 1, "kernel_shape": [2, 2]}
    gather = next(node for node in model.graph.node if node.op_type == "Gather")
    assert onnx.helper.get_attribute_value(gather.attribute[0]) == -1
    resize = next(node for node in model.graph.node if node.op_type == "Resize")
    assert resize.input[1] == ""
    assert onnx.helper.get_attribute_value(resize.attribute[0]) == b"nearest"
    assert model.ir_version == 9
    assert model.opset_import[0].version == 17


def test_the_reference_evaluator_and_onnxruntime_agree_on_it():
    x = np.random.default_rng(0).integers(-128, 128, (1, 2, 3, 3)).astype(np.int8)
    want = reference.ReferenceEvaluator(onnx.load_from_string(small_model())).run(None, {"x": x})[0]
    session = onnxruntime.InferenceSession(small_model(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], want)


def test_the_bytes_are_those_of_the_onnx_package():
    """Parsing and serialising again changes nothing: field order and encoding are canonical."""
    content = small_model()
    assert onnx.load_from_string(content).SerializeToString(deterministic=True) == content
