"""A zip file that is the same bytes for the same entries, with no choice left to a library.

Entries are sorted by name, dated 1980-01-01, with one fixed mode; stored, or deflated for arrays. Reading accepts
nothing else: :func:`unpack` writes what it read again and compares, so no changed byte goes unseen.
Format: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.16 (end record).
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from tokenize import TokenError

import numpy as np
from numpy.typing import NDArray

from runtime.errors import BundleError
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


def pack(entries: Mapping[str, bytes], *, deflate: bool = False) -> bytes:
    """A zip file with ``entries`` (name to content), the same bytes every time.

    Args:
        entries: content by name; names are written sorted, in UTF-8.
        deflate: compress the content (the same bytes for the same zlib); stored otherwise.
    """
    local, central = io.BytesIO(), io.BytesIO()
    method = _DEFLATED if deflate else _STORED
    for name in sorted(entries):
        content, encoded = entries[name], name.encode()
        data = _deflate(content) if deflate else content
        flags = 0 if name.isascii() else _UTF8
        crc, sizes = zlib.crc32(content), (len(data), len(content))
        offset = local.tell()
        local.write(_LOCAL.pack(b"PK\3\4", _VERSION, flags, method, 0, _DATE, crc, *sizes, len(encoded), 0))
        local.write(encoded + data)
        head = (b"PK\1\2", _MADE_BY, _VERSION, flags, method, 0, _DATE, crc, *sizes, len(encoded))
        central.write(_CENTRAL.pack(*head, 0, 0, 0, 0, _MODE, offset) + encoded)
    start, directory = local.tell(), central.getvalue()
    end = _END.pack(b"PK\5\6", 0, 0, len(entries), len(entries), len(directory), start, 0)
    return local.getvalue() + directory + end


def _deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(content) + compressor.flush()


def unpack(data: bytes, where: object) -> dict[str, bytes]:
    """The entries of a zip file that :func:`pack` wrote without ``deflate``.

    Args:
        data: the whole file.
        where: named in errors.

    Raises:
        BundleError: not such a zip file, truncated, changed, or with a compressed, linked, encrypted or repeated
            entry.
    """
    if len(data) < _END.size or data[:2] != b"PK" or data[-_END.size :][:4] != b"PK\5\6":
        raise BundleError("is not a bundle, or is truncated", where=where)
    _, _, _, _, count, size, start, _ = _END.unpack(data[-_END.size :])
    if start + size + _END.size != len(data):
        raise BundleError("is truncated, or has bytes that belong to no file", where=where)
    entries: dict[str, bytes] = {}
    position = start
    for _ in range(count):
        name, content, position = _entry(data, position, where)
        if name in entries:
            raise BundleError(f"holds two files named {name}", where=where)
        entries[name] = content
    if pack(entries) != data:
        fix = "use the file as the package stage wrote it"
        raise BundleError("is damaged, or was repacked by another program", where=where, fix=fix)
    return entries


def _entry(data: bytes, position: int, where: object) -> tuple[str, bytes, int]:
    """Name and content of the entry whose central header is at ``position``, and where the next one is."""
    if position + _CENTRAL.size > len(data) or data[position : position + 4] != b"PK\1\2":
        raise BundleError("is damaged: its directory cannot be read", where=where)
    fields = _CENTRAL.unpack_from(data, position)
    flags, method, crc, size, full, length, extra, comment = (*fields[3:5], *fields[7:13])
    mode, offset = fields[15] >> 16, fields[16]
    name_end = position + _CENTRAL.size + length
    name = data[position + _CENTRAL.size : name_end].decode("utf-8", "backslashreplace")
    if flags & 1:
        raise BundleError(f"{name} is encrypted; a bundle's files are stored plainly", where=where)
    if method != _STORED or size != full:
        raise BundleError(f"{name} is compressed; a bundle's files are stored plainly", where=where)
    if mode & 0o170000 == 0o120000:
        raise BundleError(f"{name} is a link; a bundle holds files only", where=where)
    begin = offset + _LOCAL.size + length
    if begin + size > len(data):
        raise BundleError(f"is damaged: {name} lies beyond the end", where=where)
    content = data[begin : begin + size]
    if zlib.crc32(content) != crc:
        raise BundleError(f"{name} is damaged (its checksum differs)", where=where)
    return name, content, name_end + extra + comment


def pack_arrays(arrays: Tensors) -> bytes:
    """Arrays by name as an ``.npz`` file (deflated), the same bytes every time; ``numpy.load`` reads it."""
    entries = {}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.ascontiguousarray(array), (1, 0), allow_pickle=False)
        entries[f"{name}.npy"] = buffer.getvalue()
    return pack(entries, deflate=True)


_NO_ARRAYS = (
    ValueError,
    OSError,
    EOFError,
    AttributeError,
    SyntaxError,
    TokenError,
    RuntimeError,  # encrypted; its NotImplementedError is another compression
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy and zipfile raise for a file that is no archive of arrays."""


def unpack_arrays(data: bytes, where: object) -> dict[str, NDArray[np.generic]]:
    """Arrays by name from an ``.npz`` file; nothing is unpickled.

    Raises:
        BundleError: ``data`` is not such a file, or holds something that is not a plain array.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except _NO_ARRAYS as error:
        raise BundleError(f"is not a file of arrays ({error})", where=where) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise BundleError(f"is not a file of arrays ({name} is none)", where=where)
    return arrays
