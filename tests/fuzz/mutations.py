"""Bundles changed so that the change gets past the checksums, and what reads them must not do."""

import hashlib
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from runtime import archive, describe
from runtime.bundle import parse_bundle
from runtime.errors import UserError
from runtime.limits import Limits
from runtime.npu.encoding import loads

Mutate = Callable[[bytes, int], bytes]
"""Changes bytes a little; the result is at most so long."""

LIMITS = Limits(array_bytes=16 << 20, tensor_elements=1 << 20, all_elements=1 << 22)
WORDS = (b"0", b"-1", b"1e999", b"9" * 400, b"NaN", b'"', b"[" * 40, b"{}", b"null", b"\\ud800", b"2147483648", b"\xff")


def read(data: bytes) -> str | None:
    """Do everything that opening, describing and loading a bundle does before ONNX Runtime; the error it gave."""
    try:
        bundle = parse_bundle(data, Path("fuzzed.npub"), limits=LIMITS)
        for partition in bundle.manifest.partitions:
            if partition.program is not None:
                loads(bundle.read(partition.program))
        if bundle.manifest.golden is not None:
            bundle.arrays(bundle.manifest.golden.inputs)
            bundle.arrays(bundle.manifest.golden.outputs)
        json.dumps(describe.facts(bundle))
        describe.lines(bundle)
    except UserError as error:
        return type(error).__name__
    return None


def plain_mutate(dice: random.Random) -> Mutate:
    """Flips, cuts, repeats and inserts, without guidance."""

    def mutate(data: bytes, most: int) -> bytes:
        changed = bytearray(data)
        for _ in range(dice.choice((1, 1, 2, 8))):
            at = dice.randrange(len(changed) + 1)
            kind = dice.randrange(5)
            if kind == 0 and changed:
                changed[at % len(changed)] ^= 1 << dice.randrange(8)
            elif kind == 1:
                changed[at:at] = dice.choice(WORDS)
            elif kind == 2:
                del changed[at : at + dice.choice((1, 4, 64))]
            elif kind == 3:
                changed[at:at] = changed[at : at + dice.choice((1, 16, 256))]
            else:
                changed[at : at + 4] = dice.randbytes(4)
        return bytes(changed[:most])

    return mutate


def mutate_bundle(data: bytes, most: int, dice: random.Random, mutate: Mutate, seeds: Sequence[bytes]) -> bytes:
    """A changed bundle: one time in eight as bytes, else one file of it, with checksums and hashes that fit again.

    What is no archive any more is changed as bytes, or given up for one of the ``seeds``.
    """
    if dice.randrange(8) == 0:
        return mutate(data, most)
    try:
        entries = archive.unpack(data, "seed")
    except UserError:
        entries = archive.unpack(dice.choice(seeds), "seed")
    if not entries:
        return mutate(data, most)
    name = dice.choice(sorted(entries))
    entries[name] = _within(entries[name], dice, mutate)
    if name != "manifest.json" and "manifest.json" in entries:
        entries["manifest.json"] = _rehashed(entries, name)
    if dice.randrange(20) == 0:
        entries[dice.choice(("../x", "a" * 300, "signature.json", "x/y"))] = entries.pop(name)
    return archive.pack(entries)[:most]


def _within(content: bytes, dice: random.Random, mutate: Mutate) -> bytes:
    """Changed content; of a compressed archive of arrays often the plain bytes inside."""
    if content[:2] == b"PK" and dice.randrange(3):
        try:
            arrays = {name: zlib.decompress(part, -15) for name, part in _deflated(content)}
        except (UserError, zlib.error):
            return mutate(content, 1 << 16)
        if arrays:
            name = dice.choice(sorted(arrays))
            arrays[name] = mutate(arrays[name], 1 << 16)
            return archive.pack(arrays, deflate=True)
    if content[:1] == b"{" and dice.randrange(4):
        return _json(content, dice)
    if content[:4] == b"NPUP" and dice.randrange(2):
        (length,) = struct.unpack_from("<I", content, 8)
        header = _json(content[12 : 12 + length], dice)
        start = 12 + length + -(12 + length) % 16
        return (
            (prefix := content[:8] + struct.pack("<I", len(header)) + header)
            + bytes(-len(prefix) % 16)
            + content[start:]
        )
    return mutate(content, 1 << 16)


def _json(content: bytes, dice: random.Random) -> bytes:
    """JSON with one of its values changed, moved, repeated or left out."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return content + dice.choice(WORDS)
    places = list(_places(value, 0))
    if places:
        holder, key = dice.choice(places)
        other, name = dice.choice(places)
        kind = dice.randrange(4)
        if kind == 0:
            del holder[key]
        elif kind == 1:
            holder[key] = other[name]
        elif kind == 2 and isinstance(holder, list):
            holder.extend([holder[key]] * dice.choice((1, 9, 200)))
        else:
            holder[key] = dice.choice(
                (None, True, 0, -1, 2**31, 2**63, 10**300, 0.0, -1e300, "", "x" * 300, [], {}, [[]])
            )
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return content


def _places(value: object, depth: int) -> Iterator[tuple[Any, Any]]:
    """Every list or object inside ``value`` with each of its indices or keys."""
    if depth > 20:
        return
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield value, key
            yield from _places(item, depth + 1)


def _deflated(content: bytes) -> list[tuple[str, bytes]]:
    entries = archive._entries(content, 8, "seed", LIMITS)
    return [(name, bytes(part)) for name, part, entry in entries if entry.full < 1 << 20]


def _rehashed(entries: dict[str, bytes], name: str) -> bytes:
    try:
        manifest = json.loads(entries["manifest.json"])
        digest = hashlib.sha256(entries[name]).hexdigest()
        manifest["files"][name] = {"sha256": digest, "size": len(entries[name])}
        return json.dumps(manifest, indent=1, sort_keys=True).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return entries["manifest.json"]
