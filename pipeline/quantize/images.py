"""Calibration images of the user's own: a folder of pictures, or arrays, read one at a time."""

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, cast
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.errors import DataError
from pipeline.quantize.samples import Sample
from runtime.adapters.image import letterbox, resize

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
ARRAYS = (".npy", ".npz")

Fit = Literal["letterbox", "crop", "stretch"]
Layout = Literal["nchw", "nhwc"]
Float = NDArray[np.float32]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Preparation:
    """How a picture becomes the network's input: ``(u / 255 - mean) / std``.

    Attributes:
        mean: per channel (RGB, or one for grey).
        std: per channel.
        layout: where the channels are.
        fit: keep the aspect with a grey border, keep it and cut the longer side, or stretch.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Layout = "nchw"
    fit: Fit = "letterbox"

    def apply(self, pixels: NDArray[np.uint8], shape: tuple[int, ...], where: object) -> Float:
        """Pixels uint8 [H, W, 3] as float32 of the input's ``shape``.

        Raises:
            DataError: the input is not that of an image with 1 or 3 channels, or mean and std are for other channels.
        """
        if len(shape) != 4 or shape[0] != 1:
            raise DataError(f"pictures do not fit an input of shape {list(shape)}", where=where, fix="give .npy files")
        height, width, channels = (shape[2], shape[3], shape[1]) if self.layout == "nchw" else shape[1:]
        if channels not in (1, 3) or len(self.mean) not in (1, channels) or len(self.std) not in (1, channels):
            fact = f"an input of shape {list(shape)} has {channels} channels in layout {self.layout}"
            said = f"mean has {len(self.mean)} and std {len(self.std)}"
            raise DataError(
                f"{fact}; {said}", where=where, fix="pictures have 1 or 3: check --layout, --mean and --std"
            )
        fitted = self._fitted(pixels, width, height).astype(np.float64)
        if channels == 1:
            fitted = np.rint(fitted @ LUMA)[:, :, None]
        real = ((fitted / 255.0 - np.array(self.mean)) / np.array(self.std)).astype(np.float32)
        return real[None] if self.layout == "nhwc" else np.ascontiguousarray(real.transpose(2, 0, 1))[None]

    def _fitted(self, pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
        if self.fit == "letterbox":
            return letterbox(pixels, width, height)[0]
        if self.fit == "stretch":
            return resize(pixels, width, height)
        rows, columns = pixels.shape[:2]
        scale = max(width / columns, height / rows)
        inner = resize(pixels, max(width, round(columns * scale)), max(height, round(rows * scale)))
        top, left = (inner.shape[0] - height) // 2, (inner.shape[1] - width) // 2
        return np.ascontiguousarray(inner[top : top + height, left : left + width])


LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


class Images:
    """The calibration images in a folder or file; iterating reads them one at a time, as often as wanted.

    Attributes:
        source: where they are.
        shape: of the network's input.
    """

    def __init__(
        self, source: Path, shape: tuple[int, ...], preparation: Preparation, limit: int | None = None
    ) -> None:
        """List what is in ``source``: a folder of pictures and arrays, or one array file; ``limit`` images evenly.

        An array holds one input or a stack of them: float32 of the input's shape, with or without its batch of one.

        Raises:
            DataError: there is nothing to read; with its name, what is no picture or array, or fits no input.
        """
        self.source, self.shape, self.preparation = source, shape, preparation
        self._open: tuple[Path, Float] | None = None
        self._items = spread([(path, index) for path in files_in(source) for index in range(self._count(path))], limit)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._items)

    def __iter__(self) -> Iterator[Float]:
        """Each as float32 of the input's shape; raises ``DataError`` for what cannot be read or is not finite."""
        return (self.image(index) for index in range(len(self)))

    def image(self, index: int) -> Float:
        """One image by its place."""
        path, place = self._items[index]
        if path.suffix.lower() in ARRAYS:
            values = np.ascontiguousarray(self._stack(path)[place]).reshape(self.shape)
        else:
            values = self.preparation.apply(_pixels(path), self.shape, path)
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            what = f"image {place} holds {bad} value{'s that are' if bad > 1 else ' that is'} not finite"
            raise DataError(what, where=path, fix="remove it")
        return values

    @property
    def channels(self) -> int | None:
        """The axis of the channels, where all are pictures; what the axes of arrays mean is not known."""
        pictures = all(path.suffix.lower() in PICTURES for path, _ in self._items)
        return (1 if self.preparation.layout == "nchw" else 3) if pictures else None

    def _count(self, path: Path) -> int:
        return len(self._stack(path)) if path.suffix.lower() in ARRAYS else 1

    def _stack(self, path: Path) -> Float:
        """The inputs in an array file, stacked: float32 [N, ...]; a ``.npy`` is not read until it is used."""
        if self._open is None or self._open[0] != path:
            found = [stacked(array, self.shape, path) for array in arrays_in(path).values()]
            self._open = (path, found[0] if len(found) == 1 else np.concatenate(found))
        return self._open[1]


