import json

from pipeline.report import terminal

EXPECTED = """\
shop on toy-npu

stage      state            time  why
train      ran            10.0 s  never run
quantize   ran            20.0 s  never run
export     ran            30.0 s  never run
coverage   ran            40.0 s  never run
partition  ran            50.0 s  never run
package    ran        1 min 00 s  never run

AP50                      91.0 %  float, torch     0.00 points
AP50                      91.0 %  float, ONNX      0.00 points
AP50                      90.5 %  int8            \N{MINUS SIGN}0.50 points
AP50                      90.4 %  packaged        \N{MINUS SIGN}0.60 points
MACs on the NPU          100.0 %  2 of 4 operators
partitions                     2  1 on the NPU, 1 crossing
latency                  1.25 ms  1 ms to 2.5 ms, estimated
bundle                  412.3 kB
differing bytes                0  of 17,280 golden bytes
frames played                  8  2 tracks, in 3, out 5

Every stage is up to date and every gate is kept.

2 fallbacks on the CPU:
  <script>alert('x')</script> (Softmax): The axis must be 1; it is <3>
  sum (Add): It comes late; It is odd

report  {folder}/report.html
bundle  {folder}/package/shop.npub"""


def test_the_whole_summary(finished):
    assert terminal.text(finished.summary) == EXPECTED.format(folder=finished.folder)


def test_missed_gates_and_failures_are_told(finished):
    assert "1 gate missed.\n  too few" in terminal.text(finished.with_gate("too few"))
    said = terminal.text(finished.without("package", "no space\nreally", "failed"))
    assert "The run failed.\n  package: no space" in said
    assert "package    failed              -  no space\n" in said
    assert ".npub" not in said


def test_many_fallbacks_end_in_a_count(finished):
    nodes = [{"name": f"n{i}", "op": "Mul", "device": "cpu", "reasons": ["late"]} for i in range(8)]
    (finished.folder / "coverage/coverage.json").write_text(json.dumps({"nodes": nodes}))
    said = terminal.text(finished.summary)
    assert "8 fallbacks on the CPU:" in said
    assert said.count("(Mul): late") == terminal.MOST_FALLBACKS
    assert "  and 3 more, see the report" in said


def test_it_is_told_when_the_npu_takes_everything(finished):
    (finished.folder / "coverage/coverage.json").write_text('{"nodes": []}')
    assert "no fallbacks: the NPU takes every operator" in terminal.text(finished.summary)
    assert "fallbacks" not in terminal.text(finished.without("coverage"))


def test_a_long_reason_is_cut(finished):
    said = terminal.text(finished.without("train", "x" * 300))
    assert max(map(len, said.splitlines())) < 160
