"""Schedules that must be refused: every rule has a schedule that breaks it, and a sentence that names it."""

import json
from dataclasses import replace

import pytest
from npu_programs import estimates, network, scheduled
from test_program import repacked

from runtime.errors import ProgramError
from runtime.npu import verify_commands, verify_schedule
from runtime.npu.encoding import dumps, loads
from runtime.npu.schedule import Memory

ITEM = network(1)
PLANNED = scheduled(ITEM, 3000, estimates=estimates(ITEM))
PLAN = PLANNED.schedule
ROOMY = scheduled(ITEM, 1 << 20, cache=4000)


def test_round_trip_with_all_that_a_schedule_says():
    assert loads(dumps(PLANNED)).schedule == PLAN
    assert loads(dumps(ROOMY)).schedule == ROOMY.schedule
    assert loads(dumps(ITEM)).schedule is None


def changed(program=PLANNED, **changes):
    return replace(program, schedule=replace(program.schedule, **changes))


def first(items, **wanted):
    """Index of the first item with these attributes."""
    return next(i for i, each in enumerate(items) if all(getattr(each, k) == v for k, v in wanted.items()))


def command(index, program=PLANNED, **changes):
    commands = list(program.schedule.commands)
    commands[index] = replace(commands[index], **changes)
    return changed(program, commands=tuple(commands))


def buffer(index, program=PLANNED, **changes):
    buffers = list(program.schedule.buffers)
    buffers[index] = replace(buffers[index], **changes)
    return changed(program, buffers=tuple(buffers))


def cut(instruction, cuts):
    return changed(cuts=(*PLAN.cuts[:instruction], cuts, *PLAN.cuts[instruction + 1 :]))


LOAD = first(PLAN.commands, kind="load", operand=0, tile=0)
FETCH = first(PLAN.commands, kind="load", operand=-1)
COMPUTE = first(PLAN.commands, kind="compute", tile=0)
LATER = first(PLAN.commands, kind="compute", instruction=3)
STORE = next(i for i, c in enumerate(PLAN.commands) if c.kind == "store" and c.tile >= 0)
WHOLE_STORE = next(i for i, c in enumerate(PLAN.commands) if c.kind == "store" and c.tile < 0)
SLOT = PLAN.commands[LOAD].target
PARAMETERS = first(PLAN.buffers, holds="parameters")
INPUT = first(PLAN.buffers, name="image", holds="tensor")
CACHED = first(ROOMY.schedule.commands, kind="compute", instruction=0)
LAYERS = PLAN.estimates.layers


def believing(layers=LAYERS, **more):
    return changed(estimates=replace(PLAN.estimates, layers=layers, **more))


