"""The rung of int16 on a shipped target that has it: what it reaches, what stays on the NPU, what it costs."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from smallmodels import images, model, target

from pipeline.cli import main
from pipeline.compile.bundling import Use, bundle
from pipeline.compile.partitions import cut, onnx_models
from pipeline.compile.support import kernels
from pipeline.graph.model import load
from pipeline.graph.view import view
from pipeline.quantize import scheme as schemes
from pipeline.quantize import trials
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.engine import Engine
from pipeline.quantize.recipe import Recipe
from pipeline.quantize.score import score
from pipeline.quantize.sensitivity import sensitivities
from pipeline.quantize.split import split
from pipeline.quantize.variants import Variant, varied, with_readers
from pipeline.quantizing import rungs
from pipeline.targets.placement import by_target, place
from runtime.adapters.detection import BoxDecoder
from runtime.adapters.image import Preprocess
from runtime.bundle import open_bundle
from runtime.session import Session

sys.path.append(str(Path(__file__).parents[1] / "quantize"))
from enginenets import net, normal, smooth

CHIP = target("ethos-u55-256")
SHAPE = (1, 3, 16, 16)


def detector(middle="Relu (a)"):
    """A backbone with a residual, and a head of scores and boxes."""
    return model(
        "g (float[1,3,16,16] image) => (float[1,1,8,8] scores, float[1,4,8,8] boxes) {"
        f" a = Conv <pads = [1,1,1,1], strides = [2,2]> (image, w1, b1) \n b = {middle}"
        " c = Conv <group = 16, pads = [1,1,1,1]> (b, w2) \n d = Relu (c) \n e = Conv (d, w3) \n f = Add (e, b)"
        " scores = Conv (f, w4) \n boxes = Conv (f, w5) }",
        w1=normal(1, 16, 3, 3, 3, scale=0.3), b1=normal(2, 16, scale=0.5), w2=normal(3, 16, 1, 3, 3, scale=0.4),
        w3=normal(4, 16, 16, 1, 1, scale=0.3), w4=normal(5, 1, 16, 1, 1), w5=normal(6, 4, 16, 1, 1),
    )  # fmt: skip


def run(*words):
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return stopped.value.code


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("int16")
    onnx.save(detector(), made / "net.onnx")
    np.save(made / "images.npy", np.concatenate(images(SHAPE, 9, low=0.0)))
    return made


@pytest.fixture(scope="module")
def climbed(folder):
    """The report of a ladder whose floor int8 misses, and the file that it wrote."""
    out, words = folder / "net.int8.onnx", ["--calibration", folder / "images.npy", "--target", CHIP.name, "--json"]
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("pipeline.commands.quantize.say", said.append)
        patch.setattr("pipeline.quantizing.ladder._recipes", lambda asked: [])
        words += ["--preset", "fast", "--ladder", "--out", out, "--min-sqnr"]
        assert run("quantize", folder / "net.onnx", *words, 1) == 0
        (only,) = json.loads(said[-1])["ladder"]["points"]
        assert run("quantize", folder / "net.onnx", *words, only["sqnr_db"] + 3) == 0
    return json.loads(said[-1]), out


def test_int16_reaches_a_floor_that_int8_misses_and_nothing_leaves_the_npu(climbed, capsys):
    report, out = climbed
    points = report["ladder"]["points"]
    assert report["ladder"]["reached"]
    assert [p["rung"] for p in points if p["kept"]][-1] == "int16"
    assert {p["rung"] for p in points} == {"as asked", "int16"}
    assert {p["added_crossings"] for p in points} == {0}
    assert all(p["added_ms"] > 0 for p in points if p["rung"] == "int16")
    assert run("check", out, "--target", CHIP.name, "--json") == 0
    placed = json.loads(capsys.readouterr().out)
    assert {node["device"] for node in placed["nodes"]} == {"npu"}
    assert placed["partition"]["partitions"] == placed["partition"]["npu_partitions"] == 1


def test_of_those_that_reach_the_floor_alone_the_fastest_is_kept(climbed):
    report, _ = climbed
    kept = [p for p in report["ladder"]["points"] if p["kept"]][-1]
    enough = [p for p in report["ladder"]["points"] if p["sqnr_db"] >= report["ladder"]["points"][0]["sqnr_db"] + 3]
    assert kept["ms"] == min(p["ms"] for p in enough)


def test_the_file_loads_elsewhere_and_computes_as_exactly_there(climbed, folder):
    report, out = climbed
    onnx.checker.check_model(onnx.load(out), full_check=True)
    written = load(out)
    kinds = {t.quantization.dtype for n in view(written).nodes for t in n.outputs if t.quantization is not None}
    assert "int16" in kinds
    session, floating = ort.InferenceSession(out), ort.InferenceSession(folder / "net.onnx")
    for image in images(SHAPE, 2, seed=7, low=0.0):
        exact, found = (s.run(["scores", "boxes"], {"image": image}) for s in (floating, session))
        for real, rounded in zip(exact, found, strict=True):
            assert 10 * np.log10((real**2).sum() / ((real - rounded) ** 2).sum()) > report["sqnr_db"] - 6


def test_a_bundle_of_it_gives_the_engines_bytes(climbed, tmp_path):
    _, out = climbed
    lossy = load(out)
    whole, judge = view(lossy), by_target(CHIP, kernels(CHIP.contract))
    partitions = cut(whole, place(whole, judge, CHIP.partition.max_npu_partitions))
    assert [p.device for p in partitions] == ["npu"]
    about = Use("tiny", ("a",), Preprocess(16, 16, (0, 0, 0), (1, 1, 1)), BoxDecoder(2, 0.5, 0.5, 10), (), {})
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    bundle(tmp_path / "b.npub", about, whole, partitions, onnx_models(lossy, partitions), CHIP, golden=[pixels])
    session, engine = Session(open_bundle(tmp_path / "b.npub"), strict=True), Engine(lossy, CHIP)
    for image in images(SHAPE, 3, seed=8, low=0.0):
        values = engine.enter(image)
        found = session.run(dict(values))
        for unit in engine.units:
            engine.run_unit(unit, values)
        assert {name: v.tobytes() for name, v in found.items()} == {name: values[name].tobytes() for name in found}


def found(floating):
    """Plain ranges of ``floating`` with smooth images, its layers by loss, and how its variants score."""
    seen = smooth(9, seed=1) if floating.graph.input[0].name == "x" else images(SHAPE, 9, low=0.0)
    recipe, scheme = Recipe(range=("mse",)), schemes.of(CHIP)
    parts, _ = split(len(seen), recipe, lambda: seen, lambda places: [seen[p] for p in places])
    taken = calibrate(floating, view(floating), seen, True)
    state = trials.run(floating, taken, parts, recipe, CHIP, scheme).state
    name = floating.graph.input[0].name
    session = ort.InferenceSession(floating.SerializeToString())
    outputs = [o.name for o in floating.graph.output]
    wanted = [dict(zip(outputs, session.run(outputs, {name: image}), strict=True)) for image in seen]
    rows = sensitivities(Engine(state.quantized(), CHIP), state.model, seen[:4])
    return state, rows, lambda made: score(Engine(made.quantized(), CHIP), seen, wanted).sqnr_db


def test_an_operator_computes_in_its_outputs_type_so_readers_are_wide_too():
    state, _, scored = found(net())
    graph, before = view(state.model), scored(state)
    assert with_readers(graph, "d") == {"d", "e"}
    assert with_readers(graph, "b") == {"b", "d", "f"}  # the clamps are inside their convolutions
    alone, both = (varied(state, Variant(wide=w), schemes.of(CHIP)) for w in ({"d"}, with_readers(graph, "d")))
    assert alone.encodings.converted["d"].scale == pytest.approx(state.encodings.activations["d"].scale)
    assert abs(scored(alone) - before) < 0.3  # its reader rounds it to the int8 that it had
    assert scored(both) > before + 0.3


def test_what_int16_would_send_to_the_host_stays_int8():
    floating = detector("HardSwish (a)")  # TensorFlow Lite has no such operator with int16
    state, rows, scored = found(floating)
    offered = dict(rungs.int16(CHIP, schemes.of(CHIP), state, sorted(rows, key=lambda row: row.alone_db)))
    everything = offered["every layer"].wide
    assert everything == state.encodings.activations.keys() - {"b"}
    judge = by_target(CHIP, kernels(CHIP.contract))
    for variant in offered.values():
        made = view(varied(state, variant, schemes.of(CHIP)).quantized())
        assert not [n.name for n in made.nodes if judge(n)]
    assert scored(varied(state, offered["every layer"], schemes.of(CHIP))) > scored(state) + 2


@pytest.mark.parametrize(
    ("name", "wide", "coarse"),
    [("ethos-u55-256", True, False), ("stm32mp2", False, True), ("coral-edgetpu-pcie", False, False)],
)
def test_a_targets_means_are_those_of_its_contract_and_its_rules(name, wide, coarse):
    floating, chip = net(), target(name)
    scheme, recipe, seen = schemes.of(chip), Recipe(range=("minmax",)), smooth(4, seed=1)
    parts, _ = split(len(seen), recipe, lambda: seen, lambda places: [seen[p] for p in places])
    taken = calibrate(floating, view(floating), seen, True)
    state = trials.run(floating, taken, parts, recipe, chip, scheme).state
    means = rungs.means(chip, scheme, state, recipe, climbed=False)
    assert means.target == name
    assert means.wide == (state.encodings.activations.keys() if wide else set())
    assert means.coarse == ({"Conv", "Conv#2", "Conv#3", "Gemm"} if coarse else set())
