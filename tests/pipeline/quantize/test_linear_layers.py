"""Linear layers as torch exports them: MatMul and Add, rounded for their outputs and corrected, and written back."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from smallmodels import model, run_onnx, target
from torch import nn

from pipeline.graph.capture import capture
from pipeline.graph.view import view
from pipeline.quantize import qdq, scheme, writeback
from pipeline.quantize.addends import Addend, addend, behind
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.correction import correct, expected_shifts
from pipeline.quantize.engine import Engine
from pipeline.quantize.ptq import Choosing, quantize
from pipeline.quantize.rounding import compensate, error
from pipeline.quantize.score import score
from pipeline.quantize.trials import State
from pipeline.quantize.variants import Variant, varied
from pipeline.quantize.walk import walk

WIDTH, HEADS, TOKENS = 24, 3, 16
TARGET = target("ethos-u55-256")
LEARN = 12


class Block(nn.Module):
    """Attention and a feed-forward part, each behind a norm and beside a residual, and a head for each token."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x):
        split = self.qkv(self.first(x)).reshape(1, TOKENS, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        q, k, v = split
        mixed = (q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5).softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(1, TOKENS, WIDTH))
        x = x + self.down(torch.relu(self.up(self.second(x))))
        return self.head(x)


@pytest.fixture(scope="module")
def block():
    torch.manual_seed(0)
    return capture(Block().eval(), torch.randn(1, TOKENS, WIDTH), "x", ["y"], 18)


def tokens(count, seed):
    """Sequences with fewer directions than numbers, as those of the world have."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(6, WIDTH))
    return [(generator.normal(size=(1, TOKENS, 6)) @ mixing + 0.3).astype(np.float32) for _ in range(count)]


def rough(floating, seen):
    """Encodings whose weights have a tenth of the levels of int8, and the statistics."""
    taken = calibrate(floating, view(floating), seen)
    found = quantize(view(floating), taken.histograms, scheme.of(TARGET), Choosing("minmax"))
    coarse = {n: replace(w, scales=tuple(10 * s for s in w.scales)) for n, w in found.weights.items()}
    return replace(found, weights=coarse), taken


def test_torch_makes_matmul_and_add_of_a_linear_layer(block):
    graph = view(block)
    held = {n.name: behind(graph, n) for n in graph.nodes if n.op == "MatMul"}
    assert sorted(n.name for n in held.values() if n is not None) == ["head#2", "out#2", "qkv#2", "up#2"]
    assert sorted(name for name, add in held.items() if add is None) == ["down", "node_matmul", "node_matmul_1"]


def changed(block, change, op):
    """The score before and after ``change`` at every step, and the error of each ``op`` that was kept over before."""
    seen, check = tokens(20, seed=1), tokens(12, seed=7)
    scales, _ = rough(block, seen)
    engine = Engine(qdq.insert(block, scales), TARGET)
    wanted = [run_onnx(block, {"x": each}) for each in check]
    before, kept, ratios = score(engine, check, wanted).sqnr_db, [], []
    for step in walk(engine, block, seen):
        lost = error(step, LEARN)
        if change(step, LEARN):
            kept.append(step.node.name)
            ratios += [error(step, LEARN) / lost] if step.node.op == op else []
    again = Engine(qdq.insert(writeback.written(block, engine, kept), scales), TARGET)
    for each in check[:3]:
        np.testing.assert_array_equal(again.run(each)["y"], engine.run(each)["y"])
    return before, score(again, check, wanted).sqnr_db, ratios


def test_linear_layers_are_rounded_for_their_outputs_and_written_back_exactly(block):
    before, after, ratios = changed(block, compensate, "MatMul")
    assert len(ratios) == 5
    assert max(ratios) < 0.7
    assert after > before + 2


def test_the_add_behind_a_linear_layer_takes_its_mean_error_and_is_written_back_exactly(block):
    before, after, ratios = changed(block, correct, "Add")
    assert len(ratios) >= 2
    assert min(ratios) < 0.95
    assert after > before - 0.2


def test_what_rounding_shifts_is_taken_off_the_add_behind_a_matmul(block):
    seen = tokens(8, seed=1)
    scales, taken = rough(block, seen)
    shifts = expected_shifts(view(block), scales, taken.channels)
    assert set(shifts) == {"out#2", "qkv#2", "up#2", "head#2"}
    node = next(n for n in view(block).nodes if n.name == "qkv")
    weight, encoding = node.required(1), scales.weights[node.required(1).name]
    steps = np.array(encoding.scales)
    change = np.clip(np.rint(weight.real / steps), -127, 127) * steps - weight.real
    source = model(
        "g (float[1,16,24] x) => (float[1,16,24] n) { n = LayerNormalization <epsilon = 0.00001> (x, gain, shift) }",
        gain=np.ones(WIDTH, np.float32), shift=np.zeros(WIDTH, np.float32),
    )  # fmt: skip
    given = np.concatenate([run_onnx(source, {"x": each})["n"] for each in seen])
    np.testing.assert_allclose(shifts["qkv#2"], (given @ change).mean(axis=(0, 1)), atol=1e-4)
    moved = {n.name: n for n in view(writeback.shifted(block, shifts)).nodes}
    for add in (n for n in view(block).nodes if n.name in shifts and n.op == "Add"):
        index = addend(add)
        found = moved[add.name].required(index).real - add.required(index).real
        np.testing.assert_allclose(found, -shifts[add.name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["qkv", "qkv#2"])
def test_a_layer_in_real_numbers_has_the_bias_that_was_never_shifted(block, name):
    scales, taken = rough(block, tokens(8, seed=1))
    moved = writeback.shifted(block, expected_shifts(view(block), scales, taken.channels))
    state = State(moved, taken, Choosing("minmax"), False, scales, exact=block)
    found = varied(state, Variant(floats=frozenset({name})), scheme.of(TARGET)).model
    adds = [[n for n in view(each).nodes if addend(n) is not None] for each in (found, moved, block)]
    biases = [{n.name: n.required(addend(n)).real for n in each} for each in adds]
    assert [add for add in biases[0] if not np.array_equal(biases[0][add], biases[1][add])] == ["qkv#2"]
    np.testing.assert_array_equal(biases[0]["qkv#2"], biases[2]["qkv#2"])


NO_BIAS = {
    "an image's channels": ("float[1,3,4,4] x", "y = Add (x, image)"),
    "two activations": ("float[1,3,4,4] x", "y = Add (x, x)"),
    "one number for all": ("float[1,3,4,4] x", "y = Add (x, one)"),
    "a difference": ("float[1,3,4,4] x", "y = Sub (x, four)"),
}


@pytest.mark.parametrize("case", NO_BIAS)
def test_what_is_no_bias_is_left_alone(case):
    given, text = NO_BIAS[case]
    floating = model(
        f"g ({given}) => (float[1,3,4,4] y) {{ {text} }}",
        image=np.ones((1, 3, 1, 1), np.float32), one=np.ones(1, np.float32), four=np.ones(4, np.float32),
    )  # fmt: skip
    assert addend(view(floating).nodes[0]) is None


def test_the_largest_value_of_an_add_keeps_the_scale():
    bias = Addend(np.array([127, -3, -127, 90], np.int8), 0.5)
    assert bias.shifted(np.array([-4.0, 1.0, 4.0, 60.0])).tolist() == [127, -1, -127, 127]
