"""A zip file that is the same bytes for the same entries, with no choice left to a library.

Entries are sorted by name, dated 1980-01-01, with one fixed mode; stored, or deflated for arrays. Reading accepts
nothing else: every header must be the one that :func:`pack` writes, at the place where it writes it, so no changed byte
goes unseen, no two entries share bytes, and nothing is copied or unpacked before its size was held against a limit.
Format: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.16 (end record).
"""

import io
import itertools
import math
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.errors import BundleError, LimitError
from runtime.limits import LIMITS, Limits
from runtime.tensors import Tensors

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_VERSION = 20
_MADE_BY = 3 << 8 | _VERSION
_DATE = 0x21
_MODE = 0o100644 << 16
_UTF8 = 0x800
_STORED, _DEFLATED = 0, 8
_REPACKED = "is damaged, or was repacked by another program"
_AS_WRITTEN = "use the file as the package stage wrote it"


def pack(entries: Mapping[str, bytes], *, deflate: bool = False) -> bytes:
    """A zip file with ``entries`` (name to content), the same bytes every time.

    Args:
        entries: content by name; names are written sorted, in UTF-8.
        deflate: compress the content (the same bytes for the same zlib); stored otherwise.
    """
    local, central = io.BytesIO(), io.BytesIO()
    method = _DEFLATED if deflate else _STORED
    for name in sorted(entries):
        content = entries[name]
        data = _deflate(content) if deflate else content
        entry = _Entry(name.encode(), method, zlib.crc32(content), len(data), len(content), local.tell())
        local.write(entry.local())
        local.write(data)
        central.write(entry.central())
    start, directory = local.tell(), central.getvalue()
    return local.getvalue() + directory + _end(len(entries), len(directory), start)


def _end(count: int, size: int, start: int) -> bytes:
    return _END.pack(b"PK\5\6", 0, 0, count, count, size, start, 0)


def _deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(content) + compressor.flush()


@dataclass(frozen=True)
class _Entry:
    """What the headers of one file say: its name, how it is stored, its checksum, sizes in bytes, and its place."""

    encoded: bytes
    method: int
    crc: int
    stored: int
    full: int
    offset: int

    def _shared(self) -> tuple[int, ...]:
        flags = 0 if self.encoded.isascii() else _UTF8
        sizes = (self.stored, self.full, len(self.encoded), 0)
        return (_VERSION, flags, self.method, 0, _DATE, self.crc, *sizes)

    def local(self) -> bytes:
        return _LOCAL.pack(b"PK\3\4", *self._shared()) + self.encoded

    def central(self) -> bytes:
        fields = (_MADE_BY, *self._shared(), 0, 0, 0, _MODE, self.offset)
        return _CENTRAL.pack(b"PK\1\2", *fields) + self.encoded


def unpack(data: bytes, where: object, limits: Limits = LIMITS) -> dict[str, bytes]:
    """The entries of a zip file that :func:`pack` wrote without ``deflate``.

    Args:
        data: the whole file.
        where: named in errors.
        limits: how many files are accepted.

    Raises:
        BundleError: not such a zip file, truncated, changed, or with a compressed, linked, encrypted, repeated or
            overlapping entry.
        LimitError: too many files.
    """
    return {name: bytes(content) for name, content, _ in _entries(data, _STORED, where, limits)}


def _entries(data: bytes, method: int, where: object, limits: Limits) -> list[tuple[str, memoryview, _Entry]]:
    """Name, content as it is stored, and headers of every file; nothing is copied."""
    if len(data) < _END.size or data[:2] != b"PK" or data[-_END.size :][:4] != b"PK\5\6":
        raise BundleError("is not a bundle, or is truncated", where=where)
    _, _, _, _, count, size, start, _ = _END.unpack(data[-_END.size :])
    if start + size + _END.size != len(data):
        raise BundleError("is truncated, or has bytes that belong to no file", where=where)
    limits.hold("files", count, f"holds {count} files", where)
    entries, position = _directory(data, start, count, method, where)
    offset = 0
    for entry in entries:
        _check_place(entry, data, start, offset, where)
        offset = entry.offset + len(entry.local()) + entry.stored
    found = list(_contents(data, entries))
    directory = b"".join(entry.central() for entry in entries)
    ordered = all(first.encoded < second.encoded for first, second in itertools.pairwise(entries))
    contiguous = sum(len(entry.local()) + entry.stored for entry in entries) == start
    as_packed = data[start:] == directory + _end(count, len(directory), start) and position == start + size
    headers = all(data.startswith(entry.local(), entry.offset) for entry in entries)
    if not (ordered and contiguous and as_packed and headers):
        raise BundleError(_REPACKED, where=where, fix=_AS_WRITTEN)
    return found


def _directory(data: bytes, position: int, count: int, method: int, where: object) -> tuple[list[_Entry], int]:
    """What the central directory says, in its order, and where it ends."""
    entries = []
    names = set()
    for _ in range(count):
        entry, length = _read_central(data, position, method, where)
        if entry.encoded in names:
            raise BundleError(f"holds two files named {_shown(entry.encoded)}", where=where)
        entries.append(entry)
        names.add(entry.encoded)
        position += length
    return entries, position


def _contents(data: bytes, entries: Sequence[_Entry]) -> Iterator[tuple[str, memoryview, _Entry]]:
    view = memoryview(data)
    for entry in entries:
        begin = entry.offset + len(entry.local())
        yield entry.encoded.decode("utf-8", "backslashreplace"), view[begin : begin + entry.stored], entry


