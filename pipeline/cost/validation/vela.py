"""The Ethos-U model against Arm's Vela, which compiles the same int8 networks and estimates every operator."""

import csv
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pipeline.cost import ethos
from pipeline.cost.nouns import Device
from pipeline.cost.validation.network import Network
from pipeline.cost.validation.networks import works_of
from pipeline.cost.validation.tflite import tflite

IMX93 = """[System_Config.IMX93]
core_clock=1e9
axi0_port=Sram
axi1_port=Dram
Sram_clock_scale=1.0
Sram_burst_length=32
Sram_read_latency=32
Sram_write_latency=32
Dram_clock_scale=0.46625
Dram_burst_length=128
Dram_read_latency=500
Dram_write_latency=250
[Memory_Mode.Dedicated_384KB]
const_mem_area=Axi1
arena_mem_area=Axi1
cache_mem_area=Axi0
arena_cache_size=393216
"""
"""The i.MX 93 for Vela, which ships no configuration of it: 7.46 GB/s of DRAM, as in its profile."""


@dataclass(frozen=True)
class System:
    """A system as Vela names it: accelerator, system and memory configuration, and whether Vela ships them."""

    accelerator: str
    system: str
    memory: str
    shipped: bool = True


SYSTEMS: Mapping[str, System] = MappingProxyType(
    {
        "ethos-u55-128": System("ethos-u55-128", "Ethos_U55_High_End_Embedded", "Shared_Sram"),
        "ethos-u55-256": System("ethos-u55-256", "Ethos_U55_High_End_Embedded", "Shared_Sram"),
        "ethos-u65-256": System("ethos-u65-256", "IMX93", "Dedicated_384KB", shipped=False),
        "ethos-u65-512": System("ethos-u65-512", "Ethos_U65_High_End", "Dedicated_Sram_384KB"),
    }
)
"""By the target whose figures they have."""


@dataclass(frozen=True)
class Comparison:
    """One network on one system.

    Attributes:
        ours, theirs: cycles in all.
        rank: Spearman's correlation of the operators' cycles.
        matched, operators: how many of Vela's operators have one here, and how many there are.
    """

    ours: float
    theirs: float
    rank: float
    matched: int
    operators: int

    @property
    def error(self) -> float:
        """Of the total, relative."""
        return self.ours / self.theirs - 1


def compare(make: Callable[[], Network], system: System, device: Device, folder: Path) -> Comparison:
    """``make``'s network on ``device``, whose figures are those of ``system``; ``folder`` keeps Vela's files.

    Raises ``ImportError`` without ai-edge-litert and ``subprocess.CalledProcessError`` without Vela.
    """
    rows = _rows(make, system, folder)
    works = works_of(make)
    costs = ethos.costs(works, device)
    joined = {t: w.outputs[0] for w in works if w.op == "Concat" for t in w.inputs}  # Vela writes them in place
    ours = {(joined.get(w.outputs[0], w.outputs[0]), w.macs): c for w, c in zip(works, costs, strict=True)}
    keys = [(r["Name"], 0 if "Pool" in r["NNG Operator"] else int(float(r["MAC Count"]))) for r in rows]
    pairs = [(ours[k].cycles or 0.0, float(r["Op Cycles"])) for k, r in zip(keys, rows, strict=True) if k in ours]
    total, theirs = sum(c.cycles or 0.0 for c in costs), sum(float(r["Op Cycles"]) for r in rows)
    return Comparison(total, theirs, spearman([a for a, _ in pairs], [b for _, b in pairs]), len(pairs), len(rows))


def _rows(make: Callable[[], Network], system: System, folder: Path) -> list[dict[str, str]]:
    """Vela's table of operators that take time."""
    path, own = folder / f"{make.__name__}.tflite", folder / "own.ini"
    out = folder / f"{make.__name__}-{system.accelerator}-{system.system}"
    if not path.exists():
        path.write_bytes(tflite(make()))
    own.write_text(IMX93)
    command = [sys.executable, "-m", "ethosu.vela", str(path), "--output-dir", str(out), "--verbose-performance"]
    command += ["--config", "Arm/vela.ini" if system.shipped else str(own)]
    command += ["--accelerator-config", system.accelerator, "--system-config", system.system]
    subprocess.run([*command, "--memory-mode", system.memory], check=True, capture_output=True, cwd=folder)
    with next(out.glob("*_per-layer.csv")).open() as file:
        return [row for row in csv.DictReader(file) if float(row["Op Cycles"]) > 0]


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation of ``a`` and ``b``, equal values sharing their rank."""
    x, y = _ranks(a), _ranks(b)
    mean = (len(x) - 1) / 2
    top = sum((p - mean) * (q - mean) for p, q in zip(x, y, strict=True))
    bottom: float = (sum((p - mean) ** 2 for p in x) * sum((q - mean) ** 2 for q in y)) ** 0.5
    return top / bottom


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(values)
    return [(order.index(v) + len(order) - 1 - order[::-1].index(v)) / 2 for v in values]
