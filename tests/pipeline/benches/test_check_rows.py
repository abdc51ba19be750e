"""The rows about estimates: that each kind is there, with a number and what it is the number of."""

import re

import pytest

from pipeline.benches import check
from pipeline.cost.validation.machine import Timed
from pipeline.cost.validation.vela import Comparison
from pipeline.workspace import Quiet


def test_real_models_are_priced_and_placed(monkeypatch):
    monkeypatch.setattr(check, "MODELS", ("light_squeezenet",))
    monkeypatch.setattr(check, "TARGETS", ("coral-edgetpu-pcie", "ethos-u65-256"))
    price, greedy = check._models(Quiet())
    assert price.what == "cost model, ms for light_squeezenet"
    assert float(price.value) > 0
    assert re.fullmatch(r"\d\d operators, all priced on NPU and host, median of 2 targets", price.how)
    gains = dict(each.split() for each in greedy.value.split(", "))
    assert gains.keys() == {"coral-edgetpu-pcie", "ethos-u65-256"}
    assert all(float(gain.rstrip("%")) >= 0 for gain in gains.values())


def test_silicon_rows_say_how_many_were_measured(tmp_path, monkeypatch):
    header, *lines = check.silicon.table().read_text().splitlines()
    some = [line for line in lines if "MobileNet v1 1.0" in line]
    (tmp_path / "some.csv").write_text("\n".join([header, *some]))
    monkeypatch.setattr(check.silicon, "table", lambda: tmp_path / "some.csv")
    rows = list(check._silicon(Quiet()))
    assert len({row.what for row in rows}) == len(rows)
    assert rows
    for row in rows:
        assert re.fullmatch(r"against silicon, [\w-]+, (NPU|host)", row.what)
        assert re.fullmatch(r"\d+\.\d%", row.value)
        assert re.match(r"mean absolute error of \d+ measured rows \(", row.how)
    counts = [int(re.search(r"of (\d+) measured", row.how)[1]) for row in rows]
    assert sum(counts) == len(list(check.silicon.answers(tmp_path / "some.csv")))


def test_vela_rows_need_vela(monkeypatch):
    monkeypatch.setattr(check.importlib.util, "find_spec", lambda name: None)
    (row,) = check._vela(Quiet())
    assert (row.value, row.how) == ("-", "needs: pip install ethos-u-vela ai-edge-litert")


def test_vela_rows_are_relative_errors(monkeypatch):
    monkeypatch.setattr(check.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(check.vela, "compare", lambda *given: Comparison(90.0, 100.0, 0.987, 12, 12))
    rows = list(check._vela(Quiet()))
    assert [row.what for row in rows][:2] == ["ethos-u55-128, mobilenet_v1", "ethos-u55-128, mobilenet_v2"]
    assert len(rows) == 2 * len(check.vela.SYSTEMS)
    assert {row.value for row in rows} == {"-10.0%"}
    assert rows[0].how == "cycles against Vela's; Spearman of 12 operators 0.987"


def test_one_comparison_with_vela_itself():
    pytest.importorskip("ethosu", reason="needs ethos-u-vela (extra dev)")
    pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert (extra dev, Linux)")
    system = {"ethos-u55-128": check.vela.SYSTEMS["ethos-u55-128"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check.vela, "SYSTEMS", system)
        patch.setattr(check, "VELA", (check.networks.mobilenet_v1_wake,))
        (row,) = check._vela(Quiet())
    assert abs(float(row.value.rstrip("%"))) < 50


def test_this_machines_row_is_of_what_was_measured(monkeypatch):
    monkeypatch.setattr(check.machine, "time_network", lambda make: Timed(1, 12.0, 10.0, 25.0))
    (row,) = check._machine(Quiet())
    assert (row.what, row.value) == ("this machine, MobileNet v2", "+20.0%")
    assert row.how == "int8, one thread: 12.00 ms predicted, 10.00 measured (float: 25.00)"
