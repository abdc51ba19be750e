"""Calibration data for a network with several inputs: NumPy archives with one array for each of them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from pipeline.errors import DataError
from pipeline.quantize.images import Float, Images, Preparation, arrays_in, files_in, spread, stacked


class Records:
    """The records in a folder or file, each an array for every input; iterating reads them one at a time.

    Attributes:
        source: where they are.
        shapes: of the network's inputs, by name.
        channels: of pictures; what the axes of arrays mean is not known.
    """

    channels: None = None

    def __init__(self, source: Path, shapes: Mapping[str, tuple[int, ...]], limit: int | None = None) -> None:
        """List what is in ``source``: a folder of ``.npz`` files, or one; ``limit`` records evenly.

        A file holds one array for each input, by the input's name, float32 of its shape with or without its batch of
        one; or stacks of as many for each.

        Raises:
            DataError: there is nothing to read; with its name, what is no such file, lacks an input's array, has one
                of no input, of another type or shape, or stacks of unlike length.
        """
        self.source, self.shapes = source, shapes
        self._open: tuple[Path, Mapping[str, Float]] | None = None
        self._items = spread([(path, index) for path in files_in(source) for index in range(self._count(path))], limit)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._items)

    def __iter__(self) -> Iterator[Mapping[str, Float]]:
        """Each by input; raises ``DataError`` for what cannot be read or is not finite."""
        return (self.image(index) for index in range(len(self)))

    def image(self, index: int) -> Mapping[str, Float]:
        """One record by its place."""
        path, place = self._items[index]
        stacks = self._stacks(path)
        found = {n: np.ascontiguousarray(stacks[n][place]).reshape(shape) for n, shape in self.shapes.items()}
        for name, values in found.items():
            bad = int((~np.isfinite(values)).sum())
            if bad:
                what = f"{name} of record {place} holds {bad} values that are not finite"
                raise DataError(what, where=path, fix="remove it")
        return found

    def _count(self, path: Path) -> int:
        counts = {name: len(stack) for name, stack in self._stacks(path).items()}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{count} of {name}" for name, count in counts.items())
            raise DataError(f"holds {said}", where=path, fix="as many of each input, in the same order")
        return next(iter(counts.values()))

    def _stacks(self, path: Path) -> Mapping[str, Float]:
        """The arrays of each input in a file, stacked: float32 [N, ...]."""
        if self._open is None or self._open[0] != path:
            self._open = path, self._read(path)
        return self._open[1]

    def _read(self, path: Path) -> Mapping[str, Float]:
        names = ", ".join(self.shapes)
        if path.suffix.lower() != ".npz":
            what = f"feeds one input, the model has {len(self.shapes)}: {names}"
            raise DataError(what, where=path, fix="give .npz files with one array for each input, of its name")
        found = arrays_in(path)
        missing = [name for name in self.shapes if name not in found]
        unknown = [name for name in found if name not in self.shapes]
        if missing or unknown:
            lacks = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(unknown)}, which no input is called"
            raise DataError(
                f"holds {', '.join(found) or 'nothing'}, {lacks}", where=path, fix=f"one array each: {names}"
            )
        return {name: stacked(found[name], shape, path, name) for name, shape in self.shapes.items()}


def opened(
    source: Path, shapes: Mapping[str, tuple[int, ...]], preparation: Preparation, limit: int | None
) -> "Images | Records":
    """The calibration data in ``source`` for a network with inputs of these ``shapes``, by name.

    Raises:
        DataError: as ``Images`` for one input, as ``Records`` for several.
    """
    if len(shapes) > 1:
        return Records(source, shapes, limit)
    (shape,) = shapes.values()
    return Images(source, shape, preparation, limit)
