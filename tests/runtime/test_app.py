"""Playing: events, annotated video, summary; and what stays when something breaks."""

import json
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import tiny
from PIL import Image
from test_sources import write_video

from runtime import outputs
from runtime.adapters.detection import Detections
from runtime.app import play
from runtime.bundle import open_bundle
from runtime.errors import SourceError, UserError
from runtime.outputs import EventLog, FrameResult
from runtime.session import Session
from runtime.sources import Frame, Source
from runtime.streams import opening


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "clip.mp4", tiny.frames(20))


@pytest.fixture
def frames(tmp_path):
    np.save(tmp_path / "frames.npy", tiny.frames(4))
    return tmp_path / "frames.npy"


def events_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def video_of(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return (
            stream.codec_context.name,
            stream.average_rate,
            [f.to_ndarray(format="rgb24") for f in container.decode(stream)],
        )


def test_events_are_what_the_session_finds(tmp_path, tiny_bundle, frames):
    bundle = open_bundle(tiny_bundle)
    summary = play(bundle, str(frames), events=tmp_path / "e.jsonl")
    events = events_of(tmp_path / "e.jsonl")
    assert [event["frame"] for event in events] == [0, 1, 2, 3]
    assert [event["time_s"] for event in events] == [0, 1, 2, 3]
    session = Session(bundle)
    for event, frame in zip(events, tiny.frames(4), strict=True):
        assert list(event) == ["frame", "time_s", "detections", "counts"]
        found = session.detect(frame)
        left, top, right, bottom = found.boxes.T
        boxes = np.array([detection["box"] for detection in event["detections"]])
        assert np.allclose(boxes, np.stack([left, top, right - left, bottom - top], axis=1), atol=0.006)
        assert np.allclose([detection["score"] for detection in event["detections"]], found.scores, atol=6e-5)
        assert {detection["label"] for detection in event["detections"]} == {"person"}
        assert event["counts"] == {"door": {"in": 0, "out": 0}}
    tracks = {detection["track"] for event in events for detection in event["detections"]}
    assert tracks - {None}
    assert summary.frames == 4
    assert summary.boxes == {"person": sum(len(event["detections"]) for event in events)}
    assert summary.tracks == len(tracks - {None})
    assert (summary.bundle, summary.target, summary.delegate, summary.source) == ("tiny", "toy", "npu", str(frames))
    assert summary.fps == pytest.approx(4 / summary.seconds)


def test_annotated_video_has_the_sources_rate_and_frames(tmp_path, tiny_bundle, clip):
    play(open_bundle(tiny_bundle), str(clip), annotate=tmp_path / "out.mp4")
    codec, rate, drawn = video_of(tmp_path / "out.mp4")
    assert (codec, rate, len(drawn)) == ("h264", 10, 20)
    assert drawn[0].shape == (64, 96, 3)
    assert np.abs(drawn[10].astype(int) - tiny.frames(20)[10]).mean() > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mp4"]


def test_another_encoder_when_h264_is_missing(tmp_path, tiny_bundle, clip, monkeypatch):
    monkeypatch.setattr(outputs, "ENCODERS", ("no-such-encoder", "mpeg4"))
    play(open_bundle(tiny_bundle), str(clip), annotate=tmp_path / "out.mp4", limit=3)
    assert video_of(tmp_path / "out.mp4")[0] == "mpeg4"
    monkeypatch.setattr(outputs, "ENCODERS", ("no-such-encoder",))
    with pytest.raises(UserError, match="FFmpeg has no encoder of no-such-encoder"):
        play(open_bundle(tiny_bundle), str(clip), annotate=tmp_path / "other.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mp4"]


def test_odd_sizes_lose_a_row_and_a_column(tmp_path, tiny_bundle):
    np.save(tmp_path / "odd.npy", tiny.frames(2)[:, :63, :95])
    play(open_bundle(tiny_bundle), str(tmp_path / "odd.npy"), annotate=tmp_path / "out.mp4")
    assert video_of(tmp_path / "out.mp4")[2][0].shape == (62, 94, 3)


def test_limit_and_listener(tiny_bundle, clip):
    heard = []
    summary = play(open_bundle(tiny_bundle), str(clip), limit=5, listen=lambda result: heard.append(result.index))
    assert heard == [0, 1, 2, 3, 4]
    assert summary.frames == 5


def test_the_cpu_delegate_plays_too(tiny_bundle, frames):
    assert play(open_bundle(tiny_bundle), str(frames), delegate="cpu").delegate == "cpu"


def test_a_source_that_fails_at_once_leaves_earlier_outputs(tmp_path, tiny_bundle):
    events, video = tmp_path / "e.jsonl", tmp_path / "out.mp4"
    events.write_text("earlier\n")
    video.write_text("earlier")
    (tmp_path / "bad.mp4").write_bytes(b"rubbish")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"rubbish")
    for source in ("bad.mp4", "images", "none.mp4"):
        with pytest.raises(SourceError):
            play(open_bundle(tiny_bundle), str(tmp_path / source), events=events, annotate=video)
    assert events.read_text() == "earlier\n"
    assert video.read_text() == "earlier"


