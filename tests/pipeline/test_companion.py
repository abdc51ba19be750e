"""The processes that torchrun starts beside the first."""

import sys

import pytest

from pipeline import companion
from pipeline.configfile import load
from pipeline.errors import UserError
from pipeline.freshness import Stage
from pipeline.planning import Plan
from pipeline.workspace import Workspace


@pytest.fixture
def second(shop, monkeypatch):
    """The use case as torchrun's second process sees it; its train stage is shared."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "1")
    first = shop.stages[0]
    shop.stages = (Stage(first.name, first.module, first.sections, together=True), *shop.stages[1:])
    return shop


def begin(shop):
    """What the first process does before it trains."""
    workspace = Workspace(shop.folder / "runs/shop")
    with workspace.open(["train"]):
        key = Plan(load(shop.config), shop.options(), shop.stages, workspace).assess(shop.stages[0]).key
        return workspace.begin("train", key)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "0"}, False),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "3"}, True),
    ],
)
def test_only_torchruns_later_processes_are_companions(monkeypatch, environment, expected):
    for name in ("TORCHELASTIC_RUN_ID", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert companion.is_one() is expected


def test_a_companion_takes_part_in_the_shared_stage_and_records_nothing(second):
    out = begin(second)
    second.run(stages=second.stages)
    assert (out / "weights.bin").exists()
    assert not (out / "stage.json").exists()
    assert second.hooks().ran == ["train"]
    assert not (second.folder / "runs/shop/report.json").exists()


def test_a_companion_has_nothing_to_do_when_the_stage_is_fresh(second, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    second.run(stages=second.stages)
    monkeypatch.setenv("RANK", "1")
    second.run(stages=second.stages)
    assert "fakes.hooks" not in sys.modules


def test_a_companion_that_waits_in_vain_says_so(second):
    plan = Plan(load(second.config), second.options(), second.stages, Workspace(second.folder / "runs/shop"))
    with pytest.raises(UserError, match=r"runs/shop: the first process has not begun train \(let all machines share"):
        companion.follow(plan, second.stages, pytest.fail, patience=0.0)
