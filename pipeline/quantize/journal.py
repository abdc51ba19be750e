"""What a search has measured so far, in a file, so that one that was stopped goes on where it was.

One JSON object per line, written as soon as it is known; the first line says what was searched. A file of another
model, other images, another recipe or another target is started anew.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import onnx
import onnxruntime as ort
from pydantic import BaseModel, ValidationError

from pipeline.errors import ModelError
from pipeline.quantize.recipe import Recipe, dump
from pipeline.quantize.score import Score
from pipeline.targets.profile import Target
from runtime import __version__


def key_of(model: onnx.ModelProto, digest: str, recipe: Recipe, target: Target) -> str:
    """What a search is of: 64 hexadecimal digits of the float model, the images' ``digest``, recipe and target.

    And of the versions of this project and of ONNX Runtime, which computes what is wanted and what has no integers.
    """
    sha = hashlib.sha256(model.SerializeToString(deterministic=True))
    for text in (digest, dump(recipe), target.model_dump_json(), __version__, ort.__version__):
        sha.update(b"\0" + text.encode())
    return sha.hexdigest()


class Journal:
    """Scores by trial, in memory and in a file."""

    def __init__(self, path: Path | None = None, key: str = "") -> None:
        """Read what ``path`` has of the search ``key``, or start it; without a path nothing is kept.

        Raises:
            ModelError: the file cannot be written, or is damaged before its last line.
        """
        self._path = path
        self._scores: dict[str, Score] = {}
        if path is None:
            return
        lines = _lines(path)
        if lines[:1] == [{"search": key}]:
            self._scores = dict(_scored(line, path) for line in lines[1:])
            self._cut()
        else:
            self._write("w", {"search": key})

    def __len__(self) -> int:
        """How many trials it knows."""
        return len(self._scores)

    def known(self, what: str) -> Score | None:
        """The score of the trial ``what``, if it was measured."""
        return self._scores.get(what)

    def add(self, what: str, score: Score) -> None:
        """Keep a score; raises ``ModelError`` when the file cannot be written."""
        self._scores[what] = score
        self._write("a", {"what": what, **asdict(score)})

    def finish(self) -> None:
        """The search is over: remove the file."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _cut(self) -> None:
        """Take away a last line that was cut off, so that the next one begins a line."""
        if self._path is not None:
            whole = self._path.read_bytes().rfind(b"\n") + 1
            with _writing(self._path):
                os.truncate(self._path, whole)

    def _write(self, mode: str, line: Mapping[str, object]) -> None:
        if self._path is not None:
            with _writing(self._path), self._path.open(mode) as file:
                file.write(json.dumps(line) + "\n")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fix = "make room there; what was measured before is kept"
        raise ModelError(f"cannot be written: {error.strerror or error}", where=path, fix=fix) from error


def _lines(path: Path) -> list[dict[str, object]]:
    """The objects in ``path``; a last line that was cut off is left out.

    Raises:
        ModelError: a line in between is damaged.
    """
    try:
        texts = path.read_bytes().split(b"\n")[:-1]
    except OSError:
        return []
    try:
        found = [json.loads(text) for text in texts]
    except (ValueError, RecursionError) as error:
        raise _damaged(path) from error
    if not all(isinstance(line, dict) for line in found):
        raise _damaged(path)
    return found


def _scored(line: Mapping[str, object], path: Path) -> tuple[str, Score]:
    """The trial that ``line`` names and what was measured of it; raises ``ModelError`` for a damaged one."""
    try:
        found = _Line.model_validate(line)
        return found.what, Score(found.outputs, found.cosines, found.agreement, found.images, found.parts)
    except ValidationError as error:
        raise _damaged(path) from error


class _Line(BaseModel):
    """A line of a journal, but the first."""

    what: str
    outputs: Mapping[str, float]
    cosines: Mapping[str, float]
    agreement: float | None
    images: int
    parts: Mapping[str, Mapping[str, float]]


def _damaged(path: Path) -> ModelError:
    return ModelError("is no whole journal of a search", where=path, fix="remove it: the search begins anew")
