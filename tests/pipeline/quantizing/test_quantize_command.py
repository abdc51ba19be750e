"""``pipeline quantize`` as users and scripts run it."""

import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import yaml
from PIL import Image
from smallmodels import images, quantized

from pipeline.cli import main
from pipeline.quantize import trials

sys.path.append(str(Path(__file__).parents[1] / "quantize"))
from enginenets import SHAPE, net, smooth
from test_apart import DECODED, head
from test_apart import SHAPE as OF_HEAD


@pytest.fixture
def folder(tmp_path):
    onnx.save(net(), tmp_path / "net.onnx")
    np.save(tmp_path / "images.npy", np.concatenate(smooth(9, seed=1)))
    return tmp_path


def run(*words):
    with pytest.raises(SystemExit) as stopped:
        main([str(w) for w in words])
    return stopped.value.code


def quantize(folder, *words, target="kirin-970", calibration="images.npy", model="net.onnx"):
    return run("quantize", folder / model, "--calibration", folder / calibration, "--target", target, *words)


@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_a_model_and_images_become_a_quantized_file(folder, capsys, preset):
    assert quantize(folder, "--preset", preset, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    path = folder / "net.int8.onnx"
    assert report["out"] == path.as_posix()
    assert report["schema"] == 1
    assert report["sqnr_db"] > 20
    assert (report["held_out"], report["judged_images"]) == (True, 1)
    assert set(report["outputs"]) == {"y"}
    assert [row["tensor"] for row in report["layers"]] == ["b", "d", "e", "f", "p", "q", "y"]
    assert {"alone_db", "sqnr_db", "cosine", "channels", "device", "ms"} <= report["layers"][0].keys()
    assert bool(report["trials"]) == (preset != "fast")
    assert (report["plot"], report["conversions"]) == (None, [])
    assert {"dtype", "why", "next"} <= report["layers"][0].keys()
    session, floating = ort.InferenceSession(path), ort.InferenceSession(folder / "net.onnx")
    image = smooth(1, seed=5)[0]
    exact, found = (s.run(None, {"x": image})[0] for s in (floating, session))
    assert np.abs(exact - found).max() < 0.2 * np.abs(exact).max()
    scales = json.loads((folder / "net.int8.encodings.json").read_text())
    assert {len(w["scales"]) for w in scales["weights"].values()} == {1}  # this target takes no scale per channel
    recipe = yaml.safe_load((folder / "net.int8.recipe.yaml").read_text())
    assert recipe["calibrated"] == report["calibration"] == {"images": 9, "digest": recipe["calibrated"]["digest"]}
    assert recipe["metrics"]["sqnr_db"] == report["sqnr_db"]
    assert recipe["kept"] == [trial["what"] for trial in report["trials"] if trial["kept"]]


def test_a_saved_recipe_and_saved_encodings_give_the_same_file_again(folder, capsys):
    out = folder / "first.onnx"
    assert quantize(folder, "--out", out) == 0
    said = capsys.readouterr().out
    assert "kept" in said
    assert "loses most alone" in said
    assert quantize(folder, "--out", folder / "again.onnx", "--recipe", folder / "first.recipe.yaml") == 0
    assert (folder / "again.onnx").read_bytes() == out.read_bytes()
    assert quantize(folder, "--out", folder / "plain.onnx", "--preset", "fast") == 0
    words = ["--preset", "fast", "--encodings", folder / "plain.encodings.json"]
    assert quantize(folder, "--out", folder / "taken.onnx", *words) == 0
    assert (folder / "taken.onnx").read_bytes() == (folder / "plain.onnx").read_bytes()


def test_parts_of_an_output_have_figures_of_their_own(folder, capsys):
    onnx.save(head(DECODED), folder / "head.onnx")
    np.save(folder / "head.npy", np.concatenate(images(OF_HEAD, count=6)))
    words = ["--preset", "fast", "--out", folder / "h.onnx"]
    assert quantize(folder, *words, "--json", calibration="head.npy", model="head.onnx", target="ethos-u55-256") == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["outputs"]) == {"y"}
    parts = report["parts"]["y"]
    assert report["sqnr_db"] == pytest.approx((parts["k"] + parts["p"]) / 2)
    saved = yaml.safe_load((folder / "h.recipe.yaml").read_text())["metrics"]
    assert saved == {
        "sqnr_db": report["sqnr_db"], "sqnr_db.y": report["outputs"]["y"]["sqnr_db"],
        "sqnr_db.y.k": parts["k"], "sqnr_db.y.p": parts["p"],
    }  # fmt: skip
    assert quantize(folder, *words, calibration="head.npy", model="head.onnx", target="ethos-u55-256") == 0
    assert f"(k {parts['k']:.2f}, p {parts['p']:.2f})" in capsys.readouterr().out