def test_a_source_that_breaks_later_keeps_what_was_decoded(tmp_path, tiny_bundle):
    Image.fromarray(tiny.frames(1)[0]).save(tmp_path / "a.png")
    Image.fromarray(tiny.frames(1)[0]).save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"rubbish")
    events, video = tmp_path / "e.jsonl", tmp_path / "out.mp4"
    with pytest.raises(SourceError, match=r"c\.png: frame 2 cannot be decoded"):
        play(open_bundle(tiny_bundle), str(tmp_path), events=events, annotate=video)
    assert [event["frame"] for event in events_of(events)] == [0, 1]
    assert len(video_of(video)[2]) == 2


def test_an_interruption_keeps_what_was_written(tmp_path, tiny_bundle, clip):
    def interrupt(result):
        if result.index == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(
            open_bundle(tiny_bundle),
            str(clip),
            events=tmp_path / "e.jsonl",
            annotate=tmp_path / "out.mp4",
            listen=interrupt,
        )
    assert len(events_of(tmp_path / "e.jsonl")) == 4
    assert len(video_of(tmp_path / "out.mp4")[2]) == 4


def test_every_line_is_whole_before_the_next_frame(tmp_path, tiny_bundle, frames):
    seen = []
    path = tmp_path / "e.jsonl"
    play(open_bundle(tiny_bundle), str(frames), events=path, listen=lambda result: seen.append(len(events_of(path))))
    assert seen == [1, 2, 3, 4]


def test_frames_of_several_sizes_cannot_be_one_video(tmp_path, tiny_bundle):
    Image.fromarray(tiny.frames(1)[0]).save(tmp_path / "a.png")
    Image.fromarray(tiny.frames(1)[0][:32]).save(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"out\.mp4: frame 1 is 96x32, the video is 96x64"):
        play(open_bundle(tiny_bundle), str(tmp_path), annotate=tmp_path / "out.mp4")
    assert play(open_bundle(tiny_bundle), str(tmp_path / "a.png")).frames == 1


def test_unwritable_outputs(tmp_path, tiny_bundle, frames):
    bundle = open_bundle(tiny_bundle)
    with pytest.raises(UserError, match=r"e\.jsonl: cannot be written: No such file or directory"):
        play(bundle, str(frames), events=tmp_path / "none" / "e.jsonl")
    with pytest.raises(UserError, match=r"out\.mp4: cannot be written: No such file or directory"):
        play(bundle, str(frames), annotate=tmp_path / "none" / "out.mp4")
    with pytest.raises(UserError, match=r"an annotated video is an mp4 file \(name it out\.mp4\)"):
        play(bundle, str(frames), annotate=tmp_path / "out.avi")
    with pytest.raises(UserError, match=r"e\.jsonl: cannot be written"):
        play(bundle, str(frames), annotate=tmp_path / "out.mp4", events=tmp_path / "none" / "e.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["frames.npy"]
    with pytest.raises(UserError, match="/dev/full: cannot be written: No space left on device"):
        play(bundle, str(frames), events=outputs.Path("/dev/full"))


def test_outputs_that_cannot_be_written_are_noticed_before_the_first_frame(tmp_path, tiny_bundle, frames):
    heard = []
    (tmp_path / "folder.mp4").mkdir()
    events = tmp_path / "e.jsonl"
    events.write_text("earlier\n")
    for name, message in (("none/out.mp4", "No such file or directory"), ("folder.mp4", "it is a folder")):
        with pytest.raises(UserError, match=f"cannot be written: {message}"):
            play(open_bundle(tiny_bundle), str(frames), events=events, annotate=tmp_path / name, listen=heard.append)
    assert not heard
    assert events.read_text() == "earlier\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.jsonl", "folder.mp4", "frames.npy"]


