"""Drills: whatever happens to the device, the bits stay, the failure is said and counted, and the device comes back."""

import re
from dataclasses import replace

import numpy as np
import pytest
import tiny

from runtime.bundle import open_bundle, write_bundle
from runtime.delegates.failover import LONGEST_WAIT, Supervisor
from runtime.errors import DeviceError, ProgramError, UserError
from runtime.npu.chip import THROTTLED, Chip
from runtime.npu.device import Device
from runtime.npu.encoding import dumps, loads
from runtime.npu.faults import KINDS, LOADING, Fault, parse_fault
from runtime.session import Session

IMAGES = [{"image": image} for image in tiny.golden_images(16)]


def drill(path, *faults, frames=12, delegate="npu"):
    """What a session gives with these faults, what it should give, what it said, and its health."""
    said = []
    supervisor = Supervisor(Chip([parse_fault(fault) for fault in faults]), said.append)
    bundle = open_bundle(path)
    session, sound = Session(bundle, delegate, supervisor=supervisor), Session(bundle)
    found = [session.run(image) for image in IMAGES[:frames]]
    return found, [sound.run(image) for image in IMAGES[:frames]], said, supervisor.health()


def same(one, other):
    return all(np.array_equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def seeing_bundle(tmp_path_factory, tiny_bundle):
    """The tiny bundle on a target whose memories notice flipped bits."""
    bundle = open_bundle(tiny_bundle)
    program = dumps(tiny.compiled((*tiny.BODY, *tiny.HEADS), tiny.OUTPUTS, ecc=True))
    path = tmp_path_factory.mktemp("ecc") / "ecc.npub"
    write_bundle(path, bundle.manifest, {**bundle.files, "programs/0.npup": program})
    return path


def test_a_lost_device_is_asked_again_ever_later_until_it_is_back(tiny_bundle):
    """Lost in frames 2 to 6. Asked in 2, 3 (after 1), 5 (after 2), 9 (after 4): there it is back."""
    found, expected, said, health = drill(tiny_bundle, "lost@2+5")
    assert all(same(*pair) for pair in zip(found, expected, strict=True))
    assert [line.split(":")[0] for line in said] == ["frame 2", "frame 3", "frame 5", "frame 9"]
    again = "the device is gone; the host computes, with the same bits; the device is asked again in"
    assert said[:2] == [f"frame 2: {again} 1 frame", f"frame 3: {again} 2 frames"]
    assert said[-1] == "frame 9: the device is back"
    assert (health.jobs, health.on_host, health.failures, health.recoveries) == (12, 7, {"lost": 3}, 1)
    assert health.device_ms == pytest.approx(5 * 16.5)


@pytest.mark.parametrize(
    ("fault", "kind", "fact"),
    [
        ("timeout@3", "timeout", "the job did not finish within 165 ms"),
        (
            "memory@3",
            "memory",
            "the device is out of memory: the program needs .* bytes, another one holds all of them",
        ),
        ("lost@3", "lost", "the device is gone"),
    ],
)
def test_every_failure_is_said_counted_and_survived_with_the_same_bits(tiny_bundle, split_bundle, fault, kind, fact):
    for path in (tiny_bundle, split_bundle):
        found, expected, said, health = drill(path, fault, frames=6)
        assert all(same(*pair) for pair in zip(found, expected, strict=True))
        assert health.failures == {kind: 1}
        assert (health.on_host, health.recoveries) == (1, 1)
    with pytest.raises(DeviceError, match=fact) as raised:
        Chip([parse_fault(fault)]).run(Device(tiny.compiled((*tiny.BODY, *tiny.HEADS), tiny.OUTPUTS)), IMAGES[0], 3)
    assert raised.value.kind == kind
    assert str(raised.value) in said[0] or kind != "lost"


@pytest.mark.parametrize("fault", ["sram@0+12", "weights@0+12"])
def test_flipped_bits_are_found_with_error_detection(seeing_bundle, fault):
    """The host's bits stand in for those that the device found to be damaged."""
    found, expected, said, health = drill(seeing_bundle, fault)
    assert all(same(*pair) for pair in zip(found, expected, strict=True))
    assert health.failures["flip"] >= 1
    assert health.on_host >= health.failures["flip"]
    assert "the device found a memory error: byte " in said[0]


def test_flipped_bits_go_unnoticed_without_error_detection_and_the_drill_tells_which(tiny_bundle):
    found, expected, said, health = drill(tiny_bundle, "weights@0+12", "sram@0+12")
    assert not all(same(*pair) for pair in zip(found, expected, strict=True))
    assert (said, health.failures, health.on_host) == ([], {}, 0)
    assert len(health.flips) == 24
    assert all(flip.startswith("frame ") and " bit " in flip for flip in health.flips)


def test_the_same_drill_flips_the_same_bits(tiny_bundle):
    first, _, _, health = drill(tiny_bundle, "sram@0+4", frames=4)
    second, _, _, again = drill(tiny_bundle, "sram@0+4", frames=4)
    assert all(same(*pair) for pair in zip(first, second, strict=True))
    assert health == again


def test_a_hot_device_is_slower_and_gives_the_same_bits(tiny_bundle):
    found, expected, said, health = drill(tiny_bundle, "throttle@2+3", frames=6)
    assert all(same(*pair) for pair in zip(found, expected, strict=True))
    assert said == ["frame 2: the device is hot and slower", "frame 5: the device is cool again"]
    assert (health.throttled, health.on_host) == (3, 0)
    assert health.device_ms == pytest.approx((3 + 3 * THROTTLED) * 16.5)


def test_without_faults_nothing_is_said_and_the_plain_kernels_do_as_well(tiny_bundle):
    _, _, said, health = drill(tiny_bundle, frames=3)
    assert (said, health.jobs, health.on_host, health.failures) == ([], 3, 0, {})
    found, expected, _, health = drill(tiny_bundle, "lost@1", frames=4, delegate="plain")
    assert all(same(*pair) for pair in zip(found, expected, strict=True))
    assert health.on_host == 1


@pytest.mark.parametrize(("fault", "failures"), [("memory@load", 1), ("lost@load+3", 2)])
def test_a_device_that_fails_while_it_is_loaded_is_asked_again(tiny_bundle, fault, failures):
    """It is asked again in frame 0, and where it still fails after twice the wait, in frame 2."""
    found, expected, said, health = drill(tiny_bundle, fault, frames=5)
    assert all(same(*pair) for pair in zip(found, expected, strict=True))
    assert said[0].startswith("loading: the device is ")
    assert said[0].endswith("; the host computes, with the same bits; the device is asked again in 1 frame")
    assert said[-1] == f"frame {0 if failures == 1 else 2}: the device is back"
    assert sum(health.failures.values()) == failures
    assert (health.jobs, health.on_host, health.recoveries) == (5, 2 * (failures - 1), 1)


def test_the_wait_is_bounded(tiny_bundle):
    supervisor = Supervisor(Chip([Fault("lost", 0, 1000)]))
    session = Session(open_bundle(tiny_bundle), supervisor=supervisor)
    for _ in range(3 * LONGEST_WAIT):
        session.run(IMAGES[0])
    assert supervisor.health().failures["lost"] == 9  # 0, 1, 3, 7, 15, 31, 63, 127, 191
    assert supervisor.health().on_host == 3 * LONGEST_WAIT


def test_a_program_that_says_less_can_still_fail(tiny_bundle):
    """Without estimates and schedule: a fixed watchdog, no memory to flip bits in, no device time."""
    bare = replace(loads(open_bundle(tiny_bundle).read("programs/0.npup")), schedule=None)
    device = Device(bare)
    with pytest.raises(DeviceError, match="the job did not finish within 1000 ms"):
        Chip([Fault("timeout", 0)]).run(device, IMAGES[0], 0)
    with pytest.raises(DeviceError, match=r"^the device is out of memory$"):
        Chip([Fault("memory", 0)]).run(device, IMAGES[0], 0)
    with pytest.raises(ProgramError, match="has no schedule, so no memory in which a bit could flip"):
        Chip([Fault("sram", 0)]).run(device, IMAGES[0], 0)
    supervisor = Supervisor(Chip())
    supervisor.run(device, IMAGES[0], 0)
    assert supervisor.health().device_ms is None


@pytest.mark.parametrize("delegate", ["cpu", "ort:CPU"])
def test_only_the_simulated_npu_has_faults(tiny_bundle, delegate):
    with pytest.raises(UserError, match=r"faults are those of the simulated NPU, the delegate is .* \(choose the"):
        Session(open_bundle(tiny_bundle), delegate, supervisor=Supervisor(Chip()))


def test_faults_are_written_as_fault_at_frame():
    assert parse_fault("lost@5") == Fault("lost", 5, 1)
    assert parse_fault("sram@0+10") == Fault("sram", 0, 10)
    assert [Fault("lost", 5, 2).covers(frame) for frame in (4, 5, 6, 7)] == [False, True, True, False]
    assert parse_fault("memory@load") == Fault("memory", LOADING, 1)
    assert parse_fault("lost@load+3").covers(1)
    assert not parse_fault("lost@load+3").covers(2)
    with pytest.raises(UserError, match=r"sram needs a frame \(while loading there are timeout, lost, memory\)"):
        parse_fault("sram@load")
    assert KINDS == ("timeout", "lost", "memory", "sram", "weights", "throttle")
    for text in ("lost", "lost@", "lost@-1", "fire@3", "lost@3+0", "lost@3 ", "Lost@3", "lost@9999999999"):
        with pytest.raises(UserError, match=re.escape(f"{text!r} is not a fault (write")):
            parse_fault(text)
