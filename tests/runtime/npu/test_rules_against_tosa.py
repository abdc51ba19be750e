"""Rules R2 and R3 against TOSA's reference model: 0 differing of thousands of rescaled accumulators.

The model comes from ``tosa-tools``, whose pins differ from ours: ``make peers`` gives it an environment of its own;
``TOSA_PYTHON`` names another interpreter that has it.
"""

import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import pytest

from runtime.npu.contracts import find_contract

ROOT = Path(__file__).parents[3]
PYTHON = Path(os.environ.get("TOSA_PYTHON", ROOT / ".venv-tosa" / "bin" / "python"))
CI = "CI" in os.environ and platform.system() == "Linux" and platform.machine() == "x86_64"
pytestmark = pytest.mark.skipif(
    not PYTHON.is_file() and not CI, reason="TOSA's reference model is not installed: make peers (Linux x86-64)"
)
ROWS, COLUMNS = 240, 500


@pytest.mark.parametrize(
    ("contract", "rounding"), [("tosa-r2", "SINGLE_ROUND"), ("tosa-r3", "DOUBLE_ROUND"), ("tflite-r1", "DOUBLE_ROUND")]
)
def test_rescale(tmp_path, contract, rounding):
    rng, rule = np.random.default_rng(0), find_contract(contract)
    half, quarter = ROWS // 2, ROWS // 4
    spread = [rng.uniform(-12, -5, half), rng.integers(-12, -3, quarter), rng.uniform(-2, 0, ROWS - half - quarter)]
    factors = 2.0 ** np.concatenate(spread)
    reach = (200 / factors).astype(np.int64)[:, None]
    acc = rng.integers(-reach, reach + 1, (ROWS, COLUMNS))
    acc[:, ::7] = np.rint((np.arange(acc[:, ::7].shape[1]) - 30.5) / factors[:, None])  # ties and their neighbours
    pairs = [rule.quantize_multiplier(float(f)) for f in factors]
    multiplier, shift = (np.array(column) for column in zip(*pairs, strict=True))
    zero = rng.integers(-128, 128, ROWS)
    given = {"acc": acc.astype(np.int32), "multiplier": multiplier, "shift": 31 - shift, "zero": zero}
    np.savez(tmp_path / "in.npz", rounding=rounding, **given)
    script = ROOT / "tests" / "tosa_rescale.py"
    subprocess.run([PYTHON, script, tmp_path / "in.npz", tmp_path / "out.npy"], check=True, capture_output=True)
    scaled = rule.multiply(acc, multiplier[:, None], shift[:, None]) + zero[:, None]
    np.testing.assert_array_equal(np.clip(scaled, -128, 127), np.load(tmp_path / "out.npy"))
