"""The Ethos-U model against Arm's Vela 5.2.0, which compiles the same int8 networks.

Measured when written (``test_totals_and_ranks`` prints): totals of MobileNetV1, V2, SqueezeNet and ResNet-8 on four
systems within 10 % except MobileNetV1 1.0-224 on U65-512 (17.9 % below: Vela cuts the first layers of a cascade of
seven into narrower stripes than this model, and reads the 3-channel image with more waste); ranks of operators above
0.98. ``BOUNDS`` lists what misses the bars: SqueezeNet's ranks on the U55 (0.88), and the autoencoder of MLPerf Tiny,
whose nine layers of two sizes differ in little but when their weights are fetched.
"""

import csv
import subprocess
import sys

import networks
import pytest

from pipeline.cost import ethos
from pipeline.cost.ethos_blocks import Geometry, search
from pipeline.cost.ethos_machine import Machine, machine
from pipeline.cost.nouns import Activation, Device, Kind, Work

U65 = {
    "clock_hz": 1e9, "macs_per_cycle": 256, "ofm_block_height": 2, "ofm_block_width": 2, "ofm_block_depth": 8,
    "shram_bytes": 49152, "sram_bytes_per_second": 16e9, "sram_burst_bytes": 32, "sram_latency_cycles": 32,
    "dram_bytes_per_second": 3.75e9, "dram_burst_bytes": 128, "dram_read_latency_cycles": 500,
    "dram_write_latency_cycles": 250, "sram_bytes": 393216,
}  # fmt: skip
U55 = {k: v for k, v in U65.items() if k not in ("sram_bytes", "dram_write_latency_cycles")} | {
    "clock_hz": 5e8, "sram_bytes_per_second": 4e9, "dram_bytes_per_second": 5e8, "dram_read_latency_cycles": 64,
}  # fmt: skip
SYSTEMS = {
    "u65-256": (U65, "ethos-u65-256", "Ethos_U65_High_End", "Dedicated_Sram_384KB"),
    "u65-512": (
        {**U65, "cores": 2, "dram_bytes_per_second": 12e9, "sram_bytes": 524288},
        "ethos-u65-512", "Ethos_U65_Client_Server", "Dedicated_Sram_512KB",
    ),
    "u55-256": (U55, "ethos-u55-256", "Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "u55-128": (
        {**U55, "ofm_block_height": 1, "shram_bytes": 24576},
        "ethos-u55-128", "Ethos_U55_High_End_Embedded", "Shared_Sram",
    ),
}  # fmt: skip
NETWORKS = {
    "mobilenet_v1_025_128": lambda: networks.mobilenet_v1(0.25, 128),
    "mobilenet_v1_1_224": networks.mobilenet_v1,
    "mobilenet_v2_1_224": networks.mobilenet_v2,
    "resnet8": networks.resnet8,
    "squeezenet_96": lambda: networks.squeezenet(96),
    "dense_only": networks.dense_only,
}
BOUNDS = {
    "mobilenet_v1_1_224 u65-512": (0.18, 0.9),
    "squeezenet_96 u55-128": (0.10, 0.88),
    "dense_only u65-512": (0.12, 0.74),
    "dense_only u55-128": (0.10, 0.80),
}
"""Where the bar (10 % in total, rank correlation 0.9) is missed: the tightest that hold."""


@pytest.fixture(scope="module")
def vela(tmp_path_factory):
    """Compiles a network once per system: rows of Vela's table by the tensor that they write."""
    pytest.importorskip("ethosu.vela", reason="the oracle is Arm's compiler: pip install ethos-u-vela (extra dev)")
    folder, known = tmp_path_factory.mktemp("vela"), {}

    def run(name, system):
        if (name, system) not in known:
            _, accelerator, config, memory = SYSTEMS[system]
            path, out = folder / f"{name}.tflite", folder / f"{name}-{system}"
            if not path.exists():
                path.write_bytes(networks.tflite(NETWORKS[name]()))
            command = [
                sys.executable,
                "-m",
                "ethosu.vela",
                str(path),
                "--config",
                "Arm/vela.ini",
                "--output-dir",
                str(out),
            ]
            command += ["--accelerator-config", accelerator, "--system-config", config, "--memory-mode", memory]
            subprocess.run([*command, "--verbose-performance"], check=True, capture_output=True, cwd=folder)
            with next(out.glob("*_per-layer.csv")).open() as file:
                known[name, system] = [row for row in csv.DictReader(file) if float(row["Op Cycles"]) > 0]
        return known[name, system]

    return run


def ranks(values):
    """Average ranks, equal values sharing theirs."""
    order = sorted(values)
    return [(order.index(v) + len(order) - 1 - order[::-1].index(v)) / 2 for v in values]


def spearman(a, b):
    x, y = ranks(a), ranks(b)
    mx, my = sum(x) / len(x), sum(y) / len(y)
    top = sum((p - mx) * (q - my) for p, q in zip(x, y, strict=True))
    return top / (sum((p - mx) ** 2 for p in x) * sum((q - my) ** 2 for q in y)) ** 0.5


CASES = [
    *((name, system) for name in ("mobilenet_v1_025_128", "mobilenet_v2_1_224") for system in SYSTEMS),
    *(("mobilenet_v1_1_224", system) for system in ("u65-512", "u55-256")),
    *((name, system) for name in ("resnet8", "squeezenet_96") for system in ("u65-256", "u55-128")),
    *(("dense_only", system) for system in ("u65-512", "u55-128")),
]


@pytest.mark.parametrize(("name", "system"), CASES)
def test_totals_and_ranks(name, system, vela, record_property):
    rows = vela(name, system)
    works = networks.works_of(NETWORKS[name])
    costs = ethos.costs(works, Device(name, "ethos-u", SYSTEMS[system][0]))
    joined = {t: w.outputs[0] for w in works if w.op == "Concat" for t in w.inputs}  # Vela writes them in place
    ours = {(joined.get(w.outputs[0], w.outputs[0]), w.macs): c for w, c in zip(works, costs, strict=True)}
    theirs = {(r["Name"], int(float(r["MAC Count"])) if "Pool" not in r["NNG Operator"] else 0): r for r in rows}
    pairs = [(ours[k].cycles, float(r["Op Cycles"])) for k, r in theirs.items() if k in ours]
    total, theirs = sum(c.cycles for c in costs), sum(float(r["Op Cycles"]) for r in rows)
    error, rank = total / theirs - 1, spearman([p for p, _ in pairs], [q for _, q in pairs])
    record_property("accuracy", f"{name} on {system}: {error:+.1%} in total, rank {rank:.3f}")
    print(f"{name} on {system}: {error:+.1%} in total, rank correlation {rank:.3f}, {len(pairs)} operators")  # noqa: T201
    limit, least = BOUNDS.get(f"{name} {system}", (0.10, 0.9))
    assert len(pairs) >= 0.9 * len(rows)
    assert abs(error) <= limit
    assert rank >= least


def test_a_misfit_of_the_bars_is_real():
    """A bound that is looser than the bar is there because it is needed, so that it goes when the model improves."""
    assert all(limit > 0.10 or rank < 0.9 for limit, rank in BOUNDS.values())


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
