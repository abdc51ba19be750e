"""Rules R2 and R3, and average pooling by reciprocals, against TOSA's reference model: 0 differing of thousands.

The model comes from ``tosa-tools``, whose pins differ from ours: ``make peers`` gives it an environment of its own;
``TOSA_PYTHON`` names another interpreter that has it.
"""

import os
import platform
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from npu_programs import feeds, single, spec

from runtime.npu.contracts import find_contract
from runtime.npu.device import Device

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
    (expected,) = reference("rescale", tmp_path, {"rounding": rounding, **given})
    scaled = rule.multiply(acc, multiplier[:, None], shift[:, None]) + zero[:, None]
    np.testing.assert_array_equal(np.clip(scaled, -128, 127), expected)


@pytest.mark.parametrize("contract", ["tosa-r2", "tosa-r3"])
def test_average_pool(tmp_path, contract):
    rng, items, given = np.random.default_rng(3), [], {}
    for case in range(160):
        kernel, strides = tuple(rng.integers(1, 9, 2).tolist()), tuple(rng.integers(1, 4, 2).tolist())
        pads = tuple(int(rng.integers(0, kernel[i % 2])) for i in range(4))
        # TOSA wants the padded size to be a whole number of strides beyond the window
        sides = [int(rng.integers(1, 5)) * strides[i] + kernel[i] - pads[i] - pads[i + 2] for i in (0, 1)]
        if min(sides) < 1:
            continue
        zero = int(rng.choice([-128, 127, 0, *rng.integers(-128, 128, 3)]))
        x = spec("x", (1, 3, *sides), 0.1, zero)
        size = [(sides[i] + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1 for i in (0, 1)]
        y, attributes = spec("y", (1, 3, *size), 0.1, zero), {"kernel": kernel, "strides": strides, "pads": pads}
        item = single("average_pool", [x], y, attributes)
        items.append(replace(item, contract=contract))
        n = len(items) - 1
        given[f"x{n}"] = np.ascontiguousarray(np.moveaxis(feeds(item, case)["x"], 1, -1))
        given[f"window{n}"] = np.array([*kernel, *strides, pads[0], pads[2], pads[1], pads[3], zero])
    compared = 0
    for n, (item, expected) in enumerate(zip(items, reference("average_pool", tmp_path, given), strict=True)):
        values = {"x": np.moveaxis(given[f"x{n}"], -1, 1)}
        for fast in (False, True):
            found = np.moveaxis(Device(item, fast=fast, threads=1).run(values)["y"], 1, -1)
            np.testing.assert_array_equal(found, expected, f"case {n}: {item.instructions[0].attributes}")
        compared += expected.size
    assert compared > 4000


def reference(what, folder, given):
    """What TOSA's reference model makes of ``given``, case by case."""
    np.savez(folder / "in.npz", **given)
    words = [PYTHON, ROOT / "tests" / "tosa_reference.py", what, folder / "in.npz", folder / "out.npz"]
    subprocess.run(words, check=True, capture_output=True)
    found = np.load(folder / "out.npz", allow_pickle=False)
    return [found[str(n)] for n in range(len(found.files))]
