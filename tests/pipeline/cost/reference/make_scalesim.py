"""Writes ``scalesim.csv``, the cycles that SCALE-Sim 3.0.0 counts for random matrix products.

It needs numpy < 2.4 (``int(array)`` in it fails with 2.4), which this project's environment does not have, so it runs
in one of its own, by hand, when the random products are to change:

    python -m venv sim && sim/bin/pip install "scalesim==3.0.0" "numpy<2.4"
    sim/bin/python tests/pipeline/cost/reference/make_scalesim.py
"""

import csv
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ARRAYS = ((8, 8), (4, 16), (16, 4), (12, 7))
DATAFLOWS = ("ws", "os", "is")
PRODUCTS = 51  # per array, each with the three dataflows
CONFIG = """[general]
run_name = run
[architecture_presets]
ArrayHeight = {rows}
ArrayWidth = {columns}
IfmapSramSzkB = 64
FilterSramSzkB = 64
OfmapSramSzkB = 64
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Bandwidth = 10
Dataflow = {dataflow}
MemoryBanks = 1
ReadRequestBuffer = 32
WriteRequestBuffer = 32
[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterCustomLayout = False
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
SparseRep = ellpack_block
OptimizedMapping = false
BlockSize = 8
RandomNumberGeneratorSeed = 40
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
"""


def simulate(rows, columns, dataflow, products):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "array.cfg").write_text(CONFIG.format(rows=rows, columns=columns, dataflow=dataflow))
        lines = ["Layer,M,N,K,", *(f"g{i},{m},{n},{k}," for i, (m, n, k) in enumerate(products))]
        (folder / "gemm.csv").write_text("\n".join(lines) + "\n")
        command = [sys.executable, "-m", "scalesim.scale", "-c", "array.cfg", "-t", "gemm.csv", "-l", "gemm.csv"]
        subprocess.run([*command, "-p", "out", "-i", "gemm"], cwd=folder, check=True, capture_output=True)
        report = next((folder / "out").rglob("COMPUTE_REPORT.csv"))
        with report.open() as file:
            found = [{k.strip(): v for k, v in row.items() if k} for row in csv.DictReader(file)]
        return [int(float(row["Total Cycles"])) for row in found]


def main():
    draw = random.Random(1)
    with (Path(__file__).parent / "scalesim.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("rows", "columns", "dataflow", "m", "n", "k", "cycles"))
        for rows, columns in ARRAYS:
            products = [(draw.randint(1, 48), draw.randint(1, 36), draw.randint(1, 48)) for _ in range(PRODUCTS)]
            for dataflow in DATAFLOWS:
                cycles = simulate(rows, columns, dataflow, products)
                for product, count in zip(products, cycles, strict=True):
                    writer.writerow((rows, columns, dataflow, *product, count))


if __name__ == "__main__":
    main()