def test_a_video_that_cannot_be_finished(tmp_path, tiny_bundle, frames):
    video = tmp_path / "out.mp4"
    with pytest.raises(UserError, match=r"out\.mp4: cannot be written: "):
        play(open_bundle(tiny_bundle), str(frames), annotate=video, listen=lambda result: video.mkdir(exist_ok=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames.npy", "out.mp4"]


def test_outputs_never_replace_the_source_or_the_bundle(tiny_bundle, clip):
    before = clip.read_bytes(), tiny_bundle.read_bytes()
    bundle = open_bundle(tiny_bundle)
    with pytest.raises(UserError, match=r"clip\.mp4: is read, so it cannot be written"):
        play(bundle, str(clip), annotate=clip.parent / "." / "clip.mp4")
    with pytest.raises(UserError, match=r"tiny\.npub: is read, so it cannot be written"):
        play(bundle, str(clip), events=tiny_bundle)
    other = clip.with_name("other.mp4")
    other.hardlink_to(clip)
    with pytest.raises(UserError, match=r"other\.mp4: is read, so it cannot be written"):
        play(bundle, str(clip), annotate=other)
    assert (clip.read_bytes(), tiny_bundle.read_bytes()) == before


def test_outputs_never_replace_an_image_of_the_source_or_each_other(tmp_path, tiny_bundle):
    image = tmp_path / "a.png"
    Image.fromarray(tiny.frames(1)[0]).save(image)
    before = image.read_bytes()
    with pytest.raises(UserError, match=r"a\.png: is read, so it cannot be written"):
        play(open_bundle(tiny_bundle), str(tmp_path), events=image)
    assert image.read_bytes() == before
    both = tmp_path / "out.mp4"
    with pytest.raises(UserError, match=r"out\.mp4: cannot hold both events and video"):
        play(open_bundle(tiny_bundle), str(tmp_path), events=both, annotate=both)
    assert not both.exists()


def test_an_output_that_leads_nowhere(tmp_path, tiny_bundle, frames):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="loop: cannot be written: Too many levels of symbolic links"):
        play(open_bundle(tiny_bundle), str(frames), events=tmp_path / "loop")


def test_a_source_without_a_frame(tmp_path, tiny_bundle, monkeypatch):
    empty = Source("empty", Fraction(1), (frame for frame in ()))
    monkeypatch.setattr(opening, "open_source", lambda text: empty)
    with pytest.raises(SourceError, match="has no frame"):
        play(open_bundle(tiny_bundle), str(tmp_path), events=tmp_path / "e.jsonl")
    assert not (tmp_path / "e.jsonl").exists()


def test_a_video_file_needs_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SourceError, match=r"the package av is needed .* \(pip install -r requirements-video\.txt in"):
        outputs.VideoFile(tmp_path / "out.mp4", Fraction(10), (96, 64))


def test_images_have_nothing_to_do_with_each_other(tmp_path, tiny_bundle):
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(tiny.frames(1)[0]).save(tmp_path / name)
    bundle = open_bundle(tiny_bundle)
    summary = play(bundle, str(tmp_path), events=tmp_path / "e.jsonl", annotate=tmp_path / "out.mp4")
    events = events_of(tmp_path / "e.jsonl")
    assert (summary.kind, summary.tracks, summary.counts, summary.zones) == ("images", None, {}, {})
    assert {detection["track"] for event in events for detection in event["detections"]} == {None}
    assert [event["counts"] for event in events] == [{}] * 3
    assert len(video_of(tmp_path / "out.mp4")[2]) == 3


def test_a_patient_log_leaves_out_lines_while_the_disk_is_full(tmp_path):
    import resource  # noqa: PLC0415 (POSIX)

    found = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    results = [FrameResult(n, Frame(tiny.frames(1)[0], float(n)), found, None, {}) for n in range(5)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with EventLog(tmp_path / "e.jsonl", ("person",), patient=True) as log:
        log.write(results[0])
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "e.jsonl").stat().st_size + 20, before[1]))
        try:
            log.write(results[1])
            log.write(results[2])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        log.write(results[3])
        assert log.lost == 2
    assert [event["frame"] for event in events_of(tmp_path / "e.jsonl")] == [0, 3]
