"""Rows of a comparison: every figure follows from the check, from the profile, or is not known."""

from dataclasses import replace
from pathlib import Path

import pytest
from comparednets import swish_net
from smallmodels import target

from pipeline.checking.check import Demands, check
from pipeline.comparing import candidates, document, rows, terminal
from pipeline.comparing.nouns import Accuracy, Kind, Time, Worth
from pipeline.comparing.rows import Candidate
from pipeline.comparing.subjects import Measured, Subject
from pipeline.cost import hosts
from pipeline.cost.hosts import RATES, HostProfile, Rate
from pipeline.errors import TargetError, UserError
from pipeline.graph.view import view
from pipeline.targets import library

NONE = Path("no/targets/here")
SUBJECT = Subject("net", view(swish_net()), notes=("it has a note",))


def own_host(name):
    return hosts.named(name, hosts.folder())


def slow_host(**rates):
    values = dict.fromkeys(RATES, 1e7) | {"overhead_s": 1e-3} | rates
    figures = {name: Rate(value=value, confidence="measured", source="made up") for name, value in values.items()}
    return HostProfile(name="slow", title="slow", threads=1, figures=figures)


def candidate(name):
    chip = target(name)
    return Candidate(chip, None if chip.host is None else own_host(chip.host))


@pytest.fixture(scope="module")
def compared():
    found = candidates.load(candidates.profiles("all", NONE), None)
    return rows.compare(SUBJECT, found)


def row(comparison, name):
    return next(each for each in comparison.rows if each.name == name)


def test_every_target_and_every_host_has_one_row(compared):
    names = [each.name for each in compared.rows]
    assert len(names) == len(set(names))
    targets = library.names(NONE)
    own = {library.load(library.find(name, NONE)).host for name in targets} - {None}
    assert set(names) == {*targets, *own}
    assert {each.name for each in compared.rows if each.kind is Kind.CPU} == own
    assert [each.name for each in compared.rows if each.kind is Kind.GPU] == ["jetson-xavier-nx-gpu"]
    assert {each.name for each in compared.rows if each.hypothetical} == {"edgetpu-ddr", "conv-only"}


def test_the_fastest_comes_first_and_the_unknown_last(compared):
    times = [float("inf") if each.ms is None else each.ms for each in compared.rows]
    assert times == sorted(times)
    assert times[-1] == float("inf")
    assert [each.fps for each in compared.rows if each.ms is None] == [None] * times.count(float("inf"))


@pytest.mark.parametrize("name", ["coral-edgetpu-pcie", "ethos-u65-256", "jetson-xavier-nx-dla", "rk3588"])
def test_a_row_says_what_the_check_says(compared, name):
    chip = candidate(name)
    checked = check("net", view(swish_net()), chip.target, chip.host, Demands(prices=False))
    found = row(compared, name)
    assert (found.ms, found.time.low_ms, found.time.high_ms) == (
        checked.totals.ms, checked.totals.low_ms, checked.totals.high_ms,
    )  # fmt: skip
    assert (found.partitions, found.npu_partitions) == (checked.cut.partitions, checked.cut.npu_partitions)
    assert found.coverage == checked.coverage
    assert found.provenance == str(checked.totals.provenance)
    assert found.confidence == chip.target.confidence
    parts = found.time
    assert parts.npu_ms + parts.cpu_ms + parts.crossing_ms + parts.launch_ms == pytest.approx(parts.ms)


def test_the_gpu_takes_everything(compared):
    assert row(compared, "jetson-xavier-nx-gpu").coverage == 1.0


def test_ratios_follow_from_power_and_price():
    quick = rows.compare(SUBJECT, [Candidate(target("coral-edgetpu-pcie"), slow_host())])
    found = row(quick, "coral-edgetpu-pcie")
    assert found.npu_partitions == 1
    assert found.fps == pytest.approx(1000 / found.ms)
    assert found.fps_per_dollar == pytest.approx(found.fps / 99.99)  # the Coral SoM's street price of 2020
    used = found.time.npu_ms + found.time.crossing_ms + found.time.launch_ms
    assert found.known_energy_mj == pytest.approx(2 * used)  # 2 W: coral.ai/docs/edgetpu/benchmarks
    assert (found.energy_mj, found.fps_per_watt, found.energy_missing) == (None, None, ("host power_w",))
    told = terminal.text(quick)
    assert f" >{found.known_energy_mj:.3g} " in told
    assert "Not public, so not in the mJ (host power_w): coral-edgetpu-pcie" in told
    module = row(
        rows.compare(SUBJECT, [Candidate(target("jetson-xavier-nx-dla"), slow_host())]), "jetson-xavier-nx-dla"
    )
    assert module.energy_mj == pytest.approx(10 * module.ms)  # 10 W, the module as a whole
    assert module.fps_per_watt == pytest.approx(module.fps / 10)
    assert found.worth is Worth.YES
    assert found.speedup == pytest.approx(row(quick, "slow").ms / found.ms)


