"""Host profiles: reading them, what operators cost on them, and measuring this machine."""

import itertools

import pytest

from pipeline import cli
from pipeline.cost import calibrate, hosts
from pipeline.cost.calibrate import measure_host
from pipeline.cost.nouns import Kind, Work
from pipeline.cost.probes import LONG, SHORT
from pipeline.cost.validation import networks
from pipeline.cost.validation.machine import time_network
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


@pytest.mark.parametrize(("spent", "confidence"), [(1e-9, "fitted"), (10.0, "measured")])
def test_a_rate_that_overhead_and_bytes_hide_is_not_called_measured(monkeypatch, spent, confidence):
    """Overhead and bytes take a microsecond and next to nothing; the probes take ``spent`` seconds each."""
    times = itertools.chain([1.0, (LONG - SHORT) * 1e-6], itertools.repeat(spent))
    monkeypatch.setattr(calibrate, "_difference", lambda *_: next(times))
    found = measure_host()
    assert found.figures["conv_macs_per_second"].confidence == confidence
    assert ("explain its time" in found.figures["conv_macs_per_second"].source) == (confidence == "fitted")
    assert found.measured


def test_an_unknown_host_is_told_the_nearest_name(tmp_path):
    with pytest.raises(TargetError, match=r"there is no host cortex-a54.*did you mean cortex-a\d\d"):
        hosts.find("cortex-a54", hosts.folder())
    with pytest.raises(TargetError, match="known: none"):
        hosts.find("any", tmp_path)


@pytest.fixture(scope="module")
def measured():
    return measure_host("here", threads=1)


def test_this_machine_is_measured(measured):
    assert hosts.check(measured, "here") is measured
    assert measured.measured
    assert (measured.name, measured.threads) == ("here", 1)
    assert set(measured.figures) == {*hosts.RATES, *hosts.FINER}
    assert all(rate.value > 0 for rate in measured.figures.values())
    assert measured.get("conv_macs_per_second") > measured.get("depthwise_macs_per_second")
    assert measured.get("overhead_s") < 1e-3
    assert hosts.cost(work(Kind.CONV), measured).ms > 0


def test_a_measured_host_is_written_and_read_again(measured, tmp_path):
    path = tmp_path / "h.yaml"
    hosts.save(measured, path)
    again = hosts.load(path)
    assert (again.name, again.title, again.threads) == (measured.name, measured.title, measured.threads)
    for name, rate in measured.figures.items():
        assert again.figures[name].value == pytest.approx(rate.value, rel=1e-3)
    with_power = measured.model_copy(update={"power_w": hosts.Rate(value=4.5, confidence="unverified", source="a: b")})
    hosts.save(with_power, path)
    assert hosts.load(path).watts == 4.5
    with pytest.raises(TargetError, match="cannot be written"):
        hosts.save(measured, tmp_path / "missing" / "h.yaml")


@pytest.mark.parametrize(
    ("item", "rate"),
    [
        (work(Kind.CONV, kernel=(3, 3)), "conv"), (work(Kind.CONV), "pointwise"),
        (Work("w", "Conv", Kind.CONV, 9, 9, 8, 9, 9, 3, (3, 3)), "image"), (work(Kind.DEPTHWISE), "depthwise"),
        (work(Kind.FC), "fc"), (work(Kind.POOL), "pool"), (work(Kind.ELEMENTWISE), "elementwise"),
        (work(Kind.LUT), "table"), (work(Kind.LUT, passes=5), "softmax"), (work(Kind.OTHER), "table"),
    ],
)  # fmt: skip
def test_every_class_has_its_rate(item, rate):
    name, amount = hosts.demand(item)
    assert name.startswith(f"{rate}_")
    assert name in hosts.RATES or name in hosts.FINER
    assert amount in (item.macs, item.elements * item.taps, item.elements * item.passes)


def test_what_only_moves_asks_for_no_rate():
    assert hosts.demand(work(Kind.COPY)) is None


def test_a_finer_rate_counts_where_the_profile_has_it(tmp_path):
    finer = TEXT + "  pointwise_macs_per_second: {value: 2e9, confidence: unverified, source: made up}\n"
    finer += "  pool_steps_per_second: {value: 1e6, confidence: unverified, source: made up}\n"
    plain, told = host(tmp_path), host(tmp_path, finer)
    assert hosts.cost(work(Kind.CONV), plain).ms - hosts.cost(work(Kind.CONV), told).ms == pytest.approx(0.5)
    assert hosts.cost(work(Kind.POOL), told).ms - hosts.cost(work(Kind.POOL), plain).ms == pytest.approx(1.0)


def test_a_host_is_found_by_path_by_name_and_among_the_shipped_ones(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text(TEXT)
    assert hosts.resolve(str(own), tmp_path) == own
    assert hosts.resolve("mine", tmp_path) == own
    assert hosts.resolve("cortex-a55", tmp_path) == hosts.folder() / "cortex-a55.yaml"
    with pytest.raises(TargetError, match="there is no host mime"):
        hosts.resolve("mime", tmp_path)
    with pytest.raises(TargetError, match="no such host profile"):
        hosts.resolve(str(tmp_path / "none.yaml"), tmp_path)


def run(*arguments):
    """The exit code of ``pipeline calibrate-host``."""
    with pytest.raises(SystemExit) as left:
        cli.main(["calibrate-host", *map(str, arguments)])
    return left.value.code


def test_the_command_writes_a_profile_that_check_takes(tmp_path, capsys, monkeypatch, measured):
    monkeypatch.setattr(
        "pipeline.cost.calibrate.measure_host", lambda name, _: measured.model_copy(update={"name": name})
    )
    path = tmp_path / "mine.yaml"
    assert run("--name", "mine", "--out", path) in (0, None)
    said = capsys.readouterr().out
    assert "conv_macs_per_second" in said
    assert str(path) in said
    assert hosts.load(hosts.resolve(str(path), tmp_path)).name == "mine"
    before = path.read_bytes()
    assert run("--out", path) == 1
    assert "--force replaces it" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert run("--out", path, "--force") in (0, None)
    assert hosts.load(path).name == "this-machine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--threads", "100000"], "asks for 100000 threads"), (["--out", "{}/no/such/h.yaml"], "no folder"),
        (["--out", "{}"], "is no name of a host profile"), (["--out", "{}/h.txt"], "end it in .yaml"),
        (["--out", "{}/folder.yaml"], "is a folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_or_written_is_told_before_anything_is_done(tmp_path, capsys, arguments, said):
    (tmp_path / "folder.yaml").mkdir()
    given = [word.format(tmp_path) for word in arguments]
    given += [] if "--out" in given else ["--out", str(tmp_path / "h.yaml")]
    assert run(*given) == 1
    assert said in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["folder.yaml"]
    assert run("--threads", "0") == 2


def test_a_network_takes_what_this_machine_is_predicted_to_take():
    """Within a factor of two on a machine that others use too; bench prints the error."""
    found = time_network(networks.squeezenet)
    print(f"{found.predicted_ms:.2f} ms predicted, {found.int8_ms:.2f} measured ({found.error:+.1%})")  # noqa: T201
    assert 0.5 < found.predicted_ms / found.int8_ms < 2
    assert found.float_ms > 0
