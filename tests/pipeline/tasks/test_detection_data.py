"""What the readers give, and what they say about data that cannot be used."""

import json
import shutil

import pytest
from PIL import Image

from pipeline.config import CocoData, VideoData
from pipeline.errors import DataError
from pipeline.tasks.detection.coco import read_annotations
from pipeline.tasks.detection.data import load_splits
from pipeline.tasks.detection.video import read_frames


@pytest.fixture
def video(tiny_video, tmp_path):
    """A clip of 24 frames that a test may damage, and what the configuration says about it."""
    for name in ("clip.mp4", "annotations.json"):
        shutil.copy(tiny_video / name, tmp_path)
    return VideoData(
        format="video",
        video=tmp_path / "clip.mp4",
        annotations=tmp_path / "annotations.json",
        train_frames=(0, 16),
        validation_frames=(16, 24),
    )


@pytest.fixture
def folders(tiny_images, tmp_path):
    """Image folders that a test may damage, and what the configuration says about them."""
    shutil.copytree(tiny_images, tmp_path, dirs_exist_ok=True)
    return CocoData(
        format="coco",
        train_images=tmp_path / "train",
        train_annotations=tmp_path / "train.json",
        validation_images=tmp_path / "validation",
        validation_annotations=tmp_path / "validation.json",
    )


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def consume(data):
    _, *splits = load_splits(data)
    for split in splits:
        for _ in split.frames(range(len(split.images))):
            pass


def says(data, *parts):
    with pytest.raises(DataError) as caught:
        consume(data)
    for part in parts:
        assert part in str(caught.value)
    assert caught.value.fix


