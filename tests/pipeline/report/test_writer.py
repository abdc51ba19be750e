import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.report import html, json_report, writer


@pytest.fixture
def written(finished, monkeypatch):
    """A run whose reports are written; of the page only a stand-in, for what it shows is tested elsewhere."""
    monkeypatch.setattr(html, "page", lambda summary: f"<!doctype html>{summary.stages[0].why}{summary.target}")
    writer.write(finished.summary)
    finished.page = finished.folder / "report.html"
    finished.stamp = lambda: (finished.page.stat().st_mtime_ns, finished.page.stat().st_ino)
    return finished


def test_both_reports_are_written(written):
    assert written.page.read_text().startswith("<!doctype html>")
    assert json.loads((written.folder / "report.json").read_text())["name"] == "shop"
    assert [path.name for path in written.folder.iterdir() if path.name.startswith(".")] == []


def test_a_run_with_nothing_to_do_leaves_the_page_alone(written):
    before = written.stamp()
    writer.write(written.again())
    assert written.stamp() == before
    assert "never run" in written.page.read_text()
    assert json.loads((written.folder / "report.json").read_text())["stages"][0]["state"] == "fresh"


def test_a_run_with_nothing_to_do_does_not_import_what_draws(written):
    code = (
        "import sys, pickle; from pipeline.report import writer, terminal;"
        "summary = pickle.load(sys.stdin.buffer); writer.write(summary); terminal.text(summary);"
        "print([n for n in ('matplotlib', 'jinja2', 'onnx', 'torch', 'PIL') if n in sys.modules])"
    )
    import pickle  # noqa: PLC0415 (only here, between two processes of this test)

    summary = replace(
        written.again(), stages=tuple(replace(s, metrics=dict(s.metrics)) for s in written.again().stages)
    )
    before = written.stamp()
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(summary),
        stdout=subprocess.PIPE,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout.decode().strip() == "[]"
    assert written.stamp() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.without("package"),
        lambda run: run.with_gate("too few"),
        lambda run: replace(run.summary, config_digest="cd" * 32),
        lambda run: replace(run.summary, target="other"),
        lambda run: replace(
            run.summary, stages=(replace(run.summary.stages[0], seconds=11.0), *run.summary.stages[1:])
        ),
    ],
)
def test_whatever_the_page_shows_makes_it_new(written, change):
    before = written.stamp()
    writer.write(change(written))
    assert written.stamp() != before


@pytest.mark.parametrize(
    "file", ["train/history.json", "export/model.onnx", "package/samples/000-clip_0016.jpg", "report.html"]
)
def test_a_changed_or_cut_file_makes_the_page_new(written, file):
    path = written.folder / file
    path.write_bytes(path.read_bytes()[:-5])
    before = written.stamp()
    writer.write(written.again())
    assert written.stamp() != before


def test_a_lost_page_is_written_again(written):
    text = written.page.read_bytes()
    written.page.unlink()
    writer.write(written.summary)
    assert written.page.read_bytes() == text


def test_the_page_fails_aloud_when_the_folder_is_gone(finished):
    summary = replace(finished.summary, folder=finished.folder / "gone")
    with pytest.raises(OSError, match="No such file"):
        writer.write(summary)


def test_json_keeps_every_key_of_a_node(finished):
    data = json_report.document(finished.summary)
    assert data["schema"] == 1
    assert [node["phase"] for node in data["coverage"]] == [0, 0, 1, 1]
    assert data["coverage"][3]["reasons"] == ["It comes late", "It is odd"]
    assert data["problems"] == []
    assert data["metrics"]["package.differing_bytes"] == 0


def test_json_names_a_damaged_file(finished):
    path = finished.folder / "coverage/coverage.json"
    path.write_text('{"nodes": 7}')
    data = json_report.document(finished.summary)
    assert data["coverage"] == []
    assert data["problems"][0].startswith(f"{path} is damaged: nodes: ")


def test_json_has_no_problem_with_a_stage_that_is_not_up_to_date(finished):
    data = json_report.document(finished.without("coverage"))
    assert (data["coverage"], data["problems"]) == ([], [])
