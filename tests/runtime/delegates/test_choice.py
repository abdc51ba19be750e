"""Which delegate runs a partition, and what is said about it."""

import pytest

from runtime.bundle import open_bundle
from runtime.delegates import choice, ort
from runtime.delegates.choice import Placement, delegates, resolve, summarize
from runtime.delegates.ort import OrtDelegate, OrtExecutable
from runtime.errors import PlacementError, UserError
from runtime.session import Session


def test_ort_with_options():
    assert delegates("ort:OpenVINO")["npu"] == OrtDelegate("OpenVINOExecutionProvider", {})
    found = delegates("ort:OpenVINOExecutionProvider,device_type=HETERO:GPU,CPU,num_of_threads=2")["npu"]
    expected = {"device_type": "HETERO:GPU,CPU", "num_of_threads": "2"}
    assert found == OrtDelegate("OpenVINOExecutionProvider", expected)


@pytest.mark.parametrize("name", ["gpu", "", "ort", "ort:", "ort:a b", "ort:A,b", "NPU"])
def test_delegates_that_are_none(name):
    with pytest.raises(UserError, match="there is no delegate"):
        delegates(name)


def test_auto_is_what_is_there(monkeypatch):
    there = ["AzureExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort.onnxruntime, "get_available_providers", lambda: there)
    assert resolve("auto") == "npu"
    there.insert(0, "OpenVINOExecutionProvider")
    assert resolve("auto") == "ort:OpenVINOExecutionProvider"
    assert resolve("cpu") == "cpu"


def test_ort_on_the_cpu_says_where_nodes_went(split_bundle):
    session = Session(open_bundle(split_bundle), "ort:CPU", strict=True)
    (_, body), (_, heads) = session.partitions
    assert isinstance(body, OrtExecutable)
    assert (body.provider, body.left) == ("CPUExecutionProvider", ())
    assert body.taken > 3
    assert not isinstance(heads, OrtExecutable)
    assert [(p.planned, p.actual) for p in session.placement] == [("npu", "CPUExecutionProvider"), ("cpu", "cpu")]


def test_placement_of_the_simulated_npu(split_bundle):
    session = Session(open_bundle(split_bundle), strict=True)
    assert summarize(session.placement) == [
        "1 partitions planned for npu run on npu (simulated)",
        "1 partitions planned for cpu run on cpu",
    ]


def test_a_fallback_is_said_and_strict_refuses_it(split_bundle, monkeypatch):
    bundle = open_bundle(split_bundle)
    right = OrtDelegate.load

    def load(self, partition, bundle):
        found = right(self, partition, bundle)
        left = ("Conv conv_a", "Add add", "Det d", "Unique u")
        return OrtExecutable(found.session, found.inputs, found.outputs, "", found.provider, 3, left)

    monkeypatch.setattr(OrtDelegate, "load", load)
    line = (
        "models/0.onnx: planned npu, runs on CPUExecutionProvider; "
        "4 operators fall back to the CPU (Conv conv_a, Add add, Det d, ...)"
    )
    assert summarize(Session(bundle, "ort:CPU").placement)[-1] == line
    with pytest.raises(
        PlacementError, match=r"split\.npub: not as planned: models/0\.onnx: planned npu, .*without --strict"
    ):
        Session(bundle, "ort:CPU", strict=True)


def test_a_provider_that_takes_nothing_runs_on_the_cpu(split_bundle):
    bundle = open_bundle(split_bundle)
    _, executable = Session(bundle, "ort:CPU").partitions[0]
    idle = OrtExecutable(executable.session, executable.inputs, executable.outputs, "", "X", 0, ("Conv a",))
    placed = choice.placement(bundle.manifest.partitions[0], OrtDelegate("X"), idle)
    assert placed == Placement("models/0.onnx", "npu", "cpu", 3, ("Conv a",))


def test_a_provider_or_a_version_that_is_missing(split_bundle, monkeypatch):
    bundle = open_bundle(split_bundle)
    with pytest.raises(UserError, match=r"ONNX Runtime has no CUDAExecutionProvider here; it has .*\(install the"):
        Session(bundle, "ort:CUDA")
    monkeypatch.delattr(ort.onnxruntime.InferenceSession.__base__, "get_provider_graph_assignment_info")
    with pytest.raises(UserError, match=r"cannot say which nodes a provider took \(install 1\.24 or newer\)"):
        Session(bundle, "ort:CPU")
