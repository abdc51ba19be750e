"""What is said of a comparison of quantizers: verdicts with their noise, and tables."""

import json

import numpy as np
import pytest
from benchentries import entry
from scipy import stats

from pipeline.benches.quantization import table
from pipeline.benches.quantization.bench import Comparison
from pipeline.benches.quantization.child import Failure, Spent
from pipeline.benches.quantization.judge import Judgement
from pipeline.benches.quantization.measured import Entry, Peak


def verdict(ours, peer):
    """Ours against ORT min-max, each a list of judged points or of points with replicates, one a draw."""
    both = (("ours best", ours), ("ORT min-max", peer))
    given = [
        entry(name, *((p, i) if isinstance(p, float) else (p[0], i)), replicates=None if isinstance(p, float) else p[1])
        for name, points in both
        for i, p in enumerate(points)
    ]
    (found,) = table.verdicts([*given, entry("NNCF fast", 50.0)])
    assert found.best_peer == "ORT min-max"
    return found


def test_the_draws_noise_is_the_interval_of_students_paired_test():
    ours, peer = [89.0, 88.2, 88.9], [87.0, 86.3, 86.6]
    found, interval = verdict(ours, peer), stats.ttest_rel(ours, peer).confidence_interval(0.95)
    assert found.noise == pytest.approx((interval.high - interval.low) / 2)
    assert (found.word, found.ours) == ("better", pytest.approx(90 - np.mean(ours)))
    assert verdict(peer, ours).word == "worse"
    assert verdict(ours, [87.0, 88.9, 88.4]).word == "tie"


def test_the_noise_of_what_is_measured_with_is_the_paired_tests_over_single_inputs():
    hits = np.random.default_rng(0).random((2, 200)) < np.array([[0.9], [0.7]])
    whole = 100 * hits.mean(axis=1)
    without = [tuple(100 * np.delete(each, place).mean() for place in range(200)) for each in hits]
    interval = stats.ttest_rel(*(100.0 * hits)).confidence_interval(0.95)
    ours, peer = ([(points, replicates)] for points, replicates in zip(whole, without, strict=True))
    assert verdict(ours, peer).noise == pytest.approx((interval.high - interval.low) / 2)
    assert verdict(ours, peer).word == "better"
    assert verdict(ours, ours).noise == 0.0


def test_of_one_block_the_noise_is_the_draws_alone():
    ours, peer = [89.0, 88.2, 88.9], [87.0, 86.3, 86.6]
    interval = stats.ttest_rel(ours, peer).confidence_interval(0.95)
    one_block = verdict(*([(points, (float("nan"),)) for points in each] for each in (ours, peer)))
    assert one_block.noise == pytest.approx((interval.high - interval.low) / 2)
    assert verdict([(89.0, (89.0,))], [(87.0, (87.0,))]).noise == 0.0


def test_both_kinds_of_noise_add_up_as_welch_and_satterthwaite_say():
    low, high = (90.0 + np.tile([-1.0, 1.0], 6) * scale for scale in (0.1, 0.3))
    draws, blocks = [89.0, 89.5, 91.0], [88.0, 88.5, 88.2]
    found = verdict([(p, tuple(high)) for p in draws], [(p, tuple(low)) for p in blocks])
    of_draws, of_inputs = np.var(np.subtract(draws, blocks), ddof=1) / 3, 11 / 12 * 12 * 0.2**2
    freedom = (of_draws + of_inputs) ** 2 / (of_draws**2 / 2 + of_inputs**2 / 11)
    assert found.noise == pytest.approx(stats.t.interval(0.95, freedom)[1] * (of_draws + of_inputs) ** 0.5)


def test_without_a_draw_in_common_there_is_no_verdict():
    assert table.verdicts([entry("ours best", 89.0), entry("ORT min-max", 88.0, seed=1)]) == ()


def test_a_verdict_is_over_the_draws_in_common():
    ours = [entry("ours best", points, seed) for seed, points in enumerate((89.0, 50.0, 50.0))]
    peers = [entry("ORT min-max", 87.0), entry("NNCF fast", 86.0), entry("NNCF fast", 89.9, seed=7)]
    (found,) = table.verdicts([*ours, *peers])
    assert (found.ours, found.peer, found.best_peer, found.word) == (1.0, 3.0, "ORT min-max", "better")


def test_to_be_above_float_counts_as_no_loss():
    assert verdict([90.0], [95.0]).word == "tie"
    assert verdict([88.0], [95.0]).word == "worse"


def test_the_tables_show_losses_times_memory_and_failures():
    failed = Entry("tiny", "top-1", "per-channel", "NNCF fast", 0, 90.0, Failure("nncf is not installed"), None)
    odd = Entry("tiny", "top-1", "per-tensor", "ORT entropy", 0, 90.0, Spent(1, 1, None),
                Judgement(45.0, (45.0,) * 12, 3.0, "onnxruntime", None, "y: has 3 scales"))  # fmt: skip
    entries = [
        entry("ours fast", 89.5, seconds=0.5), entry("ours best", 90.0), entry("ORT min-max", 88.0),
        entry("ORT min-max", 89.0, seed=1), failed, odd,
    ]  # fmt: skip
    peaks = [Peak("ours fast", 50, Spent(1, 1, 200.0)), Peak("ours fast", 1000, Failure("ended by signal 9"))]
    peaks.append(Peak("ours best", 50, Spent(1, 1, None)))
    comparison = Comparison(entries, peaks, {"cctv": "there is no trained detector"})
    text = table.markdown(comparison)
    assert "| ours best | 0.00 (30.0 dB) |" in text
    assert "| ORT min-max | 1.50 ± 0.50 (30.0 dB) |" in text
    assert "| ours best against the best peer | better (ORT min-max) |" in text
    assert "| NNCF fast | failed |" in text
    assert "- tiny, per-channel, NNCF fast: nncf is not installed" in text
    assert "| tiny | 0.50 | 0.50 |" in text
    assert "| ours fast | 200 | failed |" in text
    assert "| ours best | unknown |  |" in text
    assert "| ours fast | 0.5 |" in text
    assert "- ORT entropy was run in ONNX Runtime, for the engine says: y: has 3 scales" in text
    document = json.loads(table.document(comparison))
    assert document["schema"] == table.SCHEMA
    assert document["verdicts"][0]["word"] == "better"
    assert len(document["entries"]) == 6
