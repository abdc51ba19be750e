import sys
from pathlib import Path

import pytest

from pipeline import sources
from pipeline.run import STAGES
from pipeline.sources import Root

FILES = {
    "app/__init__.py": "",
    "app/main.py": "import app.one\nfrom app.two import thing\nfrom . import three\nimport numpy\n",
    "app/one.py": "def f():\n    from app.deep.inner import g\n",
    "app/two.py": "thing = 1\n",
    "app/three.py": "from .deep import *\n",
    "app/four.py": "never imported\n",
    "app/deep/__init__.py": "from ..five import x\n",
    "app/deep/inner.py": "from app import main\n",
    "app/five.py": "x = (",
    "other.py": "",
}


@pytest.fixture
def root(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return Root(tmp_path)


def test_the_walk_follows_every_kind_of_import(root):
    assert list(sources.walk(["app.main"], [root])) == [
        "app/__init__.py",
        "app/deep/__init__.py",
        "app/deep/inner.py",
        "app/five.py",
        "app/main.py",
        "app/one.py",
        "app/three.py",
        "app/two.py",
    ]


def test_a_root_may_be_limited_to_names(root):
    assert sources.walk(["other"], [Root(root.folder, ("app",))]) == {}
    assert sources.walk(["nothing.at.all"], [root]) == {}


def test_nothing_is_imported():
    before = set(sys.modules)
    for stage in STAGES:
        sources.walk([stage.module], [sources.project()])
    assert set(sys.modules) == before


def test_the_real_stages_run_what_one_would_think():
    train = sources.walk(["pipeline.stages.train"], [sources.project()])
    assert {"pipeline/stages/train.py", "pipeline/tasks/detection/loss.py", "runtime/adapters/image.py"} <= set(train)
    assert not {"pipeline/config.py", "pipeline/workspace.py", "pipeline/cli.py", "pipeline/tracking.py"} & set(train)
    partition = sources.walk(["pipeline.stages.partition"], [sources.project()])
    assert "pipeline/tasks/detection/loss.py" not in partition


def test_what_a_stage_packs_counts_though_it_is_not_imported():
    packed = sources.packed(("runtime",))
    assert packed["runtime/__main__.py"] == Path(sources.__file__).parent.parent / "runtime/__main__.py"


def test_the_users_own_module_is_located_but_not_a_librarys(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "net.py").write_text("import helper")
    (tmp_path / "single.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert sources.locate("mine.net") == Root(tmp_path)
    assert sources.locate("single") == Root(tmp_path)
    for module in ("numpy.linalg", "json", "sys", "no_such_module", "pipeline.tasks"):
        assert sources.locate(module) is None, module


def test_the_model_factorys_code_is_part_of_the_key(shop, monkeypatch):
    (shop.src.parent / "mynet.py").write_text("import myparts\n")
    (shop.src.parent / "myparts.py").write_text("")
    shop.set(train={"model": {"factory": "mynet:build"}})
    shop.run()
    (shop.src.parent / "myparts.py").write_text("x = 1\n")
    assert shop.run()[0] == "train: stale because myparts.py changed"
