"""A run's folder as the stages leave it, small, with one fallback whose name is an attack."""

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pipeline.summary import RunSummary, StageSummary

EVIL = "<script>alert('x')</script>"
"""The fallback's name; nothing of it may reach a page as markup."""

METRICS = {
    "train": {"ap50": 0.91, "ap": 0.55, "epochs": 2.0, "parameters": 1234.0},
    "quantize": {"float_ap50": 0.91, "float_ap": 0.55, "ap50": 0.905, "ap": 0.54, "worst_sqnr_db": 21.5},
    "export": {"torch_difference": 2.5e-6, "operators": 4.0, "bytes": 900.0},
    "coverage": {"macs": 13824.0, "macs_on_npu": 1.0, "nodes": 4.0, "nodes_on_npu": 2.0},
    "partition": {
        "partitions": 2.0,
        "npu_partitions": 1.0,
        "crossings": 1.0,
        "crossing_bytes": 512.0,
        "ms": 1.25,
        "low_ms": 1.0,
        "high_ms": 2.5,
    },
    "package": {
        "ap50": 0.904,
        "ap": 0.54,
        "golden_bytes": 17280.0,
        "differing_bytes": 0.0,
        "bundle_bytes": 412345.0,
        "npu_cycles": 81234.0,
        "frames": 8.0,
        "tracks": 2.0,
        "in": 3.0,
        "out": 5.0,
    },
}
NODES = [
    {"name": "stem", "op": "Conv", "device": "npu", "reasons": [], "macs": 13824, "phase": 0},
    {"name": "relu", "op": "Relu", "device": "npu", "reasons": [], "macs": 0, "phase": 0},
    {
        "name": EVIL,
        "op": "Softmax",
        "device": "cpu",
        "reasons": ["The axis must be 1; it is <3>"],
        "macs": 0,
        "phase": 1,
    },
    {"name": "sum", "op": "Add", "device": "cpu", "reasons": ["It comes late", "It is odd"], "macs": 0, "phase": 1},
]


CHECK = {
    "schema": 1,
    "host": "toy-host",
    "totals": {
        "latency_ms": 1.25, "latency_low_ms": 1.0, "latency_high_ms": 2.5, "energy_mj": None, "crossing_bytes": 704,
        "macs": 13824, "macs_on_npu": 13824, "nodes": 4, "nodes_on_npu": 2, "provenance": "a priori",
    },
    "partition": {
        "optimal_ms": 1.25, "greedy_ms": 1.5, "cpu_ms": 9.75, "lower_bound_ms": 1.25, "gap_percent": 0.0,
    },
    "fallback_ops": [{"op": "Softmax", "nodes": [EVIL], "delta_ms": 0.375, "delta_mj": None}],
    "notes": ["The link is a guess"],
}  # fmt: skip


PROFILE = {
    "bundle": "shop",
    "target": "toy-npu",
    "programs": [
        {
            "program": "programs/0.npup",
            "estimates": {
                "provenance": "a priori", "ms": 0.75, "launch_ms": 0.25, "crossing_ms": 0.125, "unknown": ["launch_s"],
            },
            "memories": [
                {"name": "sram", "bytes": 2000, "used": 1500, "assumed": True, "ecc": False, "spilled": ["c"]},
                {"name": "dram", "bytes": 1 << 30, "used": 4000, "assumed": True, "ecc": False, "spilled": []},
            ],
            "layers": [
                {
                    "name": EVIL, "opcodes": ["conv2d", "requantize"], "tiles": 3, "ms": 0.375, "macs": 13824,
                    "utilization": 0.25, "bytes": {"sram": 100, "dram": 50}, "energy_mj": None, "bound": "compute",
                },
            ],
        },
    ],
}  # fmt: skip
TRACE = {
    "displayTimeUnit": "ms",
    "traceEvents": [
        {"name": "process_name", "ph": "M", "pid": 1, "tid": 0, "args": {"name": "programs/0.npup"}},
        {"name": "x", "ph": "X", "cat": "DMA in", "ts": 0.0, "dur": 250.0, "pid": 1, "tid": 1, "args": {}},
        {"name": EVIL, "ph": "X", "cat": "MAC", "ts": 250.0, "dur": 100.0, "pid": 1, "tid": 2, "args": {}},
        {"name": EVIL, "ph": "X", "cat": "MAC", "ts": 350.1, "dur": 100.0, "pid": 1, "tid": 2, "args": {}},
        {"name": "y", "ph": "X", "cat": "DMA out", "ts": 600.0, "dur": 150.0, "pid": 1, "tid": 4, "args": {}},
        {"name": "y", "ph": "X", "cat": "vector", "ts": 500.0, "dur": 0.0, "pid": 1, "tid": 3, "args": {}},
    ],
}


