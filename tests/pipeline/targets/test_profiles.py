"""The shipped profiles against the reference, and what a wrong profile is told."""

import numpy as np
import pytest
import yaml
from smallmodels import TARGETS, graph, target

from pipeline.errors import TargetError
from pipeline.targets import inheritance, library
from pipeline.targets.profile import FIGURES
from pipeline.targets.rules import RULES, placeholders, violations
from pipeline.targets.rules.limits import kind

SHIPPED = library.names(TARGETS)

NAMES = (
    "ascend-310 conv-only coral-edgetpu-pcie coral-edgetpu-usb2 coral-edgetpu-usb3 edgetpu-ddr ethos-u55-128 "
    "ethos-u55-256 ethos-u65-256 ethos-u65-512 hi3559a-nnie jetson-xavier-nx-dla jetson-xavier-nx-gpu kirin-970 "
    "rk3588 sapeon-x220 snapdragon-845 snapdragon-855 snapdragon-865 stm32mp2"
)


def test_the_profiles_that_are_promised_are_shipped():
    assert " ".join(SHIPPED) == NAMES


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_is_complete(name):
    loaded = target(name)
    assert loaded.figures.keys() >= set(FIGURES)
    assert all(figure.source.strip() and figure.unit.strip() for figure in loaded.figures.values())
    assert all(operator.source.strip() for operator in loaded.operators.values())
    assert loaded.partition.source.strip()
    assert loaded.contract_note.strip()
    assert loaded.device_figures().keys() == set(FIGURES)
    assert loaded.per_channel().keys() == {"Conv", "ConvTranspose", "Gemm", "MatMul"}
    assert "tops_int8" in loaded.figures
    assert all(reason.strip() for reason in loaded.absent.values())


def test_every_rule_is_used_by_a_profile():
    loaded = [target(name) for name in SHIPPED]
    used = {u.rule for t in loaded for u in t.rules} | {
        u.rule for t in loaded for o in t.operators.values() for u in o.rules
    }
    assert used == RULES.keys()


LIMITS = {
    None: {"conv-only", "ethos-u55-256", "rk3588", "stm32mp2"},
    1: {"coral-edgetpu-pcie"},
    16: {"jetson-xavier-nx-dla"},
}


@pytest.mark.parametrize("limit", LIMITS)
def test_partition_policies(limit):
    assert {target(name).partition.max_npu_partitions for name in LIMITS[limit]} == {limit}


