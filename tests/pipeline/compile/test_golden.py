"""Golden vectors come from the plain kernels, so that a wrong fast path cannot vouch for itself."""

import numpy as np
from smallmodels import images, model, quantized, target

from pipeline.compile.bundling import Use, bundle
from pipeline.compile.partitions import cut, onnx_models
from pipeline.compile.support import no_kernel
from pipeline.graph.view import view
from pipeline.targets.placement import by_kernel, place
from runtime.adapters.detection import BoxDecoder
from runtime.adapters.image import Preprocess
from runtime.bundle import open_bundle
from runtime.npu.device import Device
from runtime.session import replay

TEXT = """g (float[1,3,16,16] image) => (float[1,1,16,16] scores, float[1,4,16,16] boxes) {
    a = Relu (image)
    scores = Conv (a, w)
    boxes = Conv (a, v)
}"""


def test_a_wrong_fast_path_is_found_by_the_golden_vectors(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    weights = {n: rng.normal(size=(c, 3, 1, 1)).astype(np.float32) for n, c in (("w", 1), ("v", 4))}
    lossy = quantized(model(TEXT, **weights), images((1, 3, 16, 16), low=0.0))[0]
    graph = view(lossy)
    partitions = cut(graph, place(graph, by_kernel(no_kernel), None))
    use = Use("tiny", ("a",), Preprocess(16, 16, (0, 0, 0), (1, 1, 1)), BoxDecoder(1, 0.5, 0.5, 10), (), {})
    path = tmp_path / "tiny.npub"
    pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
    bundle(path, use, graph, partitions, onnx_models(lossy, partitions), target(), golden=[pixels])
    assert replay(open_bundle(path)).differing == 0
    right = Device.run
    monkeypatch.setattr(Device, "run", lambda self, tensors: {k: v ^ 1 for k, v in right(self, tensors).items()})
    found = replay(open_bundle(path))
    assert found.differing == found.bytes > 0
