"""``pipeline check`` as people and scripts call it."""

import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
from checkednets import swish_net
from smallmodels import images, quantized, raw

KEYS = {
    "": {"schema", "model", "target", "nodes", "fallbacks", "partition", "totals"},
    "nodes": {"name", "op", "device", "reasons", "macs", "ms", "mj", "bytes"},
    "fallbacks": {"node", "delta_ms", "delta_mb", "delta_mj"},
    "rewrites": {"rule", "class", "nodes", "delta_ms", "delta_macs_on_npu", "delta_mj"},
    "partition": {"optimal_ms", "greedy_ms", "gap_percent", "lower_bound_ms", "partitions", "crossings"},
    "totals": {
        "latency_ms", "latency_low_ms", "latency_high_ms", "energy_mj", "macs", "macs_on_npu", "nodes_on_npu",
        "crossing_bytes", "provenance",
    },
}  # fmt: skip
"""What scripts read."""


@pytest.fixture
def command(tmp_path, monkeypatch, command_line):
    monkeypatch.chdir(tmp_path)
    onnx.save(swish_net(), "net.onnx")
    return partial(command_line, "check")


def test_json_has_what_scripts_read(command):
    code, out, err = command("net.onnx", "--target", "coral-edgetpu-pcie", "--json", "--what-if")
    assert code == 0, err
    told = json.loads(out)
    assert told.keys() >= KEYS[""] | {"rewrites"}
    for part in ("nodes", "fallbacks", "rewrites"):
        assert told[part]
        assert all(entry.keys() >= KEYS[part] for entry in told[part])
    assert told["partition"].keys() >= KEYS["partition"]
    assert told["totals"].keys() >= KEYS["totals"]
    assert (told["schema"], told["model"], told["target"]) == (1, "net.onnx", "coral-edgetpu-pcie")
    assert told["totals"]["latency_low_ms"] <= told["totals"]["latency_ms"] <= told["totals"]["latency_high_ms"]
    assert "rewrites" not in json.loads(command("net.onnx", "--target", "coral-edgetpu-pcie", "--json")[1])


def test_people_read_placement_price_and_proof(command):
    code, out, _ = command("net.onnx", "--target", "ethos-u65-256", "--nodes", "--what-if")
    assert code == 0
    assert out.startswith("net.onnx on ethos-u65-256, host cortex-a55\n")
    for part in (
        "(proven, lower bound",
        "greedy",
        "all on the CPU",
        "fallback",
        "rewrites, best first",
        "over the link",
    ):
        assert part in out


def test_quantized_models_are_taken_too(command):
    model, _ = quantized(swish_net(), images((1, 3, 16, 16)))
    onnx.save(model, "quantized.onnx")
    code, out, _ = command("quantized.onnx", "--target", "coral-edgetpu-pcie", "--what-if", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["rewrites"] == []
    assert any("is quantized" in note for note in told["notes"])


def test_a_missed_gate_ends_with_3(command):
    code, out, err = command("net.onnx", "--target", "coral-edgetpu-pcie", "--max-ms", "0.0001", "--json")
    assert code == 3
    assert "max_ms is 0.0001" in err
    assert json.loads(out)["gates_missed"]


def test_exact_rewrites_are_written(command, tmp_path):
    words = (
        "net.onnx",
        "--target",
        "coral-edgetpu-pcie",
        "--host",
        "cortex-a53",
        "--apply",
        "exact",
        "--out",
        "new.onnx",
    )
    code, out, err = command(*words)
    assert code == 0, err
    assert out.startswith("new.onnx on")
    onnx.checker.check_model(onnx.load(tmp_path / "new.onnx"))


def test_fallbacks_are_written_as_models(command, tmp_path):
    code, out, err = command("net.onnx", "--target", "coral-edgetpu-pcie", "--save-fallbacks", "out", "--json")
    assert code == 0, err
    told = json.loads(out)
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(written) == len(told["fallbacks"]) > 2
    for folder in written:
        session = onnxruntime.InferenceSession(tmp_path / "out" / folder / "model.onnx")
        assert session.run(None, dict(np.load(tmp_path / "out" / folder / "inputs.npz")))
    code, out, err = command("net.onnx", "--target", "coral-edgetpu-pcie", "--save-fallbacks", "out")
    assert (code, out) == (1, "")
    assert "out" in err


def test_what_no_host_can_run_is_told(command):
    text = "g (float[1,4] x) => (float[1,4] y) { a = my.Odd (x) y = Relu (a) }"
    onnx.save(raw(text), "odd.onnx")
    code, out, err = command("odd.onnx", "--target", "rk3588")
    assert code == 1
    assert "Odd" in err
    onnx.save(raw("g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }"), "open.onnx")
    code, out, _ = command("open.onnx", "--target", "rk3588", "--dim", "N=3", "--json")
    assert code == 0
    assert json.loads(out)["nodes"][0]["device"] == "npu"


def test_demands_and_own_targets(command, tmp_path):
    (tmp_path / "chip.yaml").write_text("name: chip\ntitle: mine\ninherit: rk3588\n")
    code, out, _ = command("net.onnx", "--target", "chip.yaml", "--place", "Conv*=cpu", "--json")
    assert code == 0
    assert {n["device"] for n in json.loads(out)["nodes"] if n["op"] == "Conv"} == {"cpu"}
    (tmp_path / "targets").mkdir()
    (tmp_path / "chip.yaml").rename(tmp_path / "targets" / "chip.yaml")
    assert command("net.onnx", "--target", "chip")[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("none.onnx", "--target", "rk3588"), 1, "none.onnx: cannot be read: No such file"),
        (("net.onnx", "--target", "rk3589"), 1, "did you mean rk3588?"),
        (("net.onnx", "--target", "none.yaml"), 1, "none.yaml: does not exist"),
        (("net.onnx", "--target", "rk3588", "--host", "cortex-a54"), 1, "did you mean cortex-a"),
        (("net.onnx",), 2, "--target"),
        (("net.onnx", "--target", "rk3588", "--apply", "all", "--out", "x"), 2, "all cannot be applied"),
        (("net.onnx", "--target", "rk3588", "--apply", "exact"), 2, "--apply and --out go together"),
        (("net.onnx", "--target", "rk3588", "--apply", "exact", "--out", "no/x"), 1, "no/x: cannot be written"),
        (("net.onnx", "--target", "rk3588", "--place", "Conv"), 2, "is not NAME=npu or NAME=cpu"),
        (("net.onnx", "--target", "rk3588", "--dim", "N=0"), 2, "is not NAME=N"),
        (("net.onnx", "--target", "rk3588", "--place", "Cov=npu"), 1, "did you mean Conv?"),
        (("net.onnx", "--target", "rk3588", "--min-macs-on-npu", "2"), 2, "less than or equal to 1"),
    ],
)
def test_mistakes_are_told_in_one_line(command, words, code, says):
    found, out, err = command(*words)
    assert (found, out) == (code, "")
    assert says in err
    assert "Traceback" not in err