def test_encodings_of_another_tool_are_taken(folder, capsys):
    theirs = Path(__file__).parents[1] / "quantize" / "aimet-1.0.0.json"
    assert quantize(folder, "--encodings", theirs, "--json", target="ethos-u55-256") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["trials"] == []
    assert report["sqnr_db"] > 20
    assert quantize(folder, "--encodings", theirs) == 1
    assert "has a scale per channel; the target takes one per tensor" in capsys.readouterr().err


def test_encodings_for_another_tool_come_with_the_float_model_that_they_are_of(folder, capsys):
    exported = folder / "net.encodings"
    assert quantize(folder, "--export-encodings", exported, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["exported_encodings"] == exported.as_posix()
    assert any(trial["kept"] for trial in report["trials"][1:])  # the weights are not those of the file any more
    words = ["--encodings", exported, "--out", folder / "again.onnx"]
    assert quantize(folder, *words, model="net.float.onnx") == 0
    assert (folder / "again.onnx").read_bytes() == (folder / "net.int8.onnx").read_bytes()
    assert quantize(folder, "--preset", "fast", "--export-encodings", folder / "no" / "net.encodings") == 1
    assert "no/net.encodings: cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("written", ["float", "out", "given"])
def test_nothing_that_is_read_is_written_over(folder, capsys, written):
    ours = folder / "net.float.onnx"
    ours.write_bytes((folder / "net.onnx").read_bytes())
    words = {
        "float": ["--export-encodings", folder / "net.encodings"],  # its float model would be ours
        "out": ["--out", ours],
        "given": ["--encodings", folder / "theirs", "--export-encodings", folder / "theirs"],
    }[written]
    assert quantize(folder, *words, model="net.float.onnx") == 2
    said = " ".join(word for word in capsys.readouterr().err.split() if word != "│")
    assert "is read, and would be written over" in said
    assert ours.read_bytes() == (folder / "net.onnx").read_bytes()


def test_encodings_that_are_given_leave_a_stopped_search_alone(folder, capsys):
    assert quantize(folder, "--out", folder / "a.onnx", "--preset", "fast") == 0
    assert quantize(folder, "--budget", "0") == 0
    before = (folder / "net.int8.trials.jsonl").read_bytes()
    assert quantize(folder, "--encodings", folder / "a.encodings.json") == 0
    assert (folder / "net.int8.trials.jsonl").read_bytes() == before
    assert "goes on after" not in "".join(capsys.readouterr())


def test_a_search_that_its_budget_stopped_goes_on(folder, capsys):
    assert quantize(folder, "--out", folder / "whole.onnx") == 0
    capsys.readouterr()
    assert quantize(folder, "--budget", "0", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["trials"]) == 1
    assert len(report["untried"]) >= 2
    assert any("the budget of 0 s left out" in note for note in report["notes"])
    assert any("the budget of 0 s is too small for one trial" in note for note in report["notes"])
    assert (folder / "net.int8.trials.jsonl").exists()
    assert quantize(folder) == 0
    assert "goes on after 1 trial that" in "".join(capsys.readouterr())
    assert not (folder / "net.int8.trials.jsonl").exists()
    assert (folder / "net.int8.onnx").read_bytes() == (folder / "whole.onnx").read_bytes()


def test_a_search_that_is_interrupted_says_how_to_go_on(folder, capsys, monkeypatch):
    scored = trials.score
    calls = iter(range(3))

    def score(*given):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return scored(*given)

    monkeypatch.setattr(trials, "score", score)
    assert quantize(folder) == 130
    assert "interrupted; continue with: the same command" in capsys.readouterr().err
    monkeypatch.undo()
    assert quantize(folder) == 0
    assert "goes on after 2 trials" in "".join(capsys.readouterr())


def test_pictures_an_explained_layer_and_a_gate(folder, capsys):
    (folder / "pictures").mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 30, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{index}.png")
    words = ["--mean", "0.5,0.5,0.5", "--std", "0.25", "--fit", "crop", "--preset", "fast"]
    assert quantize(folder, *words, "--explain", "Conv#2", calibration="pictures") == 0
    said = capsys.readouterr().out
    assert said.startswith("  calibrating") or "Conv#2 (Conv) gives d" in said
    assert re.search(r"placement   on the [NC]PU of kirin-970", said)
    assert re.search(r"cost        \S+ ms of \S+ ms in all, estimated.*\d million MACs, .*moved, bound by \w+", said)
    assert "next  " in said
    assert quantize(folder, *words, "--min-sqnr", "90", calibration="pictures") == 3
    captured = capsys.readouterr()
    assert "gate missed: the outputs have" in captured.err
    assert "loses most" in captured.err
    assert "next:" in captured.err


def test_a_symmetric_target_gets_symmetric_encodings(folder, capsys):
    assert quantize(folder, "--preset", "fast", target="jetson-xavier-nx-dla") == 0
    scales = json.loads((folder / "net.int8.encodings.json").read_text())["activations"]
    assert {e["zero_point"] for e in scales.values()} == {0}
    assert scales["e"]["scale"] == scales["b"]["scale"]  # both are added
    assert quantize(folder, "--preset", "fast", "--out", folder / "other.onnx") == 0
    words = ["--encodings", folder / "other.encodings.json"]
    assert quantize(folder, *words, target="jetson-xavier-nx-dla") == 1
    assert "the target's activations are symmetric" in capsys.readouterr().err
    assert quantize(folder, "--out", folder / "channels.onnx", "--preset", "fast", target="ethos-u55-256") == 0
    assert quantize(folder, "--encodings", folder / "channels.encodings.json") == 1
    assert "has a scale per channel; the target takes one per tensor" in capsys.readouterr().err


def test_an_operator_without_an_integer_form_is_a_stated_fallback(folder, capsys):
    onnx.save(net("Erf (a)"), folder / "net.onnx")
    assert quantize(folder, "--preset", "fast", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert any("Erf has no integer form here: " in note for note in report["notes"])
    row = next(row for row in report["layers"] if row["node"] == "Erf")
    assert row["engine"] == "cpu"


def test_the_ladder_is_climbed_to_a_floor_or_ends_with_3(folder, capsys):
    words = ["--preset", "fast", "--ladder", "--min-sqnr"]
    assert quantize(folder, *words, "1", "--json", target="stm32mp2") == 0
    report = json.loads(capsys.readouterr().out)["ladder"]
    assert (report["schema"], report["reached"], len(report["points"])) == (1, True, 1)
    assert (folder / "net.int8.ladder.svg").exists()
    assert quantize(folder, *words, "190", target="stm32mp2") == 3
    said = capsys.readouterr().out
    assert "the floor of 190 dB is not reached" in said
    assert "net.int8.recipe.yaml, net.int8.ladder.svg" in said
    picture = ElementTree.parse(folder / "net.int8.ladder.svg")
    words = {" ".join("".join(text.itertext()).split()) for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {"SQNR, dB", "Pareto front", "floor, 190 dB", "int8", "cpu", "kept"} <= words
    assert "* kept" in said
    kept = yaml.safe_load((folder / "net.int8.recipe.yaml").read_text())["kept"]
    assert any(name.startswith("cpu: ") for name in kept)
    assert "and all after it" in said
    written = onnx.load(folder / "net.int8.onnx")
    kinds = {i.name: i.data_type for i in written.graph.initializer if "_" not in i.name}
    assert onnx.TensorProto.FLOAT in {kind for name, kind in kinds.items() if name.startswith("w")}
    assert quantize(folder, "--encodings", folder / "net.int8.encodings.json", target="stm32mp2") == 0


def test_the_ladder_is_climbed_until_the_figure_that_is_told_reaches_the_floor(folder, capsys):
    def climbed(floor):
        words = ["--preset", "fast", "--ladder", "--min-sqnr", floor, "--json"]
        assert quantize(folder, *words, target="stm32mp2") == 0
        return json.loads(capsys.readouterr().out)

    first = climbed(1)
    judged, told = first["ladder"]["points"][0]["sqnr_db"], first["sqnr_db"]
    assert told < judged
    floor = (told + judged) / 2
    report = climbed(floor)
    assert len(report["ladder"]["points"]) > 1
    assert report["sqnr_db"] >= floor
    assert (report["ladder"]["reached"], report["held_out"]) == (True, False)


def spoilt(case):
    """``net`` with something that cannot be seen from its accuracy alone, and what is said of it."""
    made = net()
    kept = {i.name: i for i in made.graph.initializer}
    values = onnx.numpy_helper.to_array(kept["w1"]).copy()
    if case == "dead channel":
        values[3] = 0
    elif case == "bias":
        values *= np.float32(1e-7)
    kept["w1"].CopyFrom(onnx.numpy_helper.from_array(values, "w1"))
    if case == "never fires":
        kept["b1"].CopyFrom(onnx.numpy_helper.from_array(np.full(12, -90, np.float32), "b1"))
    return made


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("dead channel", "Conv has 1 of 12 output channels without weights: 3; they cost time"),
        ("bias", "Conv has 12 channels whose bias is so large beside their weights"),
        ("never fires", "b never fires: all its values were 0"),
    ],
)
def test_what_is_odd_is_told_before_the_search(folder, capsys, case, said):
    onnx.save(spoilt(case), folder / "net.onnx")
    assert quantize(folder, "--preset", "balanced", "--json", target="ethos-u55-256") == 0
    told = capsys.readouterr()
    lines = [line.strip() for line in told.err.splitlines()]
    first = next(index for index, line in enumerate(lines) if line.startswith("range "))
    assert any(line.startswith(f"before the search: {said}") for line in lines[:first])
    assert not any(line.startswith("before the search") for line in lines[first:])
    assert any(note.startswith(said.split(" ", 1)[0]) for note in json.loads(told.out)["notes"])


def test_what_is_odd_is_a_note_alone_where_nothing_is_searched(folder, capsys):
    onnx.save(spoilt("dead channel"), folder / "net.onnx")
    assert quantize(folder, "--preset", "fast", "--json") == 0
    told = capsys.readouterr()
    assert "before the search" not in told.err
    assert any("without weights" in note for note in json.loads(told.out)["notes"])


ERRORS = {
    "quantized": "is quantized already",
    "no images": "is no folder and no file",
    "another shape": "the model takes [1, 3, 12, 12]",
    "constant": "one value throughout",
    "NaN weight": "the weight holds 1 value that is not finite",
    "another target's recipe": "is a recipe for rk3588",
    "unknown layer": "is no layer of the quantized model",
    "nowhere": "cannot be written",
    "a folder in the way": "net.int8.encodings.json: cannot be written: Is a directory",
    "an empty stack": "images.npy: holds a stack of no images",
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_is_wrong_is_one_line_and_exit_code_1(folder, capsys, case):
    words = ["--preset", "fast"]
    match case:
        case "quantized":
            onnx.save(quantized(net(), smooth(2, 1))[0], folder / "net.onnx")
        case "no images":
            (folder / "images.npy").unlink()
        case "another shape":
            np.save(folder / "images.npy", np.zeros((2, 3, 9, 9), np.float32))
        case "constant":
            np.save(folder / "images.npy", np.ones((2, *SHAPE[1:]), np.float32))
        case "NaN weight":
            made = net()
            bias = next(i for i in made.graph.initializer if i.name == "b1")
            bias.raw_data = np.float32([np.nan, *range(11)]).tobytes()
            onnx.save(made, folder / "net.onnx")
        case "another target's recipe":
            (folder / "r.yaml").write_text("target: rk3588")
            words = ["--recipe", folder / "r.yaml"]
        case "unknown layer":
            words += ["--explain", "conv"]
        case "a folder in the way":
            (folder / "net.int8.encodings.json").mkdir()
        case "an empty stack":
            np.save(folder / "images.npy", np.zeros((0, *SHAPE[1:]), np.float32))
        case "nowhere":
            words += ["--out", folder / "no" / "where.onnx"]
    assert quantize(folder, *words) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert ERRORS[case] in line


USAGE = {
    ("--mean", "a"): "a is neither one number nor three",
    ("--mean", "nan"): "nan is neither one number nor three",
    ("--min-sqnr", "nan"): "is no number",
    ("--std", "0"): "0 divides by 0",
    ("--size", "8"): "8 is not WIDTHxHEIGHT",
    ("--preset", "slow"): "'slow' is not one of",
    ("--preset", "fast", "--recipe", "r"): "--recipe and --preset exclude each other",
    ("--export-encodings", "net.onnx"): "net.onnx may be another file of this model",
    ("--ladder",): "give --min-sqnr too",
    ("--ladder", "--min-sqnr", "9", "--encodings", "e"): "--encodings chooses nothing, --ladder does",
}


@pytest.mark.parametrize("words", USAGE)
def test_wrong_usage(folder, capsys, words):
    assert quantize(folder, *words) == 2
    said = " ".join(word for word in capsys.readouterr().err.split() if word != "│")
    assert USAGE[words] in said
