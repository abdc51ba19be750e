"""Damage to a finished run: noticed, and made good where the pipeline may."""

import json
import shutil

import pytest
from test_run import FRESH, stale

from pipeline.errors import UserError


@pytest.mark.parametrize(
    ("name", "value"), [("seconds", None), ("metrics", {"bytes": "many"}), ("key", [1]), ("outputs", {"a": 3})]
)
def test_a_record_with_other_types_is_noticed(shop, name, value):
    shop.run()
    path = shop.folder / "runs/shop/export/stage.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    assert "stage.json is damaged" in stale(shop.run())["export"]
    assert shop.run() == FRESH


@pytest.mark.parametrize("place", ["export", ".partial/export"])
@pytest.mark.parametrize(
    "put", [lambda path: path.write_text("x"), lambda path: path.symlink_to("nowhere"), lambda p: p.symlink_to(p.name)]
)
def test_what_lies_in_the_place_of_a_folder_is_replaced(shop, place, put):
    shop.run()
    before = shop.files()
    shutil.rmtree(shop.folder / "runs/shop/export")
    put(shop.folder / "runs/shop" / place)
    assert list(stale(shop.run())) == ["export"]
    assert shop.files() == before


def test_a_linked_folder_is_replaced_and_what_it_links_to_stays(shop):
    shop.run()
    export = shop.folder / "runs/shop/export"
    export.rename(shop.folder / "elsewhere")
    export.symlink_to(shop.folder / "elsewhere")
    assert shop.run() == FRESH
    shop.run(force=("export",))
    assert not export.is_symlink()
    assert (shop.folder / "elsewhere/model.txt").exists()
    assert shop.run() == FRESH


def test_a_folder_in_the_place_of_the_report_is_told(shop):
    shop.run()
    report_file = shop.folder / "runs/shop/report.json"
    report_file.unlink()
    report_file.mkdir()
    with pytest.raises(UserError, match=r"report\.json: cannot be written: Is a directory"):
        shop.run()
