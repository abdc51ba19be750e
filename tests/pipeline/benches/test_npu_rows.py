"""The rows about the simulated NPU's speed: of a small network, what they compare, and what ends them."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from smallmodels import images, model, quantized, target

from pipeline.benches import npu, peers, throughput
from pipeline.benches.subjects import batched, subject
from pipeline.errors import ModelError
from pipeline.workspace import Quiet

TEXT = """g (float[1,3,12,12] x) => (float[1,5] y) {
    a = Conv <strides = [2,2], pads = [1,1,1,1]> (x, w)
    b = Relu (a)
    c = ReduceMean <axes = [2,3], keepdims = 1> (b)
    d = Reshape (c, s)
    y = Gemm <transB = 1> (d, v)
}"""


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(8, 3, 3, 3)), "v": rng.normal(size=(5, 8))}
    constants = {name: value.astype(np.float32) for name, value in weights.items()}
    floating = model(TEXT, 13, s=np.array([1, 8]), **constants)
    return subject("small", quantized(floating, images((1, 3, 12, 12)))[0], target())


def test_a_ratio_stands_beside_the_bytes_that_were_compared(small):
    row = npu.against_ort(small, 2)
    assert float(row.value) > 0
    assert "2 threads" in row.how
    assert row.how.endswith("0 of 5 bytes differ from the plain kernels'")


def test_both_of_tflites_interpreters_are_compared_and_timed(small):
    if not peers.installed():
        pytest.skip("needs tflite-micro and ai-edge-litert (extra dev, Linux x86-64)")
    rows = list(npu.against_tflite(small))
    assert [row.what.split(": ")[1] for row in rows] == [
        "LiteRT's reference kernels / simulated NPU",
        "tflite-micro / simulated NPU",
    ]
    assert "0 of 5 bytes differ" in rows[1].how


def test_without_the_interpreters_the_row_says_what_it_needs(small, monkeypatch):
    monkeypatch.setattr(peers, "installed", lambda: False)
    (row,) = npu.against_tflite(small)
    assert (row.value, row.how) == ("-", "needs: pip install tflite-micro ai-edge-litert")


def test_a_byte_that_differs_ends_the_benchmark():
    ours, theirs = {"y": np.zeros(6, np.int8)}, {"y": np.array([0, 0, 1, 0, 0, 2], np.int8)}
    with pytest.raises(ModelError, match="small: 2 of 6 bytes differ"):
        npu.compared("small", ours, theirs)


def test_memory_is_that_of_whole_processes(small):
    row = npu.memory(small)
    pattern = r"peak of a process, \d+ MB against \d+ MB; a second session in it adds -?\d+ MB against -?\d+ MB"
    assert re.fullmatch(pattern, row.how)
    assert 0.5 < float(row.value) < 2


def test_a_batch_gives_what_its_images_give_one_by_one(small):
    many = subject("small", batched(small.model, 4), target())
    (name,), inputs = small.program.outputs, many.integers()
    (source,) = inputs
    together = many.device(1).run(inputs)[name]
    assert together.shape == (4, 5)
    for index, alone in enumerate(together):
        np.testing.assert_array_equal(small.device(1).run({source: inputs[source][index : index + 1]})[name][0], alone)


def test_throughput_is_told_and_drawn(small, tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "BATCHES", (1, 2))
    picture = tmp_path / "bench" / "throughput.svg"
    rows = list(throughput.rows([small], target(), picture, Quiet()))
    assert len(rows) == 2 * len(throughput.THREADS) + 1
    assert all(len(row.value.split()) == 2 for row in rows[:-1])
    assert rows[-1].how == str(picture)
    root = ElementTree.parse(picture).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in picture.read_text()
    words = {each.text for each in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"small", "images at a time", "simulated NPU, 1 thread", "ONNX Runtime int8, 2 threads"} <= words
