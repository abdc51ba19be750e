"""The detector, other backbones, the user's own factory, and what is said about those that do not fit."""

import sys
from collections import Counter

import pytest
import torch
from torch import nn

from pipeline.config import ModelConfig
from pipeline.errors import ModelError
from pipeline.tasks.detection.factory import build_network
from pipeline.tasks.detection.model import count_parameters, person_detector

SIZE = (64, 48)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Write a module of the user's; gives back its name."""

    def write(source):
        (tmp_path / "mine.py").write_text(f"import torch\nfrom torch import nn\n{source}")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "mine", raising=False)
        return "mine:make"

    return write


def answering(outputs):
    return (
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.weight = nn.Parameter(torch.ones(1))\n"
        "    def forward(self, x):\n"
        f"        return {outputs}\n"
        "def make(labels, size=3):\n"
        "    return Net()\n"
    )


def says(model, *parts, labels=1, size=SIZE):
    with pytest.raises(ModelError) as caught:
        build_network(model, labels, size)
    for part in parts:
        assert part in str(caught.value)


def test_default_detector_is_small_and_has_stride_8():
    network, stride = build_network(ModelConfig(), 1, (384, 288))
    assert stride == 8
    assert 130_000 < count_parameters(network) < 160_000


def test_outputs_have_the_promised_shapes():
    scores, boxes = person_detector(3).eval()(torch.zeros(2, 3, 48, 64))
    assert scores.shape == (2, 3, 6, 8)
    assert boxes.shape == (2, 4, 6, 8)


def test_untrained_scores_are_the_prior():
    scores, _ = person_detector(1).eval()(torch.rand(1, 3, 48, 64))
    assert torch.sigmoid(scores).mean().item() == pytest.approx(0.01, abs=0.003)


def test_width_scales_the_detector():
    assert count_parameters(person_detector(1, width=0.5)) < 0.4 * count_parameters(person_detector(1))


def test_exported_graph_has_only_operators_an_npu_knows():
    program = torch.onnx.export(
        person_detector(1).eval(), (torch.zeros(1, 3, 48, 64),), dynamo=True, opset_version=18, verbose=False
    )
    operators = Counter(node.op_type for node in program.model_proto.graph.node)
    assert set(operators) <= {"Conv", "Clip", "Relu", "Add", "Resize"}
    assert operators["Resize"] == 1


@pytest.mark.parametrize("name", ["timm/mobilenetv3_small_100", "torchvision/mobilenet_v2", "torchvision/resnet18"])
def test_backbones_by_name(name):
    model = ModelConfig(factory="pipeline.tasks.detection.backbones:backbone", options={"name": name})
    _, stride = build_network(model, 2, SIZE)
    assert stride == 8


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("timm/mobilenetv3_smal_100", "mobilenetv3_small_100"),
        ("torchvision/mobilenet_v22", "mobilenet_v2"),
        ("keras/vgg", "timm/NAME"),
        ("resnet18", "timm/NAME"),
        ("torchvision/vit_b_16", "no features on 64 x 64"),
        ("timm/vit_tiny_patch16_224", "strides [16]"),
        ("timm/zzzz", "list of models"),
    ],
)
def test_backbones_that_do_not_fit(name, part):
    model = ModelConfig(factory="pipeline.tasks.detection.backbones:backbone", options={"name": name})
    says(model, "train.model.options.name", part)


def test_backbone_download_that_fails(monkeypatch):
    def fail(*_args, **_keywords):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models.get_model", fail)
    options = {"name": "torchvision/mobilenet_v2", "pretrained": True}
    model = ModelConfig(factory="pipeline.tasks.detection.backbones:backbone", options=options)
    says(model, "no route to host", "train from scratch")


def test_unknown_option_names_the_nearest():
    says(ModelConfig(options={"widht": 1}), "widht", "did you mean width?")


def test_unknown_option_without_a_neighbour_lists_them():
    says(ModelConfig(options={"zz": 1}), "zz", "width, expand, depth")


@pytest.mark.parametrize("options", [{"width": 0}, {"width": "wide"}])
def test_refused_option(options):
    says(ModelConfig(options=options), "refuses its options")