# Value (None for one that is not public) and confidence, as the reference has them.
FIGURES_OF = {
    "coral-edgetpu-usb3": {
        "tops_int8": (4, "sourced"), "macs_per_cycle": (4096, "derived"), "clock_hz": (500e6, "sourced"),
        "link_bytes_per_second": (453e6, "derived"), "memory_bytes_per_second": (None, "unknown"), "power_w": (2,
        "sourced"),
        "parameter_cache_bytes": (8e6, "sourced"), "activation_memory_bytes": (3145728, "derived"),
    },
    "coral-edgetpu-pcie": {"link_bytes_per_second": (397e6, "derived"), "price_usd": (99.99, "weak")},
    "coral-edgetpu-usb2": {"link_bytes_per_second": (33e6, "derived"), "tops_int8": (4, "sourced")},
    "edgetpu-ddr": {"dram_bytes_per_second": (12.8e9, "chosen"), "power_w": (None, "unknown")},
    "jetson-xavier-nx-dla": {
        "tops_int8": (4.5, "derived"), "macs_per_cycle": (2048, "derived"), "clock_hz": (1.1e9, "sourced"),
        "convolution_buffer_bytes": (524288, "derived"), "dram_bytes_per_second": (51.2e9, "derived"),
        "price_krw": (600000, "weak"), "power_w": (10, "sourced"),
    },
    "jetson-xavier-nx-gpu": {"tops_int8": (12, "derived"), "macs_per_cycle": (None, "unknown")},
    "snapdragon-845": {"tops_int8": (None, "unknown"), "dram_bytes_per_second": (29.9e9, "derived")},
    "snapdragon-855": {
        "tops_int8": (None, "unknown"), "tops_all_engines": (7, "sourced"), "dram_bytes_per_second": (29.9e9,
        "sourced"),
        "vtcm_bytes": (262144, "weak"),
    },
    "snapdragon-865": {"tops_all_engines": (15, "sourced"), "dram_bytes_per_second": (34.1e9, "sourced")},
    "hi3559a-nnie": {"tops_int8": (None, "unknown"), "clock_hz": (None, "unknown"), "cores": (2, "weak")},
    "kirin-970": {"tflops_fp16": (1.92, "sourced"), "tops_int8": (None, "unknown")},
    "ascend-310": {
        "tops_int8": (16, "sourced"), "clock_hz": (680e6, "sourced"), "power_w": (8, "sourced"),
        "sram_bytes": (8388608, "sourced"),
    },
    "sapeon-x220": {"tops_int8": (None, "unknown"), "power_w": (60, "weak"), "sram_bytes": (11e6, "sourced")},
    "ethos-u55-128": {"macs_per_cycle": (128, "sourced"), "shram_bytes": (24576, "sourced"), "ofm_block_height": (1,
        "sourced")},
    "ethos-u55-256": {
        "macs_per_cycle": (256, "sourced"), "sram_bytes_per_second": (4e9, "sourced"),
        "dram_bytes_per_second": (0.5e9, "sourced"),
    },
    "ethos-u65-256": {"clock_hz": (1e9, "sourced"), "dram_bytes_per_second": (7.46e9, "unverified"),
        "sram_bytes": (393216, "sourced")},
    "ethos-u65-512": {"macs_per_cycle": (512, "sourced"), "cores": (2, "sourced"), "dram_bytes_per_second": (3.75e9,
        "sourced")},
    "rk3588": {"tops_int8": (6, "sourced"), "cores": (3, "sourced"), "dram_bytes_per_second": (None, "unknown")},
    "stm32mp2": {"tops_int8": (1.2, "sourced"), "macs_per_cycle": (750, "derived"), "clock_hz": (800e6, "sourced")},
    "conv-only": {"macs_per_cycle": (256, "chosen"), "link_bytes_per_second": (0.5e9, "chosen")},
}  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_figures_are_those_of_the_reference(name):
    figures = target(name).figures
    assert {key: (figures[key].value, figures[key].confidence) for key in FIGURES_OF[name]} == FIGURES_OF[name]


def test_what_is_not_public_is_said():
    assert any(line.startswith("memory_bytes_per_second: on-chip") for line in target().unknown())
    assert "operators: the operators of Huawei's HiAI DDK are not public" in target("kirin-970").unknown()
    relu = graph("g (float[1,4] x) => (float[m,n] y) { y = Relu (x) }").nodes[0]
    (broken,) = violations(relu, target("kirin-970"))
    assert broken.rule == "operator"
    assert broken.fact == "whether it has Relu is unknown: the operators of Huawei's HiAI DDK are not public"
    (broken,) = violations(
        graph("g (float[1,4] x) => (float[m,n] y) { y = Softmax (x) }").nodes[0], target("jetson-xavier-nx-dla")
    )
    assert broken.fact == "it has no Softmax: Xavier's DLA has none, Orin's has"


