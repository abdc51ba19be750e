"""Fuzz the reading of bundles with libFuzzer, guided by coverage (atheris): ``make fuzz``.

``python fuzz_bundle.py CORPUS SEEDS -runs=N``: a folder for what is found, one of what to start from, then libFuzzer's
own words. An exception that is no ``UserError``, an input that takes longer than ``-timeout`` seconds, or memory above
``-rss_limit_mb`` ends it with an error and leaves the input in a file.
"""

import random
import resource
import sys
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
with atheris.instrument_imports(include=["runtime"]):
    from mutations import mutate_bundle, read

SEEDS = [path.read_bytes() for path in sorted(Path(sys.argv[2]).iterdir())]
COUNTS: dict[str, int] = {}


def one_input(data: bytes) -> None:
    """What libFuzzer calls."""
    found = read(data) or "accepted"
    COUNTS[found] = COUNTS.get(found, 0) + 1
    if sum(COUNTS.values()) % 10_000 == 0:
        report()


def report() -> None:
    """Say how many inputs were refused how, and the peak of memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stderr.write(f"{sum(COUNTS.values())} inputs: {COUNTS}, peak {peak} MB\n")


def custom_mutator(data: bytes, most: int, seed: int) -> bytes:
    """What libFuzzer calls for a new input."""
    return mutate_bundle(data, most, random.Random(seed), atheris.Mutate, SEEDS)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input, custom_mutator=custom_mutator)
    atheris.Fuzz()
