"""The command line: what it prints, and its exit codes."""

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny
from test_trust import pem, private, signed

from runtime import cli as command
from runtime.bundle import open_bundle, pack_arrays, write_bundle


def run(capsys, *words):
    code = command.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def broken_golden(tmp_path, source):
    """The bundle with one golden byte changed, otherwise sound."""
    bundle = open_bundle(source)
    arrays = bundle.arrays("golden/outputs.npz")
    arrays["boxes_q"][0, 0, 0, 0, 0] ^= 1
    path = tmp_path / "wrong.npub"
    write_bundle(path, bundle.manifest, {**bundle.files, "golden/outputs.npz": pack_arrays(arrays)})
    return path


def test_play_prints_a_summary(capsys, tmp_path, tiny_bundle, frames):
    code, out, err = run(capsys, tiny_bundle, "--source", frames, "--events", tmp_path / "e.jsonl")
    assert code == 0
    assert err.splitlines() == [
        "npu-run: tiny version 1, not signed",
        "npu-run: 1 partitions planned for npu run on npu (simulated)",
    ]
    assert "3 frames in" in out
    assert re.search(r"cold start: \d+\.\d\d s from the start of the process to the first frame's boxes", out)
    assert "line door: 0 in, 0 out" in out
    assert "times are of this host: toy is simulated" in out
    assert len((tmp_path / "e.jsonl").read_text().splitlines()) == 3


def test_play_says_when_it_was_not_the_npu(capsys, tiny_bundle, frames):
    _, out, _ = run(capsys, tiny_bundle, "--source", frames, "--delegate", "cpu")
    assert "ran in ONNX Runtime on this host, not in the arithmetic of toy" in out


def test_play_json_is_one_object(capsys, tiny_bundle, frames):
    code, out, _ = run(capsys, tiny_bundle, "--source", frames, "--limit", 2, "--json")
    summary = json.loads(out)
    assert code == 0
    assert summary["frames"] == 2
    assert set(summary) >= {"bundle", "target", "delegate", "source", "seconds", "fps", "boxes", "tracks", "counts"}


def test_info(capsys, tiny_bundle):
    code, out, _ = run(capsys, "info", tiny_bundle)
    assert code == 0
    for text in (
        "tiny (schema 2, ",
        "toy (contract tflite-r1)",
        "24x16 RGB",
        "2 vectors",
        "not signed",
        "npu: 5 nodes",
        " MACs, ",
        " ms per inference (estimate, a priori",
        "config_digest",
    ):
        assert text in out