def test_a_gpu_takes_everything():
    for body in ("y = Erf (x)", "y = my.Thing (x)"):
        seen = graph(f"g (float[1,4] x) => (float[m,n] y) {{ {body} }}").nodes[0]
        assert violations(seen, target("jetson-xavier-nx-gpu")) == ()


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
    "'tflite-r9' is not an integer contract (did you mean 'tflite-r": lambda d: d.update(contract="tflite-r9"),
    "'acc41' does not modify a contract (did you mean 'acc48'? known: acc16": lambda d: d.update(
        contract="tflite-r1+acc41"
    ),
    "no known chip computes with rule r1, 31-bit multipliers, 48-bit": lambda d: d.update(contract="tflite-r1+acc48"),
    "the contract pot-r9-half-up is symmetric, quantization.symmetric is not set": lambda d: d.update(
        contract="pot-r9-half-up"
    ),
    "operators.Conv: there is no rule max_strides (did you mean max_stride?)": lambda d: d["operators"]["Conv"].update(
        rules=[{"rule": "max_strides", "limits": {"stride": 3}}]
    ),
    "rules: there is no rule zzz (known: activation_types": lambda d: d.update(rules=[{"rule": "zzz"}]),
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
    "figures.clock_hz should have value null exactly when its confidence is unknown": lambda d: d["figures"][
        "clock_hz"
    ].update(value=None),
    "absent.Relu: the target both has and has not Relu (set absent.Relu to null": lambda d: d.update(
        absent={"Relu": "no"}
    ),
    "takes_everything contradicts operators, absent and operators_unknown": lambda d: d.update(
        takes_everything="a GPU"
    ),
    "operators.Conv.rules[0].when should be": lambda d: d["operators"]["Conv"].update(
        rules=[{"rule": "max_stride", "limits": {"stride": 3}, "when": "sparse"}]
    ),
    "cost_model is missing": lambda d: d.pop("cost_model"),
    "operators.Relu.source is missing": lambda d: d["operators"]["Relu"].pop("source"),
}


def conv(rule, **limits):
    return lambda d: d["operators"]["Conv"].update(rules=[{"rule": rule, "limits": limits}])


WRONG_LIMITS = {
    "operators.Conv: rule max_stride: limit stride is 'x' (give a whole number from 1)": conv("max_stride", stride="x"),
    "rule max_stride: limit stride is 2.5 (give a whole number from 1)": conv("max_stride", stride=2.5),
    "rule max_stride: limit stride is 0 (give a whole number from 1)": conv("max_stride", stride=0),
    "rule max_stride: limit stride is [2, 3] (give one value)": conv("max_stride", stride=[2, 3]),
    "operators.Conv.rules[0].limits.stride": conv("max_stride", stride=True),
    "rule max_padding: limit padding is -1 (give a whole number from 0)": conv("max_padding", padding=-1),
    "rule weight_types: limit types is 'int9' (did you mean int8?)": conv("weight_types", types=["int8", "int9"]),
    "rule weight_types: limit types is 8 (known: int4, uint4, int8": conv("weight_types", types=8),
    "rule weight_types: limit types is empty, so nothing could keep the rule (name at": conv("weight_types", types=[]),
    "rule pad_modes: limit modes is 'refect' (did you mean reflect?)": conv("pad_modes", modes=["refect"]),
    "rule resize_modes: limit modes is 'linear halfpixel' (did you mean half_pixel?)": conv(
        "resize_modes", modes=["linear halfpixel"]
    ),
    "rule clip_limits: limit ranges is '0-6' (write a range as 0..6, 0.. or ..6)": conv("clip_limits", ranges=["0-6"]),
    "rule clip_limits: limit ranges is 6..0, which holds nothing (write 0..6)": conv("clip_limits", ranges=["6..0"]),
    "rule pow_exponent: limit exponents is inf (give a number)": conv("pow_exponent", exponents=[2, float("inf")]),
    "limits contradict each other: low 4 is above high 2 (give a low of at most 2)": conv(
        "resize_whole_factor_or_point", low=4, high=2
    ),
    "operators.Conv: rule max_stride is given 2 times (give it once, or with another when)": lambda d: d["operators"][
        "Conv"
    ].update(rules=[{"rule": "max_stride", "limits": {"stride": s}} for s in (2, 3)]),
    "rules: rule batch_one is given 2 times": lambda d: d.update(rules=[{"rule": "batch_one"}] * 2),
}