@pytest.mark.parametrize(
    ("factory", "part"),
    [
        ("detector", "not module:callable"),
        ("no.such.module:make", "cannot be imported"),
        ("pipeline.tasks.detection.model:person_detectr", "did you mean person_detector?"),
        ("pipeline.tasks.detection.model:zzzzzz", "name a function"),
        ("pipeline.tasks.detection.model:STRIDE", "no callable"),
    ],
)
def test_factory_that_cannot_be_used(factory, part):
    says(ModelConfig(factory=factory), "train.model.factory", part)


def test_factory_that_returns_no_module(mine):
    says(ModelConfig(factory=mine("def make(labels):\n    return 3\n")), "returned a int", "torch.nn.Module")


def test_own_factory_with_a_dict_of_outputs(mine):
    name = mine(answering("{'scores': x[:, :1, ::4, ::4], 'boxes': x[:, [0, 0, 0, 0], ::4, ::4]}"))
    network, stride = build_network(ModelConfig(factory=name, options={"size": 5}), 1, SIZE)
    assert stride == 4
    assert isinstance(network, nn.Module)


@pytest.mark.parametrize(
    ("outputs", "part"),
    [
        ("x[:, :2, ::8, ::8], x[:, [0, 0, 0, 0], ::8, ::8]", "scores [1, 2, 6, 8]"),
        ("x[:, :1, ::8, ::8], x[:, :3, ::8, ::8]", "boxes [1, 3, 6, 8]"),
        ("x[:, :1, ::8, ::8], x[:, [0, 0, 0, 0], ::4, ::4]", "boxes [1, 4, 12, 16]"),
        ("x[:, :1, ::8, ::4], x[:, [0, 0, 0, 0], ::8, ::4]", "16 x 6 cells"),
        ("x", "a Tensor"),
        ("(x, x, x)", "a tuple"),
        ("{'scores': x}", "a dict"),
        ("(x.sum(), x.sum())", "scores []"),
    ],
)
def test_own_factory_with_wrong_outputs(mine, outputs, part):
    says(ModelConfig(factory=mine(answering(outputs))), "mine:make", part)


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("def make(labels: broken", r"module mine cannot be imported: SyntaxError: .*mine\.py"),
        ("1 / 0", r"module mine cannot be imported: ZeroDivisionError: division by zero, at .*mine\.py:3 "),
        ("raise SystemExit(0)", "module mine cannot be imported: SystemExit: 0"),
        ("def make(labels):\n    return {}['x']", r"mine:make fails: KeyError: 'x', at .*mine\.py:4 \(correct it"),
        ("def make(labels):\n    raise SystemExit(0)", "mine:make fails: SystemExit: 0, at "),
        ("def make(labels):\n    raise ValueError('a\\nb')", r"refuses its options: ValueError: a b, at .*mine\.py:4"),
        (answering("[][1]"), r"mine:make does not run: IndexError: list index out of range, at .*mine\.py:8"),
    ],
)
def test_own_code_that_raises_is_told_in_one_line(mine, source, part):
    with pytest.raises(ModelError, match=part) as caught:
        build_network(ModelConfig(factory=mine(source)), 1, SIZE)
    assert "\n" not in str(caught.value)


def test_own_network_that_cannot_be_trained(mine):
    source = answering("x[:, :1, ::8, ::8], x[:, [0] * 4, ::8, ::8]").replace("torch.ones(1)", "torch.ones(1), False")
    with pytest.raises(ModelError, match="returned a network without a weight that can be trained"):
        build_network(ModelConfig(factory=mine(source)), 1, SIZE)


def test_size_that_the_detector_cannot_halve():
    says(ModelConfig(), "preprocess.size", "72 x 48", "multiples", size=(72, 48))


def test_factory_with_free_options_gets_them(mine):
    name = mine(answering("x[:, :1], x[:, [0, 0, 0, 0]]").replace("size=3", "**options"))
    assert build_network(ModelConfig(factory=name, options={"anything": 1}), 1, SIZE)[1] == 1
