"""COCO detection annotations: read, checked, and turned into boxes per image."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.files import read_whole


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and the boxes that someone drew on it.

    Attributes:
        name: the image's ``file_name``.
        width: in pixels.
        height: in pixels.
        frame_index: 0-based position in the video; ``None`` for an image file.
        boxes: float32 [N, 4]: left, top, right, bottom in pixels, inside the image; N = 0 is a legal negative.
        labels: int64 [N], indices into :attr:`Annotations.labels`.
    """

    name: str
    width: int
    height: int
    frame_index: int | None
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Annotations:
    """A COCO file: category names in the order of their ids, and its images in the order of the file."""

    labels: tuple[str, ...]
    images: tuple[AnnotatedImage, ...]


def read_annotations(path: Path) -> Annotations:
    """Read a COCO detection file.

    A box that sticks out of its image is clipped to it; one without area, or with nothing inside, is an
    error. Boxes with ``iscrowd`` stand for groups, not objects, and are left out.

    Raises:
        DataError: the file is missing, is not JSON, lacks a key, or contradicts itself.
    """
    content = _json(path)
    categories = _list(content, "categories", path)
    ids = [_field(c, "id", int, "a category", path) for c in categories]
    if len(set(ids)) != len(ids) or not ids:
        raise DataError(
            f"{len(ids)} categories with {len(set(ids))} different ids", where=path, fix="one id per category"
        )
    names = {i: _field(c, "name", str, f"category {i}", path) for i, c in zip(ids, categories, strict=True)}
    index = {category: position for position, category in enumerate(sorted(ids))}
    images = _list(content, "images", path)
    boxes = _boxes_by_image(_list(content, "annotations", path), images, index, path)
    return Annotations(
        labels=tuple(names[i] for i in sorted(ids)),
        images=tuple(_image(entry, boxes[_image_id(entry, path)], path) for entry in images),
    )


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(read_whole(path).decode())
    except OSError as error:
        raise DataError(f"annotations cannot be read: {error.strerror}", where=path, fix="check the path") from None
    except UnicodeDecodeError as error:
        raise DataError(f"annotations are not UTF-8 text: {error}", where=path, fix="give a COCO JSON file") from None
    except (ValueError, RecursionError) as error:  # JSON, but for numbers and nesting beyond all measure
        raise DataError(
            f"annotations are not JSON, or cut short: {error}", where=path, fix="restore the file"
        ) from None
    if not isinstance(content, dict):
        raise DataError(
            f"annotations are a {type(content).__name__}, not an object", where=path, fix="give a COCO file"
        )
    return content


def _list(content: Mapping[str, Any], key: str, path: Path) -> Sequence[Any]:
    found = content.get(key)
    if not isinstance(found, list):
        have = ", ".join(sorted(content)) or "nothing"
        raise DataError(f"no list {key!r}; found {have}", where=path, fix="give a COCO detection file")
    return found


def _field(entry: object, key: str, kind: type, what: str, path: Path) -> Any:  # noqa: ANN401 (kind decides)
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, str) and not _is_text(value)):
        raise DataError(f"{what} has {key} = {value!r}", where=path, fix=f"{key} is a {kind.__name__}")
    return value


def _image_id(entry: object, path: Path) -> int:
    found: int = _field(entry, "id", int, "an image", path)
    return found


def _image(entry: Mapping[str, Any], drawn: list[tuple[Any, int]], path: Path) -> AnnotatedImage:
    what = f"image {entry['id']}"
    name = _field(entry, "file_name", str, what, path)
    width, height = (_field(entry, key, int, what, path) for key in ("width", "height"))
    frame_index = entry.get("frame_index")
    if frame_index is not None:
        _field(entry, "frame_index", int, what, path)
    clipped = [_clip(box, width, height, f"image {name}, annotation {i}", path) for box, i, _ in _rows(drawn)]
    return AnnotatedImage(
        name=name,
        width=width,
        height=height,
        frame_index=frame_index,
        boxes=np.array(clipped, np.float32).reshape(-1, 4),
        labels=np.array([label for _, _, label in _rows(drawn)], np.int64),
    )


def _rows(drawn: list[tuple[Any, int]]) -> Iterator[tuple[Any, object, int]]:
    return ((entry.get("bbox"), entry.get("id"), label) for entry, label in drawn)


def _boxes_by_image(
    annotations: Sequence[Any], images: Sequence[Any], index: Mapping[int, int], path: Path
) -> dict[int, list[tuple[Any, int]]]:
    """Annotation and label by image id."""
    found: dict[int, list[tuple[Any, int]]] = {}
    for entry in images:
        identity = _image_id(entry, path)
        if identity in found:
            raise DataError(f"image id {identity} occurs twice", where=path, fix="make the ids unique")
        found[identity] = []
    for annotation in annotations:
        image_id = _field(annotation, "image_id", int, "an annotation", path)
        what = f"annotation {annotation.get('id')}"
        if image_id not in found:
            raise DataError(f"{what} is for image {image_id}, which is not listed", where=path, fix="add the image")
        category = _field(annotation, "category_id", int, what, path)
        if category not in index:
            known = ", ".join(map(str, sorted(index)))
            raise DataError(
                f"{what} has category {category}; categories are {known}",
                where=path,
                fix="correct category_id, or add the category",
            )
        if not annotation.get("iscrowd"):
            found[image_id].append((annotation, index[category]))
    return found


def _is_text(value: str) -> bool:
    """Whether it can be a name: in JSON, a string may hold half a character or a zero byte."""
    return value != "" and not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value)


def _is_number(value: object) -> bool:
    """Whether it is a number, finite as a float."""
    return type(value) in (int, float) and abs(cast(float, value)) <= sys.float_info.max


def _clip(box: object, width: int, height: int, what: str, path: Path) -> tuple[float, float, float, float]:
    """COCO [left, top, width, height] to corners inside the image."""
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise DataError(f"{what} has bbox = {box!r}", where=path, fix="bbox is [left, top, width, height] in pixels")
    left, top, wide, high = (float(v) for v in box)
    if wide <= 0 or high <= 0:
        raise DataError(f"{what} is {wide:g} x {high:g} pixels", where=path, fix="remove or correct the box")
    right, bottom = min(left + wide, width), min(top + high, height)
    left, top = max(left, 0.0), max(top, 0.0)
    if right <= left or bottom <= top:
        raise DataError(
            f"{what} lies outside its frame: {box} in {width} x {height}",
            where=path,
            fix="bbox is [left, top, width, height] in pixels of the image; correct or remove it",
        )
    return left, top, right, bottom
