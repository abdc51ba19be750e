"""A measurement as a comparison of quantizers keeps it, for tests of what is made of it."""

from pipeline.benches.quantization.child import Spent
from pipeline.benches.quantization.judge import Judgement
from pipeline.benches.quantization.measured import Entry


def entry(name, points, seed=0, scheme="per-channel", floats=0, seconds=1.0, replicates=None, case="tiny"):
    spent, without = Spent(seconds, seconds, 100.0), (points,) * 12 if replicates is None else replicates
    return Entry(case, "top-1", scheme, name, seed, 90.0, spent, Judgement(points, without, 30.0, "engine", floats))
