"""Real networks on every target: nothing crashes, every node is accounted for, and pieces equal the whole."""

import numpy as np
import pytest
from anymodel import NPU, account, cost_placed, placed_on, random_inputs, run_pieces, run_whole, wire_inputs
from smallmodels import TARGETS, target
from zoo import TORCHVISION, exported, light, pretrained

from pipeline.checking.check import by_rules
from pipeline.compile.closure import without_kernel
from pipeline.graph.opening import open_model
from pipeline.targets import library
from pipeline.targets.rules import violations

PROFILES = {name: target(name) for name in library.names(TARGETS)}

SIZES = {
    "ch_PP-OCRv4_det_infer": {"p2o.DynamicDimension.1": 64, "p2o.DynamicDimension.2": 96},
    "ch_PP-OCRv4_rec_infer": {"x.2": 48, "p2o.DynamicDimension.1": 96},
    "ch_ppocr_mobile_v2.0_cls_infer": {"x.2": 48, "x.3": 96},
}
"""The open dimensions of the pretrained models; theirs are larger and cost more time."""

OPERATORS = {
    "mobilenet_v2": {"Conv", "Clip", "Add", "Gemm"},
    "mobilenet_v3_large": {"HardSwish", "HardSigmoid", "Mul"},
    "resnet50": {"MaxPool"},
    "efficientnet_b0": {"Sigmoid"},
    "squeezenet1_1": {"Concat"},
    "densenet121": {"AveragePool", "BatchNormalization"},
    "deeplabv3_mobilenet_v3_large": {"Resize"},
    "ssdlite320_mobilenet_v3_large": {"Reshape", "Transpose"},
    "vit_b_16": {"LayerNormalization", "Softmax", "MatMul", "Erf"},
    "swin_t": {"LayerNormalization", "Gather", "Slice"},
}
"""Some that each network must have, so that what is digested is the network."""


def files():
    """Every model by name: torchvision's are exported when they are asked for."""
    return [*TORCHVISION, *light(), *pretrained()]


class Digested:
    """A model that was opened once, with its outputs and those of every way to cut it that was met."""

    def __init__(self, name):
        known = {**light(), **pretrained()}
        self.opened = open_model(known[name] if name in known else exported(name), SIZES.get(name, {}))
        account(self.opened)
        self.feeds = wire_inputs(self.opened, random_inputs(self.opened.model))
        self.whole = run_whole(self.opened, self.feeds)
        self.done = {}

    def on(self, name):
        """The one call per target: placed by rules and by cost, in pieces the same as whole."""
        profile = PROFILES[name]
        placements = [placed_on(self.opened, profile, by_rules(profile)), cost_placed(self.opened, profile)]
        for placed in placements:
            found = run_pieces(self.opened, placed, self.feeds, self.done)
            assert found.keys() == self.whole.keys()
            for output, values in self.whole.items():
                np.testing.assert_array_equal(found[output], values, err_msg=f"{name}: {output}")
        return placements


@pytest.mark.parametrize("name", files())
def test_a_real_model_on_every_target(name):
    model = Digested(name)
    assert OPERATORS.get(name, set()) <= {n.op for n in model.opened.graph.nodes}
    assert without_kernel(model.opened.model, model.opened.graph, [n.name for n in model.opened.graph.nodes]) == {}
    assert all(np.isfinite(values).all() for values in model.whole.values())
    taken = {}
    for each, profile in PROFILES.items():
        by_rule, by_cost = model.on(each)
        taken[each] = sum(p.device == NPU for p in by_rule)
        on_npu = {p.node for placed in (by_rule, by_cost) for p in placed if p.device == NPU}
        assert not any(violations(node, profile) for node in model.opened.graph.nodes if node.name in on_npu)
    assert taken["jetson-xavier-nx-gpu"] == len(model.opened.graph.nodes)
    assert taken["kirin-970"] == 0
    assert taken["rk3588"] > 0