@pytest.mark.parametrize("message", WRONG_LIMITS)
def test_a_wrong_limit_is_told_what_is_wrong(profile, message):
    with pytest.raises(TargetError) as error:
        profile(WRONG_LIMITS[message])
    assert message in str(error.value)
    assert str(error.value).count("conv-only.yaml: ") == 1


def test_every_limit_of_every_rule_has_a_kind():
    for rule in RULES:
        for limit in placeholders(rule):
            assert kind(rule, limit)


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
    for part in ("figures.clock_hz is missing", "'none' is not an integer contract", "there is no rule nothing"):
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
        TargetError, match=r"there is no target coral-edgetpu-usb \(did you mean coral-edgetpu-usb[23]\?\)"
    ):
        library.find("coral-edgetpu-usb", TARGETS)
    with pytest.raises(TargetError, match=r"there is no target zzz \(known: ascend-310, conv-only, "):
        library.find("zzz", TARGETS)
    with pytest.raises(TargetError, match="does not exist"):
        library.load(TARGETS / "nowhere.yaml")
    assert library.find("conv-only", TARGETS) == TARGETS / "conv-only.yaml"


def test_profiles_lie_beside_the_configuration_and_in_the_project(tmp_path):
    own = library.folder(tmp_path / "use.yaml")
    assert library.find("conv-only", own).resolve() == TARGETS / "conv-only.yaml"
    own.mkdir()
    (own / "conv-only.yaml").write_text("mine")
    assert library.find("conv-only", own) == own / "conv-only.yaml"
    assert "coral-edgetpu-usb3" in library.names(own)


@pytest.fixture
def family(tmp_path):
    """Writes conv-only and children of it, given as changes by name; loads the last child."""

    def write(**children):
        (tmp_path / "conv-only.yaml").write_text((TARGETS / "conv-only.yaml").read_text())
        for name, change in children.items():
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, "title": name, **change}))
        return library.load(tmp_path / f"{name}.yaml")

    return write


def test_a_child_overrides_single_entries(family):
    clock = {"value": 1e9, "unit": "Hz", "confidence": "chosen", "source": "faster"}
    child = family(
        middle={"inherit": "conv-only", "host": "middle", "rules": []},
        child={
            "inherit": "middle",
            "figures": {"clock_hz": clock},
            "operators": {"Relu": None},
            "absent": {"Relu": "cut"},
        },
    )
    parent = target("conv-only")
    assert (child.name, child.title, child.host, child.rules) == ("child", "child", "middle", ())
    assert child.figures["clock_hz"].value == 1e9
    assert {**child.figures, "clock_hz": None} == {**parent.figures, "clock_hz": None}
    assert child.operators == {name: op for name, op in parent.operators.items() if name != "Relu"}
    assert child.partition == parent.partition


def test_the_files_of_a_family(family, tmp_path):
    family(middle={"inherit": "conv-only"}, child={"inherit": "middle"})
    assert [f.stem for f in inheritance.files(tmp_path / "child.yaml")] == ["child", "middle", "conv-only"]


@pytest.mark.parametrize(
    ("child", "message"),
    [
        ({"inherit": "child"}, r"child.yaml: inherits from itself through child \(end the chain\)"),
        ({"inherit": "nobody"}, r"nobody.yaml: does not exist \(mend what child.yaml inherits\)"),
        ({"inherit": "conv-only", "figures": 3}, "figures should be a valid dictionary, not 3"),
        ({"inherit": "conv-only", "figure": {}}, "figure is not a setting"),
    ],
)
def test_a_wrong_child_is_told(family, child, message):
    with pytest.raises(TargetError, match=message):
        family(child=child)


def test_a_child_says_its_own_name_and_title(family, tmp_path):
    family(child={"inherit": "conv-only"})
    (tmp_path / "child.yaml").write_text("inherit: conv-only\n")
    with pytest.raises(TargetError, match="name is missing; title is missing"):
        library.load(tmp_path / "child.yaml")
