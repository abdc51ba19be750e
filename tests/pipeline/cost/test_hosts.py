"""Host profiles: reading them, what operators cost on them, and measuring this machine."""

import pytest

from pipeline.cost import hosts
from pipeline.cost.calibrate import measure_host
from pipeline.cost.nouns import Kind, Work
from pipeline.errors import TargetError

TEXT = "name: h\ntitle: H\nthreads: 1\nfigures:\n" + "".join(
    f"  {name}: {{value: {value}, confidence: unverified, source: made up}}\n"
    for name, value in zip(hosts.RATES, (1e9, 5e8, 2e9, 1e8, 1e9, 1e-3), strict=True)
)


def host(tmp_path, text=TEXT):
    path = tmp_path / "h.yaml"
    path.write_text(text)
    return hosts.load(path)


def work(kind, **extra):
    values = {"macs": 1_000_000, "in_bytes": (500_000,), "out_bytes": 250_000, "weight_bytes": 250_000, **extra}
    return Work("w", "Conv", kind, 10, 10, 10, 10, 10, 10, **values)


@pytest.mark.parametrize(
    ("kind", "ms"), [(Kind.CONV, 3.0), (Kind.DEPTHWISE, 4.0), (Kind.FC, 2.5), (Kind.ELEMENTWISE, 2.0), (Kind.LUT, 2.01)]
)
def test_overhead_rate_and_bytes_add_up(tmp_path, kind, ms):
    assert hosts.cost(work(kind), host(tmp_path)).ms == pytest.approx(ms)


def test_a_rate_that_is_not_known_leaves_no_time(tmp_path):
    text = TEXT.replace("fc_macs_per_second: {value: 2000000000.0", "fc_macs_per_second: {value: null")
    found = hosts.cost(work(Kind.FC), host(tmp_path, text))
    assert (found.ms, found.missing) == (None, ("fc_macs_per_second",))
    assert hosts.cost(work(Kind.CONV), host(tmp_path, text)).ms is not None


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("overhead_s", "overheads", "figures.overhead_s is missing|figures.overheads is not a rate"),
        ("threads: 1", "threads: 0", "threads"),
        ("threads: 1", "threads: 1\nspeed: 3", "speed"),
        ("title: H", "title: [", "YAML"),
    ],
)
def test_a_profile_that_is_wrong_is_refused(tmp_path, before, after, said):
    with pytest.raises(TargetError, match=said):
        host(tmp_path, TEXT.replace(before, after))


def test_an_unknown_host_is_told_the_nearest_name(tmp_path):
    with pytest.raises(TargetError, match=r"there is no host cortex-a54.*did you mean cortex-a\d\d"):
        hosts.find("cortex-a54", hosts.folder())
    with pytest.raises(TargetError, match="known: none"):
        hosts.find("any", tmp_path)


def test_this_machine_is_measured():
    found = measure_host("here", threads=1)
    assert hosts.check(found, "here") is found
    assert found.measured
    assert (found.name, found.threads) == ("here", 1)
    assert all(rate.value > 0 for rate in found.figures.values())
    assert found.get("conv_macs_per_second") > found.get("depthwise_macs_per_second") / 2
    assert found.get("overhead_s") < 1e-3
    assert hosts.cost(work(Kind.CONV), found).ms > 0