def test_info_json(capsys, split_bundle):
    code, out, _ = run(capsys, "info", split_bundle, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["schema"] == 2
    assert facts["signature"] == {"state": "unsigned", "keys": [], "trusted": None}
    assert (facts["target"], facts["version"], facts["provenance"]["commit"]) == ("toy", 1, "none")
    assert facts["bytes"] == split_bundle.stat().st_size
    assert [part["device"] for part in facts["partitions"]] == ["npu", "cpu"]
    assert facts["files"]["models/0.onnx"]["size"] > 0
    on_npu, on_cpu = (part["timeline"] for part in facts["partitions"])
    assert on_cpu is None
    assert on_npu["provenance"] == "a priori"
    assert on_npu["ms"] == pytest.approx(1 + 2 + 3 + 2 * 0.5)
    assert on_npu["unknown"] == ["power_w", "launch_s"]


def test_selftest_passes(capsys, tiny_bundle):
    code, out, _ = run(capsys, "selftest", tiny_bundle)
    assert code == 0
    assert "self-test passed: 0 of 960 bytes differ, over 2 golden vectors" in out


def test_selftest_survives_a_device_that_fails(capsys, tiny_bundle):
    code, out, err = run(capsys, "selftest", tiny_bundle, "--inject", "memory@load", "--inject", "lost@1")
    assert code == 0
    assert "device: 1 of 2 jobs, the host computed 1; failures: 1 lost, 1 memory; came back 1 times" in out
    assert "self-test passed: 0 of 960 bytes differ, over 2 golden vectors" in out
    assert "loading: the device is out of memory" in err
    code, out, _ = run(capsys, "selftest", tiny_bundle, "--inject", "timeout@0", "--json")
    assert (code, json.loads(out)["health"]["failures"]) == (0, {"timeout": 1})


def test_selftest_finds_bits_that_flip_unnoticed(capsys, tiny_bundle):
    code, out, _ = run(capsys, "selftest", tiny_bundle, "--inject", "weights@0+2")
    assert code == 1
    assert "a bit flipped unnoticed: frame 0: " in out
    assert "self-test FAILED" in out


def test_selftest_fails(capsys, tmp_path, tiny_bundle):
    path = broken_golden(tmp_path, tiny_bundle)
    code, out, _ = run(capsys, "selftest", path)
    assert code == 1
    assert "self-test FAILED: 1 of 960 bytes differ" in out
    code, out, _ = run(capsys, "selftest", path, "--json")
    found = json.loads(out)
    assert code == 1
    assert {key: found[key] for key in ("vectors", "bytes", "differing", "passed")} == {
        "vectors": 2,
        "bytes": 960,
        "differing": 1,
        "passed": False,
    }
    assert [(c["tensor"], c["differing"], c["rule"]) for c in found["crossings"]] == [
        ("scores_q", 0, "exact"),
        ("boxes_q", 1, "exact"),
    ]


@pytest.mark.parametrize("words", [["info"], ["selftest"], []])
def test_a_bundle_that_is_none(capsys, tmp_path, frames, words):
    (tmp_path / "x.npub").write_bytes(b"rubbish")
    more = [] if words else ["--source", frames]
    code, out, err = run(capsys, *words, tmp_path / "x.npub", *more)
    assert (code, out) == (1, "")
    assert err == f"npu-run: {tmp_path}/x.npub: is not a bundle, or is truncated\n"


@pytest.fixture
def trusted(tmp_path):
    """The words that trust key 1, and a folder for the state."""
    (tmp_path / "ci.pub").write_text(pem(private(1)))
    return ("--trust", tmp_path / "ci.pub", "--state", tmp_path / "state")


def test_a_trusted_run_says_so_and_an_older_one_is_refused(capsys, tmp_path, frames, trusted):
    old, new = (signed(tmp_path / f"{number}.npub", 1, version=number) for number in (1, 2))
    code, _, err = run(capsys, new, "--source", frames, *trusted)
    assert code == 0
    assert err.startswith("npu-run: tiny version 2, signed by ci (")
    code, out, err = run(capsys, old, "--source", frames, *trusted)
    assert (code, out) == (1, "")
    assert "1.npub: is version 1 of tiny, and version 2 ran here before" in err
    for command_word in ("info", "selftest"):
        code, _, err = run(capsys, command_word, old, *trusted)
        assert code == 1
        assert "version 2 ran here before" in err


def test_looking_at_a_bundle_does_not_count_as_running_it(capsys, tmp_path, trusted):
    path = signed(tmp_path / "2.npub", 1, version=2)
    for word in ("info", "selftest"):
        assert run(capsys, word, path, *trusted)[0] == 0
    assert not (tmp_path / "state").exists()


def test_a_bundle_of_somebody_else_is_refused_by_every_command(capsys, tmp_path, frames, trusted, tiny_bundle):
    foreign = signed(tmp_path / "x.npub", 3)
    for words in (["info", foreign], ["selftest", foreign], [foreign, "--source", frames]):
        code, out, err = run(capsys, *words, *trusted)
        assert (code, out) == (1, "")
        assert "is signed by key" in err
    assert "is not signed" in run(capsys, "info", tiny_bundle, *trusted)[2]


def test_info_shows_a_signature_checked_or_not(capsys, tmp_path, trusted):
    path = signed(tmp_path / "x.npub", 1)
    assert "not checked (--trust KEYS checks it)" in run(capsys, "info", path)[1]
    assert "signed by ci (" in run(capsys, "info", path, *trusted)[1]
    unchecked = json.loads(run(capsys, "info", path, "--json")[1])["signature"]
    checked = json.loads(run(capsys, "info", path, "--json", *trusted)[1])["signature"]
    assert (unchecked["state"], unchecked["trusted"]) == ("unchecked", None)
    assert (checked["state"], checked["trusted"]) == ("trusted", {"id": checked["keys"][0], "name": "ci"})


def test_a_bundle_cannot_talk_to_the_terminal(capsys, tmp_path, frames):
    path = tiny.write(tmp_path / "x.npub", name="a\x1b[2Jb", provenance={"evil": "\x9b2J\n\r", "fine": "ä"})
    for words in (["info", path], [path, "--source", frames], ["info", path, "--json"]):
        code, out, err = run(capsys, *words)
        assert code == 0
        assert all(letter.isprintable() or letter == "\n" for letter in out + err)
    assert "a\\x1b[2Jb" in run(capsys, "info", path)[1]
    assert "fine          ä" not in run(capsys, "info", path, "--json")[1]
    refused = run(capsys, "info", path, "--trust", tmp_path / "no\x1bne")
    assert (refused[0], "no\\x1bne: cannot be read" in refused[2]) == (1, True)


def test_a_watching_run_starts_with_the_last_good_bundle_when_the_new_one_is_bad(capsys, tmp_path, frames, tiny_bundle):
    live = tmp_path / "live.npub"
    live.write_bytes(tiny_bundle.read_bytes())
    words = (live, "--source", frames, "--watch", "--state", tmp_path / "state")
    code, _, err = run(capsys, *words)
    assert (code, "bundle version 1: kept" in err) == (0, True)
    assert (tmp_path / "state" / "kept.npub").read_bytes() == live.read_bytes()
    live.write_bytes(broken_golden(tmp_path, tiny_bundle).read_bytes())
    code, _, err = run(capsys, *words)
    assert code == 0
    assert "live.npub: fails its self-test: 1 of 768 bytes of boxes_q differ" in err
    assert "tiny version 1, not signed" in err
    assert run(capsys, *words[:-2])[0] == 1


def test_limits_of_a_file(capsys, tmp_path, tiny_bundle):
    (tmp_path / "limits.json").write_text('{"files": 2}')
    code, _, err = run(capsys, "info", tiny_bundle, "--limits", tmp_path / "limits.json")
    assert code == 1
    assert "holds 5 files (the limit is files = 2; --limits can raise it)" in err


def test_a_provider_that_is_not_here(capsys, tiny_bundle):
    code, _, err = run(capsys, "selftest", tiny_bundle, "--delegate", "ort:Nonsense")
    assert code == 1
    assert "ONNX Runtime has no NonsenseExecutionProvider here; it has" in err


def test_auto_is_said_by_the_name_of_what_it_found(capsys, tiny_bundle, frames):
    code, out, _ = run(capsys, tiny_bundle, "--source", frames, "--delegate", "auto", "--json")
    assert (code, json.loads(out)["delegate"]) == (0, "npu")


def test_selftest_by_another_delegate(capsys, split_bundle):
    code, out, _ = run(capsys, "selftest", split_bundle, "--delegate", "ort:CPU", "--strict")
    assert code == 0
    assert "1 partitions planned for npu run on CPUExecutionProvider" in out
    assert "asked is half a step on average" in out


def test_an_error_is_one_line(capsys, monkeypatch, tiny_bundle, frames):
    def fail(*arguments, **options):
        raise command.UserError("two\nlines")

    monkeypatch.setattr(command, "play_all", fail)
    assert run(capsys, tiny_bundle, "--source", frames)[2].splitlines()[-1] == "npu-run: two lines"


def test_another_exception_is_a_bug_and_shows(monkeypatch, tiny_bundle, frames):
    def fail(*arguments, **options):
        raise ZeroDivisionError

    monkeypatch.setattr(command, "play_all", fail)
    with pytest.raises(ZeroDivisionError):
        command.main([str(tiny_bundle), "--source", frames])


def test_a_limit_beyond_all_frames(capsys, tiny_bundle, frames):
    code, _, _ = run(capsys, str(tiny_bundle), "--source", frames, "--limit", "9" * 30)
    assert code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required"),
        (["x.npub"], "--source"),
        (["x.npub", "--source", "0", "--delegate", "gpu"], "there is no delegate 'gpu'"),
        (["x.npub", "--source", "0", "--limit", "0"], "must be at least 1"),
        (["x.npub", "--source", "0", "--limit", "x"], "invalid"),
        (["x.npub", "--source", "0", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["info"], "BUNDLE"),
        (["selftest", "a", "b"], "unrecognized arguments: b"),
    ],
)
def test_usage(capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for name in command._COMMANDS:
        assert f"npu-run {name} BUNDLE" in out


def test_ticker_says_how_far(capsys, monkeypatch):
    clock = iter([0.0, 0.1, 0.7])
    monkeypatch.setattr(command.time, "monotonic", lambda: next(clock))
    tick = command._ticker()
    for index in (0, 1):
        tick(command.FrameResult(index, None, None, None, {}))
    assert capsys.readouterr().err == "\rframe 2"


def test_interrupt(tmp_path, tiny_bundle):
    np.save(tmp_path / "long.npy", np.zeros((5000, 16, 24, 3), np.uint8))
    events = tmp_path / "e.jsonl"
    words = [
        sys.executable,
        "-m",
        "runtime",
        str(tiny_bundle),
        "--source",
        str(tmp_path / "long.npy"),
        "--events",
        str(events),
    ]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (events.exists() and events.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, err.splitlines()[-1]) == ("", "npu-run: interrupted; what was written until now is kept")
    assert all(json.loads(line) for line in events.read_text().splitlines())
