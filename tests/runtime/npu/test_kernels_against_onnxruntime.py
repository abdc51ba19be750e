"""The plain kernels under rule R4 against onnxruntime's quantized operators: 0 differing bytes."""

import platform

import numpy as np
import pytest
from npu_programs import feeds
from random_programs import Maker

from runtime.npu.device import Device
from runtime.npu.lowering.host import integer_kernels_exact, open_session
from runtime.npu.onnx_writer import MICROSOFT, Graph, Port

pytestmark = pytest.mark.skipif(
    not integer_kernels_exact(), reason="this host's integer kernels saturate: onnxruntime is no reference here"
)
ON_X86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="QLinearAdd and QLinearMul round otherwise on this processor"
)
CONTRACTS = pytest.mark.parametrize("contract", ["ort-r4", "ort-r4+uint8"])


class Qop:
    """A quantized operator of onnxruntime with the parameters of ours."""

    def __init__(self, item):
        self.item, self.operation = item, item.instructions[-1]
        self.specs = {t.name: t for t in item.tensors}
        self.output = self.specs[self.operation.output]
        self.graph = Graph()
        for name in item.inputs:
            self.graph.inputs.append(Port(name, self.specs[name].dtype, self.specs[name].shape))
        self.graph.outputs.append(Port("y", self.output.dtype, self.output.shape))

    def constant(self, value, dtype):
        return self.graph.constant(np.asarray(value, dtype))

    def scale(self, tensor):
        return [self.constant(tensor.scale, np.float32), self.constant(tensor.zero_point, tensor.dtype)]

    def tensor(self, name):
        return [name, *self.scale(self.specs[name])]

    def run(self, operator, inputs, values, domain="", **attributes):
        self.graph.node(operator, inputs, "y", domain, **attributes)
        return open_session(self.graph.model(), 1).run(None, dict(values))[0]


def refold(maker, item, factors):
    """The program with factors of real ``scales``."""
    last = item.instructions[-1]
    constants = {**last.constants, **maker.scaling(factors)}
    wide = dict(zip(("act_min", "act_max"), maker.contract.limits, strict=True))
    attributes = {**last.attributes, **({} if "act_min" not in last.attributes else wide)}
    changed = type(last)(last.opcode, last.name, last.inputs, last.output, attributes, constants)
    return type(item)(**{**item.__dict__, "instructions": (*item.instructions[:-1], changed)})


def check(item, qop, operator, inputs, seed, domain="", **attributes):
    values = feeds(item, seed)
    ours = next(iter(Device(item, fast=False).run(values).values()))
    np.testing.assert_array_equal(ours, qop.run(operator, inputs, values, domain, **attributes), f"seed {seed}")
    return ours.size


def weights(maker, channels, x, y):
    """Scales of weights: of every magnitude, powers of two among them for exact ties."""
    factor = maker.factor(channels)
    return (factor * y.scale / x.scale).astype(np.float32)


@CONTRACTS
@pytest.mark.parametrize("opcode", ["conv2d", "fully_connected"])
def test_products(opcode, contract):
    compared = 0
    for seed in range(400):
        maker = Maker(seed, contract)
        item = getattr(maker, opcode)()
        last = item.instructions[0]
        x, y = item.tensors
        scales = weights(maker, y.shape[1 if opcode == "conv2d" else -1], x, y)
        item = refold(maker, item, [maker.contract.ratio((x.scale, float(s)), y.scale) for s in scales])
        qop, weight = Qop(item), last.constants["weight"]
        zero = qop.constant(np.zeros(len(scales)), np.int8)
        bias = qop.constant(last.constants["bias"], np.int32)
        factors = qop.constant(scales, np.float32)
        if opcode == "conv2d" and len(x.shape) == 4:
            inputs = [*qop.tensor("x"), qop.constant(weight, np.int8), factors, zero, *qop.scale(y), bias]
            names = ("strides", "pads", "dilations", "group")
            attributes = {n: last.attributes[n] for n in names}
            compared += check(item, qop, "QLinearConv", inputs, seed, kernel_shape=weight.shape[2:], **attributes)
        elif opcode == "fully_connected" and len(x.shape) == 2:
            inputs = [*qop.tensor("x"), qop.constant(weight.T, np.int8), factors, zero, bias, *qop.scale(y)]
            compared += check(item, qop, "QGemm", inputs, seed, MICROSOFT)
    assert compared > 3000


@CONTRACTS
def test_matmul(contract):
    for seed in range(300):
        maker = Maker(seed, contract)
        item = maker.matmul()
        a, b, y = item.tensors
        item = refold(maker, item, [maker.contract.ratio((a.scale, b.scale), y.scale)])
        qop = Qop(item)
        check(item, qop, "QLinearMatMul", [*qop.tensor("a"), *qop.tensor("b"), *qop.scale(y)], seed)


@ON_X86
@CONTRACTS
@pytest.mark.parametrize(("opcode", "operator"), [("add", "QLinearAdd"), ("mul", "QLinearMul")])
def test_two_inputs(opcode, operator, contract):
    for seed in range(400):
        maker = Maker(seed, contract)
        item = getattr(maker, opcode)()
        a, b, y = item.tensors
        ratio = maker.contract.ratio
        factors = [ratio((a.scale, b.scale), y.scale)]
        if opcode == "add":
            factors = [ratio((a.scale,), y.scale), ratio((b.scale,), y.scale)]
        item = refold(maker, item, factors)
        qop = Qop(item)
        check(item, qop, operator, [*qop.tensor("a"), *qop.tensor("b"), *qop.scale(y)], seed, MICROSOFT)


@CONTRACTS
def test_global_average(contract):
    for seed in range(300):
        maker = Maker(seed, contract)
        x = maker.image()
        y = maker.spec("y", (*x.shape[:2], 1, 1))
        count = np.float32(x.shape[2] * x.shape[3])
        factor = maker.contract.ratio((x.scale,), float(np.float32(y.scale) * count))
        item = maker.single("mean", [x], y, {"axes": (2, 3)}, maker.scaling([factor]))
        qop = Qop(item)
        check(item, qop, "QLinearGlobalAveragePool", [*qop.tensor("x"), *qop.scale(y)], seed, MICROSOFT)