def small_model():
    """Conv and Relu, fused; then Softmax, and an Add of both."""
    weights = numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float32), "stem.weight")
    nodes = [
        helper.make_node("Conv", ["image", "stem.weight"], ["c"], pads=[1, 1, 1, 1], name="stem"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Softmax", ["r"], ["s"], axis=3, name=EVIL),
        helper.make_node("Add", ["r", "s"], ["scores"], name="sum"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 8, 8, 8])
    graph = helper.make_graph(nodes, "small", [image], [scores], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def spec(name, shape):
    return {"name": name, "shape": shape, "dtype": "int8", "scale": 0.1, "zero_point": 0}


def jpeg():
    file = io.BytesIO()
    Image.new("RGB", (32, 16), (10, 120, 200)).save(file, "JPEG")
    return file.getvalue()


def write_files(folder: Path) -> None:
    def put(path, content):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(content))

    put(
        "train/history.json", [{"epoch": e, "loss": 2.0 - e, "ap50": 0.8 + 0.11 * e, "ap": 0.5, "x": 1} for e in (0, 1)]
    )
    rows = [("stem", "c", 31.25), (EVIL, "s", 21.5), ("sum", "y", 3080.0)]
    put(
        "quantize/errors.json",
        [
            {"node": n, "op": "Conv", "tensor": t, "sqnr_db": d, "cosine": 0.999, "largest": 0.02, "scale": 0.01}
            for n, t, d in rows
        ],
    )
    put("coverage/coverage.json", {"schema": 1, "target": "toy-npu", "nodes": NODES})
    partitions = [
        {
            "device": "npu",
            "model": "0.onnx",
            "inputs": [spec("image", [1, 3, 8, 8])],
            "outputs": [spec("r", [1, 8, 8, 8])],
        },
        {"device": "cpu", "model": "1.onnx", "inputs": [spec("r", [1, 8, 8, 8])], "outputs": [spec("y", [1, 8, 8, 8])]},
    ]
    names = ["stem", "relu"], [EVIL, "sum"]
    put("partition/plan.json", {"partitions": [{**p, "nodes": n} for p, n in zip(partitions, names, strict=True)]})
    put("partition/check.json", CHECK)
    counts = {"walkway": {"in": 3, "out": 5}}
    zones = {"lawn": {"visits": 7, "dwell_s": 4.25, "most": 2, "per_hour": 315.4}}
    put(
        "package/demo/summary.json",
        {"frames": 8, "boxes": {"person": 31}, "tracks": 2, "counts": counts, "zones": zones, "bundle": "b"},
    )
    put("package/profile.json", PROFILE)
    put("package/trace.json", TRACE)
    (folder / "package/samples").mkdir()
    (folder / "package/samples/000-clip_0016.jpg").write_bytes(jpeg())
    (folder / "package/shop.npub").write_bytes(b"bundle")
    (folder / "export").mkdir()
    onnx.save(small_model(), folder / "export/model.onnx")


class Finished(SimpleNamespace):
    """A run that ran every stage to its end."""

    folder: Path
    summary: RunSummary

    def without(self, name, why="train comes first", state="stale"):
        """The summary with one stage that is not up to date."""
        gone = StageSummary(name, state, why)
        stages = tuple(gone if stage.name == name else stage for stage in self.summary.stages)
        return replace(self.summary, stages=stages)

    def with_gate(self, sentence):
        stages = self.summary.stages
        return replace(self.summary, stages=(replace(stages[0], gates=(sentence,)), *stages[1:]))

    def again(self):
        """The summary of a second run that found everything fresh."""
        stages = tuple(replace(s, state="fresh", why="", ran=False) for s in self.summary.stages)
        return replace(self.summary, stages=stages, git_commit="another")


def _finish(folder: Path) -> Finished:
    folder = folder / "runs" / "shop"
    write_files(folder)
    stages = tuple(
        StageSummary(name, "stale", "never run", True, 10.0 * (number + 1), dict(metrics))
        for number, (name, metrics) in enumerate(METRICS.items())
    )
    summary = RunSummary("shop", folder, Path("configs/shop.yaml"), "ab" * 32, "toy-npu", "c0ffee", stages)
    return Finished(folder=folder, summary=summary)


@pytest.fixture(scope="session")
def finish():
    """Makes a finished run in a folder."""
    return _finish


@pytest.fixture
def finished(tmp_path):
    return _finish(tmp_path)
