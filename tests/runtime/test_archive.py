"""Archives of a bundle's files and arrays: the same bytes every time, and nothing unpickled."""

import io
import struct
import zipfile

import numpy as np
import pytest
from test_bundle import patched

from runtime import archive
from runtime.errors import BundleError, LimitError
from runtime.limits import Limits


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


def npz(header, data=b"", name="a.npy", **changes):
    """An archive of one array with this header, its length as numpy writes it."""
    content = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + data
    return archive.pack({name: content, **changes}, deflate=True)


def header(descr="|i1", shape="(3,)"):
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()


def test_the_least_that_is_an_array():
    (array,) = archive.unpack_arrays(npz(header(), b"abc"), "golden").values()
    assert array.tolist() == [97, 98, 99]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npz(header(), b"ab"), r"golden: a: has other bytes than its shape \[3\] takes"),
        (npz(header(shape="(1, 1 1, 3)"), b"abc"), "is not a file of arrays"),
        (
            npz(header(descr="|i1", shape="(99999999999, 99999999999)")),
            r"has other bytes than its shape \[99999999999, 9",
        ),
        (npz(header(descr="|O8", shape="(1,)"), bytes(8)), "it has another header than numpy writes for numbers"),
        (npz(header(descr="|f1"), b"abc"), "is not a file of arrays"),
        (npz(header()[:-1] + b" X\n", b"abc"), "it has another header"),
        (npz(header(), b"abc", name="a.txt"), r"a\.txt is none"),
        (npz(header(), b"abc", **{"b.npy": b""}), "it has another header"),
    ],
)
def test_archives_of_something_else(data, message):
    with pytest.raises(BundleError, match=message):
        archive.unpack_arrays(data, "golden")


def resized(full):
    """An archive of a thousand zeros whose headers announce ``full`` bytes."""
    data = archive.pack({"a.npy": bytes(1000)}, deflate=True)
    local, central = 22, data.index(b"PK\1\2") + 24
    size = struct.pack("<L", full)
    return patched(patched(data, local, size), central, size)


def test_arrays_that_unpack_to_more_or_less_than_they_say():
    for full in (999, 1001):
        with pytest.raises(BundleError, match="one does not unpack to what its header says"):
            archive.unpack_arrays(resized(full), "golden")
    with pytest.raises(BundleError, match=r"is not a file of arrays \(Error -3"):
        archive.unpack_arrays(patched(resized(1000), 35, b"\xff\xff\xff"), "golden")


def test_limits_of_arrays():
    ranks = archive.pack_arrays({"a": np.zeros([1] * 9, np.int8)})
    with pytest.raises(LimitError, match=r"golden: a: has 9 dimensions \(the limit is tensor_rank = 8"):
        archive.unpack_arrays(ranks, "golden")
    bomb = archive.pack({"a.npy": bytes(10 << 20)}, deflate=True)
    assert len(bomb) < 11_000
    with pytest.raises(LimitError, match=r"unpacks to 10485760 bytes of arrays \(the limit is array_bytes = 1048576"):
        archive.unpack_arrays(bomb, "golden", Limits(array_bytes=1 << 20))
    with pytest.raises(LimitError, match="holds 3 files"):
        archive.unpack_arrays(archive.pack_arrays({n: np.zeros(1) for n in "abc"}), "golden", Limits(files=2))
