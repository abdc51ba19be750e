"""Archives of a bundle's files and arrays: the same bytes every time, and nothing unpickled."""

import io
import zipfile

import numpy as np
import pytest
from test_bundle import patched

from runtime import archive
from runtime.errors import BundleError


@pytest.mark.parametrize("data", [b"", b"PK\3\4", archive.pack({"a.npy": b"not an array"}), b"\x93NUMPY\1\0"])
def test_arrays_that_are_none(data):
    with pytest.raises(BundleError, match="golden: is not a file of arrays"):
        archive.unpack_arrays(data, "golden")


def test_arrays_with_a_damaged_header_or_entry():
    header = b"{'descr': '|i1', 'fortran_order': False, 'shape': (2, ".ljust(117) + b"\n"
    unclosed = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header
    packed = archive.pack_arrays({"a": np.zeros(3, np.int8)})
    directory = packed.index(b"PK\1\2")
    encrypted = patched(packed, directory + 8, b"\1\0")
    strange = patched(packed, directory + 10, b"\x63\0")
    for data in (archive.pack({"a.npy": unclosed}), encrypted, strange):
        with pytest.raises(BundleError, match="golden: is not a file of arrays"):
            archive.unpack_arrays(data, "golden")


def test_pickles_are_not_read():
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], object), allow_pickle=True)
    with pytest.raises(BundleError, match="is not a file of arrays"):
        archive.unpack_arrays(archive.pack({"a.npy": buffer.getvalue()}), "golden")


def test_arrays_roundtrip_and_repeat():
    arrays = {"/odd name": np.arange(6, dtype=np.int8).reshape(2, 3), "b": np.float32([1.5])}
    data = archive.pack_arrays(arrays)
    assert data == archive.pack_arrays(dict(reversed(arrays.items())))
    back = archive.unpack_arrays(data, "x")
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[name], arrays[name]) and back[name].dtype == arrays[name].dtype for name in arrays)


def test_names_beyond_ascii_survive():
    entries = {"ä/ö": b"1", "z": b"2"}
    assert archive.unpack(archive.pack(entries), "x") == entries
    with zipfile.ZipFile(io.BytesIO(archive.pack(entries))) as file:
        assert file.namelist() == ["z", "ä/ö"]