def _shown(encoded: bytes) -> str:
    """A name for an error."""
    return encoded[:80].decode("utf-8", "backslashreplace")


def _read_central(data: bytes, position: int, method: int, where: object) -> tuple[_Entry, int]:
    """What the central header at ``position`` says, and how long it is."""
    if position + _CENTRAL.size > len(data) or data[position : position + 4] != b"PK\1\2":
        raise BundleError("is damaged: its directory cannot be read", where=where)
    fields = _CENTRAL.unpack_from(data, position)
    flags, how, crc, size, full, length, extra, comment = (*fields[3:5], *fields[7:13])
    begin = position + _CENTRAL.size
    encoded = data[begin : begin + length]
    name = _shown(encoded)
    if flags & 1:
        raise BundleError(f"{name} is encrypted; a bundle's files are stored plainly", where=where)
    if how != method or (method == _STORED and size != full):
        wrong = "is compressed; a bundle's files are stored plainly" if method == _STORED else "is not deflated"
        raise BundleError(f"{name} {wrong}", where=where)
    if (fields[15] >> 16) & 0o170000 == 0o120000:
        raise BundleError(f"{name} is a link; a bundle holds files only", where=where)
    entry = _Entry(encoded, method, crc, size, full, fields[16])
    return entry, _CENTRAL.size + length + extra + comment


def _check_place(entry: _Entry, data: bytes, start: int, offset: int, where: object) -> None:
    """An entry begins where the last one ended, lies before the directory, and has its checksum when stored."""
    name = _shown(entry.encoded)
    begin = entry.offset + _LOCAL.size + len(entry.encoded)
    if begin + entry.stored > start:
        raise BundleError(f"is damaged: {name} lies beyond the end", where=where)
    if entry.offset < offset:
        raise BundleError(f"{name} shares bytes with another file", where=where)
    if entry.method == _STORED and zlib.crc32(memoryview(data)[begin : begin + entry.stored]) != entry.crc:
        raise BundleError(f"{name} is damaged (its checksum differs)", where=where)


def pack_arrays(arrays: Tensors) -> bytes:
    """Arrays by name as an ``.npz`` file (deflated), the same bytes every time; ``numpy.load`` reads it."""
    entries = {}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.ascontiguousarray(array), (1, 0), allow_pickle=False)
        entries[f"{name}.npy"] = buffer.getvalue()
    return pack(entries, deflate=True)


_SUFFIX = ".npy"
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00(?s:(..))\{'descr': '([|<][biuf][1248])', 'fortran_order': False, "
    rb"'shape': \(([0-9, ]{0,200})\), \} *\n"
)
"""The one header that numpy writes for a C-ordered array of numbers, version 1.0 (numpy.lib.format)."""


def unpack_arrays(data: bytes, where: object, limits: Limits = LIMITS) -> dict[str, NDArray[np.generic]]:
    """Arrays by name from an ``.npz`` file that :func:`pack_arrays` wrote; nothing is unpickled or evaluated.

    Raises:
        BundleError: ``data`` is not such a file, or holds something that is not a plain array.
        LimitError: unpacked it would be too large, or an array has too many dimensions.
    """
    try:
        entries = _entries(data, _DEFLATED, where, limits)
    except LimitError:
        raise
    except BundleError as error:
        raise BundleError(f"is not a file of arrays ({error.what})", where=where) from error
    total = sum(entry.full for _, _, entry in entries)
    limits.hold("array_bytes", total, f"unpacks to {total} bytes of arrays", where)
    arrays = {}
    for name, content, entry in entries:
        if not name.endswith(_SUFFIX):
            raise BundleError(f"is not a file of arrays ({name[:80]} is none)", where=where)
        plain = name.removesuffix(_SUFFIX)
        arrays[plain] = _array(_inflate(content, entry, where), f"{where}: {plain[:80]}", limits)
    return arrays


def _inflate(content: memoryview, entry: _Entry, where: object) -> bytes:
    """The content unpacked; never more than the header announced."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = unpacker.decompress(content, entry.full + 1)
    except zlib.error as error:
        raise BundleError(f"is not a file of arrays ({error})", where=where) from error
    whole = unpacker.eof and not unpacker.unused_data and len(plain) == entry.full
    if not whole or zlib.crc32(plain) != entry.crc:
        raise BundleError("is not a file of arrays (one does not unpack to what its header says)", where=where)
    return plain


def _array(data: bytes, where: object, limits: Limits) -> NDArray[np.generic]:
    match = _NPY.match(data)
    if match is None or int.from_bytes(match[1], "little") != match.end() - 10:
        raise BundleError("is not a file of arrays (it has another header than numpy writes for numbers)", where=where)
    sizes = [word.strip() for word in match[3].split(b",") if word.strip()]
    limits.hold("tensor_rank", len(sizes), f"has {len(sizes)} dimensions", where)
    try:
        dtype, shape = np.dtype(match[2].decode()), tuple(map(int, sizes))
    except (TypeError, ValueError) as error:
        raise BundleError(f"is not a file of arrays ({error})", where=where) from error
    if math.prod(shape) * dtype.itemsize != len(data) - match.end():
        raise BundleError(f"has other bytes than its shape {list(shape)} takes", where=where)
    return np.frombuffer(data, dtype, offset=match.end()).reshape(shape).copy()
