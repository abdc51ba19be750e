"""Rule R4 against ONNX's own quantized cases and its reference evaluator."""

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from runtime.npu.contracts import find_contract
from runtime.npu.device import Device
from runtime.npu.program import Instruction, Program
from runtime.tensors import TensorSpec


def matmul(a, b, y, shapes):
    """QLinearMatMul as a program; each of ``a``, ``b`` and ``y`` is (scale, zero point, type)."""
    name = {"uint8": "ort-r4+uint8", "int8": "ort-r4"}[y[2]]
    rule = find_contract(name)
    specs = [
        TensorSpec(n, tuple(s), t[2], float(t[0]), int(t[1])) for n, t, s in zip("aby", (a, b, y), shapes, strict=True)
    ]
    m, e = rule.quantize_multiplier(rule.ratio((float(a[0]), float(b[0])), float(y[0])))
    low, high = rule.limits
    item = Instruction(
        "matmul", "m", ("a", "b"), "y", {"act_min": low, "act_max": high},
        {"multiplier": np.array([m], np.int32), "shift": np.array([e], np.int32)},
    )  # fmt: skip
    return Program("test", name, {}, tuple(specs), ("a", "b"), ("y",), (item,))


NAMES = [f"test_qlinearmatmul_{rank}D_{kind}_float32" for rank in (2, 3) for kind in ("int8", "uint8")]


@pytest.mark.parametrize("name", NAMES)
def test_the_cases_of_qlinearmatmul(onnx_cases, name):
    case = onnx_cases[name]
    for (a, sa, za, b, sb, zb, sy, zy), (expected,) in case.data_sets:
        item = matmul(
            (np.ravel(sa)[0], np.ravel(za)[0], str(a.dtype)),
            (np.ravel(sb)[0], np.ravel(zb)[0], str(b.dtype)),
            (np.ravel(sy)[0], np.ravel(zy)[0], str(expected.dtype)),
            (a.shape, b.shape, expected.shape),
        )
        for fast in (False, True):
            np.testing.assert_array_equal(Device(item, fast).run({"a": a, "b": b})["y"], expected)


def evaluator(operator, count):
    names = [f"i{i}" for i in range(count)]
    node = helper.make_node(operator, names, ["y"])
    inputs = [helper.make_tensor_value_info(n, 0, None) for n in names]
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", 0, None)])
    return ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_random_products_are_the_reference_evaluators(dtype):
    """The evaluator rounds a float32 or float64 product to even as R4 does; both are the same away from near ties."""
    reference, rng, info = evaluator("QLinearMatMul", 8), np.random.default_rng(0), np.iinfo(dtype)
    compared = 0
    for _ in range(300):
        m, k, n = rng.integers(1, 12, 3).tolist()
        a, b = (rng.integers(info.min, info.max + 1, s).astype(dtype) for s in ((m, k), (k, n)))
        scales = rng.uniform(0.01, 0.1, 2).astype(np.float32)
        sy = np.float32(scales.prod() * rng.uniform(20, 500))
        zeros = rng.integers(info.min, info.max + 1, 3).astype(dtype)
        feeds = [a, scales[0], zeros[0], b, scales[1], zeros[1], sy, zeros[2]]
        expected = reference.run(None, {f"i{i}": np.asarray(v) for i, v in enumerate(feeds)})[0]
        item = matmul(
            (scales[0], zeros[0], dtype),
            (scales[1], zeros[1], dtype),
            (sy, zeros[2], dtype),
            (a.shape, b.shape, (m, n)),
        )
        np.testing.assert_array_equal(Device(item, fast=False).run({"a": a, "b": b})["y"], expected)
        compared += expected.size
    assert compared > 5000
