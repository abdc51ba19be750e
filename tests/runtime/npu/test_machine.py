"""The machine carries schedules out in bytes: what it gives must be what the plain kernels give, whatever the plan."""

from dataclasses import replace

import numpy as np
import pytest
from npu_networks import Net
from npu_programs import clamp, feeds, network, program, scaling, scheduled, single, spec
from test_tiles import CASES

from runtime.errors import ProgramError
from runtime.npu.device import Device
from runtime.npu.machine import Flip, HardwareError, Machine
from runtime.npu.program import Instruction


def same(found, expected):
    return all(np.array_equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("sram", [1 << 20, 6000, 3000, 1500, 1000])
@pytest.mark.parametrize("cache", [None, 4000])
def test_any_plan_gives_the_bits_of_the_plain_kernels(sram, cache):
    for seed in range(3):
        item = network(seed)
        expected = Device(item, fast=False).run(feeds(item))
        for lanes in (1, 7, 16):
            planned = scheduled(item, sram, cache, lanes)
            assert same(Machine(planned).run(feeds(item)), expected), (seed, lanes)


@pytest.mark.parametrize("sram", [1 << 20, 20000, 9000, 4000])
def test_any_plan_gives_the_bits_of_int16_kernels(sram):
    item = Net(1, "tflite-r8").program()
    item = replace(item, outputs=item.outputs[-1:])
    expected = Device(item, fast=False).run(feeds(item))
    planned = scheduled(item, sram, cache=30000)
    assert same(Machine(planned).run(feeds(item)), expected)
    assert (len(planned.schedule.spilled()) > 0) == (sram < 1 << 20)
    specs = {t.name: t for t in item.tensors}
    held = [b for b in planned.schedule.buffers if b.holds == "tensor"]
    assert all(b.bytes == 2 * np.prod(specs[b.name].shape) for b in held)


@pytest.mark.parametrize("name", CASES)
def test_every_opcode_in_tiles_gives_the_bits_of_its_kernel(name):
    """In 700 bytes, where no input and output lie beside each other; parameters that are too large are used outside."""
    item = CASES[name]
    expected = Device(item, fast=False).run(feeds(item))
    for sram in (256, 700):
        assert same(Machine(scheduled(item, sram)).run(feeds(item)), expected)
    large = name in ("conv2d", "grouped conv2d", "lookup", "resize_linear")
    assert scheduled(item, 700).schedule.unstaged() == ((0,) if large else ())


def test_small_memories_make_tiles_spills_and_stores_of_tiles():
    small, large = scheduled(network(1), 1500).schedule, scheduled(network(1)).schedule
    assert large.spilled() == ()
    assert len(small.spilled()) >= 5
    assert sum(c.kind == "store" and c.tile >= 0 for c in small.commands) >= 8
    assert max(len(axis) for cuts in small.cuts for axis in cuts) > 3
    assert small.peak(0) <= 1500


def test_the_order_of_the_engines_in_a_step_does_not_matter():
    """In a step all engines work at once, so any order of its commands must give the same bytes."""
    item = network(2)
    planned = scheduled(item, 1500)
    order = {"load": 2, "compute": 1, "store": 0}
    turned = sorted(planned.schedule.commands, key=lambda c: (c.step, order[c.kind], -c.tile))
    other = replace(planned, schedule=replace(planned.schedule, commands=tuple(turned)))
    assert turned != list(planned.schedule.commands)
    assert same(Machine(other).run(feeds(item)), Machine(planned).run(feeds(item)))


def test_a_program_without_a_schedule_cannot_be_carried_out():
    with pytest.raises(ProgramError, match=r"has no schedule to carry out \(compile the program again\)"):
        Machine(network(0))


@pytest.mark.parametrize("holds", ["tensor", "tile", "parameter tile"])
def test_a_flipped_bit_is_seen_with_error_detection_and_may_change_the_output_without(holds):
    """One that is the sign of a value may still be lost in a maximum, so a few of them are tried."""
    item = network(3)
    blind, seeing = scheduled(item, 3000), scheduled(item, 3000, ecc=True)
    right = Machine(blind).run(feeds(item))
    buffer = next(b for b in blind.schedule.buffers if b.holds == holds and b.memory == 0)
    flips = [Flip(0, buffer.address + byte, 7, buffer.last) for byte in range(0, buffer.bytes, 16)]
    assert not all(same(Machine(blind).run(feeds(item), (flip,)), right) for flip in flips)
    with pytest.raises(HardwareError, match=rf"byte {buffer.address} of sram changed on its own"):
        Machine(seeing).run(feeds(item), (flips[0],))
    assert same(Machine(seeing).run(feeds(item)), right)


def test_a_flip_that_nobody_reads_or_that_is_overwritten_is_not_seen():
    item = network(3)
    seeing = scheduled(item, 3000, ecc=True)
    buffer = next(b for b in seeing.schedule.buffers if b.holds == "tensor" and b.memory == 0)
    flips = (Flip(0, buffer.address, 0, buffer.first), Flip(0, 1 << 19, 0, 0))
    assert same(Machine(seeing).run(feeds(item), flips), Machine(seeing).run(feeds(item)))


def test_a_flip_that_sends_an_index_out_of_its_tensor_is_noticed():
    x, y = spec("x", (1, 2, 4, 4)), spec("y", (1, 2, 12, 12))
    index = {"rows": (np.arange(12) // 3).astype(np.int32), "columns": (np.arange(12) // 3).astype(np.int32)}
    planned = scheduled(single("resize_nearest", [x], y, {}, index))
    held = next(b for b in planned.schedule.buffers if b.holds == "parameters")
    with pytest.raises(HardwareError, match="resize_nearest 'the_resize_nearest' reads outside of its input"):
        Machine(planned).run(feeds(planned), (Flip(held.memory, held.address, 6, 0),))


def test_an_accumulator_that_leaves_int32_names_the_instruction():
    x, y = spec("x", (1, 2)), spec("y", (1, 1))
    constants = {"weight": np.full((1, 2), 127, np.int8), "bias": np.array([2**31 - 1], np.int32), **scaling(2.0**-24)}
    item = single("fully_connected", [x], y, clamp(), constants)
    with pytest.raises(ProgramError, match="instruction fully_connected 'the_fully_connected': the accumulator"):
        Machine(scheduled(item)).run({"x": np.full((1, 2), 127, np.int8)})


def elementwise_chain():
    tensors = [spec(f"t{i}", (1, 4, 8, 8)) for i in range(4)]
    steps = [
        Instruction("requantize", f"r{i}", (f"t{i}",), f"t{i + 1}", clamp(), scaling(1.0 + i / 8)) for i in range(3)
    ]
    return program(tensors[:1], steps, tensors)


def test_elementwise_results_lie_where_their_operand_lay():
    """Three requantizations of 256 bytes each in 256 bytes: all of them in place."""
    item = elementwise_chain()
    planned = scheduled(item, 256)
    assert planned.schedule.spilled() == ()
    assert planned.schedule.peak(0) == 256
    assert same(Machine(planned).run(feeds(item)), Device(item, fast=False).run(feeds(item)))


def test_a_result_is_not_put_over_what_is_stored_at_the_same_time():
    """t1 leaves the chip in the step in which t2 is computed from it, so t2 needs bytes of its own."""
    item = replace(elementwise_chain(), outputs=("t1", "t3"))
    planned = scheduled(item, 512)
    assert same(Machine(planned).run(feeds(item)), Device(item, fast=False).run(feeds(item)))
    assert planned.schedule.peak(0) == 512
