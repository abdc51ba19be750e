"""``pipeline check`` as people and scripts call it."""

import json
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