def test_a_price_in_won_is_converted(compared):
    price = row(compared, "jetson-xavier-nx-dla").price
    assert price.usd == pytest.approx(508.4, abs=0.1)
    assert "600,000 KRW at 1,180.27 per USD" in price.source
    assert row(compared, "rk3588").price is None
    assert row(compared, "rk3588").fps_per_dollar is None


def test_what_is_placed_on_the_cpu_is_not_worth_it():
    fast = slow_host(**dict.fromkeys(RATES, 1e15) | {"overhead_s": 1e-9})
    compared = rows.compare(SUBJECT, [Candidate(target("coral-edgetpu-usb2"), fast)])
    found = row(compared, "coral-edgetpu-usb2")
    assert (found.coverage, found.npu_partitions, found.worth) == (0.0, 0, Worth.NO)
    assert found.taken > 0
    assert (found.energy_mj, found.fps_per_watt, found.fps_per_dollar) == (None, None, None)
    assert any("Everything is on the CPU" in note for note in found.notes)
    assert "no: all is placed on the CPU" in terminal.text(compared)


def test_what_is_not_public_is_not_judged(compared):
    assert row(compared, "kirin-970").worth is Worth.UNKNOWN  # not one of its operators is public
    assert row(compared, "kirin-970").time is None
    assert row(compared, "hi3559a-nnie").time is None
    assert row(compared, "hi3559a-nnie").worth is Worth.UNKNOWN
    assert row(compared, "ethos-u55-128").host is None
    assert row(compared, "ethos-u55-128").worth is Worth.UNKNOWN
    assert row(compared, "ethos-u55-128").ms > 0
    told = terminal.text(compared)
    assert "unknown: its operators are not public" in told
    assert "unknown: its speed is not public" in told
    assert "unknown: no host to compare with" in told
    assert told.endswith("note: it has a note")


@pytest.mark.parametrize(
    ("time", "beside", "used", "worth"),
    [
        ((1, 0.5, 2), (10, 5, 20), True, Worth.YES),
        ((1, 0.5, 6), (10, 5, 20), True, Worth.UNCERTAIN),
        ((10, 5, 20), (10, 5, 20), True, Worth.NO),
        ((1, 0.5, 2), (10, 5, 20), False, Worth.NO),
        (None, (10, 5, 20), True, Worth.UNKNOWN),
        ((1, 0.5, 2), None, True, Worth.UNKNOWN),
    ],
)
def test_worth_is_beyond_both_bands_or_uncertain(time, beside, used, worth):
    def made(band):
        return None if band is None else Time(*band, 0.0, 0.0, 0.0, 0.0)

    assert rows._worth(made(time), made(beside), used) is worth


def test_accuracies_stand_in_the_rows_of_their_targets():
    measured = Measured(Accuracy(0.9, 0.5), {"rk3588": Accuracy(0.8, 0.4)}, {"stm32mp2": ("a gate is missed",)})
    found = rows.compare(replace(SUBJECT, measured=measured), [candidate("rk3588"), candidate("stm32mp2")])
    assert row(found, "rk3588").accuracy == Accuracy(0.8, 0.4)
    assert row(found, "stm32mp2").accuracy is None
    assert row(found, "stm32mp2").notes[-1] == "a gate is missed"
    told = terminal.text(found)
    assert "AP50 of the float model 90.00 %, measured" in told
    assert "AP50 int8" in told
    assert document.document(found)["float_accuracy"] == {"ap50": 0.9, "ap": 0.5}


def test_targets_are_chosen_by_name_or_file_with_the_gpu_beside_them(tmp_path):
    (tmp_path / "chip.yaml").write_text("name: chip\ntitle: mine\ninherit: rk3588\n")
    chosen = candidates.profiles(f"stm32mp2, {tmp_path / 'chip.yaml'}", NONE)
    assert [path.stem for path in chosen] == ["chip", "jetson-xavier-nx-gpu", "stm32mp2"]
    assert "chip" in [path.stem for path in candidates.profiles("all", tmp_path)]
    assert [each.host.name for each in candidates.load(chosen, "cortex-a53")] == ["cortex-a53"] * 3


@pytest.mark.parametrize(
    ("wanted", "error", "says"),
    [
        ("", UserError, "no target is named"),
        (",", UserError, "no target is named"),
        ("rk3588,", UserError, "a name is empty"),
        ("rk3588,stm32mp2,rk3588", UserError, "rk3588 is named twice"),
        ("rk3589", TargetError, "did you mean rk3588?"),
    ],
)
def test_wrong_lists_of_targets_are_told(wanted, error, says):
    with pytest.raises(error, match=says.replace("?", r"\?")):
        candidates.profiles(wanted, NONE)
