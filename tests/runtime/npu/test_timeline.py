"""The timeline: the cost model's numbers, laid out over the commands; and the trace of it."""

import itertools
import json
from dataclasses import replace

import pytest
from npu_networks import Net
from npu_programs import estimates, network, scheduled

from runtime.npu.timeline import ENGINES, timeline
from runtime.npu.trace import trace


@pytest.fixture(scope="module")
def planned():
    item = network(1)
    return scheduled(item, 1500, estimates=estimates(item))


def test_totals_are_the_estimates(planned):
    line, given = timeline(planned), planned.schedule.estimates
    assert line.ms == pytest.approx(0.5 + 3 * 0.25 + sum(layer.ms for layer in given.layers))
    assert line.cycles == sum(layer.cycles for layer in given.layers)
    assert line.macs == sum(layer.macs for layer in given.layers)
    assert line.bytes == {"dram": sum(layer.bytes["dram"] for layer in given.layers)}
    assert line.energy_mj == 42.0
    assert [row.name for row in line.rows] == [layer.name for layer in given.layers]
    assert max(e.end_ms + e.stall_ms for e in line.events) == pytest.approx(line.ms)


def test_every_command_is_there_once_and_engines_do_one_thing_at_a_time(planned):
    line = timeline(planned)
    commands = [event.command for event in line.events if event.command is not None]
    assert sorted(commands) == list(range(len(planned.schedule.commands)))
    for engine in ENGINES:
        own = [event for event in line.events if event.engine == engine]
        assert own
        for before, after in itertools.pairwise(own):
            assert before.start_ms <= before.end_ms <= before.end_ms + before.stall_ms <= after.start_ms + 1e-9


def test_busy_times_are_the_layers_and_stalls_fill_the_rest(planned):
    line = timeline(planned)
    for layer, row in zip(planned.schedule.estimates.layers, line.rows, strict=True):
        own = [event for event in line.events if event.layer == layer.name]
        computing = [event for event in own if event.engine in ("MAC", "vector")]
        moving = [event for event in own if event.engine not in ("MAC", "vector")]
        assert sum(e.end_ms - e.start_ms for e in computing) == pytest.approx(layer.compute_ms)
        assert sum(e.end_ms - e.start_ms + e.stall_ms for e in computing) == pytest.approx(layer.ms)
        if moving:
            assert sum(e.end_ms - e.start_ms for e in moving) == pytest.approx(layer.memory_ms)
        assert row.moved_bytes == sum(e.bytes for e in moving)
        assert all(row.start_ms <= e.start_ms + 1e-9 for e in own)


def test_the_bytes_of_the_commands_are_those_that_they_move():
    """With room for everything only the image and the parameters come in, and the outputs go out, each once."""
    item = network(1)
    roomy = scheduled(item, lanes=1, estimates=estimates(item))
    line = timeline(roomy)
    loads = sum(event.bytes for event in line.events if event.engine == "DMA in")
    held = sum(b.bytes for b in roomy.schedule.buffers if b.holds == "parameters")
    assert loads == 3 * 16 * 20 + held
    assert sum(event.bytes for event in line.events if event.engine == "DMA out") == 7 + 16 * 8 * 10


def test_what_is_not_public_stays_unknown():
    item = network(1)
    given = estimates(item, launch_ms=None, crossing_ms=dict.fromkeys((*item.inputs, *item.outputs)))
    first = given.layers[0].__class__("conv_t1", 5, None, None, 0.0, 0.0, {}, "unknown", None, ("clock_hz",))
    unknown = estimates(
        item, energy_mj=None, layers=(first, *given.layers[1:]), launch_ms=None, crossing_ms=given.crossing_ms
    )
    line = timeline(scheduled(item, estimates=unknown))
    assert (line.ms, line.cycles, line.energy_mj, line.events) == (None, None, None, ())
    assert line.missing == ("clock_hz", "link_bytes_per_second", "launch_s")
    assert line.rows[0].start_ms == 0.0
    assert line.rows[1].start_ms is None
    assert timeline(scheduled(item, estimates=given)).ms == pytest.approx(sum(layer.ms for layer in given.layers))


def test_no_estimates_no_timeline():
    assert timeline(network(1)) is None
    assert timeline(scheduled(network(1))) is None


def test_the_utilization_is_macs_over_what_the_array_could_do(planned):
    row = timeline(planned).rows[1]
    assert row.utilization == pytest.approx(200 / (4096 * 5e8 * 2e-3))


def test_the_trace_keeps_the_trace_event_format(planned):
    """The keys that the format demands: name, ph, ts, pid, tid; dur of complete events; args of metadata events."""
    line = timeline(planned)
    document = json.loads(json.dumps(trace([("a", line), ("b", line)]), allow_nan=False))
    assert document["displayTimeUnit"] in ("ms", "ns")
    complete = [event for event in document["traceEvents"] if event["ph"] == "X"]
    metadata = [event for event in document["traceEvents"] if event["ph"] == "M"]
    assert len(complete) + len(metadata) == len(document["traceEvents"])
    assert len(complete) == 2 * len(line.events)
    for event in complete:
        assert isinstance(event["name"], str)
        assert event["ts"] >= 0
        assert event["dur"] >= 0
        assert (type(event["pid"]), type(event["tid"])) == (int, int)
    named = {(e["pid"], e["tid"]): e["args"]["name"] for e in metadata if e["name"] == "thread_name"}
    assert {(e["pid"], e["tid"]) for e in complete} <= named.keys()
    assert set(named.values()) == set(ENGINES)
    processes = {e["pid"]: e["args"]["name"] for e in metadata if e["name"] == "process_name"}
    assert processes == {1: "a (a priori estimate)", 2: "b (a priori estimate)"}
    second = [event for event in complete if event["pid"] == 2]
    assert min(event["ts"] for event in second) == pytest.approx(1e3 * (line.ms + 0.5))


def test_int16_moves_twice_the_bytes_of_int8():
    """The image comes in and the logits go out, of two bytes each; parameters but for the biases are the same."""
    moved = {}
    for contract in ("tflite-r1", "tflite-r8"):
        item = Net(0, contract).program()
        item = replace(item, outputs=item.outputs[-1:])
        line = timeline(scheduled(item, estimates=estimates(item)))
        moved[contract] = {event.layer: event.bytes for event in line.events if event.layer in ("image", "logits")}
    assert moved["tflite-r1"] == {"image": 3 * 32 * 32, "logits": 10}
    assert moved["tflite-r8"] == {"image": 2 * 3 * 32 * 32, "logits": 20}