BAD = {
    "one memory": (changed(memories=PLAN.memories[:1]), "it has 1 memories, 2 to 8 are legal"),
    "memory twice": (changed(memories=(PLAN.memories[0],) * 2), "two of its memories have one name"),
    "memory of nothing": (
        changed(memories=(Memory("sram", 0), PLAN.memories[1])),
        "memory 'sram': its size of 0 bytes",
    ),
    "lanes": (changed(lanes=0), r"0 lanes are outside \[1, 4096\]"),
    "cuts missing": (changed(cuts=PLAN.cuts[1:]), "it cuts 11 instructions, the program has 12"),
    "checksums missing": (changed(checksums=PLAN.checksums[1:]), "it has 11 checksums for 12 instructions"),
    "cuts of another shape": (cut(0, ((0, 1),)), r"instruction 0 \(conv2d 'conv_t1'\): its cuts .* do not part"),
    "cuts twice": (cut(0, ((0, 1), (0, 4, 4, 16), (0, 8), (0, 10))), "its cuts .* do not part an output of shape"),
    "no cut of a reshape": (cut(8, ((0, 1), (0, 8, 32), (0, 8), (0, 10))), "cannot be cut along the axis"),
    "no memory": (buffer(SLOT, memory=2), rf"buffer {SLOT} \(tile 't2'\): there is no memory 2"),
    "address below": (buffer(SLOT, address=-16), "address -16 is not legal"),
    "address odd": (buffer(SLOT, address=8), "address 8 is not legal"),
    "no bytes": (buffer(SLOT, bytes=0), "its size of 0 bytes is not above 0"),
    "outside its memory": (buffer(SLOT, address=2992), "it ends at byte .* of sram, which has 3000"),
    "live backwards": (buffer(SLOT, last=-1), "steps .* to -1 are not legal"),
    "not live": (buffer(SLOT, first=PLAN.buffers[SLOT].last), "is live in steps"),
    "overlap": (buffer(SLOT, address=PLAN.buffers[PLAN.commands[FETCH].target].address), "it overlaps buffer"),
    "slot too small": (buffer(SLOT, bytes=16), "bytes into buffer .*, which has 16"),
    "slot too large": (
        buffer(SLOT, bytes=PLAN.buffers[SLOT].bytes + 1),
        f"it has {PLAN.buffers[SLOT].bytes + 1} bytes and never holds more than {PLAN.buffers[SLOT].bytes}|overlaps",
    ),
    "input elsewhere": (buffer(INPUT, name="t1"), "input 'image': 0 buffers outside of the chip hold it"),
    "input late": (buffer(INPUT, first=1, last=9), "input 'image': its buffer is not live from step 0"),
    "input twice": (changed(buffers=(*PLAN.buffers, PLAN.buffers[INPUT])), "input 'image': 2 buffers outside"),
    "tensor never written": (
        changed(buffers=(*PLAN.buffers, replace(PLAN.buffers[INPUT], name="t1", address=1 << 20))),
        "0 of its .* bytes are written",
    ),
    "instruction": (command(LOAD, instruction=12), f"command {LOAD}: there is no instruction 12"),
    "step backwards": (command(LATER, step=0), r"\(compute of tile 0 of instruction 3 .*\): step 0 comes after step"),
    "tile": (command(LOAD, tile=99), "it has .* tiles"),
    "whole compute": (command(COMPUTE, tile=-1), "it has .* tiles"),
    "operand": (command(LOAD, operand=3), "there is no input 3"),
    "whole parameters": (command(FETCH, tile=-1), "parameters are loaded by tile"),
    "source": (command(LOAD, source=999), "there is no buffer 999"),
    "source of another tensor": (command(LOAD, source=PARAMETERS), "holds parameters 't1', not 't1'"),
    "source of other parameters": (command(FETCH, source=INPUT), f"buffer {INPUT} does not hold its parameters"),
    "target of another kind": (command(LOAD, target=PARAMETERS), "holds a parameters, not a tile"),
    "tile skipped": (command(COMPUTE, tile=1), "tile 0 comes next"),
    "instruction skipped": (command(COMPUTE, instruction=1), "the one before is not finished"),
    "operands": (command(COMPUTE, operands=()), "it reads 0 of 1 inputs"),
    "operand of another slot": (command(COMPUTE, operands=(PLAN.commands[COMPUTE].target,)), "does not hold the part"),
    "parameters missing": (command(COMPUTE, parameters=PLAN.commands[COMPUTE].target), "does not hold its parameters"),
    "other parameters": (
        command(CACHED, ROOMY, parameters=first(ROOMY.schedule.buffers, name="t2", holds="parameters")),
        "does not hold its parameters",
    ),
    "parameters of one without": (
        command(first(PLAN.commands, kind="compute", instruction=4), parameters=PARAMETERS),
        "its parameters are in the command",
    ),
    "stored before it is computed": (command(STORE, source=SLOT), "does not hold the part|is live in steps"),
    "stored elsewhere": (command(STORE, target=PARAMETERS), "holds parameters 't1', not 't1'"),
    "store left out": (
        changed(commands=tuple(c for i, c in enumerate(PLAN.commands) if i != STORE)),
        "before all of it was written|bytes are written",
    ),
    "output not stored": (
        changed(commands=tuple(c for i, c in enumerate(PLAN.commands) if i != WHOLE_STORE)),
        "output '.*': it is not outside of the chip at the end",
    ),
    "compute left out": (changed(commands=PLAN.commands[:COMPUTE]), "not all of its tiles are computed"),
    "computed twice": (
        changed(commands=(*PLAN.commands[: COMPUTE + 1], *PLAN.commands[COMPUTE:])),
        "tile 1 comes next",
    ),
    "loaded twice in a step": (
        changed(commands=(*PLAN.commands[: LOAD + 1], *PLAN.commands[LOAD:])),
        "is written twice in step",
    ),
    "parameters of another size": (
        buffer(PARAMETERS, bytes=PLAN.buffers[PARAMETERS].bytes - 16),
        "no buffer of .* bytes holds its parameters from the first step on",
    ),
    "parameters without an owner": (
        changed(buffers=(*PLAN.buffers, replace(PLAN.buffers[PARAMETERS], name="nobody", address=1 << 20))),
        "no instruction has the parameters of 'nobody'",
    ),
    "parameters twice": (
        changed(buffers=(*PLAN.buffers, replace(PLAN.buffers[PARAMETERS], address=1 << 20))),
        "two buffers hold the parameters of one instruction",
    ),
    "checksum": (
        changed(checksums=(1, *PLAN.checksums[1:])),
        r"instruction 0 \(conv2d 'conv_t1'\): its parameters do not have the checksum",
    ),
    "checksum of nothing": (
        changed(checksums=(*PLAN.checksums[:4], 1, *PLAN.checksums[5:])),
        "it has a checksum and no parameters",
    ),
    "layer twice": (believing((*LAYERS, LAYERS[0])), "two of its layers have one name"),
    "no layer": (believing(LAYERS[1:]), r"instruction 0 \(conv2d 'conv_t1'\): no layer has its name"),
    "crossings": (believing(crossing_ms={}), "its crossings are not those of its inputs and outputs"),
    "longer than itself": (
        believing((replace(LAYERS[0], compute_ms=9.0), *LAYERS[1:])),
        "layer 'conv_t1': a part of it takes 9.0 ms of 1.0",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_schedule_is_refused_with_the_command_and_the_reason(name):
    program, message = BAD[name]
    with pytest.raises(ProgramError, match=message):
        dumps(program)


def test_a_slot_that_is_written_while_it_is_read_is_refused():
    """The second tile's load goes into the slot of the first one, in the step in which that is computed."""
    loads_of_it = [i for i, c in enumerate(PLAN.commands) if (c.kind, c.instruction, c.operand) == ("load", 1, 0)]
    one, two = (PLAN.commands[i] for i in loads_of_it[:2])
    computed = PLAN.commands[first(PLAN.commands, kind="compute", instruction=1, tile=0)]
    assert two.step == computed.step
    commands = [replace(c, target=one.target) if c is two else c for c in PLAN.commands]
    with pytest.raises(ProgramError, match=r"does not hold the part|is written in a step that reads it"):
        dumps(changed(commands=tuple(commands)))
    late = sorted(commands, key=lambda c: (c.step, c.kind == "load"))
    with pytest.raises(ProgramError, match=f"buffer {one.target} is written in a step that reads it"):
        dumps(changed(commands=tuple(late)))


@pytest.mark.parametrize(
    ("module", "limit", "value", "message"),
    [
        (verify_schedule, "MAX_TILES", 5, "with it there are more than 5 tiles"),
        (verify_schedule, "MAX_BUFFERS", 5, "it has more than 5 buffers"),
        (verify_schedule, "MAX_RESERVED", 512, "which has 512"),
        (verify_commands, "MAX_COMMANDS", 5, "it has more than 5 commands"),
    ],
)
def test_limits(monkeypatch, module, limit, value, message):
    monkeypatch.setattr(module, limit, value)
    with pytest.raises(ProgramError, match=message):
        dumps(PLANNED)


def plan(header):
    return header["schedule"]


HEADERS = {
    "no object": (lambda h: h.update(schedule=[]), "header: schedule must be of type dict"),
    "unknown key": (lambda h: plan(h).update(more=1), "schedule: schedule: has the unknown key .'more'."),
    "missing key": (lambda h: plan(h).pop("lanes"), "schedule: schedule: misses key .'lanes'."),
    "no list": (lambda h: plan(h).update(cuts=3), "schedule: cuts: is not a list"),
    "no number": (lambda h: plan(h).update(lanes=True), "schedule: lanes: True is not a whole number"),
    "huge number": (lambda h: plan(h).update(lanes=1 << 60), "schedule: lanes: 1152921504606846976 is not a whole"),
    "memory": (lambda h: plan(h)["memories"].append([]), "memory 2: has another length than 4"),
    "memory's truths": (lambda h: plan(h)["memories"].append(["a", 1, 1, 1]), "memory 2: does not end with two truths"),
    "a name": (lambda h: plan(h)["memories"].append([[0] * 99, 1, True, True]), r"memory 2: \[0.*\.\.\. is not a str"),
    "buffer": (lambda h: plan(h)["buffers"].append([]), "buffer .*: has another length than 7"),
    "buffer's kind": (lambda h: plan(h)["buffers"][0].__setitem__(1, "air"), "buffer 0: holds 'air', not one"),
    "command": (lambda h: plan(h)["commands"].append([3] * 8), "command .*: is not a command"),
    "crossings": (lambda h: plan(h)["estimates"].update(crossing_ms=1), "crossing_ms: is not an object"),
    "layer's bytes": (lambda h: plan(h)["estimates"]["layers"][0].update(bytes=1), "layer 0: bytes is not an object"),
    "layer's time": (lambda h: plan(h)["estimates"]["layers"][0].update(ms=-1.0), "layer 0: -1.0 is not a number of 0"),
    "layer": (lambda h: plan(h)["estimates"]["layers"].append(1), "layer 12: is not an object"),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_a_schedule_of_another_form_is_refused(name):
    change, message = HEADERS[name]
    with pytest.raises(ProgramError, match=message):
        loads(repacked(dumps(PLANNED), change))


def test_a_schedule_in_version_1_and_none_in_version_2_are_refused():
    for item, version in ((PLANNED, 1), (ITEM, 2)):
        content = dumps(item)
        with pytest.raises(ProgramError, match=r"header: (unknown|missing) key .'schedule'."):
            loads(content[:4] + version.to_bytes(4, "little") + content[8:])


def test_the_header_is_plain_json():
    content = dumps(PLANNED)
    header = json.loads(content[12 : 12 + int.from_bytes(content[8:12], "little")])
    assert header["schedule"]["memories"] == [["sram", 3000, False, False], ["dram", 1 << 30, True, False]]
