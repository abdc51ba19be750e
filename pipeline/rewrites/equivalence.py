"""Do two models compute the same? Asked of ONNX Runtime, on random inputs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from pipeline.errors import ModelError, one_line
from pipeline.graph import peer
from pipeline.rewrites.nouns import Replacement
from runtime.delegates.cpu import LOAD_ERRORS

Array = NDArray[Any]
SPREAD = 2.0
"""Standard deviation of the random inputs: wide enough to reach both ends of a HardSwish or a ReLU6."""

CENTRE = 1.0
"""Mean of the random inputs: not 0, where the mean of an image would be all rounding."""


@dataclass(frozen=True)
class Difference:
    """How far the outputs of two models lie apart.

    Attributes:
        absolute: largest difference of two elements.
        relative: largest difference in an output over the largest magnitude in it.
    """

    absolute: float
    relative: float


def equivalent(before: onnx.ModelProto, after: onnx.ModelProto, seed: int) -> Difference:
    """The largest difference between the outputs of two models on the same random inputs.

    Float inputs are normal around ``CENTRE`` with standard deviation ``SPREAD``, integers 0 to 9, unknown dimensions 1.

    Raises:
        ModelError: the models differ in the names of their outputs, or ONNX Runtime cannot run one of them.
    """
    names = [o.name for o in before.graph.output]
    if names != [o.name for o in after.graph.output]:
        raise ModelError("has other outputs than the model it is compared with", where=after.graph.name or "model")
    feeds = _random_inputs(before, np.random.default_rng(seed))
    pairs = list(zip(run(before, feeds), run(after, feeds), strict=True))
    for name, (first, second) in zip(names, pairs, strict=True):
        if first.shape != second.shape:
            raise ModelError(f"has shape {second.shape}, not {first.shape}", where=name)
    absolute = [_farthest(a, b) for a, b in pairs]
    scales = [float(np.max(np.abs(a[np.isfinite(a)].astype(np.float64)), initial=0.0)) for a, _ in pairs]
    relative = [d / s if s > 0 else (0.0 if d == 0 else np.inf) for d, s in zip(absolute, scales, strict=True)]
    return Difference(max(absolute, default=0.0), float(max(relative, default=0.0)))


def run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs of ``model`` in its order, from ONNX Runtime on the CPU, without its own rewrites.

    Raises:
        ModelError: ONNX Runtime cannot run the model.
    """
    try:
        return list(peer.run(model.SerializeToString(), feeds).values())
    except LOAD_ERRORS as error:
        cause = one_line(error)
        raise ModelError(f"ONNX Runtime cannot run it: {cause}", where=model.graph.name or "model") from error


def verify(
    rule: str,
    bound: float,
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    replacements: Iterable[Replacement],
    seed: int = 0,
) -> None:
    """Compare every replacement with what it replaced, each as a model of its own.

    Both models carry shapes (``pipeline.graph.model.check``).

    Raises:
        ModelError: one differs by more than ``bound``, relative; the message names the rule and the nodes.
    """
    old, new = _Pieces(before), _Pieces(after)
    for replacement in replacements:
        first = old.cut(replacement.before, replacement.outputs, None)
        second = new.cut(replacement.after, replacement.outputs, first.graph)
        found = equivalent(first, second, seed)
        if not found.relative <= bound:
            raise ModelError(
                f"the rewrite {rule} changes its result by {found.relative:.2g} of its range, more than {bound:.2g}",
                where=", ".join(replacement.before),
                fix=f"leave {rule} out and report it",
            )


class _Pieces:
    """Cuts nodes out of a model, as a model of their own."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.model = model
        self.nodes = {n.name: n for n in graph.node}
        self.constants = {i.name: i for i in graph.initializer}
        self.constants |= {
            n.output[0]: _named(n.attribute[0].t, n.output[0])
            for n in graph.node
            if n.op_type == "Constant" and n.attribute[0].type == onnx.AttributeProto.TENSOR
        }
        self.infos = {v.name: v for values in (graph.input, graph.output, graph.value_info) for v in values}

    def cut(self, names: Sequence[str], outputs: Sequence[str], like: onnx.GraphProto | None) -> onnx.ModelProto:
        """The nodes ``names`` between what they read and ``outputs``, or between the ends of ``like``."""
        nodes = [self.nodes[n] for n in names]
        made = {o for n in nodes for o in n.output}
        read = dict.fromkeys(i for n in nodes for i in n.input if i and i not in made)
        folded = [o for o in outputs if o not in made]
        weights = [self.constants[i] for i in dict.fromkeys([*read, *folded]) if i in self.constants]
        if like is not None:
            inputs, ends = list(like.input), list(like.output)
        else:
            inputs, ends = [self.infos[i] for i in read if i not in self.constants], [self.infos[o] for o in outputs]
        graph = helper.make_graph(nodes, "piece", inputs, ends, weights)
        return helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)


def _named(tensor: TensorProto, name: str) -> TensorProto:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def _random_inputs(model: onnx.ModelProto, generator: np.random.Generator) -> dict[str, Array]:
    """A random array for each input that is no constant."""
    constants = {i.name for i in model.graph.initializer}
    feeds: dict[str, Array] = {}
    for value in model.graph.input:
        if value.name not in constants:
            kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            shape = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
            floating = np.issubdtype(kind, np.floating)
            drawn = generator.normal(CENTRE, SPREAD, shape) if floating else generator.integers(0, 10, shape)
            feeds[value.name] = drawn.astype(kind)
    return feeds


def _farthest(first: Array, second: Array) -> float:
    """Largest difference of two elements; infinite where one is finite, or NaN, and the other is not."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    difference = np.where(same, 0.0, np.abs(np.where(same, 0.0, a) - np.where(same, 0.0, b)))
    return float(np.max(np.nan_to_num(difference, nan=np.inf, posinf=np.inf), initial=0.0))
