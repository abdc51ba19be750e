"""Sources: frames in order with their times, and one clear error for each thing that is none."""

import builtins
from fractions import Fraction

import av
import numpy as np
import pytest
import tiny
from PIL import Image

from runtime import sources
from runtime.errors import SourceError
from runtime.sources import open_source


def write_video(path, frames, codec="libx264", rate=10):
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.gop_size = 5
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Sixty frames at 10 per second."""
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", tiny.frames(60))


def drain(source):
    """All frames, and the error they end with, if any."""
    frames = []
    try:
        frames.extend(iter_frames(source, frames))
    except SourceError as error:
        return frames, error
    return frames, None


def iter_frames(source, kept):
    for frame in source.frames:
        kept.append(frame)
    return ()


def test_video(video):
    source = open_source(str(video))
    assert source.rate == Fraction(10)
    frames, error = drain(source)
    assert error is None
    assert len(frames) == 60
    assert [frame.time_s for frame in frames] == pytest.approx([index / 10 for index in range(60)])
    assert frames[0].pixels.shape == (64, 96, 3)
    assert frames[0].pixels.dtype == np.uint8
    assert np.abs(frames[7].pixels.astype(int) - tiny.frames(60)[7]).mean() < 20


def test_video_is_closed_when_it_is_left_early(video):
    source = open_source(str(video))
    next(source.frames)
    source.frames.close()
    assert next(source.frames, None) is None


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_video_that_breaks_off_keeps_its_frames_and_says_where(tmp_path, suffix):
    path = write_video(tmp_path / f"whole{suffix}", tiny.frames(60))
    broken = tmp_path / f"broken{suffix}"
    broken.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, error = drain(open_source(str(broken)))
    assert 5 < len(frames) < 50
    assert str(broken) in str(error)
    assert f"frame {len(frames)} " in str(error)


def test_video_with_rubbish_in_the_middle(tmp_path, video):
    data = bytearray(video.read_bytes())
    middle = len(data) // 2
    data[middle:-200] = bytes(255 - byte for byte in data[middle:-200])
    path = tmp_path / "rubbish.mp4"
    path.write_bytes(data)
    frames, error = drain(open_source(str(path)))
    assert len(frames) < 60
    assert error is not None
    assert f"frame {len(frames)} cannot be decoded" in str(error)


@pytest.mark.parametrize("content", [b"", b"not a video" * 100])
def test_not_a_video(tmp_path, content):
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"x\.mp4: cannot be opened as a video \(Invalid data"):
        open_source(str(path))


def test_a_text_file_is_not_played_as_a_terminal(tmp_path):
    (tmp_path / "notes.txt").write_text("hello\n" * 100)
    with pytest.raises(SourceError, match=r"notes\.txt: has no video in it"):
        open_source(str(tmp_path / "notes.txt"))


def test_tags_that_are_no_text_do_not_matter(tmp_path, video):
    data = video.read_bytes()
    assert data.count(b"Lavf") == 1
    path = tmp_path / "tags.mp4"
    path.write_bytes(data.replace(b"Lavf", b"\xa9\xff\xfe\x80"))
    frames, error = drain(open_source(str(path)))
    assert len(frames) == 60
    assert error is None


def test_a_name_with_a_colon_is_no_protocol(tmp_path, video, monkeypatch):
    (tmp_path / "10:30.mp4").write_bytes(video.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert len(drain(open_source("10:30.mp4"))[0]) == 60


def test_names_that_lead_nowhere(tmp_path):
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    with pytest.raises(SourceError, match=r"loop\.mp4: cannot be opened: Too many levels of symbolic links"):
        open_source(str(tmp_path / "loop.mp4"))
    with pytest.raises(SourceError, match="cannot be opened: File name too long"):
        open_source("x" * 5000)


def test_sound_only(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(SourceError, match="has no video in it"):
        open_source(str(path))


@pytest.mark.parametrize("camera", ["77", "/dev/video77"])
def test_no_camera(camera):
    with pytest.raises(SourceError, match=r"/dev/video77: there is no such camera"):
        open_source(camera)


def test_a_camera_that_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(sources.Path, "exists", lambda self: True)
    with pytest.raises(SourceError, match="/dev/video78: cannot be opened as a video"):
        open_source("78")


def test_no_such_file(tmp_path):
    with pytest.raises(SourceError, match="there is no such file or folder"):
        open_source(str(tmp_path / "x.mp4"))


def test_a_bundle_is_no_source(tiny_bundle):
    with pytest.raises(SourceError, match="is a bundle, not a source"):
        open_source(str(tiny_bundle))


def test_images_in_order_as_rgb(tmp_path):
    for name, level in (("b.png", 20), ("a.PNG", 10), ("c.bmp", 30)):
        Image.new("L", (8, 6), level).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    frames, error = drain(open_source(str(tmp_path)))
    assert error is None
    assert [int(frame.pixels[0, 0, 2]) for frame in frames] == [10, 20, 30]
    assert [frame.time_s for frame in frames] == [0, 1, 2]
    assert frames[0].pixels.shape == (6, 8, 3)


def test_one_image(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg")
    assert len(drain(open_source(str(tmp_path / "a.jpg")))[0]) == 1


def test_a_folder_without_images(tmp_path):
    with pytest.raises(SourceError, match=r"holds no images \(known are \.bmp"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_broken_image_is_named_after_the_good_ones(tmp_path, content):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(content)
    frames, error = drain(open_source(str(tmp_path)))
    assert len(frames) == 1
    assert "b.png: frame 1 cannot be decoded" in str(error)


@pytest.mark.parametrize("shape", [(6, 8, 3), (2, 6, 8, 3)])
def test_arrays(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "x.npy", array)
    frames, error = drain(open_source(str(tmp_path / "x.npy")))
    assert error is None
    assert np.array_equal(np.stack([frame.pixels for frame in frames]), array.reshape(-1, 6, 8, 3))


@pytest.mark.parametrize(
    "array",
    [np.zeros((6, 8), np.uint8), np.zeros((6, 8, 3)), np.zeros((0, 6, 8, 3), np.uint8), np.zeros((6, 8, 4), np.uint8)],
)
def test_arrays_that_are_no_frames(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(SourceError, match=r"x\.npy: is .* \(give uint8 \[H, W, 3\]"):
        open_source(str(tmp_path / "x.npy"))


@pytest.mark.parametrize("shape", ["(1, 6, 8, 3) + (", "(-1, 6, 8, 3)", "(9" + "9" * 20 + ", 6, 8, 3)", "{"])
def test_arrays_with_a_damaged_header(tmp_path, shape):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}".ljust(117).encode() + b"\n"
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + bytes(200))
    with pytest.raises(SourceError, match=r"x\.npy: is not an array"):
        open_source(str(path))


def test_several_arrays_in_one_file(tmp_path):
    with (tmp_path / "x.npy").open("wb") as file:
        np.savez(file, a=np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(SourceError, match=r"x\.npy: is not one array but a file of several"):
        open_source(str(tmp_path / "x.npy"))


def test_files_that_are_no_arrays(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(SourceError, match=r"x\.npy: is not an array"):
        open_source(str(tmp_path / "x.npy"))
    np.save(tmp_path / "y.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(SourceError, match=r"y\.npy: is not an array"):
        open_source(str(tmp_path / "y.npy"))


@pytest.mark.parametrize(("name", "package"), [("clip.mp4", "av"), ("a.png", "PIL")])
def test_without_the_extra(tmp_path, monkeypatch, name, package):
    (tmp_path / name).write_bytes(b"x")
    importing = builtins.__import__

    def refuse(module, *arguments, **options):
        if module == package:
            raise ModuleNotFoundError(name=module)
        return importing(module, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(
        SourceError, match=r"is needed and is not installed \(pip install -r requirements-video\.txt in"
    ):
        open_source(str(tmp_path / name))


def test_images_stand_as_the_camera_was_held(tmp_path):
    picture = Image.fromarray(tiny.frames(1)[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned to the left
    picture.save(tmp_path / "a.jpg", exif=exif, quality=95)
    picture.save(tmp_path / "b.jpg", quality=95)
    frames, error = drain(open_source(str(tmp_path)))
    assert error is None
    assert [frame.pixels.shape for frame in frames] == [(96, 64, 3), (64, 96, 3)]
    assert np.abs(frames[0].pixels.astype(int) - np.rot90(frames[1].pixels, -1)).mean() < 2


@pytest.mark.parametrize(
    ("text", "live"),
    [
        ("rtsp://host/1", True),
        ("http://host/a.mjpg", True),
        ("0", True),
        ("/dev/video3", True),
        ("a.mp4", False),
        ("file:///a", False),
    ],
)
def test_what_is_live(text, live):
    assert sources.is_live(text) is live


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rtsp://me:p%40ss@10.0.0.1:554/a?token=x", "rtsp://10.0.0.1:554/a"),
        ("rtsps://host/a", "rtsps://host/a"),
        ("rtsp://me@[::1]:554/a", "rtsp://[::1]:554/a"),
        ("me@home.mp4", "me@home.mp4"),
    ],
)
def test_names_show_no_secrets(text, name):
    assert sources.public_name(text) == name


def test_a_stream_that_is_not_there():
    with pytest.raises(SourceError, match=r"^rtsp://127\.0\.0\.1:9/x: cannot be .* \(Connection refused\)$"):
        open_source("rtsp://me:secret@127.0.0.1:9/x")


def test_a_stream_never_leads_to_a_local_file(tmp_path, video):
    """A playlist from the network that names a file of this machine."""
    import http.server  # noqa: PLC0415
    import threading  # noqa: PLC0415

    (tmp_path / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{video}\n#EXT-X-ENDLIST\n"
    )

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(SourceError):
                drain_all(open_source(f"http://127.0.0.1:{server.server_port}/list.m3u8"))
        finally:
            server.shutdown()
            thread.join()


def drain_all(source):
    frames, error = drain(source)
    if error is not None or not frames:
        raise error or SourceError("nothing came")
