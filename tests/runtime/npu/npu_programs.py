"""Programs for tests: one instruction, or a random small network, with factors folded from real scales."""

from dataclasses import replace

import numpy as np

from pipeline.compile.memories import Layout
from pipeline.compile.scheduling import schedule
from runtime.npu.contracts import find_contract
from runtime.npu.program import Instruction, Program
from runtime.npu.schedule import Estimates, LayerEstimate, Memory
from runtime.tensors import TensorSpec

DEVICE = {
    "macs_per_cycle": 4096.0,
    "clock_hz": 5e8,
    "memory_bytes_per_second": 4e9,
    "link_bytes_per_second": 4.5e8,
}


def spec(name, shape, scale=0.5, zero_point=0):
    return TensorSpec(name, tuple(int(size) for size in shape), "int8", float(scale), int(zero_point))


def scaling(factors, contract="tflite-r1"):
    """``multiplier`` and ``shift`` constants of real factors under a contract, or one of its name."""
    rule = find_contract(contract) if isinstance(contract, str) else contract
    pairs = [rule.quantize_multiplier(float(factor)) for factor in np.atleast_1d(factors)]
    return {
        "multiplier": np.array([m for m, _ in pairs], np.int64 if rule.multiplier_bits > 31 else np.int32),
        "shift": np.array([e for _, e in pairs], np.int32),
    }


def sum_scaling(first, second, output, left_shift=20):
    """The three factors of ``add`` and ``sub`` from the tensors' scales (TFLite ``add.cc``, all float64)."""
    twice = 2 * max(first, second)
    return scaling([first / twice, second / twice, twice / (2**left_shift * output)])


def program(inputs, instructions, tensors, outputs=None):
    """A program on ``tensors``; its output is the last instruction's unless given."""
    return Program(
        "test",
        "tflite-r1",
        DEVICE,
        tuple(tensors),
        tuple(item.name for item in inputs),
        tuple(outputs or (instructions[-1].output,)),
        tuple(instructions),
    )


def single(opcode, inputs, output, attributes=None, constants=None):
    """A program of one instruction."""
    names = tuple(item.name for item in inputs)
    item = Instruction(opcode, f"the_{opcode}", names, output.name, attributes or {}, constants or {})
    return program(inputs, [item], [*inputs, output])


def clamp(low=-128, high=127):
    return {"act_min": int(low), "act_max": int(high)}


