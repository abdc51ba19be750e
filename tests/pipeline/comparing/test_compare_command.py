"""``pipeline compare`` of a model's file as people and scripts call it, and its page."""

import json
import re
from functools import partial

import onnx
import pytest
from comparednets import swish_net

KEYS = {
    "name", "title", "kind", "host", "hypothetical", "confidence", "provenance", "coverage", "coverage_possible",
    "partitions", "npu_partitions", "crossings", "latency_ms", "latency_low_ms", "latency_high_ms", "parts_ms",
    "cpu_ms", "speedup", "worth", "fps", "energy_mj", "known_energy_mj", "energy_missing", "fps_per_watt",
    "price_usd", "price_source", "fps_per_dollar", "accuracy", "missing", "notes",
}  # fmt: skip
"""What scripts read of a row."""


@pytest.fixture
def command(tmp_path, monkeypatch, command_line):
    monkeypatch.chdir(tmp_path)
    onnx.save(swish_net(channels=8), "net.onnx")
    return partial(command_line, "compare")


def test_json_has_an_object_per_row(command):
    code, out, err = command("net.onnx", "--targets", "rk3588,hi3559a-nnie", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told.keys() == {"schema", "model", "macs", "operators", "float_accuracy", "notes", "rows"}
    assert (told["schema"], told["model"], told["float_accuracy"]) == (1, "net.onnx", None)
    assert told["macs"] == 64 * 64 * 9 * (3 * 8 + 8 * 8)
    assert all(row.keys() == KEYS for row in told["rows"])
    assert {row["name"] for row in told["rows"] if row["kind"] == "npu"} == {"rk3588", "hi3559a-nnie"}
    assert {row["kind"] for row in told["rows"]} == {"npu", "gpu", "cpu"}
    assert all(row["accuracy"] is None for row in told["rows"])
    unknown = next(row for row in told["rows"] if row["name"] == "hi3559a-nnie")
    assert (unknown["latency_ms"], unknown["fps"], unknown["worth"]) == (None, None, "unknown")


def test_people_read_one_table(command):
    code, out, _ = command("net.onnx", "--targets", "rk3588,edgetpu-ddr")
    assert code == 0
    head, table, legend = out.strip().split("\n\n")
    assert head == "net.onnx: 3 operators, 3,244,032 MACs"
    lines = table.splitlines()
    assert lines[0].split("  ")[0] == "device"
    assert len(lines) == 1 + 3 + len({"cortex-a76", "carmel", "desktop-xeon"})
    assert any(line.startswith("edgetpu-ddr (hypothetical)") for line in lines)
    assert "AP50" not in table
    assert "never measured on a device" in legend


def test_one_host_for_all_has_one_row(command):
    told = json.loads(command("net.onnx", "--targets", "all", "--host", "cortex-a53", "--json")[1])
    assert [row["name"] for row in told["rows"] if row["kind"] == "cpu"] == ["cortex-a53"]
    assert {row["host"] for row in told["rows"]} == {"cortex-a53"}


def test_the_model_is_opened_as_check_opens_it(command):
    opened = onnx.load("net.onnx")
    opened.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    del opened.graph.value_info[:]
    opened.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "H"
    onnx.save(opened, "open.onnx")
    code, _, err = command("open.onnx", "--targets", "rk3588")
    assert code == 1
    assert "--dim H=" in err
    code, out, err = command("open.onnx", "--targets", "rk3588", "--dim", "H=32", "--json")
    assert code == 0, err
    assert json.loads(out)["macs"] == 32 * 64 * 9 * (3 * 8 + 8 * 8)


def test_what_no_host_runs_is_told(command):
    named = onnx.load("net.onnx")
    named.graph.node[1].domain = "my"
    onnx.save(named, "own.onnx")
    told = json.loads(command("own.onnx", "--targets", "rk3588", "--json")[1])
    assert any(note.startswith("No host can run") for note in told["notes"])


def test_own_targets_come_from_their_folder(command, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "chip.yaml").write_text("name: chip\ntitle: mine\ninherit: rk3588\n")
    words = ("net.onnx", "--targets", "chip", "--targets-folder", "mine", "--json")
    assert "chip" in {row["name"] for row in json.loads(command(*words)[1])["rows"]}


def test_the_page_needs_nothing_else(command, tmp_path):
    code, out, err = command("net.onnx", "--html", "page.html")
    assert code == 0, err
    text = (tmp_path / "page.html").read_text()
    assert text.count("<svg") == 2
    assert not re.findall(r"(?:src|href)=\"(?!#)", text)
    assert "http" not in re.sub(r"<li>.*?</li>", "", text)  # sources in notes may name pages
    assert "unknown: its operators are not public" in text
    assert text.count('<tr><td class="number">') == len(out.split("\n\n")[1].splitlines()) - 1
    assert command("net.onnx", "--html", "again.html")[0] == 0
    assert (tmp_path / "again.html").read_text() == text


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 2, "MODEL|CONFIG"),
        (("none.onnx",), 1, "none.onnx: cannot be read: No such file"),
        (("net.onnx", "--targets", ""), 1, "no target is named"),
        (("net.onnx", "--targets", "coral-edgetpu-usb4"), 1, "did you mean coral-edgetpu-usb"),
        (("net.onnx", "--targets", "rk3588,rk3588"), 1, "rk3588 is named twice"),
        (("net.onnx", "--targets", "rk3588", "--host", "cortex-a54"), 1, "did you mean cortex-a"),
        (("net.onnx", "--targets", "rk3588", "--html", "no/page.html"), 1, "no/page.html: cannot be written"),
        (("net.onnx", "--dim", "N=0"), 2, "is not NAME=N"),
        (("net.onnx", "--set", "train.epochs=1"), 2, "only a use case has it"),
        (("net.onnx", "--dry-run"), 2, "only a use case has it"),
        (("none.yaml",), 1, "none.yaml"),
        (("none.yaml", "--dim", "N=1"), 2, "preprocess.size"),
    ],
)
def test_mistakes_are_told_in_one_line(command, words, code, says):
    found, out, err = command(*words)
    assert (found, out) == (code, "")
    assert says in err
    assert "Traceback" not in err
