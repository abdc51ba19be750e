"""``pipeline quantize`` of networks with several inputs: two cameras and a vector."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from smallmodels import model, target

from pipeline.cli import main
from pipeline.errors import DataError
from pipeline.graph.model import load
from pipeline.quantize.engine import Engine
from pipeline.quantize.prepare import prepare
from pipeline.quantize.records import Records
from pipeline.quantize.samples import by_name

sys.path.append(str(Path(__file__).parents[1] / "quantize"))
from enginenets import normal

SHAPES = {"left": (1, 3, 12, 12), "right": (1, 3, 8, 8), "state": (1, 5)}


def rig():
    """Two cameras of unlike size, each with its own convolutions, and five numbers of the vehicle's state."""
    return model(
        "g (float[1,3,12,12] left, float[1,3,8,8] right, float[1,5] state) => (float[1,4] steer, float[1,2] stop) {"
        " a = Conv <pads = [1,1,1,1]> (left, w1, b1) \n b = Relu (a) \n p = GlobalAveragePool (b) \n f = Flatten (p)"
        " c = Conv <pads = [1,1,1,1]> (right, w2) \n d = Relu (c) \n q = GlobalAveragePool (d) \n h = Flatten (q)"
        " s = Gemm <transB = 1> (state, w3, b3) \n t = Relu (s) \n j = Concat <axis = 1> (f, h, t)"
        " steer = Gemm <transB = 1> (j, w4) \n stop = Gemm <transB = 1> (j, w5) }",
        w1=normal(1, 8, 3, 3, 3, scale=0.4), b1=normal(2, 8), w2=normal(3, 6, 3, 3, 3, scale=0.4),
        w3=normal(4, 4, 5), b3=normal(5, 4), w4=normal(6, 4, 18), w5=normal(7, 2, 18),
    )  # fmt: skip


def record(seed):
    generator = np.random.default_rng(seed)
    level = generator.uniform(0.2, 1)
    return {name: generator.uniform(-level, 1, shape).astype(np.float32) for name, shape in SHAPES.items()}


@pytest.fixture
def folder(tmp_path):
    onnx.save(rig(), tmp_path / "rig.onnx")
    (tmp_path / "drive").mkdir()
    for seed in range(8):
        np.savez(tmp_path / "drive" / f"{seed}.npz", **record(seed))
    stack = {name: np.concatenate([record(seed)[name] for seed in range(8, 12)]) for name in SHAPES}
    np.savez(tmp_path / "drive" / "more.npz", **stack)
    return tmp_path


def quantize(folder, *words, calibration="drive", name="ethos-u55-256"):
    words = ["quantize", folder / "rig.onnx", "--calibration", folder / calibration, "--target", name, *words]
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return stopped.value.code