def conv_instruction(
    rng, source, out, name, *, kernel, strides=(1, 1), dilations=(1, 1), group=1, pads=(0, 0, 0, 0), even=False
):
    """A convolution into ``out`` channels with factors that use the output's range; gives instruction and spec."""
    channels, height, width = source.shape[1:]
    weight = np.clip(np.rint(rng.normal(size=(out, channels // group, *kernel)) * 40), -127, 127).astype(np.int8)
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    rows = (height + pads[0] + pads[2] - reach[0]) // strides[0] + 1
    columns = (width + pads[1] + pads[3] - reach[1]) // strides[1] + 1
    spread = np.sqrt((weight.astype(float) ** 2).sum((1, 2, 3))) * 60 + 1
    factors = 60 / spread * rng.uniform(0.5, 2, out)
    if even:
        reciprocal = 2 * np.maximum(np.floor(0.5 / factors), 3)
        factors = 1 / np.where(np.log2(reciprocal) % 1 == 0, reciprocal - 2, reciprocal)
    relu = rng.random() < 0.5
    output = spec(name, (1, out, rows, columns), 0.05, -128 if relu else rng.integers(-128, 128))
    bias = rng.integers(-3000, 3000, out).astype(np.int32)
    attributes = {"strides": strides, "pads": pads, "dilations": dilations, "group": group}
    item = Instruction(
        "conv2d",
        f"conv_{name}",
        (source.name,),
        name,
        {**attributes, **clamp()},
        {"weight": weight, "bias": bias, **scaling(factors)},
    )
    return item, output


def network(seed, even=False):
    """A random net: convolutions (depthwise, dilated, strided), add, concat, resize, lookup, pools, mean, FC."""
    rng = np.random.default_rng(seed)
    image = spec("image", (1, 3, 16, 20), 0.02, rng.integers(-128, 128))
    tensors, items = [image], []

    def conv(source, out, **settings):
        item, output = conv_instruction(rng, source, out, f"t{len(tensors)}", even=even, **settings)
        tensors.append(output)
        items.append(item)
        return output

    def emit(opcode, sources, output, attributes=None, constants=None):
        names = tuple(item.name for item in sources)
        items.append(Instruction(opcode, opcode, names, output.name, attributes or {}, constants or {}))
        tensors.append(output)
        return output

    one, three = (0, 0, 0, 0), (1, 1, 1, 1)
    stem = conv(image, 16, kernel=(3, 3), strides=(2, 2), pads=three)
    wide = conv(stem, 24, kernel=(1, 1), pads=one)
    deep = conv(wide, 24, kernel=(3, 3), group=24, pads=(2, 2, 2, 2), dilations=(2, 2))
    thin = conv(deep, 16, kernel=(1, 1))
    total = spec("sum", thin.shape, 0.06, rng.integers(-128, 128))
    left = {"left_shift": 20, **clamp()}
    emit("add", [stem, thin], total, left, sum_scaling(stem.scale, thin.scale, total.scale))
    table = rng.integers(-128, 128, 256).astype(np.int8)
    looked = emit("lookup", [total], spec("looked", total.shape, 0.1, 3), constants={"table": table})
    pooled = emit(
        "max_pool",
        [looked],
        spec("pooled", (1, 16, 4, 5), 0.1, 3),
        {"kernel": (2, 2), "strides": (2, 2), "pads": one},
    )
    index = {"rows": (np.arange(8) // 2).astype(np.int32), "columns": (np.arange(10) // 2).astype(np.int32)}
    grown = emit("resize_nearest", [pooled], spec("grown", (1, 16, 8, 10), 0.1, 3), constants=index)
    joined = emit("concat", [looked, grown], spec("joined", (1, 32, 8, 10), 0.1, 3), {"axis": 1})
    average = emit(
        "average_pool",
        [joined],
        spec("average", (1, 32, 4, 5), 0.1, 3),
        {"kernel": (3, 3), "strides": (2, 2), "pads": three},
    )
    means = emit("mean", [average], spec("means", (1, 32), 0.07, -5), {"axes": (2, 3)}, scaling(0.1 / 0.07))
    weight = rng.integers(-127, 128, (7, 32)).astype(np.int8)
    emit(
        "fully_connected",
        [means],
        spec("logits", (1, 7), 0.3, 11),
        clamp(),
        {"weight": weight, "bias": rng.integers(-500, 500, 7).astype(np.int32), **scaling(np.full(7, 0.004))},
    )
    return program([image], items, tensors, ["logits", "sum"])


def feeds(item, seed=0):
    """Random inputs of a program, extremes included."""
    rng = np.random.default_rng(seed)
    specs = {tensor.name: tensor for tensor in item.tensors}
    values = {}
    for name in item.inputs:
        info = np.iinfo(specs[name].dtype)
        array = rng.integers(info.min, info.max + 1, specs[name].shape).astype(specs[name].dtype)
        array.flat[0], array.flat[-1] = info.min, info.max
        values[name] = array
    return values


def scheduled(item, sram=1 << 20, cache=None, lanes=16, ecc=False, estimates=None):
    """The program with a schedule for a chip of so many bytes."""
    memories = [Memory("sram", sram, ecc=ecc), Memory("dram", 1 << 30, assumed=True, ecc=ecc)]
    if cache is not None:
        memories.insert(1, Memory("cache", cache, ecc=ecc))
    return schedule(item, Layout(tuple(memories), lanes), estimates)


def estimates(item, **changes):
    """Made-up estimates: layer n takes n ms, of which the engine is busy for half and the memory for all."""
    names = list(dict.fromkeys(each.name for each in item.instructions))
    layers = tuple(
        LayerEstimate(name, 100 * n, 50.0 * n, float(n), n / 2, float(n), {"dram": 10 * n}, "dram", n / 8)
        for n, name in enumerate(names, 1)
    )
    crossing = dict.fromkeys((*item.inputs, *item.outputs), 0.25)
    return replace(Estimates("a priori", layers, crossing, 0.5, 42.0), **changes)
