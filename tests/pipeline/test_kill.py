"""``kill -9`` at every moment: the next run continues and ends with the same files."""

import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.workspace import Workspace

FORK = multiprocessing.get_context("fork")
STEPS = ((Path, "rename"), (Path, "replace"), (Path, "unlink"), (Path, "mkdir"), (shutil, "rmtree"))


def in_child(work):
    """Run ``work`` in a process of its own and return its exit code; minus the signal that killed it."""
    child = FORK.Process(target=work)
    child.start()
    child.join(60)
    assert child.exitcode is not None
    return child.exitcode


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def run_until(shop, deadly, **changes):
    """Run the use case in a child that is killed before its file operation number ``deadly``; whether it was."""

    def work():
        counter = itertools.count()
        for owner, name in STEPS:
            setattr(owner, name, deadly_copy(getattr(owner, name), counter, deadly))
        shop.run(**changes)

    return in_child(work) == -signal.SIGKILL


def deadly_copy(function, counter, deadly):
    def copy(*arguments, **options):
        if next(counter) == deadly:
            die()
        return function(*arguments, **options)

    return copy


def leftovers(shop):
    return sorted(path.name for path in (shop.folder / "runs/shop/.partial").iterdir())


def finished(shop):
    shop.run()
    assert shop.run() == ["train: fresh", "export: fresh", "package: fresh"]
    assert leftovers(shop) == []
    return shop.files()


def test_killed_before_any_file_operation_of_a_first_run(shop):
    expected = finished(shop)
    for deadly in itertools.count():
        shutil.rmtree(shop.folder / "runs")
        if not run_until(shop, deadly):
            break
        assert finished(shop) == expected, f"killed before operation {deadly}"
    assert deadly > 20


def test_killed_before_any_file_operation_that_replaces_results(shop):
    old = finished(shop)
    shop.set(train={"epochs": 4})
    new = finished(shop)
    assert old != new
    shop.set(train={"epochs": 3})
    finished(shop)
    kept = shop.folder / "kept"
    shutil.copytree(shop.folder / "runs", kept)
    shop.set(train={"epochs": 4})
    for deadly in itertools.count():
        shutil.rmtree(shop.folder / "runs")
        shutil.copytree(kept, shop.folder / "runs")
        if not run_until(shop, deadly):
            break
        for stage in ("train", "export", "package"):
            folders = (shop.folder / "runs/shop" / stage, shop.folder / "runs/shop/.partial" / f"{stage}.old")
            assert any((folder / "stage.json").exists() for folder in folders), "an earlier result is lost"
        assert finished(shop) == new, f"killed before operation {deadly}"
    assert deadly > 20


@pytest.mark.parametrize("stage", ["train", "export", "package"])
def test_killed_while_a_stage_writes(shop, stage):
    expected = finished(shop)
    shutil.rmtree(shop.folder / "runs")

    def half(write):
        def write_half(path, data):
            if path.parent.name == stage:
                write(path, data[: len(data) // 2])
                die()
            return write(path, data)

        return write_half

    def work():
        Path.write_text, Path.write_bytes = half(Path.write_text), half(Path.write_bytes)
        shop.run()

    assert in_child(work) == -signal.SIGKILL
    assert (shop.folder / "runs/shop/.partial" / stage).exists()
    said = shop.run()
    assert f"{stage}: stale because the last run was interrupted" in said
    assert shop.files() == expected


def killed_in_epoch(shop, epoch):
    """Train in a child that is killed when it begins ``epoch``."""

    def work():
        shop.reload()
        from fakes import hooks  # noqa: PLC0415 (made by the fixture)

        def step(stage, number):
            if number == epoch:
                die()

        hooks.step = step
        shop.reload = lambda: None
        shop.run()

    assert in_child(work) == -signal.SIGKILL


def epochs_run(shop):
    """Which epochs a run of the train stage goes through."""
    shop.reload()
    from fakes import hooks  # noqa: PLC0415 (made by the fixture)

    epochs = []
    hooks.step = lambda stage, number: epochs.append(number)
    shop.reload, kept = lambda: None, shop.reload
    shop.run()
    shop.reload = kept
    return epochs


def test_a_killed_stage_continues_where_it_was(shop):
    killed_in_epoch(shop, 2)
    assert epochs_run(shop) == [2]


@pytest.mark.parametrize("change", ["setting", "code", "data", "force"])
def test_a_killed_stage_starts_anew_when_what_it_depends_on_changed(shop, change):
    killed_in_epoch(shop, 2)
    if change == "setting":
        shop.set(train={"learning_rate": 0.5})
    elif change == "code":
        (shop.src / "common.py").write_text("FACTOR = 3\n")
    elif change == "data":
        (shop.folder / "clip.bin").write_bytes(b"other")
    elif change == "force":
        shop.options = lambda real=shop.options, **changes: real(force=("train",), **changes)
    assert epochs_run(shop) == [0, 1, 2]


def test_a_result_that_is_still_fresh_forgets_a_killed_try(shop):
    expected = finished(shop)
    shop.set(train={"epochs": 5})
    killed_in_epoch(shop, 2)
    shop.set(train={"epochs": 3})
    assert shop.run()[0] == "train: fresh"
    assert leftovers(shop) == []
    assert shop.files() == expected


def test_two_runs_at_once_are_refused_and_the_lock_ends_with_its_process(shop):
    shop.run()
    folder = shop.folder / "runs/shop"
    script = (
        "import sys, time; from pathlib import Path; from pipeline.workspace import Workspace\n"
        "with Workspace(Path(sys.argv[1])).open([]):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    here = Workspace(folder)
    assert here.busy()
    with pytest.raises(UserError, match="runs/shop: another run is at work here"):
        shop.run()
    holder.kill()
    holder.communicate()
    assert not here.busy()
    with here.open([]):
        assert not here.busy()
        assert in_child(lambda: sys.exit(0 if Workspace(folder).busy() else 1)) == 0
    assert shop.run() == ["train: fresh", "export: fresh", "package: fresh"]


def test_a_runs_folder_that_cannot_be_made_is_told(shop):
    (shop.folder / "runs").write_text("a file is in the way")
    with pytest.raises(UserError, match="the runs folder cannot be written: Not a directory"):
        shop.run()


def test_a_swap_that_cannot_be_finished_is_told(shop, monkeypatch):
    shop.run()
    workspace = Workspace(shop.folder / "runs/shop")
    workspace.stage("train").rename(workspace.folder / ".partial/train.old")

    def refuse(path, target):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UserError, match="the runs folder cannot be written: Permission denied"):
        shop.run()
    monkeypatch.undo()