@pytest.mark.parametrize("words", [("--preset", "fast"), ("--preset", "balanced")], ids=lambda words: words[1])
def test_several_inputs_are_quantized_scored_and_written(folder, capsys, words):
    assert quantize(folder, *words, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["calibration"]["images"] == 12
    assert report["outputs"].keys() == {"steer", "stop"}
    assert report["sqnr_db"] > 30
    assert report["top1_agreement"] is not None
    assert {"b", "d", "t", "steer", "stop"} <= {row["tensor"] for row in report["layers"]}
    onnx.checker.check_model(onnx.load(folder / "rig.int8.onnx"), full_check=True)
    session, floating = (ort.InferenceSession(folder / f"{name}.onnx") for name in ("rig.int8", "rig"))
    assert {i.name: tuple(i.shape) for i in session.get_inputs()} == SHAPES
    signal = noise = 0.0
    for seed in range(20, 24):
        exact, found = (s.run(["steer", "stop"], record(seed)) for s in (floating, session))
        signal += sum(float((a**2).sum()) for a in exact)
        noise += sum(float(((a - b) ** 2).sum()) for a, b in zip(exact, found, strict=True))
    assert 10 * np.log10(signal / noise) > 25
    engine = Engine(load(folder / "rig.int8.onnx"), target("ethos-u55-256"))
    own, other = engine.run(record(30)), dict(zip(["steer", "stop"], session.run(["steer", "stop"], record(30))))  # noqa: B905
    assert all(np.abs(own[name] - other[name]).max() < 0.1 for name in own)


def test_the_ladder_and_an_explained_layer(folder, capsys, monkeypatch):
    monkeypatch.setattr("pipeline.quantizing.ladder._recipes", lambda asked: [])
    words = ["--preset", "fast", "--ladder", "--min-sqnr"]
    assert quantize(folder, *words, 1, "--json") == 0
    (only,) = json.loads(capsys.readouterr().out)["ladder"]["points"]
    assert quantize(folder, *words, only["sqnr_db"] + 3, "--json") == 0
    points = json.loads(capsys.readouterr().out)["ladder"]["points"]
    assert any(p["kept"] and p["rung"] == "int16" for p in points)
    assert quantize(folder, "--preset", "fast", "--explain", "Conv#2") == 0
    assert "Conv#2 (Conv) gives d" in capsys.readouterr().out


def spoil(path, case):
    """The one file ``path`` with something wrong."""
    found = record(3)
    if case == "missing":
        del found["state"]
    elif case == "extra":
        found["rear"] = found["left"]
    elif case == "shape":
        found["right"] = found["left"]
    elif case == "type":
        found["state"] = found["state"].astype(np.float64)
    elif case == "NaN":
        found["left"][0, 0, 0, 0] = np.nan
    elif case == "counts":
        found["left"] = np.concatenate([found["left"], found["left"]])
    elif case == "constant":
        found = {name: np.ones_like(values) for name, values in found.items()}
    if case == "one input":
        np.save(path.with_suffix(".npy"), found["left"])
    elif case == "no archive":
        path.write_bytes(b"PK\x03\x04 and nothing")
    elif case == "damaged":
        np.savez_compressed(path, **found)
        data = bytearray(path.read_bytes())
        data[60:200] = bytes(140)
        path.write_bytes(data)
    else:
        np.savez(path, **found)


WRONG = {
    "missing": "holds left, right, lacks state (one array each: left, right, state)",
    "extra": "holds left, rear, right, state, has rear, which no input is called",
    "shape": "holds right as [1, 3, 12, 12], the model takes [1, 3, 8, 8]",
    "type": "holds state as float64, the model takes float32",
    "NaN": "left of record 0 holds 1 values that are not finite",
    "counts": "holds 2 of left, 1 of right, 1 of state",
    "constant": "each of the 1 calibration images is one value throughout",
    "one input": "feeds one input, the model has 3: left, right, state (give .npz files",
    "no archive": "is not a numpy file of numbers",
    "damaged": "is not a numpy file of numbers",
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_the_inputs_is_named(folder, capsys, case):
    (folder / "wrong").mkdir()
    spoil(folder / "wrong" / "a.npz", case)
    assert quantize(folder, "--preset", "fast", calibration="wrong") == 1
    said = capsys.readouterr().err
    assert WRONG[case] in said
    assert "Traceback" not in said


def test_records_are_read_in_order_and_evenly_limited(folder):
    whole, some = Records(folder / "drive", SHAPES), Records(folder / "drive", SHAPES, 3)
    assert (len(whole), len(some)) == (12, 3)
    for index in (0, 7, 9):
        assert all(np.array_equal(whole.image(index)[name], record(index)[name]) for name in SHAPES)
    assert [r["state"].tolist() for r in some] == [record(seed)["state"].tolist() for seed in (0, 4, 8)]
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="holds no picture and no array"):
        Records(folder / "empty", SHAPES)


def test_an_input_that_nothing_reads_and_a_model_without_any(tmp_path, capsys):
    onnx.save(model("g (float[1,2] x, float[1,3] z) => (float[1,2] y) { y = Relu (x) }"), tmp_path / "rig.onnx")
    assert quantize(tmp_path) == 1
    assert "z: no operator reads this input (export the model without it)" in capsys.readouterr().err
    alone = model("g () => (float[1,2] y) { y = Relu (w) }", w=np.float32([[1, 2]]))
    onnx.save(alone, tmp_path / "rig.onnx")
    assert quantize(tmp_path) == 1
    assert "has no input" in capsys.readouterr().err


def test_open_batches_of_all_inputs_are_fixed(tmp_path):
    made = model(
        "g (float[N,3,4,4] x, float[N,2] z) => (float[N,3,4,4] y, float[N,2] u) { y = Relu (x)\n u = Relu (z) }"
    )
    onnx.save(made, tmp_path / "n.onnx")
    found = prepare(tmp_path / "n.onnx")
    assert found.inputs == {"x": (1, 3, 4, 4), "z": (1, 2)}
    assert len([note for note in found.notes if "was fixed to" in note]) == 2


def test_a_sample_is_by_the_names_of_the_inputs():
    image = np.zeros((1, 2), np.float32)
    assert by_name(image, ["x"]) == {"x": image}
    assert by_name({"x": image}, ["x"]) == {"x": image}
    for given, names in ((image, ["x", "z"]), ({"x": image}, ["z"]), ({"x": image}, ["x", "z"])):
        with pytest.raises(ValueError, match="the network's inputs are"):
            by_name(given, names)
