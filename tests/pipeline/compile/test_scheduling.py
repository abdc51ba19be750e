"""Schedules of real networks on real profiles: sizes, order, determinism, limits, and the cost model's numbers."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smallmodels import TARGETS, images, model, quantized, target, whole

from pipeline.compile.allocate import Block, aligned, demand, place
from pipeline.compile.lower import lower
from pipeline.compile.memories import DEFAULT_LANES, DEFAULT_SRAM, Layout, layout
from pipeline.compile.partitions import programs
from pipeline.compile.scheduling import schedule
from pipeline.cost import hosts
from pipeline.cost.estimates import estimates
from pipeline.cost.model import CostModel
from runtime.npu.device import Device
from runtime.npu.encoding import dumps, loads
from runtime.npu.machine import Machine
from runtime.npu.schedule import Memory
from runtime.npu.timeline import timeline

NET = """g (float[1,3,48,48] x) => (float[1,10] y) {
  a = Conv <strides = [2,2], pads = [1,1,1,1]> (x, w1, b1)
  r = Clip (a, zero, six)
  d = Conv <pads = [1,1,1,1], group = 24> (r, w2, b2)
  e = Clip (d, zero, six)
  p = Conv (e, w3, b3)
  s = Add (r, p)
  m = MaxPool <kernel_shape = [2,2], strides = [2,2]> (s)
  h = HardSwish (m)
  u = GlobalAveragePool (h)
  f = Flatten (u)
  y = Gemm <transB = 1> (f, w4, b4)
}"""


def net(seed=5):
    generator = np.random.default_rng(seed)

    def normal(*shape):
        return generator.standard_normal(shape).astype(np.float32)

    return model(
        NET, w1=normal(24, 3, 3, 3), b1=normal(24), w2=normal(24, 1, 3, 3), b2=normal(24), w3=normal(24, 24, 1, 1),
        b3=normal(24), w4=normal(10, 24), b4=normal(10), zero=np.float32(0), six=np.float32(6),
    )  # fmt: skip


def made():
    return whole(quantized(net(), images((1, 3, 48, 48)))[0])


@pytest.fixture(scope="module")
def graph_and_partition():
    return made()


def lowered(graph_and_partition, chip="coral-edgetpu-usb3"):
    graph, part = graph_and_partition
    return lower(graph, part.nodes, part.inputs, part.outputs, target(chip))


def chip(sram, cache=None):
    memories = [Memory("sram", sram), Memory("dram", 1 << 30, assumed=True)]
    if cache is not None:
        memories.insert(1, Memory("cache", cache))
    return Layout(tuple(memories), 16)


def cost_model(chip):
    host = None if chip.host is None else hosts.load(hosts.find(chip.host, hosts.folder()))
    return CostModel(chip, host)


def estimated(graph_and_partition, name):
    graph, part = graph_and_partition
    names = {node.name for node in part.nodes}
    inputs, outputs = [t.wire for t in part.inputs], [t.wire for t in part.outputs]
    return estimates(cost_model(target(name)), graph, names, inputs, outputs)


@pytest.mark.parametrize("sram", [1 << 20, 40_000, 16_000, 6_000, 2_500])
def test_a_compiled_network_gives_the_same_bits_in_any_memory(graph_and_partition, sram):
    program = lowered(graph_and_partition)
    rng = np.random.default_rng(0)
    image = {program.inputs[0]: rng.integers(-128, 128, (1, 3, 48, 48)).astype(np.int8)}
    expected = Device(program, fast=False).run(image)
    for cache in (None, 3000):
        planned = loads(dumps(schedule(program, chip(sram, cache))))
        assert planned.schedule.peak(0) <= sram
        for name, value in Machine(planned).run(image).items():
            np.testing.assert_array_equal(value, expected[name])


def test_while_one_tile_is_computed_the_next_is_loaded_and_the_last_is_stored(graph_and_partition):
    plan = schedule(lowered(graph_and_partition), chip(12_000)).schedule
    kinds = {step: {c.kind for c in plan.commands if c.step == step} for step in range(plan.steps)}
    assert sum(kind == {"load", "compute", "store"} for kind in kinds.values()) > 5
    for load in (c for c in plan.commands if c.kind == "load" and c.tile > 0):
        (compute,) = (
            c for c in plan.commands if (c.kind, c.instruction, c.tile) == ("compute", load.instruction, load.tile)
        )
        assert compute.step == load.step + 1


def test_parameters_stay_in_the_cache_in_order_until_one_does_not_fit(graph_and_partition):
    program = lowered(graph_and_partition)
    plan = schedule(program, chip(1 << 20, 1500)).schedule
    homes = {b.name: b.memory for b in plan.buffers if b.holds == "parameters"}
    order = [homes[item.output] for item in program.instructions if item.output in homes]
    assert order == sorted(order)
    assert {1, 2} == set(order)
    assert plan.peak(1) <= 1500
    assert {c.instruction for c in plan.commands if c.kind == "load" and c.operand < 0} == {
        i for i, item in enumerate(program.instructions) if homes.get(item.output) == 2
    }


def test_what_has_no_room_even_in_tiles_is_used_where_it_lies(graph_and_partition):
    program = lowered(graph_and_partition)
    assert schedule(program, chip(1 << 20)).schedule.unstaged() == ()
    plan = schedule(program, chip(32)).schedule
    assert plan.unstaged() == tuple(range(len(program.instructions)))
    assert not any(c.kind == "load" for c in plan.commands)


def test_tiles_shrink_when_those_of_neighbours_crowd_each_other(graph_and_partition, monkeypatch):
    program = lowered(graph_and_partition)
    monkeypatch.setattr("pipeline.compile.scheduling.SHARE", 0.5)  # each may take twice what there is
    planned = schedule(program, chip(6000))
    assert dumps(planned)
    assert planned.schedule.peak(0) <= 6000


def test_memories_come_from_the_profile_and_what_is_assumed_says_so():
    for path in sorted(TARGETS.glob("*.yaml")):
        found = layout(target(path.stem))
        assert found.memories[-1].assumed
        assert found.memories[0].assumed == (found.memories[0].bytes == DEFAULT_SRAM)
    coral, arm, unknown = (layout(target(name)) for name in ("coral-edgetpu-usb3", "ethos-u65-256", "kirin-970"))
    assert [(m.name, m.bytes) for m in coral.memories[:2]] == [("sram", 3145728), ("cache", 8000000)]
    assert (coral.cache, coral.lanes) == (1, 64)
    assert (arm.memories[0].bytes, arm.cache, arm.lanes) == (393216, None, 8)
    assert (unknown.memories[0].bytes, unknown.memories[0].assumed, unknown.lanes) == (1 << 20, True, DEFAULT_LANES)


@pytest.mark.parametrize("name", sorted(path.stem for path in TARGETS.glob("*.yaml")))
def test_the_timeline_ends_when_the_cost_models_total_does(graph_and_partition, name):
    """The oracle is ``CostModel.total`` of a placement with everything on the NPU."""
    graph, part = graph_and_partition
    (data,) = programs(graph, [part], target(name), [estimated(graph_and_partition, name)])
    line = timeline(loads(data))
    cost = cost_model(target(name))
    prices = cost.price(graph)
    nodes = {work.name for work in prices.works}
    total = cost.total(prices, nodes, 1, {t.wire for t in (*part.inputs, *part.outputs)})
    assert line.bytes == total.bytes
    assert line.macs == sum(work.macs for work in prices.works)
    if total.ms is None:
        assert (line.ms, line.events) == (None, ())
        assert line.missing
        return
    assert line.ms == pytest.approx(total.ms, rel=1e-12)
    assert sum(row.ms for row in line.rows) == pytest.approx(total.npu_ms, rel=1e-12)
    assert max(e.end_ms + e.stall_ms for e in line.events) == pytest.approx(total.ms)
    if total.energy_mj is not None:
        assert line.energy_mj == pytest.approx(total.energy_mj)


def test_the_same_model_gives_the_same_bytes_in_another_process(graph_and_partition):
    graph, part = graph_and_partition
    (ours,) = programs(graph, [part], target("ethos-u65-256"))
    here = Path(__file__)
    code = (
        "import hashlib, test_scheduling as t; graph, part = t.made();"
        "print(hashlib.sha256(t.programs(graph, [part], t.target('ethos-u65-256'))[0]).hexdigest())"
    )
    path = [str(here.parents[3]), str(here.parent), str(here.parents[1])]
    for seed in ("0", "77"):
        environment = {"PYTHONPATH": ":".join(path), "PYTHONHASHSEED": seed, "PATH": ""}
        other = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert other.stdout.strip() == hashlib.sha256(ours).hexdigest()


blocks = st.lists(
    st.tuples(st.integers(1, 500), st.integers(0, 20), st.integers(0, 8)).map(lambda t: Block(t[0], t[1], t[1] + t[2])),
    min_size=1,
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(blocks)
def test_blocks_that_live_together_do_not_overlap(given_blocks):
    addresses = place(given_blocks)
    for i, (a, at) in enumerate(zip(given_blocks, addresses, strict=True)):
        assert at % 16 == 0
        for b, other in list(zip(given_blocks, addresses, strict=True))[:i]:
            together = a.first <= b.last and b.first <= a.last
            assert not together or at + a.bytes <= other or other + b.bytes <= at
    top = max(at + aligned(block.bytes) for block, at in zip(given_blocks, addresses, strict=True))
    assert top >= max(demand(given_blocks, 40))
