"""The Ethos-U model against Arm's Vela 5.2.0, which compiles the same int8 networks.

Measured when written: over MobileNet v1, v2, SqueezeNet, ResNet-8 and the autoencoder of MLPerf Tiny on the four
systems that this project ships (``test_totals_and_ranks`` prints), totals within 4.5 % and ranks of operators above
0.97.
"""

import pytest

from pipeline.cost import ethos
from pipeline.cost.ethos_blocks import Geometry, search
from pipeline.cost.ethos_cycles import blocks_of
from pipeline.cost.ethos_machine import Machine, machine
from pipeline.cost.ethos_plan import cascades_of, flow, steps
from pipeline.cost.ethos_weights import stagings
from pipeline.cost.nouns import Activation, Device, Kind, Work
from pipeline.cost.validation import networks, vela
from pipeline.cost.validation.silicon import cost_model

U65 = {
    "clock_hz": 1e9, "macs_per_cycle": 256, "ofm_block_height": 2, "ofm_block_width": 2, "ofm_block_depth": 8,
    "shram_bytes": 49152, "sram_bytes_per_second": 16e9, "sram_burst_bytes": 32, "sram_latency_cycles": 32,
    "dram_bytes_per_second": 3.75e9, "dram_burst_bytes": 128, "dram_read_latency_cycles": 500,
    "dram_write_latency_cycles": 250, "sram_bytes": 393216,
}  # fmt: skip
U55 = {k: v for k, v in U65.items() if k not in ("sram_bytes", "dram_write_latency_cycles")} | {
    "clock_hz": 5e8, "sram_bytes_per_second": 4e9, "dram_bytes_per_second": 5e8, "dram_read_latency_cycles": 64,
}  # fmt: skip
CASES = [
    *((make, system) for make in (networks.mobilenet_v1, networks.mobilenet_v2) for system in vela.SYSTEMS),
    *((networks.mobilenet_v1_small, system) for system in ("ethos-u55-128", "ethos-u65-256")),
    *((networks.squeezenet, system) for system in ("ethos-u55-256", "ethos-u65-512")),
    *((networks.resnet8, system) for system in ("ethos-u55-128", "ethos-u65-512")),
    *((networks.dense_only, system) for system in ("ethos-u55-128", "ethos-u65-256", "ethos-u65-512")),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("ethosu.vela", reason="the oracle is Arm's compiler: pip install ethos-u-vela (extra dev)")
    pytest.importorskip("ai_edge_litert", reason="Vela's models need ai-edge-litert (extra dev, Linux)")
    return tmp_path_factory.mktemp("vela")


@pytest.mark.parametrize(("make", "system"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_totals_and_ranks(make, system, folder, record_property):
    found = vela.compare(make, vela.SYSTEMS[system], cost_model(system).device, folder)
    said = f"{make.__name__} on {system}: {found.error:+.1%} in total, rank {found.rank:.3f}"
    record_property("accuracy", said)
    print(said)  # noqa: T201
    assert found.matched == found.operators
    assert abs(found.error) <= 0.10
    assert found.rank >= 0.9


def test_ranks_of_equal_values_are_shared():
    assert vela.spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert vela.spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert vela.spearman([1, 1, 2], [5, 5, 9]) == pytest.approx(1)


def chip(**figures):
    found = machine(Device("chip", "ethos-u", {**U65, **figures}))
    assert isinstance(found, Machine)
    return found


@pytest.mark.parametrize(
    ("shape", "ofm", "ifm"),
    [
        (Geometry(Kind.CONV, (64, 64, 8), (128, 128, 3), (3, 3), (2, 2), (1, 1)), (16, 16, 8), (34, 34, 8)),
        (Geometry(Kind.CONV, (64, 64, 16), (64, 64, 8), (1, 1), (1, 1), (1, 1)), (4, 64, 16), (4, 64, 8)),
        (Geometry(Kind.DEPTHWISE, (32, 32, 16), (64, 64, 16), (3, 3), (2, 2), (1, 1)), (8, 16, 16), (18, 34, 16)),
        (Geometry(Kind.DEPTHWISE, (4, 4, 128), (8, 8, 128), (3, 3), (2, 2), (1, 1)), (4, 4, 112), (10, 10, 112)),
        (Geometry(Kind.POOL, (1, 1, 256), (4, 4, 256), (4, 4), (1, 1), (1, 1)), (2, 2, 128), (6, 6, 128)),
        (Geometry(Kind.FC, (1, 1, 128), (1, 1, 640), (1, 1), (1, 1), (1, 1)), (2, 2, 128), (2, 2, 32)),
        (Geometry(Kind.ELEMENTWISE, (14, 14, 64), (14, 14, 64), (1, 1), (1, 1), (1, 1)), (12, 14, 48), (12, 14, 48)),
    ],
)
def test_blocks_are_those_that_vela_chose(shape, ofm, ifm):
    """Read from the debug database of Vela 5.2.0 for U65-256; in all, 1,272 of 1,276 blocks were equal."""
    block = search(chip(), shape)
    assert (block.ofm, block.ifm) == (ofm, ifm)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (networks.mobilenet_v1, [([12, 12, 12, 6], 379_072), ([6, 6, 6, 3], 323_696), ([11, 11, 11], 349_312)]),
        (networks.mobilenet_v2, [([6, 6, 6, 6, 3, 3], 315_440), ([10, 10, 10], 367_536), ([18, 18, 9], 379_392)]),
    ],
)
def test_cascades_are_those_that_vela_built(make, expected):
    """Read from Vela 5.2.0's --verbose-schedule for U65-512: rows at a time within one, bytes within a tenth."""
    works = networks.works_of(make)
    found = cascades_of(machine(cost_model("ethos-u65-512").device), flow(works))
    assert len(found) == len(expected)
    for cascade, (rows, size) in zip(found, expected, strict=True):
        assert list(cascade.rows.values()) == pytest.approx(rows, abs=1)
        assert cascade.bytes == pytest.approx(size, rel=0.1)


def test_parts_of_a_concat_are_one_feature_map():
    """Both halves lie in the tensor that joins them, unless another operator reads one too."""
    known = flow(networks.works_of(networks.squeezenet))
    joined = [tensor for tensor, writers in known.writers.items() if len(writers) == 2]
    assert len(joined) == 8
    assert all(known.follower(index) is None for tensor in joined for index in known.writers[tensor])


def test_weights_read_once_are_fetched_only_if_that_is_faster():
    """Read from Vela 5.2.0's --verbose-schedule for the autoencoder of MLPerf Tiny on three systems; one may differ."""
    works, differ = networks.works_of(networks.dense_only), 0
    for system, ahead in (
        ("ethos-u55-128", [False] * 10),
        ("ethos-u65-256", [False, *[True] * 8, False]),
        ("ethos-u65-512", [False] * 4 + [True] * 2 + [False] * 4),
    ):
        chip, known = machine(cost_model(system).device), flow(works)
        found = cascades_of(chip, known)
        drafts = steps(chip, known, found, frozenset())
        tilings = {i: blocks_of(chip, works[i], None) for i in known.order}
        staged = stagings(chip, known, drafts, found, tilings)
        differ += sum(staged[i].ahead != expected for i, expected in zip(known.order, ahead, strict=True))
    assert differ <= 1


def conv(height=56, channels=64, inputs=32, kernel=3, **extra):
    sizes = {"in_bytes": (height * height * inputs,), "out_bytes": height * height * channels}
    work = Work("c", "Conv", Kind.CONV, height, height, channels, height, height, inputs, (kernel, kernel), **sizes)
    return Work(**{**vars(work), "inputs": ("a",), "outputs": ("b",), **extra})


def test_an_unknown_figure_leaves_no_time():
    figures = {k: v for k, v in U65.items() if k != "shram_bytes"}
    found = ethos.cost(conv(), Device("chip", "ethos-u", figures))
    assert (found.ms, found.missing) == (None, ("shram_bytes",))
    odd = ethos.costs([conv()], Device("chip", "ethos-u", {**U65, "ofm_block_depth": 5}))
    assert (odd[0].ms, odd[0].missing) == (None, ("ofm_block_height",))


def test_a_grouped_convolution_is_one_per_group():
    device = Device("chip", "ethos-u", U65)
    whole = ethos.cost(conv(channels=64, inputs=32, groups=4), device)
    part = ethos.cost(conv(channels=16, inputs=8), device)
    assert whole.cycles == pytest.approx(4 * part.cycles)


def test_a_clamp_and_a_lookup_cost_what_the_output_stage_says():
    device = Device("chip", "ethos-u", {**U55, "ofm_block_height": 1, "shram_bytes": 24576})
    plain = Work("m", "Max", Kind.ELEMENTWISE, 16, 16, 16, 16, 16, 16, in_bytes=(4096, 4096), out_bytes=4096)
    clamped = Work(**{**vars(plain), "activation": Activation.CLAMP})
    table = Work(**{**vars(plain), "kind": Kind.LUT, "op": "Sigmoid"})
    found = [ethos.cost(w, device).cycles for w in (plain, clamped, table)]
    assert found[0] == found[1] == 0.5 * 4096
    assert found[2] > found[0]


def test_what_does_not_fit_the_cache_goes_through_dram():
    small, large = conv(height=16), conv(height=112, channels=64)
    device = Device("chip", "ethos-u", U65)
    assert ethos.cost(small, device).bytes["dram"] < ethos.cost(large, device).bytes["dram"] / 10
    staged = ethos.cost(large, Device("chip", "ethos-u", {**U65, "sram_bytes": 1e9}))
    assert staged.bytes["dram"] < ethos.cost(large, device).bytes["dram"]


def test_weights_that_nothing_hides_cost_time():
    dense = Work("f", "Gemm", Kind.FC, 1, 1, 1024, 1, 1, 1024, weight_bytes=1 << 20, inputs=("a",), outputs=("b",))
    (exposed,) = ethos.costs([dense], Device("chip", "ethos-u", U65))
    assert exposed.bound == "dram"
    assert exposed.cycles >= (1 << 20) / 3.75
