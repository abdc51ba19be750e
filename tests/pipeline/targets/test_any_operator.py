"""Every target judges every operator that ONNX tests itself, in any form: no rule stumbles over one."""

import pytest
from smallmodels import TARGETS, target

from pipeline.errors import ModelError
from pipeline.graph.model import check
from pipeline.graph.view import view
from pipeline.targets import library
from pipeline.targets.rules import RULES, violations


@pytest.fixture(scope="module")
def nodes(onnx_cases):
    found = []
    for case in list(onnx_cases.values())[::3]:
        try:
            found.extend(view(check(case.model, case.name)).nodes)
        except ModelError:  # nested graphs and the like
            continue
    return found


@pytest.mark.parametrize("name", library.names(TARGETS))
def test_every_operator_is_judged(nodes, name):
    profile = target(name)
    assert len({node.op for node in nodes}) > 120
    for node in nodes:
        assert {v.rule for v in violations(node, profile)} <= {*RULES, "operator"}
