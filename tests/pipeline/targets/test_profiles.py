"""The shipped profiles against the reference, and what a wrong profile is told."""

import numpy as np
import pytest
import yaml
from smallmodels import TARGETS, graph, target

from pipeline.errors import TargetError
from pipeline.targets import library
from pipeline.targets.profile import FIGURES
from pipeline.targets.rules import RULES, violations

SHIPPED = library.names(TARGETS)

CORAL = {
    "Conv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
    "Add",
    "Sub",
    "Mul",
    "Max",
    "Min",
    "Relu",
    "Clip",
    "PRelu",
    "Sigmoid",
    "Tanh",
    "Softmax",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "ReduceMean",
    "ReduceSum",
    "ReduceMax",
    "ReduceMin",
    "Concat",
    "Split",
    "Slice",
    "Pad",
    "Unsqueeze",
    "Squeeze",
    "Reshape",
    "Flatten",
    "Transpose",
    "Resize",
    "LpNormalization",
    "LSTM",
    "SpaceToDepth",
}
NOT_CORAL = {
    "LeakyRelu",
    "HardSwish",
    "HardSigmoid",
    "Elu",
    "Gelu",
    "Exp",
    "Log",
    "Pow",
    "Div",
    "Sqrt",
    "ArgMax",
    "TopK",
    "Gather",
    "Cast",
    "DepthToSpace",
    "LayerNormalization",
    "NonMaxSuppression",
    "Erf",
    "Where",
}
CONV_ONLY = {"Conv", "Relu", "Clip", "Add", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Resize"}


def test_both_profiles_are_shipped():
    assert SHIPPED == ("conv-only", "coral-edgetpu-usb3")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_is_complete(name):
    loaded = target(name)
    assert loaded.figures.keys() >= set(FIGURES)
    assert all(figure.source.strip() and figure.unit.strip() for figure in loaded.figures.values())
    assert all(operator.source.strip() for operator in loaded.operators.values())
    assert loaded.partition.source.strip()
    assert loaded.device_figures().keys() == set(FIGURES)
    assert loaded.per_channel() == {"Conv": True, "ConvTranspose": True, "Gemm": False, "MatMul": False}


def test_every_rule_is_used_by_a_profile():
    loaded = [target(name) for name in SHIPPED]
    used = {u.rule for t in loaded for u in t.rules} | {
        u.rule for t in loaded for o in t.operators.values() for u in o.rules
    }
    assert used == RULES.keys()


def test_operators_are_those_of_the_sources():
    assert target("coral-edgetpu-usb3").operators.keys() == CORAL
    assert not NOT_CORAL & CORAL
    assert target("conv-only").operators.keys() == CONV_ONLY


def test_partition_policies():
    assert target("coral-edgetpu-usb3").partition.max_npu_partitions == 1
    assert target("conv-only").partition.max_npu_partitions is None


def test_figures_of_the_edge_tpu():
    figures = target("coral-edgetpu-usb3").device_figures()
    assert figures["macs_per_cycle"] * figures["clock_hz"] * 2 == 4.096e12
    assert figures["memory_bytes_per_second"] == 0.0  # not public


@pytest.mark.parametrize(
    "body",
    ["y = Gemm (x, w)", "y = MatMul (x, w)", "y = Softmax (x)", "y = Flatten (x)", "y = Transpose <perm = [0, 1]> (x)"],
)
def test_the_misfit_lacks_what_is_no_convolution(body):
    seen = graph(f"g (float[1,4] x) => (float[m,n] y) {{ {body} }}", w=np.ones((4, 3), np.float32)).nodes[0]
    (broken,) = violations(seen, target("conv-only"))
    assert (broken.rule, broken.fact) == ("operator", f"it has no {seen.op}")
    assert violations(seen, target("coral-edgetpu-usb3")) == ()


@pytest.fixture
def profile(tmp_path):
    """Writes a changed copy of a shipped profile and loads it."""

    def write(change, name="conv-only"):
        document = yaml.safe_load((TARGETS / "conv-only.yaml").read_text())
        change(document)
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document))
        return library.load(path)

    return write