CORAL = ("--target", "coral-edgetpu-pcie")


def one_error(called, *told):
    code, out, err = called
    assert (code, out) == (1, ""), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in told), err


def test_a_pipe_or_a_device_is_neither_waited_for_nor_replaced(command, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.yaml")
    one_error(command("pipe", *CORAL), "pipe or a device")
    one_error(command("/dev/zero", *CORAL), "pipe or a device")
    one_error(command("net.onnx", "--target", "pipe.yaml"), "pipe or a device")
    code, _, err = command("net.onnx", *CORAL, "--apply", "exact", "--out", "pipe")
    assert code == 1
    assert "error: pipe: cannot be written: it is a pipe or a device, not a file" in err
    assert (tmp_path / "pipe").is_fifo()


def test_the_model_itself_is_not_overwritten(command, tmp_path):
    before = (tmp_path / "net.onnx").read_bytes()
    (tmp_path / "same.onnx").symlink_to("net.onnx")
    for out in ("net.onnx", "./net.onnx", "same.onnx"):
        code, _, err = command("net.onnx", *CORAL, "--apply", "exact", "--out", out)
        assert code == 2
        assert "the model itself" in err
    assert (tmp_path / "net.onnx").read_bytes() == before


def test_an_empty_name_of_the_output_is_an_error(command):
    code, _, err = command("net.onnx", *CORAL, "--apply", "exact", "--out", "")
    assert code == 1
    assert "cannot be written: Is a directory" in err


@pytest.mark.parametrize(
    "words",
    [("--dim", "n=\N{SUPERSCRIPT TWO}"), ("--dim", "n=9999999999"), ("--dim", "n=1", "--dim", "n=2"),
     ("--place", "a=npu", "--place", "a=cpu")],
)  # fmt: skip
def test_sizes_that_are_none_and_demands_against_each_other_are_wrong_usage(command, words):
    code, out, err = command("net.onnx", *CORAL, *words)
    assert (code, out) == (2, "")
    assert "Invalid value" in err


@pytest.mark.parametrize("option", ["--target", "--host"])
def test_a_name_that_no_file_can_have_is_unknown(command, option):
    words = ("--target", "A" * 5000) if option == "--target" else (*CORAL, "--host", "A" * 5000)
    one_error(command("net.onnx", *words), "there is no", "known: ")


def test_a_name_that_is_no_text_is_an_error(command, tmp_path):
    data = swish_net()
    data.graph.node[0].name = "NAMENAME"
    (tmp_path / "bad.onnx").write_bytes(data.SerializeToString().replace(b"NAMENAME", b"NAME\xd8AME"))
    one_error(command("bad.onnx", *CORAL), "bad.onnx", "not UTF-8")


def test_names_cannot_move_the_terminal_or_pretend_lines(command, tmp_path):
    net = swish_net()
    net.graph.node[0].name = "one\nerror: two\x1b[2J"
    onnx.save(net, tmp_path / "evil\n\x1b.onnx")
    code, out, err = command("evil\n\x1b.onnx", *CORAL, "--nodes")
    assert code == 0, err
    assert "\x1b" not in out
    assert "one\\x0aerror: two\\x1b[2J" in out
    told = json.loads(command("evil\n\x1b.onnx", *CORAL, "--json")[1])
    assert told["nodes"][0]["name"] == "one\nerror: two\x1b[2J"
    (tmp_path / "evil\n\x1b.onnx").write_text("no model")
    one_error(command("evil\n\x1b.onnx", *CORAL), "evil\\x0a\\x1b.onnx")


def test_fallbacks_on_text_are_saved(command, tmp_path):
    built = raw("g (string[2] x) => (bool[2] y) { a = Identity (x) \n y = Equal (a, x) }")
    onnx.save(built, tmp_path / "text.onnx")
    code, _, err = command("text.onnx", *CORAL, "--save-fallbacks", "left")
    assert code == 0, err
    with np.load(next((tmp_path / "left").glob("*Equal*")) / "inputs.npz", allow_pickle=False) as inputs:
        assert all(array.dtype.kind == "U" for array in inputs.values())


def test_a_full_standard_output_is_one_error(tmp_path):
    onnx.save(swish_net(), tmp_path / "net.onnx")
    words = [sys.executable, "-m", "pipeline", "check", str(tmp_path / "net.onnx"), *CORAL, "--json"]
    with open("/dev/full", "w") as full:  # noqa: PTH123 (a device, not a path of ours)
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: standard output: cannot be written: No space left on device\n")