class Watched:
    """Samples on their way through, with their digest at the end."""

    def __init__(self, images: Iterable[Sample], source: object, channels: int | None = None) -> None:
        """Watch ``images``, which come from ``source``; ``channels`` is the axis of pictures' channels."""
        self._images, self._source, self._channels = images, source, channels
        self._sha = hashlib.sha256()
        self._flat, self._count = True, 0

    def __iter__(self) -> Iterator[Sample]:
        """Each sample, once."""
        for sample in self._images:
            for values in sample.values() if isinstance(sample, Mapping) else (sample,):
                self._flat = self._flat and _is_flat(values, self._channels)
                self._sha.update(np.ascontiguousarray(values).data)
            self._count += 1
            yield sample

    def digest(self) -> str:
        """SHA-256 of what went through, as the network sees it, in order: 64 hexadecimal digits.

        Raises:
            DataError: every image was one value throughout, or one colour, so nothing can be learnt from them.
        """
        if self._flat:
            kind = "one value throughout" if self._channels is None else "of one colour"
            said = f"each of the {self._count} calibration images is {kind}"
            raise DataError(said, where=self._source, fix="give images as the device will see them")
        return self._sha.hexdigest()


def _is_flat(values: Float, channels: int | None) -> bool:
    """Whether an input is one value throughout; or as a picture, whose ``channels`` axis is known, of one colour.

    A border as letterboxing adds it is a second colour on two opposite sides.
    """
    if values.min() == values.max():
        return True
    if channels is None:
        return False
    pixels = np.moveaxis(values[0], channels - 1, -1)
    for lines in (pixels, pixels.swapaxes(0, 1)):
        if (lines == lines[:, :1]).all():
            return len(np.unique(lines[:, 0], axis=0)) <= 2
    return False


def spread(items: Sequence[Item], limit: int | None) -> Sequence[Item]:
    """``limit`` of ``items``, evenly; all of them where there are fewer, or no limit."""
    if limit is None or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def files_in(source: Path) -> Sequence[Path]:
    """The pictures and arrays that ``source`` is or holds, by name; raises ``DataError`` when there is none."""
    if source.is_file():
        found = [source]
    elif source.is_dir():
        found = sorted(p for p in source.rglob("*") if p.suffix.lower() in PICTURES + ARRAYS and p.is_file())
    else:
        raise DataError("is no folder and no file", where=source, fix="--calibration takes a folder, .npy or .npz")
    if not found:
        raise DataError("holds no picture and no array", where=source, fix=f"known: {' '.join(PICTURES + ARRAYS)}")
    return found


def arrays_in(path: Path) -> Mapping[str, NDArray[np.generic]]:
    """The arrays in a NumPy file by name, the only one of a ``.npy`` by none; raises ``DataError``.

    A ``.npy`` is not read until it is used.
    """
    try:
        if path.suffix.lower() == ".npy":
            return {"": np.load(path, mmap_mode="r", allow_pickle=False)}
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in sorted(archive.files)}
    except (OSError, ValueError, EOFError, BadZipFile, NotImplementedError, zlib.error) as error:
        raise DataError(f"is not a numpy file of numbers: {error}", where=path) from error


def stacked(array: NDArray[np.generic], shape: tuple[int, ...], path: Path, name: str = "") -> Float:
    """``array`` of ``path`` as a stack of inputs of ``shape``: float32 [N, ...]; raises ``DataError``.

    ``name``: of the input, where there are several.
    """
    one, which = tuple(shape[1:]) if shape[0] == 1 else shape, f"{name} as " if name else ""
    if array.dtype != np.float32:
        what = f"holds {which}{array.dtype}, the model takes float32"
        raise DataError(what, where=path, fix="save what the network gets, normalized, as float32")
    known = {shape: (1, *one), one: (1, *one)}
    if array.shape in known:
        return cast("Float", array).reshape(known[array.shape])
    if array.shape[1:] in (shape, one):
        if not len(array):
            raise DataError("holds a stack of no images", where=path, fix="give some, as the device will see them")
        return cast("Float", array).reshape((len(array), *one))
    what = f"holds {which}{list(array.shape)}, the model takes {list(shape)}"
    raise DataError(what, where=path, fix="or a stack of these")


def _pixels(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise DataError(f"is not a picture that can be read: {error}", where=path, fix="remove it") from error
