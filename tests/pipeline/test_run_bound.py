"""A setting that bounds a stage's time, with another of which the stage goes on; and what stages say ahead."""

import dataclasses
import json

import pytest
from test_kill import epochs_run, killed_in_epoch

from pipeline.errors import ConfigError
from pipeline.freshness import Bound

LEFT_SOME = Bound("train.epochs", untried="loss")
"""The stage of the shop always tells a loss, so its epochs have always left something out."""


def bounded(shop, bound):
    """The shop's stages with a bound on the first; its epochs are kept in a file of its result."""
    first, *others = shop.stages
    stages = (dataclasses.replace(first, bound=bound), *others)
    run = shop.run
    shop.run = lambda **changes: run(stages=stages, **changes)


def test_a_larger_bound_goes_on_with_the_last_result(shop):
    bounded(shop, LEFT_SOME)
    assert epochs_run(shop) == [0, 1, 2]
    shop.set(train={"epochs": 5})
    assert epochs_run(shop) == [3, 4]
    gone_on = shop.files()
    assert shop.run()[0] == "train: fresh"
    shop.options = lambda real=shop.options, **changes: real(force=("train",), **changes)
    assert epochs_run(shop) == [0, 1, 2, 3, 4]
    assert shop.files() == gone_on


def test_a_bound_that_left_nothing_out_may_be_any_other(shop):
    bounded(shop, Bound("train.epochs", untried="none"))
    shop.run()
    shop.set(train={"epochs": 5})
    assert shop.run()[0] == "train: fresh"
    shop.set(train={"learning_rate": 0.5})
    assert "train.learning_rate" in shop.run()[0]


def test_a_killed_try_goes_on_with_another_bound(shop):
    bounded(shop, LEFT_SOME)
    killed_in_epoch(shop, 2)
    shop.set(train={"epochs": 4})
    assert epochs_run(shop) == [2, 3]


def record(shop):
    return shop.folder / "runs/shop/train/stage.json"


def change_nothing_but_the_file(shop):
    (record(shop).parent / "deep/checkpoint.txt").write_text("2")


def change_another_setting(shop):
    shop.set(train={"learning_rate": 0.5})


def break_the_record(shop):
    record(shop).write_text("{")


@pytest.mark.parametrize("spoil", [change_nothing_but_the_file, change_another_setting, break_the_record])
def test_what_is_not_of_the_same_work_is_not_taken_over(shop, spoil):
    bounded(shop, LEFT_SOME)
    shop.run()
    shop.set(train={"epochs": 4})
    spoil(shop)
    assert epochs_run(shop) == [0, 1, 2, 3]


@pytest.mark.parametrize("damage", ["[]", json.dumps({"settings": []})])
def test_a_key_that_is_damaged_is_no_key(shop, damage):
    bounded(shop, LEFT_SOME)
    killed_in_epoch(shop, 2)
    (shop.folder / "runs/shop/.partial/train.key.json").write_text(damage)
    assert epochs_run(shop) == [0, 1, 2]


def test_what_a_stage_refuses_ahead_is_refused_before_any_stage_runs(shop):
    first, second, *others = shop.stages
    stages = (first, dataclasses.replace(second, ahead=True), *others)
    path = shop.src / "export.py"
    text = path.read_text()
    path.write_text(
        f"{text}\ndef ahead(context):\n    from pipeline.errors import ConfigError\n"
        "    if context.config.export.opset == 17:\n        raise ConfigError('is 17', where='export.opset')\n"
    )
    shop.set(export={"opset": 17})
    with pytest.raises(ConfigError, match=r"export\.opset: is 17"):
        shop.run(stages=stages)
    assert shop.hooks().ran == []
    shop.run(stages=stages, last="train")  # which does not get that far
    assert shop.hooks().ran == ["train"]
    shop.set(export={"opset": 18})
    shop.run(stages=stages)
    assert shop.hooks().ran == ["export", "package"]