WRONG = {
    "figures.clock_hz is missing (value null when it is not public)": lambda d: d["figures"].pop("clock_hz"),
    "is named other inside (name it conv-only)": lambda d: d.update(name="other"),
    "there is no contract tflite-r2 (did you mean tflite-r1?)": lambda d: d.update(contract="tflite-r2"),
    "operators.Conv: there is no rule max_strides (did you mean max_stride?)": lambda d: d["operators"]["Conv"].update(
        rules=[{"rule": "max_strides", "limits": {"stride": 3}}]
    ),
    "rules: there is no rule zzz (known: batch_one": lambda d: d.update(rules=[{"rule": "zzz"}]),
    "operators.Conv: rule max_stride needs the limit stride (add it to its limits)": lambda d: d["operators"][
        "Conv"
    ].update(rules=[{"rule": "max_stride"}]),
    "operators.Conv: rule max_stride has no limit strode (did you mean stride?)": lambda d: d["operators"][
        "Conv"
    ].update(rules=[{"rule": "max_stride", "limits": {"strode": 3, "stride": 3}}]),
    "rules: rule batch_one has no limit size (known: none)": lambda d: d.update(
        rules=[{"rule": "batch_one", "limits": {"size": 1}}]
    ),
    "quantization.weights.Konv: there is no operator Konv with weights (did you mean Conv?)": lambda d: d[
        "quantization"
    ]["weights"].update(Konv="per_tensor"),
    "figure is not a setting (did you mean figures?)": lambda d: d.update(figure=1),
    "title is missing": lambda d: d.pop("title"),
    "figures.clock_hz.value should be greater than 0": lambda d: d["figures"]["clock_hz"].update(value=0),
    "figures.clock_hz.source is missing": lambda d: d["figures"]["clock_hz"].pop("source"),
    "figures.clock_hz.confidence should be": lambda d: d["figures"]["clock_hz"].update(confidence="sure"),
    "partition.max_npu_partitions should be greater than or equal to 1": lambda d: d["partition"].update(
        max_npu_partitions=0
    ),
    "operators.Relu.source is missing": lambda d: d["operators"]["Relu"].pop("source"),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_profile_is_told_what_is_wrong(profile, message):
    with pytest.raises(TargetError) as error:
        profile(WRONG[message])
    assert message in str(error.value)
    assert str(error.value).count("conv-only.yaml: ") == 1


def test_every_mistake_is_told_at_once(profile):
    def change(document):
        document["figures"].pop("clock_hz")
        document["contract"] = "none"
        document["rules"] = [{"rule": "nothing"}]

    with pytest.raises(TargetError) as error:
        profile(change)
    for part in ("figures.clock_hz is missing", "there is no contract none", "there is no rule nothing"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("a: [", "is not valid YAML"),
        ("- 1", "must be a mapping"),
        ("name: a\nname: b", "is set twice"),
    ],
)
def test_what_is_no_profile_is_named(tmp_path, content, message):
    path = tmp_path / "conv-only.yaml"
    path.write_text(content)
    with pytest.raises(TargetError, match=message):
        library.load(path)


def test_a_missing_profile_is_named():
    with pytest.raises(
        TargetError, match=r"there is no target coral-edgetpu-usb \(did you mean coral-edgetpu-usb3\?\)"
    ):
        library.find("coral-edgetpu-usb", TARGETS)
    with pytest.raises(TargetError, match=r"there is no target zzz \(known: conv-only, coral-edgetpu-usb3\)"):
        library.find("zzz", TARGETS)
    with pytest.raises(TargetError, match="does not exist"):
        library.load(TARGETS / "nowhere.yaml")
    assert library.find("conv-only", TARGETS) == TARGETS / "conv-only.yaml"


def test_profiles_lie_beside_the_configuration_or_in_the_project(tmp_path):
    assert library.folder(tmp_path / "use.yaml").resolve() == TARGETS
    (tmp_path / "targets").mkdir()
    assert library.folder(tmp_path / "use.yaml") == tmp_path / "targets"
