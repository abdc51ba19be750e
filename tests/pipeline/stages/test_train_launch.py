"""Processes that train together: what they say reaches the first one's progress, and so do their errors."""

import os
from dataclasses import replace

import pytest
from torch.multiprocessing.spawn import ProcessRaisedException

from pipeline.config import RunConfig
from pipeline.errors import DataError
from pipeline.training.launch import Place, launch
from pipeline.workspace import Context, Quiet

HERE = Place("cpu", 1, 1, 0)
TWO = Place("cpu", 2, 1, None)


class Listener(Quiet):
    """A ``Progress`` that remembers every call."""

    def __init__(self):
        self.calls = []

    def start(self, total, what):
        self.calls.append(("start", total, what))

    def advance(self, n=1):
        self.calls.append(("advance", n))

    def message(self, text):
        self.calls.append(("message", text))

    def metric(self, name, value, step):
        self.calls.append(("metric", name, value, step))

    def trial(self, what, numbers):
        self.calls.append(("trial", what, numbers))


def talk(context, where):
    context.progress.start(3, f"{where.world} processes")
    context.progress.advance()
    context.progress.advance(2)
    context.progress.trial("a way", {"seconds": 2.5})
    context.progress.metric("ap50", 0.5, 0)
    context.progress.message("done")
    names = ("LOCAL_RANK", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
    (context.out / f"{where.rank}.txt").write_text(" ".join(os.environ.get(name, "-") for name in names))


def fail(_context, where):
    if where.rank == 1:
        raise DataError("the image is damaged", where="0007.png", fix="restore it")


def crash(_context, where):
    raise ZeroDivisionError(f"bug in rank {where.rank}")


@pytest.fixture
def context(tiny_settings, tmp_path):
    return Context(RunConfig(**tiny_settings), tmp_path, {}, Listener())


SAID = [
    ("advance", 1),
    ("advance", 2),
    ("trial", "a way", {"seconds": 2.5}),
    ("metric", "ap50", 0.5, 0),
    ("message", "done"),
]


def test_one_process_trains_here(context):
    launch(talk, context, HERE)
    assert context.progress.calls == [("start", 3, "1 processes"), *SAID]


def test_another_rank_is_silent(context):
    launch(talk, context, replace(HERE, rank=1, devices=2))
    assert context.progress.calls == []


def test_two_processes_are_started_and_the_first_one_is_heard(context):
    launch(talk, context, TWO)
    assert context.progress.calls == [("start", 3, "2 processes"), *SAID]
    first, second = ((context.out / f"{rank}.txt").read_text().split() for rank in (0, 1))
    assert (first[:3], second[:3]) == (["0", "0", "127.0.0.1"], ["1", "0", "127.0.0.1"])
    assert first[3] == second[3]


def test_an_error_of_the_user_comes_back_as_it_was(context):
    with pytest.raises(DataError, match=r"^0007.png: the image is damaged \(restore it\)$"):
        launch(fail, context, TWO)


def test_any_other_error_shows_its_traceback(context):
    with pytest.raises(ProcessRaisedException, match="ZeroDivisionError: bug in rank"):
        launch(crash, context, TWO)
