import io
import sys

from pipeline import progress
from pipeline.progress import BarConsole, PlainConsole


def test_plain_lines_come_every_ten_seconds(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    results, messages = io.StringIO(), io.StringIO()
    with PlainConsole(results, messages) as console:
        console.line("train: fresh")
        console.start(40, "epoch 1/3")
        for _ in range(30):
            clock[0] += 1.0
            console.advance()
        console.message("done")
        console.metric("loss", 1.0, 0)
    assert results.getvalue() == "train: fresh\n"
    assert messages.getvalue() == "  epoch 1/3 10/40\n  epoch 1/3 20/40\n  epoch 1/3 30/40\n  done\n"


def test_messages_move_no_cursor():
    out = io.StringIO()
    PlainConsole(io.StringIO(), out).message("a \x1b[2J name")
    assert out.getvalue() == "  a \\x1b[2J name\n"


def test_bars_go_to_standard_error_and_leave_nothing_behind(capsys):
    results = io.StringIO()
    with BarConsole(results) as console:
        console.advance()
        console.start(4, "reading")
        console.start(2, "training")
        console.advance(2)
        console.message("half [way]")
        console.line("train: done")
    out = capsys.readouterr()
    assert results.getvalue() == "train: done\n"
    assert out.out == ""
    assert "half [way]" in out.err


def test_bars_need_a_terminal(monkeypatch):
    assert isinstance(progress.console(sys.stdout), PlainConsole)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert isinstance(progress.console(sys.stdout), BarConsole)