def middles(frame, boxes):
    """Brightness in the middle of each box."""
    return [int(frame[int(top + bottom) // 2, int(left + right) // 2, 0]) for left, top, right, bottom in boxes]


def test_video_splits_have_the_frames_and_boxes_of_the_clip(video):
    labels, train, validation = load_splits(video)
    assert labels == ("person",)
    assert [image.frame_index for image in train.images] == list(range(16))
    assert [image.frame_index for image in validation.images] == list(range(16, 24))
    drawn = [a["bbox"] for a in json.loads(video.annotations.read_text())["annotations"] if a["image_id"] == 20]
    corners = [[left, top, left + width, top + height] for left, top, width, height in drawn]
    assert validation.images[3].boxes.tolist() == corners
    frame = next(iter(validation.frames([3])))
    assert middles(frame, corners) == [pytest.approx(230, abs=12), pytest.approx(20, abs=12)]
    assert frame[2, 2].tolist() == pytest.approx([110, 110, 110], abs=12)


def test_folder_splits_read_single_images(folders):
    _, train, validation = load_splits(folders)
    assert len(train.images) == 16
    assert middles(next(iter(validation.frames([7]))), validation.images[7].boxes) == [230, 20]


def test_frames_are_streamed(video):
    frames = read_frames(video.video, range(24))
    first = next(frames)
    frames.close()
    assert first.shape == (96, 128, 3)


def test_no_wanted_frames_need_no_video(tmp_path):
    assert list(read_frames(tmp_path / "none.mp4", [])) == []


def test_image_without_boxes_is_a_legal_negative(video):
    def drop(content):
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 1]

    edit(video.annotations, drop)
    _, train, _ = load_splits(video)
    assert train.images[0].boxes.shape == (0, 4)


def test_box_that_sticks_out_is_clipped(video):
    edit(video.annotations, lambda c: c["annotations"][0].update(bbox=[-5, 80, 20, 36]))
    _, train, _ = load_splits(video)
    assert train.images[0].boxes[0].tolist() == [0, 80, 15, 96]


def test_crowds_are_left_out(video):
    edit(video.annotations, lambda c: c["annotations"][0].update(iscrowd=1))
    assert len(read_annotations(video.annotations).images[0].boxes) == 1


def test_labels_follow_the_order_of_category_ids(video):
    def swap(content):
        content["categories"] = [{"id": 9, "name": "car"}, {"id": 1, "name": "person"}]
        content["annotations"][0]["category_id"] = 9

    edit(video.annotations, swap)
    annotations = read_annotations(video.annotations)
    assert annotations.labels == ("person", "car")
    assert annotations.images[0].labels.tolist() == [1, 0]


def test_missing_video(video):
    video.video.unlink()
    says(video, "clip.mp4", "cannot be opened")


def test_video_that_is_not_a_video(video):
    video.video.write_bytes(b"no video" * 100)
    says(video, "clip.mp4", "cannot be opened")


def test_text_is_not_played_as_a_terminal(video, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("hello\n" * 100)
    says(video.model_copy(update={"video": notes}), "notes.txt", "no video stream")


def test_tags_that_are_no_text_do_not_matter(video):
    data = video.video.read_bytes()
    assert data.count(b"Lavf") == 1
    video.video.write_bytes(data.replace(b"Lavf", b"\xa9\xff\xfe\x80"))
    consume(video)


def test_file_without_a_video_stream(video, tmp_path):
    (tmp_path / "text.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    says(video.model_copy(update={"video": tmp_path / "text.srt"}), "text.srt", "no video stream")


def test_truncated_video(video):
    video.video.write_bytes(video.video.read_bytes()[:-1000])
    says(video, "clip.mp4")


def test_video_with_damaged_frames(video):
    content = bytearray(video.video.read_bytes())
    middle = (content.index(b"mdat") + content.index(b"moov")) // 2
    content[middle : middle + 500] = b"\xff" * 500
    video.video.write_bytes(content)
    says(video, "clip.mp4", "cannot be decoded", "after ")


def test_video_shorter_than_its_boxes_names_both_numbers(video):
    edit(video.annotations, lambda c: c["images"][-1].update(frame_index=99))
    says(video, "clip.mp4", "24 frames", "frame 99")


def test_undeclared_end_is_found_while_decoding(video):
    with pytest.raises(DataError, match=r"ends after 24 frames.*frame 30"):
        list(read_frames(video.video, [0, 30]))


def test_frame_ranges_past_the_end(video):
    says(video.model_copy(update={"validation_frames": (16, 40)}), "24 frames", "frame 39", "validation_frames")


@pytest.mark.parametrize("frames", [(5, 5), (9, 3), (-4, 10)])
def test_frame_range_that_is_none(video, frames):
    says(video.model_copy(update={"train_frames": frames}), "data.train_frames", str(list(frames)))


def test_overlapping_splits(video):
    says(video.model_copy(update={"validation_frames": (15, 24)}), "[15, 24]", "[0, 16]", "overlaps")


@pytest.mark.parametrize(("keep", "name"), [((1, 16), "validation"), ((17, 24), "training")])
def test_split_without_boxes(video, keep, name):
    def drop(content):
        content["annotations"] = [a for a in content["annotations"] if keep[0] <= a["image_id"] <= keep[1]]

    edit(video.annotations, drop)
    says(video, "annotations.json", f"the {name} split", "no boxes")


def test_missing_annotations(video):
    video.annotations.unlink()
    says(video, "annotations.json", "cannot be read")


def test_truncated_annotations(video):
    video.annotations.write_text(video.annotations.read_text()[:-50])
    says(video, "annotations.json", "cut short")


def test_annotations_that_are_not_text(video):
    video.annotations.write_bytes(b"\xff\xfe\x00garbage")
    says(video, "annotations.json", "not UTF-8")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"images": [' + "9" * 5000 + "]}"])
def test_annotations_beyond_all_measure(video, text):
    video.annotations.write_text(text)
    says(video, "annotations.json", "annotations are not JSON")


def test_annotations_that_are_a_list(video):
    video.annotations.write_text("[]")
    says(video, "annotations.json", "a list, not an object")


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_missing_key(video, key):
    edit(video.annotations, lambda c: c.pop(key))
    says(video, "annotations.json", repr(key))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda c: c["annotations"][0].update(image_id=77), ("annotation 1", "image 77")),
        (lambda c: c["annotations"][0].update(category_id=5), ("annotation 1", "category 5", "categories are 1")),
        (lambda c: c["annotations"][0].update(bbox=[500, 0, 20, 20]), ("#0000", "annotation 1", "outside", "128 x 96")),
        (lambda c: c["annotations"][0].update(bbox=[5, 5, 0, 20]), ("#0000", "annotation 1", "0 x 20")),
        (lambda c: c["annotations"][0].update(bbox=[5, 5, 10, -2]), ("annotation 1", "10 x -2")),
        (lambda c: c["annotations"][0].update(bbox=[5, 5, 10]), ("annotation 1", "bbox = [5, 5, 10]")),
        (lambda c: c["annotations"][0].update(bbox=[5, 5, 10, float("nan")]), ("annotation 1", "nan")),
        (lambda c: c["annotations"][0].update(bbox="all"), ("annotation 1", "'all'")),
        (lambda c: c["annotations"][0].update(bbox=[10**400, 5, 10, 10]), ("annotation 1", "bbox = [1000")),
        (lambda c: c["images"][0].update(file_name="a\0b"), ("image 1", r"file_name = 'a\x00b'")),
        (lambda c: c["categories"][0].update(name="\ud800"), ("category 1", r"name = '\ud800'")),
        (lambda c: c["categories"][0].update(name=""), ("category 1", "name = ''")),
        (lambda c: c["annotations"][0].pop("image_id"), ("image_id = None",)),
        (lambda c: c["annotations"].append("x"), ("an annotation", "image_id")),
        (lambda c: c["images"][0].pop("width"), ("image 1", "width")),
        (lambda c: c["images"][0].pop("frame_index"), ("#0000", "no frame_index")),
        (lambda c: c["images"][0].update(frame_index="3"), ("image 1", "frame_index = '3'")),
        (lambda c: c["images"][0].update(frame_index=-3), ("frame_index -3",)),
        (lambda c: c["images"][1].update(frame_index=0), ("frame_index 0 occurs twice",)),
        (lambda c: c["images"][1].update(id=1), ("image id 1 occurs twice",)),
        (lambda c: c["categories"].append({"id": 1, "name": "car"}), ("2 categories with 1",)),
        (lambda c: c.update(categories=[]), ("0 categories",)),
        (lambda c: c["images"][0].update(width=256), ("#0000", "128 x 96", "256 x 96")),
    ],
)
def test_contradictory_annotations(video, change, parts):
    edit(video.annotations, change)
    says(video, *parts)


def test_missing_image(folders):
    (folders.train_images / "0003.png").unlink()
    says(folders, "0003.png", "missing")


def test_image_with_a_name_that_no_file_can_have(folders):
    edit(folders.train_annotations, lambda c: c["images"][3].update(file_name="x" * 5000))
    says(folders, "xxx", "missing")


def test_file_that_is_not_an_image(folders):
    (folders.train_images / "0003.png").write_bytes(b"not an image")
    says(folders, "0003.png", "not an image")


def test_truncated_image(folders):
    path = folders.validation_images / "0020.png"
    path.write_bytes(path.read_bytes()[:120])
    says(folders, "0020.png")


def test_image_that_is_suspiciously_large(folders, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    says(folders, "0000.png", "cannot be decoded", "decompression bomb")


def test_image_of_another_size(folders):
    Image.new("RGB", (10, 12)).save(folders.train_images / "0000.png")
    says(folders, "0000.png", "10 x 12", "128 x 96")


def test_splits_that_share_an_image(folders):
    says(
        folders.model_copy(
            update={"validation_images": folders.train_images, "validation_annotations": folders.train_annotations}
        ),
        "16 images",
        "0000.png",
    )


def test_splits_with_different_categories(folders):
    edit(folders.validation_annotations, lambda c: c["categories"][0].update(name="car"))
    says(folders, "validation.json", "car", "person")
