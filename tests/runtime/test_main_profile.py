"""The command line: what each layer costs, and drills of a device that fails."""

import json
from dataclasses import replace

import pytest
from test_main import run

from runtime.bundle import open_bundle, write_bundle
from runtime.npu.encoding import dumps, loads


def test_profile(capsys, tiny_bundle):
    code, out, _ = run(capsys, "profile", tiny_bundle)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "tiny on toy: estimated per inference, nothing here is measured"
    assert lines[2] == ("programs/0.npup (a priori; of the total 0.0000 ms are the launch and 1.5000 ms the border)")
    assert lines[3].split() == ["layer", "operators", "tiles", "ms", "MACs", "use", "%", "bytes", "mJ", "bound", "by"]
    assert lines[4].split()[:2] == ["conv_a", "conv2d"]
    assert lines[4].split()[3:] == ["1.0000", "1000000", "15.6", "100", "-", "compute"]
    assert lines[9].split()[0] == "total"
    assert lines[9].split()[2:] == ["16.5000", "15000000", "1500", "-"]
    assert lines[10].startswith("memory: sram ")
    assert " of 1200 bytes, dram " in lines[10]
    (least,) = [line for line in lines if line.startswith("accumulators: ")]
    assert least == (
        "accumulators: whatever the input, 12 of 32 bits are never used in conv_a, which has the least room"
    )
    assert lines[-1] == "not public, so not counted: power_w, launch_s"


def test_profile_as_json_and_as_a_trace(capsys, tmp_path, split_bundle):
    code, out, _ = run(capsys, "profile", split_bundle, "--json", "--trace", tmp_path / "t.json")
    facts = json.loads(out)
    assert code == 0
    (program,) = facts["programs"]
    assert (facts["bundle"], facts["target"], program["program"]) == ("tiny", "toy", "programs/0.npup")
    assert program["estimates"]["ms"] == pytest.approx(1 + 2 + 3 + 2 * 0.5)
    assert [layer["name"] for layer in program["layers"]] == ["conv_a", "conv_b", "add"]
    assert [layer["ms"] for layer in program["layers"]] == [1.0, 2.0, 3.0]
    assert program["memories"][0]["used"] <= program["memories"][0]["bytes"] == 1200
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    ends = [event["ts"] + event["dur"] + event["args"]["stall_us"] for event in events if event["ph"] == "X"]
    assert max(ends) == pytest.approx(1e3 * program["estimates"]["ms"])


def test_a_profile_of_a_program_without_estimates(capsys, tmp_path, tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    bare = dumps(replace(loads(bundle.read("programs/0.npup")), schedule=None))
    write_bundle(tmp_path / "bare.npub", bundle.manifest, {**bundle.files, "programs/0.npup": bare})
    code, out, _ = run(capsys, "profile", tmp_path / "bare.npub")
    assert code == 0
    assert "programs/0.npup: carries no estimates; package it again for a profile" in out
    code, out, _ = run(capsys, "profile", tmp_path / "bare.npub", "--json")
    (program,) = json.loads(out)["programs"]
    first = program.pop("accumulators")[0]
    assert program == {"program": "programs/0.npup", "estimates": None, "memories": [], "layers": []}
    assert first["name"] == "conv_a"
    assert first["spare_bits"] == 31 - max(first["high"], -1 - first["low"]).bit_length() == 12
    assert "carries no estimates" in run(capsys, "info", tmp_path / "bare.npub")[1]


def test_a_trace_that_cannot_be_written(capsys, tmp_path, tiny_bundle):
    code, _, err = run(capsys, "profile", tiny_bundle, "--trace", tmp_path / "no" / "t.json")
    assert (code, err) == (1, f"npu-run: {tmp_path}/no/t.json: cannot be written: No such file or directory\n")
    before = tiny_bundle.read_bytes()
    code, _, err = run(capsys, "profile", tiny_bundle, "--trace", tiny_bundle)
    assert (code, err) == (1, f"npu-run: {tiny_bundle}: is read, so it cannot be written (give another name)\n")
    assert tiny_bundle.read_bytes() == before


def test_a_drill(capsys, tiny_bundle, frames):
    words = (tiny_bundle, "--source", frames, "--inject", "lost@1", "--inject", "throttle@2+9")
    code, out, err = run(capsys, *words)
    assert code == 0
    assert "npu-run: frame 1: the device is gone; the host computes, with the same bits" in err
    assert "npu-run: frame 2: the device is back" in err
    assert "device: 2 of 3 jobs, the host computed 1; failures: 1 lost; came back 1 times; 1 jobs throttled" in out
    code, out, _ = run(capsys, *words, "--json")
    health = json.loads(out)["health"]
    assert (health["jobs"], health["on_host"], health["failures"]) == (3, 1, {"lost": 1})
    code, out, _ = run(capsys, tiny_bundle, "--source", frames, "--json")
    assert json.loads(out)["health"] is None


def test_a_drill_that_flips_a_bit_tells_which(capsys, tiny_bundle, frames):
    code, out, _ = run(capsys, tiny_bundle, "--source", frames, "--inject", "weights@1")
    assert code == 0
    assert "a bit flipped unnoticed: frame 1: dram byte " in out


def test_a_fault_that_is_none_is_wrong_usage(capsys, tiny_bundle, frames):
    with pytest.raises(SystemExit) as stopped:
        run(capsys, tiny_bundle, "--source", frames, "--inject", "fire@1")
    assert stopped.value.code == 2
    assert "'fire@1' is not a fault (write FAULT@FRAME or FAULT@FRAME+FRAMES:" in capsys.readouterr().err


def test_a_drill_does_not_go_with_a_bundle_that_changes(capsys, tiny_bundle, frames):
    code, _, err = run(capsys, tiny_bundle, "--source", frames, "--inject", "lost@1", "--watch")
    assert code == 1
    assert "--inject does not go with --watch (drill one of them at a time)" in err
