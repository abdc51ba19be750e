"""Mutated programs: ``python fuzzing.py COUNT SEED`` says what became of them; fails on the first surprise.

Each is refused with a ``ProgramError``, or it is accepted and then runs, on the machine and on the kernels, to the same
bytes. Memory is limited by the operating system to ``LIMIT_BYTES`` above what the process has at the start, and time by
an alarm; a crash, a hang or a MemoryError ends the process.
"""

import collections
import contextlib
import json
import random
import resource
import signal
import struct
import sys
from pathlib import Path

import numpy as np
from npu_networks import both_types
from npu_programs import estimates, feeds, network, scheduled

from runtime.errors import ProgramError
from runtime.npu.device import Device
from runtime.npu.encoding import dumps, loads
from runtime.npu.machine import Machine
from runtime.npu.timeline import timeline

LIMIT_BYTES = 1 << 30
SECONDS = 10
NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    15,
    16,
    127,
    -128,
    255,
    1 << 12,
    1 << 16,
    1 << 26,
    (1 << 31) - 1,
    1 << 40,
    1 << 62,
    -(1 << 40),
)
OTHERS = (None, True, "", "image", "t1", "conv2d", "reshape", [], {}, 0.5, 1e308, -0.0, [1], [[]])


def programs():
    """Files to start from: with and without a schedule, in large and small memories, with and without a cache."""
    item = network(1)
    return [
        dumps(item),
        dumps(scheduled(item, estimates=estimates(item))),
        dumps(scheduled(item, 3000)),
        dumps(scheduled(item, 1500, 3000, ecc=True, estimates=estimates(item))),
        dumps(both_types()),
        dumps(scheduled(both_types(), 500)),
    ]


def split(content):
    length = struct.unpack_from("<I", content, 8)[0]
    return json.loads(content[12 : 12 + length]), content[12 + length + -(12 + length) % 16 :]


def join(version, header, blob):
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    prefix = b"NPUP" + struct.pack("<II", version, len(text)) + text
    return prefix + bytes(-len(prefix) % 16) + blob


def places(value, found):
    """Every (container, key) in a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        found.append((value, key))
        places(inner, found)
    return found


def edit(chance, container, key):
    """Change one value of a header: a near or an extreme number, another type, one left out, doubled or swapped."""
    old = container[key]
    if type(old) is int and chance.random() < 0.8:
        container[key] = chance.choice([old + chance.choice((-16, -2, -1, 1, 2, 16)), chance.choice(NUMBERS)])
    elif isinstance(container, list) and chance.random() < 0.6:
        change = chance.randrange(3)
        if change == 0:
            del container[key]
        elif change == 1:
            container.insert(key, old)
        else:
            other = chance.randrange(len(container))
            container[key], container[other] = container[other], old
    else:
        container[key] = chance.choice([*OTHERS, chance.choice(NUMBERS)])


def mutate(chance, content):
    """One mutated file."""
    kind = chance.random()
    if kind < 0.25:
        data = bytearray(content)
        for _ in range(chance.choice((1, 1, 2, 8))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        return bytes(data)
    if kind < 0.3:
        return content[: chance.randrange(len(content))] + chance.randbytes(chance.choice((0, 1, 16)))
    header, blob = split(content)
    if kind < 0.4:
        blob = bytearray(blob)
        blob[chance.randrange(len(blob))] ^= 1 << chance.randrange(8)
        return join(content[4], header, bytes(blob))
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        found = places(header, [])
        inside = [each for each in found if "schedule" not in header or each[0] is not header]
        edit(chance, *chance.choice(inside))
    return join(content[4], header, blob)


def judge(content):
    """``refused`` or ``ran``; an accepted program gives the same bytes on the machine as on the plain kernels."""
    try:
        program = loads(content)
    except ProgramError:
        return "refused"
    given = feeds(program)
    try:
        expected = Device(program, fast=False).run(given)
    except ProgramError:
        return "refused while it ran"
    if program.schedule is None:
        return "ran without a schedule"
    timeline(program)
    found = Machine(program).run(given)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    return "ran"


def main(count, seed):
    chance, originals = random.Random(seed), programs()
    for content in originals:
        assert judge(content).startswith("ran")
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + LIMIT_BYTES, -1))
    tally = collections.Counter()
    for number in range(count):
        content = mutate(chance, chance.choice(originals))
        with contextlib.ExitStack() as stack:
            stack.callback(sys.stderr.write, f"mutation {number} of seed {seed}\n")
            signal.alarm(SECONDS)
            tally[judge(content)] += 1
            signal.alarm(0)
            stack.pop_all()
    sys.stdout.write(json.dumps({"tried": count, **tally}) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
