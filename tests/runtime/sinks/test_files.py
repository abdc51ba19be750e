"""Files of events: each line once and whole, whatever happened before."""

import csv
import json
import os

import pytest
from event_data import event, events

from runtime.events import FIELDS
from runtime.sinks import SinkError
from runtime.sinks.files import CSV_HEAD, LineSink, csv_line, json_line


def sink_at(path):
    return LineSink(path, json_line)


def frames_of(path):
    return [json.loads(line)["frame"] for line in path.read_text().splitlines()]


def test_json_lines_have_every_field(tmp_path):
    path = tmp_path / "e.jsonl"
    sink = sink_at(path)
    assert sink.open(None) == 0
    assert sink.deliver(events(2)) == path.stat().st_size
    sink.close()
    first = json.loads(path.read_text().splitlines()[0])
    assert tuple(first) == FIELDS
    assert (first["track"], first["dwell_s"]) == (0, None)


def test_csv_reads_back(tmp_path):
    path = tmp_path / "e.csv"
    sink = LineSink(path, csv_line, CSV_HEAD)
    sink.open(None)
    sink.deliver([event(1, name='a, "b"\nc', detail="é")])
    with path.open(newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["name"], row["detail"], row["dwell_s"], row["frame"]) == ('a, "b"\nc', "é", "", "1")
    sink.open(path.stat().st_size)
    sink.deliver(events(1))
    assert path.read_text().count("id,kind") == 1


def test_what_was_written_after_the_mark_is_written_again_not_twice(tmp_path):
    path = tmp_path / "e.jsonl"
    sink = sink_at(path)
    sink.open(None)
    mark = sink.deliver(events(2))
    sink.deliver(events(2, 2))  # and killed before it was noted
    path.open("ab").write(b'{"half a li')
    again = sink_at(path)
    assert again.open(mark) == mark
    again.deliver(events(3, 2))
    assert frames_of(path) == [0, 1, 2, 3, 4]


def test_a_file_from_before_is_continued(tmp_path):
    path = tmp_path / "e.jsonl"
    path.write_text(json_line(event(7)))
    sink = sink_at(path)
    sink.open(None)
    sink.deliver(events(1))
    assert frames_of(path) == [7, 0]


def test_a_file_that_was_taken_away_is_begun_anew(tmp_path):
    path = tmp_path / "e.csv"
    sink = LineSink(path, csv_line, CSV_HEAD)
    assert sink.open(500) == len(CSV_HEAD)
    sink.deliver(events(1))
    assert path.read_text().splitlines()[0] == CSV_HEAD.strip()


def test_a_file_that_was_cut_is_not_written(tmp_path):
    path = tmp_path / "e.jsonl"
    path.write_text("xx")
    with pytest.raises(SinkError, match="has 2 bytes, of 500 that were written"):
        sink_at(path).open(500)


@pytest.mark.parametrize("path", ["none/e.jsonl", "."])
def test_a_file_that_cannot_be_opened(tmp_path, path):
    with pytest.raises(SinkError, match="cannot be written: "):
        sink_at(tmp_path / path).open(None)


def test_a_disk_that_is_full_leaves_whole_lines(tmp_path):
    """What a file's limit does: half a line is written, then no more."""
    import resource  # noqa: PLC0415 (POSIX)

    path = tmp_path / "e.jsonl"
    sink = sink_at(path)
    sink.open(None)
    mark = sink.deliver(events(2))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (mark + 20, before[1]))
    try:
        with pytest.raises(SinkError, match="File too large"):
            sink.deliver(events(1, 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.stat().st_size == mark
    sink.open(mark)
    sink.deliver(events(1, 2))
    assert frames_of(path) == [0, 1, 2]


def test_a_pipe_is_no_file_to_go_on_with(tmp_path):
    sink = sink_at(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SinkError, match="cannot be written"):
        sink.open(None)
