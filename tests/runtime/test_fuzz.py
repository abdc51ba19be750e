"""A short run of what ``make fuzz`` does at length; without coverage where the fuzzer is not installed."""

import importlib.util
import random
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "fuzz"
sys.path.append(str(FUZZ))

from mutations import mutate_bundle, plain_mutate, read  # noqa: E402
from seeds import write_seeds  # noqa: E402


def test_changed_bundles_are_refused_and_nothing_else_happens(tmp_path):
    seeds = [path.read_bytes() for path in write_seeds(tmp_path)]
    dice = random.Random(20261127)
    found = []
    tracemalloc.start()
    for number in range(400):
        data = mutate_bundle(seeds[number % 3], 1 << 16, dice, plain_mutate(dice), seeds)
        found.append(read(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(found) == {None, "BundleError", "LimitError", "ProgramError", "TrustError"}
    assert found.count("BundleError") < 360
    assert peak < 64 << 20


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="NOT FUZZED by coverage: pip install atheris")
def test_a_short_run_of_the_fuzzer(tmp_path):
    write_seeds(tmp_path / "seeds")
    (tmp_path / "corpus").mkdir()
    # Through a shell that forks: the peak of memory that libFuzzer reads counts what it was forked from.
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, FUZZ / "fuzz_bundle.py", "corpus", "seeds"]
    words = ["-runs=1500", "-seed=1", "-timeout=10", "-rss_limit_mb=512", "-max_len=65536"]
    done = subprocess.run(
        [*map(str, command), *words], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    covered = re.search(r"DONE +cov: (\d+) ft: ", done.stderr)
    assert covered is not None, done.stderr[-3000:]
    assert int(covered[1]) > 400
    assert len(list((tmp_path / "corpus").iterdir())) > 50
