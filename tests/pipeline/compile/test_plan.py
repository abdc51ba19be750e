"""The plan on disk: what the partition stage leaves is what the package stage finds."""

import json

import pytest
from smallmodels import images, model, quantized, target

from pipeline.compile import plan
from pipeline.compile.partitions import cut, onnx_models
from pipeline.compile.support import no_kernel
from pipeline.errors import ModelError
from pipeline.graph.view import view
from pipeline.targets.placement import by_target, place

TEXT = "g (float[1,2,3,3] x) => (float[1,2,3,3] y) {a = Relu (x) b = Elu (a) y = Sigmoid (b)}"


@pytest.fixture
def written(tmp_path):
    lossy = quantized(model(TEXT), images((1, 2, 3, 3), count=2))[0]
    graph = view(lossy)
    partitions = cut(graph, place(graph, by_target(target("conv-only"), no_kernel), None))
    plan.save(tmp_path, lossy, partitions)
    return tmp_path, graph, partitions, onnx_models(lossy, partitions)


def test_a_plan_comes_back_as_it_was(written):
    folder, graph, partitions, pieces = written
    assert len(partitions) == 2
    assert plan.load(folder, graph) == (partitions, pieces)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: d["partitions"][0]["nodes"].append("nowhere"), "does not fit the model: 'nowhere'"),
        (lambda d: d["partitions"].pop(), "leaves out"),
        (lambda d: d.pop("partitions"), "does not fit the model"),
        (lambda d: d["partitions"][0].update(model="9.onnx"), "cannot be read"),
    ],
)
def test_a_plan_of_another_model_is_named(written, damage, words):
    folder, graph, _, _ = written
    document = json.loads((folder / plan.PLAN).read_text())
    damage(document)
    (folder / plan.PLAN).write_text(json.dumps(document))
    with pytest.raises(ModelError, match=words) as error:
        plan.load(folder, graph)
    assert str(folder / plan.PLAN) in str(error.value)


def test_a_plan_that_is_no_json_is_named(written):
    folder, graph, _, _ = written
    (folder / plan.PLAN).write_text("{")
    with pytest.raises(ModelError, match=r"cannot be read.*run with --from partition"):
        plan.load(folder, graph)
