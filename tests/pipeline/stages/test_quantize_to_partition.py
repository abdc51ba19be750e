"""The stages between training and packaging, on the tiny clip and tiny networks."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import yaml
from smallmodels import run_onnx
from stagechain import STAGES, Stopped, chain, with_quantize

from pipeline import tasks
from pipeline.errors import ModelError
from pipeline.graph.view import view
from pipeline.quantize.sensitivity import Sensitivity
from pipeline.stages import quantize
from runtime.adapters.image import normalize


@pytest.fixture
def tiny(tmp_path, tiny_settings):
    return chain(tmp_path, tiny_settings, "swish")


def test_an_activation_that_the_target_lacks(tiny):
    tiny.run(*STAGES)
    check_quantize(tiny)
    check_export(tiny)
    check_coverage(tiny)
    check_partition(tiny)


def check_quantize(tiny):
    metrics = tiny.results["quantize"].metrics
    assert {"float_ap50", "float_ap", "ap50", "ap", "worst_sqnr_db"} == metrics.keys()
    assert 15 < metrics["worst_sqnr_db"] < 60
    files = {p.name for p in (tiny.folder / "quantize").iterdir()}
    assert files == {"float.onnx", "quantized.onnx", "encodings.json", "errors.json", "recipe.yaml"}
    rows = json.loads((tiny.folder / "quantize" / "errors.json").read_text())
    assert min(r["sqnr_db"] for r in rows) == metrics["worst_sqnr_db"]
    assert "middle.1" in {r["node"] for r in rows}  # the whole network ran on the integer engine, HardSwish too


def check_export(tiny):
    assert tiny.results["export"].metrics["torch_difference"] < 1e-4
    path = tiny.folder / "export" / "model.onnx"
    assert tiny.results["export"].metrics["bytes"] == path.stat().st_size
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    said = {p.key: p.value for p in model.metadata_props}
    assert said["name"] == "tiny"
    assert said["target"] == "coral-edgetpu-usb3"
    assert json.loads(said["labels"]) == ["person"]
    assert json.loads(said["preprocessing"])["width"] == 64
    assert said["provenance.git_commit"] == "def"
    floating = onnx.load(tiny.folder / "quantize" / "float.onnx")
    assert [n.name for n in view(floating).nodes] == [n.name for n in view(model).nodes]
    task = tasks.load(tiny.config)
    image = normalize(next(iter(task.calibration())), task.preprocess)
    exact, coarse = run_onnx(floating, {"image": image}), run_onnx(model, {"image": image})
    for name in ("scores", "boxes"):
        assert np.abs(exact[name] - coarse[name]).max() < 0.2 * np.abs(exact[name]).max()


def coverage_of(tiny):
    nodes = json.loads((tiny.folder / "coverage" / "coverage.json").read_text())["nodes"]
    return {n["name"]: SimpleNamespace(**{**n, "reasons": tuple(n["reasons"])}) for n in nodes}


def check_coverage(tiny):
    placed = coverage_of(tiny)
    devices = {name: p.device for name, p in placed.items()}
    late = {"middle.1", "scores", "boxes.0", "boxes.1"}
    assert {n for n, d in devices.items() if d == "cpu"} >= late
    assert placed["middle.1"].op == "HardSwish"
    assert placed["middle.1"].reasons == ("The NPU must have the operator; it has no HardSwish",)
    after = ("The target takes one NPU partition; it comes after middle.1, which is a fallback",)
    assert placed["scores"].reasons == placed["boxes.0"].reasons == placed["boxes.1"].reasons == after
    cells = 6 * 8
    macs = {
        "stem.0": 12 * 16 * 8 * 27,
        "stem.2": cells * 8 * 9,
        "middle.0": cells * 64,
        "scores": cells * 8,
        "boxes.0": cells * 32,
    }
    assert {n: p.macs for n, p in placed.items() if p.macs} == macs
    metrics = tiny.results["coverage"].metrics
    assert metrics["macs"] == sum(macs.values())
    assert metrics["macs_on_npu"] == pytest.approx(1 - cells * 40 / sum(macs.values()))
    assert metrics["nodes"] == len(placed)
    assert metrics["nodes_on_npu"] == sum(d == "npu" for d in devices.values())
    assert tiny.results["coverage"].gates == ()


def check_partition(tiny):
    plan = json.loads((tiny.folder / "partition" / "plan.json").read_text())
    assert [p["device"] for p in plan["partitions"]] == ["npu", "cpu"]
    first, second = plan["partitions"]
    assert {t["name"] for t in second["inputs"]} == {t["name"] for t in first["outputs"]}
    assert all(t["dtype"] == "int8" for t in first["inputs"] + second["inputs"] + second["outputs"])
    metrics = tiny.results["partition"].metrics
    image, between = 3 * 64 * 48, 6 * 8 * 8 * len(second["inputs"])
    assert (metrics["partitions"], metrics["npu_partitions"]) == (2, 1)
    assert (metrics["crossings"], metrics["crossing_bytes"]) == (1 + len(second["inputs"]), image + between)
    assert metrics["macs_on_npu"] == tiny.results["coverage"].metrics["macs_on_npu"]
    checked = json.loads((tiny.folder / "partition" / "check.json").read_text())
    assert {n["name"]: n["device"] for n in checked["nodes"]} == {
        name: p.device for name, p in coverage_of(tiny).items()
    }
    assert checked["totals"]["latency_ms"] == metrics["ms"] >= metrics["optimal_ms"]
    assert checked["fallbacks"][0]["node"] == "middle.1"
    for piece in plan["partitions"]:
        onnx.checker.check_model(onnx.load(tiny.folder / "partition" / piece["model"]))


def test_the_same_files_every_time(tiny):
    tiny.run(*STAGES)
    first = tiny.files()
    tiny.run(*STAGES)
    again = tiny.files()
    assert first.keys() == again.keys()
    assert [name for name in first if first[name] != again[name]] == []


def test_a_search_that_was_killed_goes_on_and_gives_the_same_files(tiny):
    searching = with_quantize(tiny.config, preset="balanced", budget=1e4)
    tiny.run("quantize", config=searching)
    whole = tiny.files()
    with pytest.raises(KeyboardInterrupt):
        tiny.run("quantize", config=searching, progress=Stopped())
    assert len((tiny.folder / "quantize" / "trials.jsonl").read_text().splitlines()) == 3
    told = Stopped(stop=None)
    tiny.run("quantize", config=searching, progress=told)
    assert told.said[0] == "goes on after 2 trials that were measured before"
    assert len(told.tried) > 3
    assert all("s of 10000 s left)" in said for said in told.said[1:])
    assert tiny.files() == whole
    saved = yaml.safe_load((tiny.folder / "quantize" / "recipe.yaml").read_text())
    assert saved["calibrated"]["images"] == tiny.config.quantize.calibration_images
    assert len(saved["calibrated"]["digest"]) == 64
    assert set(saved["kept"]) < set(told.tried)
    small = Stopped(stop=None)
    tiny.run("quantize", config=with_quantize(tiny.config, preset="balanced", budget=0.0), progress=small)
    assert len(small.tried) == 1
    assert "is too small for one trial" in small.said[-2]
    assert small.said[-1].endswith("a larger quantize.budget tries them")


def test_a_missed_floor_of_ap50_is_climbed_to_and_what_was_tried_is_kept(tiny):
    strict = with_quantize(tiny.config, ladder=True, max_ap50_drop=0.0, range="entropy")
    tiny.run("quantize", "export", "coverage", "partition", config=strict)
    found = json.loads((tiny.folder / "quantize" / "ladder.json").read_text())
    kept = [p for p in found["points"] if p["kept"]]
    metrics = tiny.results["quantize"].metrics
    assert kept[-1]["accuracy"] == metrics["ap50"]
    assert found["float_ap50"] == metrics["float_ap50"]
    assert found["reached"] == (metrics["float_ap50"] - metrics["ap50"] <= 0) == (not tiny.results["quantize"].gates)
    assert kept[-1]["ms"] == pytest.approx(tiny.results["partition"].metrics["ms"])
    assert kept[-1]["crossings"] == tiny.results["partition"].metrics["crossings"]


def floor(config, value):
    return config.model_copy(update={"coverage": config.coverage.model_copy(update={"min_macs_on_npu": value})})


def test_a_network_that_fits_and_gates(tmp_path, tiny_settings):
    tiny = chain(tmp_path, tiny_settings, "plain")
    tiny.run(*STAGES)
    assert tiny.results["coverage"].metrics["macs_on_npu"] == 1.0
    assert tiny.results["partition"].metrics["partitions"] == 1
    assert tiny.results["partition"].metrics["crossings"] == 3  # the image in, boxes and scores out
    strict = floor(tiny.config, 1.0)
    assert tiny.run("coverage", config=strict).gates == ()
    (gate,) = tiny.run("coverage", config=strict, target="conv-only").gates
    assert "first fallback: stem.0 (Conv): Strides must be at most 3; it has strides [4, 4]" in gate


def test_a_missed_floor_is_a_gate_with_the_fallback_that_caused_it(tiny):
    strict = floor(tiny.config, 0.99)
    tiny.run("quantize", "export")
    (gate,) = tiny.run("coverage", config=strict).gates
    assert gate == (
        "coverage.min_macs_on_npu is 99.00%, coral-edgetpu-usb3 takes 96.15% of the MACs (48,000 of 49,920);"
        " first fallback: middle.1 (HardSwish): The NPU must have the operator; it has no HardSwish"
    )


def test_the_configuration_may_allow_more_partitions(tiny):
    policy = tiny.config.partition.model_copy(update={"max_npu_partitions": 2})
    tiny.run("quantize", "export")
    tiny.run("coverage", "partition", config=tiny.config.model_copy(update={"partition": policy}))
    assert tiny.results["coverage"].metrics["macs_on_npu"] == 1.0
    assert tiny.results["partition"].metrics["npu_partitions"] == 2


def test_damaged_files_of_earlier_stages_are_named(tiny):
    weights = tiny.folder / "train" / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[: len(good) // 2])
    with pytest.raises(ModelError, match=r"model\.safetensors: cannot be read"):
        tiny.run("quantize")
    weights.write_bytes(good)
    tiny.run("quantize", "export", "coverage")
    for name, content, stage in (
        ("quantize/quantized.onnx", "{", "export"), ("quantize/float.onnx", "", "export"),
        ("export/model.onnx", "x", "coverage"), ("export/model.onnx", "x", "partition"),
    ):  # fmt: skip
        path = tiny.folder / name
        kept = path.read_bytes()
        path.write_text(content)
        with pytest.raises(ModelError) as error:
            tiny.run(stage)
        assert str(path) in str(error.value)
        path.write_bytes(kept)


def with_partition(config, **changes):
    return config.model_copy(update={"partition": config.partition.model_copy(update=changes)})


def test_the_least_time_may_be_on_the_cpu_which_the_floor_then_refuses(tiny):
    tiny.run("quantize", "export", "coverage")
    least = with_partition(tiny.config, objective="latency")
    found = tiny.run("partition", config=least)
    assert found.gates == ()
    assert found.metrics["npu_partitions"] == 0
    assert found.metrics["ms"] == pytest.approx(found.metrics["optimal_ms"])
    assert found.metrics["ms"] == pytest.approx(found.metrics["cpu_ms"])
    plan = json.loads((tiny.folder / "partition" / "plan.json").read_text())
    assert [p["device"] for p in plan["partitions"]] == ["cpu"]
    (gate,) = tiny.run("partition", config=floor(least, 0.5)).gates
    assert "the NPU takes up to" in gate


def test_ceilings_and_demands_of_the_configuration(tiny):
    tiny.run("quantize", "export", "coverage")
    found = tiny.run("partition", config=with_partition(tiny.config, max_ms=1e-3, max_crossings=0, max_mb=1e9))
    assert [gate.partition(" ")[0] for gate in found.gates] == ["max_ms", "max_crossings"]
    placed = tiny.run("partition", config=with_partition(tiny.config, place={"middle*": "cpu"}))
    assert placed.metrics["macs_on_npu"] < found.metrics["macs_on_npu"]
    with pytest.raises(ModelError, match=r"middle\.1: HardSwish cannot be placed on the NPU"):
        tiny.run("partition", config=with_partition(tiny.config, place={"middle.1": "npu"}))


def test_too_large_a_drop_is_a_gate_with_the_worst_layer():
    layer = Sensitivity("stem", "Conv", "t", "npu", (), 7.25, 9.0, 0.9, 1.0, 0.1, "int8", 0.0, -1.0, 1.0, ())
    assert quantize._gates(0.01, 0.01, layer) == ()
    (gate,) = quantize._gates(0.03, 0.01, layer)
    assert gate == "quantize.max_ap50_drop is 0.0100, int8 costs 0.0300 of AP50; worst layer: stem (Conv), 7.2 dB"
