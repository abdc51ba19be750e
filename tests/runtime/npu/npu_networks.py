"""A whole network for any contract, and what it was folded from."""

from dataclasses import replace

import numpy as np
from npu_programs import clamp, conv_instruction, scaling, spec

from runtime.npu.contracts import find_contract
from runtime.npu.program import Instruction, Program


class Net:
    """A MobileNetV2 in small: inverted bottlenecks with strides and residual sums, pooled and classified.

    Scales are those of a quantized model; factors are folded from them for the contract.
    """

    def __init__(self, seed, contract):
        self.rng, self.contract = np.random.default_rng(seed), find_contract(contract)
        self.wide = self.contract.activations == "int16"
        self.items, self.weights = [], {}
        image = self.spec("image", (1, 3, 32, 32), 0.02, 5)
        self.tensors = [image]
        x = self.conv(image, 16, (3, 3), 2)
        for out, stride, grow in ((16, 1, 2), (24, 2, 4), (24, 1, 4), (32, 2, 4), (32, 1, 4)):
            inside = self.conv(x, x.shape[1] * grow, (1, 1), 1)
            inside = self.conv(inside, inside.shape[1], (3, 3), stride, depthwise=True)
            y = self.conv(inside, out, (1, 1), 1, relu=False)
            x = self.add(x, y) if x.shape == y.shape else y
        mean = self.mean(self.conv(x, 64, (1, 1), 1))
        self.output = self.classify(mean)

    def spec(self, name, shape, scale, zero):
        """An int16 tensor has a step 256 times finer and no zero point."""
        made = spec(name, shape, np.float32(scale), zero)
        return replace(made, dtype="int16", scale=made.scale / 256, zero_point=0) if self.wide else made

    def clamp(self):
        return clamp(*self.contract.limits)

    def scale(self):
        return float(np.float32(self.rng.uniform(0.02, 0.06)))

    def emit(self, opcode, inputs, output, attributes, constants):
        names = tuple(t.name for t in inputs)
        self.items.append(Instruction(opcode, f"{opcode}_{output.name}", names, output.name, attributes, constants))
        self.tensors.append(output)
        return output

    def fold(self, scales, x, y):
        """Of a sum of products."""
        return scaling([self.contract.ratio((x.scale, float(s)), y.scale) for s in scales], self.contract.of("conv2d"))

    def conv(self, x, out, kernel, stride, depthwise=False, relu=True):
        # TFLite's SAME padding, which is larger behind where it is uneven
        total = [max((-(-n // stride) - 1) * stride + k - n, 0) for n, k in zip(x.shape[2:], kernel, strict=True)]
        pads = (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)
        name = f"t{len(self.tensors)}"
        group = x.shape[1] if depthwise else 1
        item, made = conv_instruction(
            self.rng, x, out, name, kernel=kernel, strides=(stride, stride), group=group, pads=pads
        )
        zero = -128 if relu else int(self.rng.integers(-20, 20))
        made = self.spec(made.name, made.shape, self.scale(), zero)
        wanted = 60 / (np.sqrt((item.constants["weight"].astype(float) ** 2).sum((1, 2, 3))) * 60 + 1)
        scales = (wanted * made.scale / x.scale).astype(np.float32)
        self.weights[name] = scales
        constants = {**item.constants, **self.fold(scales, x, made)}
        return self.emit("conv2d", [x], made, {**item.attributes, **self.clamp()}, constants)

    def add(self, a, b):
        y = self.spec(f"t{len(self.tensors)}", a.shape, self.scale(), 3)
        if self.contract.add == "float32":
            factors = [self.contract.ratio((t.scale,), y.scale) for t in (a, b)]
            return self.emit("add", [a, b], y, {"left_shift": 0, **self.clamp()}, scaling(factors, self.contract))
        twice, shift = 2 * max(a.scale, b.scale), self.contract.add_shift
        constants = scaling([a.scale / twice, b.scale / twice, twice / (2**shift * y.scale)])
        return self.emit("add", [a, b], y, {"left_shift": shift, **self.clamp()}, constants)

    def mean(self, x):
        y = self.spec(f"t{len(self.tensors)}", (1, x.shape[1], 1, 1), 0.03, -5)
        below = y.scale
        if self.contract.mean == "scaled":
            below = float(np.float32(y.scale) * np.float32(x.shape[2] * x.shape[3]))
        return self.emit(
            "mean", [x], y, {"axes": (2, 3)}, scaling(self.contract.ratio((x.scale,), below), self.contract)
        )

    def classify(self, x):
        flat = self.emit("reshape", [x], replace(x, name="flat", shape=(1, x.shape[1])), {}, {})
        y = self.spec("logits", (1, 10), 0.2, 7)
        weight = self.rng.integers(-127, 128, (10, x.shape[1])).astype(np.int8)
        scales = np.full(10, np.float32(0.004))
        self.weights["logits"] = scales
        bias = self.rng.integers(-500, 500, 10).astype(np.int32)
        return self.emit(
            "fully_connected", [flat], y, self.clamp(), {"weight": weight, "bias": bias, **self.fold(scales, flat, y)}
        )

    def program(self):
        """With every tensor as output."""
        names = tuple(item.output for item in self.items)
        return Program("test", self.contract.name, {}, tuple(self.tensors), ("image",), names, tuple(self.items))


def both_types():
    """int8 in and out, int16 in between: every opcode that only int16 has, and both conversions."""
    contract, rng = find_contract("tflite-r1/tflite-r8"), np.random.default_rng(5)
    wide = contract.by_type("int16")
    x, y = spec("x", (1, 4, 5, 6), 0.05, 3), spec("y", (1, 4, 5, 6), 1 / 256, -128)
    shapes = {"w": 0.05 / 128, "c": 0.0003, "s": 1 / 32768, "t": 1 / 32768, "p": 1 / 32768}
    tensors = {n: replace(spec(n, x.shape, step), dtype="int16") for n, step in shapes.items()} | {"x": x, "y": y}
    limits, short = clamp(*wide.limits), {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "group": 1}
    weight = rng.integers(-127, 128, (4, 4, 1, 1)).astype(np.int8)
    products = {"weight": weight, "bias": rng.integers(-(2**20), 2**20, 4), **scaling([1e-3] * 4, wide.of("conv2d"))}
    rising = np.sort(rng.integers(1, 2**15, 513)).astype(np.int16)
    tables = {"exp": rising, "reciprocal": rising[::-1].copy(), **scaling(2.0, wide)}
    items = (
        Instruction("requantize", "widen", ("x",), "w", limits, scaling(128.0, wide)),
        Instruction("conv2d", "conv", ("w",), "c", {**short, **limits}, products),
        Instruction("sigmoid", "sigmoid", ("c",), "s", {"factor": 15099, "right_shift": 12}),
        Instruction("tanh", "tanh", ("s",), "t", {"factor": 24576, "right_shift": 16}),
        Instruction("softmax_tables", "softmax", ("t",), "p", {"axis": 1}, tables),
        Instruction("requantize", "narrow", ("p",), "y", clamp(), scaling(1 / 128)),
    )
    return Program("test", contract.name, {}, tuple(tensors.values()), ("x",), ("y",), items)
