"""A random program of one instruction, for every opcode and contract, with the cases where integers go wrong."""

from dataclasses import replace

import numpy as np
from npu_programs import single

from runtime.npu.contracts import find_contract
from runtime.npu.program import Instruction, Program
from runtime.tensors import TensorSpec

CONTRACTS = (
    "tflite-r1", "tflite-r2", "tosa-r2", "tosa-r3", "ort-r4", "litert-r6", "tflite-r8", "pot-r9-half-up",
    "pot-r9-half-even", "tflite-r1+uint8", "ort-r4+uint8", "tflite-r1+acc16", "pot-r9-half-up+acc48",
    "pot-r9-half-even+acc48+int16",
)  # fmt: skip


class Maker:
    """Draws programs for one contract."""

    def __init__(self, seed, contract):
        self.rng = np.random.default_rng(seed)
        self.contract = find_contract(contract)
        self.low, self.high = self.contract.limits

    def zero(self):
        if self.contract.symmetric:
            return 0
        return int(self.rng.choice([self.low, self.high, 0, *self.rng.integers(self.low, self.high + 1, 4)]))

    def scale(self):
        if self.contract.multiplier_bits == 1 or self.rng.random() < 0.3:
            return float(2.0 ** self.rng.integers(-8, -1))
        return float(np.float32(self.rng.uniform(0.005, 0.2)))

    def spec(self, name, shape, like=None):
        scale, zero = (self.scale(), self.zero()) if like is None else (like.scale, like.zero_point)
        return TensorSpec(name, tuple(int(s) for s in shape), self.contract.activations, scale, zero)

    def factor(self, count=1, typical=0.004):
        """Real factors: typical, on ties, where two roundings differ, above one, flushed to zero."""
        rng = self.rng
        kind = 1 if self.contract.multiplier_bits == 1 else rng.integers(6)
        centre = np.log2(typical)
        if kind == 1:
            return 2.0 ** rng.integers(int(centre) - 2, int(centre) + 3, count)
        span = {2: (-2, 0), 3: (0, 2), 4: (-40, -28)}.get(int(kind), (centre - 2, centre + 2))
        return 2.0 ** rng.uniform(*span, count)

    def scaling(self, factors):
        return self.of("add", factors)

    def of(self, opcode, factors):
        """Folded for ``opcode``: sums of products may have a multiplier of their own."""
        rule = self.contract.of(opcode)
        pairs = [rule.quantize_multiplier(float(factor)) for factor in np.atleast_1d(factors)]
        dtype = np.int64 if rule.multiplier_bits > 31 else np.int32
        return {
            "multiplier": np.array([m for m, _ in pairs], dtype),
            "shift": np.array([e for _, e in pairs], np.int32),
        }

    def clamp(self):
        if self.rng.random() < 0.6:
            return {"act_min": self.low, "act_max": self.high}
        low, high = sorted(self.rng.integers(self.low, self.high + 1, 2).tolist())
        return {"act_min": low, "act_max": high}

    def single(self, opcode, inputs, output, attributes=None, constants=None):
        return replace(single(opcode, inputs, output, attributes, constants), contract=self.contract.name)

    def image(self, name="x", channels=None, least=5):
        size = self.rng.integers(least, 9, 2).tolist()
        return self.spec(name, (1, channels or int(self.rng.integers(1, 6)), *size))

    def weight(self, *shape):
        spread = 3 if self.contract.accumulator_bits == 16 and self.rng.random() < 0.5 else 127
        return self.rng.integers(-spread, spread + 1, shape).astype(np.int8)

    def bias(self, count):
        return self.rng.integers(-3000, 3000, count).astype(np.int32)

    def pair(self, *sizes):
        return tuple(self.rng.choice(sizes, 2).tolist())

    def pads(self, most=2):
        return tuple(self.rng.integers(0, most + 1, 4).tolist())

    # one method for each opcode

    def conv2d(self):
        group = int(self.rng.choice([1, 1, 2, 4]))
        x = self.image(channels=group * int(self.rng.integers(1, 3)))
        kernel, strides, dilations, pads = self.pair(1, 2, 3), self.pair(1, 2), self.pair(1, 2), self.pads()
        sequence = self.rng.random() < 0.2
        if sequence:
            kernel, strides, dilations, pads = (1, kernel[1]), (1, strides[1]), (1, 1), (0, pads[1], 0, pads[3])
            x = replace(x, shape=(*x.shape[:2], x.shape[3]))
        size = (1, x.shape[2]) if sequence else x.shape[2:]
        outputs = group * int(self.rng.integers(1, 4))
        reach = [(kernel[i] - 1) * dilations[i] + 1 for i in (0, 1)]
        result = [(size[i] + pads[i] + pads[i + 2] - reach[i]) // strides[i] + 1 for i in (0, 1)]
        y = self.spec("y", (1, outputs, *(result[1:] if sequence else result)))
        attributes = {"strides": strides, "pads": pads, "dilations": dilations, "group": group, **self.clamp()}
        constants = {
            "weight": self.weight(outputs, x.shape[1] // group, *kernel),
            "bias": self.bias(outputs),
            **self.of("conv2d", self.factor(outputs)),
        }
        return self.single("conv2d", [x], y, attributes, constants)

    def conv_transpose2d(self):
        group = int(self.rng.choice([1, 2]))
        x = self.image(channels=2 * group, least=2)
        kernel, strides, dilations, pads = self.pair(1, 2, 3), self.pair(1, 2, 3), self.pair(1, 2), self.pads(1)
        more = [int(self.rng.integers(0, strides[i])) for i in (0, 1)]
        size = [
            (x.shape[2 + i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[i + 2]
            for i in (0, 1)
        ]
        if min(size) < 1:
            return self.conv_transpose2d()
        outputs = group * int(self.rng.integers(1, 4))
        y = self.spec("y", (1, outputs, *(size[i] + more[i] for i in (0, 1))))
        attributes = {"strides": strides, "pads": pads, "dilations": dilations, "group": group, **self.clamp()}
        constants = {
            "weight": self.weight(outputs, 2, *kernel),
            "bias": self.bias(outputs),
            **self.of("conv2d", self.factor(outputs)),
        }
        return self.single("conv_transpose2d", [x], y, attributes, constants)

    def fully_connected(self):
        features, outputs = self.rng.integers(1, 40, 2).tolist()
        leading = (1,) if self.rng.random() < 0.5 else (2, 3)
        x, y = self.spec("x", (*leading, features)), self.spec("y", (*leading, outputs))
        constants = {"weight": self.weight(outputs, features), "bias": self.bias(outputs)}
        return self.single(
            "fully_connected", [x], y, self.clamp(), {**constants, **self.of("conv2d", self.factor(outputs))}
        )

    def matmul(self):
        m, k, n = self.rng.integers(1, 9, 3).tolist()
        batch = [(), (2,), (2, 3)][self.rng.integers(3)]
        shapes = [(*batch, m, k), (k, n) if self.rng.random() < 0.3 else (*batch, k, n)]
        a, b = (self.spec(name, shape) for name, shape in zip("ab", shapes, strict=True))
        return self.single(
            "matmul", [a, b], self.spec("y", (*batch, m, n)), self.clamp(), self.of("matmul", self.factor())
        )

    def _two(self, opcode, like=None, **more):
        shape = (1, 4, *self.rng.integers(1, 20, 2).tolist())
        shapes = [shape, (1, 4, 1, 1) if self.rng.random() < 0.3 else shape]
        a, b = (self.spec(name, s, like) for name, s in zip("ab", shapes, strict=True))
        y = self.spec("y", shape, like)
        return a, b, y

    def add(self, opcode="add"):
        a, b, y = self._two(opcode)
        if self.contract.add == "float32":
            constants = self.scaling([np.float32(t.scale) / np.float32(y.scale) for t in (a, b)])
            return self.single(opcode, [a, b], y, {"left_shift": 0, **self.clamp()}, constants)
        twice, shift = 2 * max(a.scale, b.scale), self.contract.add_shift
        constants = self.scaling([a.scale / twice, b.scale / twice, twice / (2**shift * y.scale)])
        return self.single(opcode, [a, b], y, {"left_shift": shift, **self.clamp()}, constants)

    def sub(self):
        return self.add("sub")

    def mul(self):
        a, b, y = self._two("mul")
        return self.single("mul", [a, b], y, self.clamp(), self.scaling(self.factor(1, 0.01)))

    def maximum(self, opcode="maximum"):
        a, b, y = self._two(opcode, self.spec("same", (1,)))
        return self.single(opcode, [a, b], y)

    def minimum(self):
        return self.maximum("minimum")

    def prelu(self):
        x = self.image(channels=3)
        slope, y = self.spec("s", (3, 1, 1)), self.spec("y", x.shape)
        constants = self.scaling([*self.factor(1, 0.7), *self.factor(1, 0.01)])
        value = self.rng.integers(self.low, self.high + 1, slope.shape).astype(self.contract.activations)
        items = [
            Instruction("constant", "slope", (), "s", {}, {"value": value}),
            Instruction("prelu", "prelu", ("x", "s"), "y", self.clamp(), constants),
        ]
        return Program("test", self.contract.name, {}, (x, slope, y), ("x",), ("y",), tuple(items))

    def constant(self):
        return self.prelu()

    def requantize(self):
        x = self.image()
        return self.single("requantize", [x], self.spec("y", x.shape), self.clamp(), self.scaling(self.factor(1, 0.7)))

    def lookup(self):
        x, dtype = self.image(), self.contract.activations
        table = self.rng.integers(self.low, self.high + 1, 256).astype(dtype)
        return self.single("lookup", [x], self.spec("y", x.shape), {}, {"table": table})

    def sigmoid(self, opcode="sigmoid"):
        x = self.image()
        y = replace(self.spec("y", x.shape), scale=1 / 32768)
        attributes = {"factor": int(self.rng.integers(1, 2**15)), "right_shift": int(self.rng.integers(0, 20))}
        return self.single(opcode, [x], y, attributes)

    def tanh(self):
        return self.sigmoid("tanh")

    def softmax_tables(self):
        x = self.image()
        y = replace(self.spec("y", x.shape), scale=1 / 32768)
        falling = np.sort(self.rng.integers(1, 2**15, (2, 513)).astype(np.int16))
        constants = {**self.scaling(self.factor(1, 3)), "exp": falling[0], "reciprocal": falling[1][::-1].copy()}
        return self.single("softmax_tables", [x], y, {"axis": int(self.rng.integers(1, 4))}, constants)

    def softmax(self):
        x = self.image()
        y = replace(self.spec("y", x.shape), scale=1 / 256, zero_point=self.low)
        shift = int(self.rng.integers(14, 27))
        constants = {
            "multiplier": np.array([self.rng.integers(2**30, 2**31)], np.int32),
            "shift": np.array([shift], np.int32),
        }
        attributes = {"axis": int(self.rng.integers(1, 4)), "diff_min": -int(31 * 2.0**26 / 2.0**shift)}
        return self.single("softmax", [x], y, attributes, constants)

    def max_pool(self, opcode="max_pool"):
        x = self.image()
        kernel, strides = self.pair(1, 2, 3), self.pair(1, 2)
        pads = tuple(int(self.rng.integers(0, kernel[i % 2])) for i in range(4))
        if self.rng.random() < 0.5:
            pads = (0, 0, 0, 0)
        size = [(x.shape[2 + i] + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1 for i in (0, 1)]
        y = self.spec("y", (*x.shape[:2], *size), x)
        return self.single(opcode, [x], y, {"kernel": kernel, "strides": strides, "pads": pads})

    def average_pool(self):
        return self.max_pool("average_pool")

    def _axes(self, x):
        count = int(self.rng.integers(1, 4))
        axes = tuple(sorted(self.rng.choice(4, count, replace=False).tolist()))
        kept = tuple(1 if i in axes else size for i, size in enumerate(x.shape))
        dropped = tuple(size for i, size in enumerate(x.shape) if i not in axes)
        return axes, kept if self.rng.random() < 0.5 else dropped

    def mean(self, opcode="mean"):
        x = self.image()
        axes, shape = self._axes(x)
        typical = 0.8 if opcode == "mean" and self.contract.mean == "folded" else 0.05
        return self.single(opcode, [x], self.spec("y", shape), {"axes": axes}, self.scaling(self.factor(1, typical)))

    def reduce_sum(self):
        return self.mean("reduce_sum")

    def reduce_max(self, opcode="reduce_max"):
        x = self.image()
        axes, shape = self._axes(x)
        return self.single(opcode, [x], self.spec("y", shape, x), {"axes": axes})

    def reduce_min(self):
        return self.reduce_max("reduce_min")

    def resize_nearest(self):
        x = self.image()
        sizes = self.rng.integers(1, 14, 2).tolist()
        index = [np.sort(self.rng.integers(0, x.shape[2 + i], n)).astype(np.int32) for i, n in enumerate(sizes)]
        if self.rng.random() < 0.5:
            sizes = [2 * x.shape[2], 3 * x.shape[3]]
            index = [(np.arange(n) // (2 + i)).astype(np.int32) for i, n in enumerate(sizes)]
        constants = {"rows": index[0], "columns": index[1]}
        return self.single("resize_nearest", [x], self.spec("y", (*x.shape[:2], *sizes), x), {}, constants)

    def resize_linear(self):
        x = self.image()
        sizes = self.rng.integers(1, 14, 2).tolist()
        constants = {}
        for name, size, n in zip(("rows", "columns"), x.shape[2:], sizes, strict=True):
            low = self.rng.integers(0, size, n)
            constants[f"{name}_low"] = low.astype(np.int32)
            constants[f"{name}_high"] = np.minimum(low + 1, size - 1).astype(np.int32)
            constants[f"{name}_weight"] = self.rng.integers(0, 1025, n).astype(np.int32)
            if self.rng.random() < 0.3:
                constants[f"{name}_weight"] = np.full(n, 512, np.int32)  # ties
        return self.single("resize_linear", [x], self.spec("y", (*x.shape[:2], *sizes), x), {}, constants)

    def concat(self):
        x, axis = self.image(), int(self.rng.integers(4))
        other = self.spec("z", [s + 1 if i == axis else s for i, s in enumerate(x.shape)], x)
        joined = self.spec("y", [2 * s + 1 if i == axis else s for i, s in enumerate(x.shape)], x)
        return self.single("concat", [x, other], joined, {"axis": axis})

    def reshape(self):
        x = self.image()
        return self.single("reshape", [x], self.spec("y", (x.shape[1], int(np.prod(x.shape[2:]))), x))

    def transpose(self):
        x, order = self.image(), tuple(self.rng.permutation(4).tolist())
        return self.single("transpose", [x], self.spec("y", [x.shape[a] for a in order], x), {"permutation": order})

    def slice(self):
        x = self.image()
        starts, steps, sizes = [], [], []
        for size in x.shape:
            start, step = int(self.rng.integers(size)), int(self.rng.choice([-2, -1, 1, 2]))
            room = (size - 1 - start) // step if step > 0 else start // -step
            starts.append(start)
            steps.append(step)
            sizes.append(int(self.rng.integers(room + 1)) + 1)
        attributes = {"starts": tuple(starts), "steps": tuple(steps)}
        return self.single("slice", [x], self.spec("y", sizes, x), attributes)

    def pad(self):
        x, pads = self.image(), self.rng.integers(0, 3, 8).tolist()
        y = self.spec("y", [pads[i] + s + pads[i + 4] for i, s in enumerate(x.shape)], x)
        value = int(self.rng.integers(self.low, self.high + 1))
        return self.single("pad", [x], y, {"pads": tuple(pads), "value": value})

    def depth_to_space(self):
        x = self.image(channels=8)
        y = self.spec("y", (1, 2, 2 * x.shape[2], 2 * x.shape[3]), x)
        return self.single("depth_to_space", [x], y, {"block": 2, "columns_first": int(self.rng.integers(2))})

    def space_to_depth(self):
        x = self.spec("x", (1, 3, 6, 8))
        return self.single("space_to_depth", [x], self.spec("y", (1, 12, 3, 4), x), {"block": 2})


def random_program(opcode, contract, seed):
    """A legal program of one instruction (and its constants), drawn from ``seed``."""
    return getattr(Maker(seed, contract), opcode)()


def has_form(opcode, contract):
    """Whether ``opcode`` exists under ``contract``."""
    found = find_contract(contract)
    if opcode in ("lookup", "softmax"):
        return found.activations != "int16" and not (opcode == "softmax" and found.symmetric)
    if opcode in ("sigmoid", "tanh", "softmax_tables"):
        return found.activations == "int16"
    if opcode == "average_pool":
        return found.multiplier_bits > 1
    return opcode not in ("conv_transpose2d", "matmul") or found.accumulator_bits > 16
