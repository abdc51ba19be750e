"""Rules about activation functions, Softmax, Pow, normalization and recurrent layers."""

import math

import numpy as np

from pipeline.graph.fusion import clip_range
from pipeline.graph.view import Node
from pipeline.targets.profile import Limits
from pipeline.targets.rules.reading import axis, choices, elements, number, shown


def clip_limits(node: Node, limits: Limits) -> str | None:
    """Clip must be to one of {ranges}."""
    computed = [t.name for t in node.inputs[1:] if t is not None and t.constant is None]
    if computed:
        return f"its limit {computed[0]} is computed"
    low, high = clip_range(node)
    return None if (low, high) in [_range(str(r)) for r in choices(limits, "ranges")] else f"it clips to {low}..{high}"


def _range(text: str) -> tuple[float | None, float | None]:
    """``"0..6"`` as (0.0, 6.0); a missing end is ``None``."""
    low, high = text.split("..")
    return float(low) if low else None, float(high) if high else None


def prelu_innermost(node: Node, limits: Limits) -> str | None:
    """PRelu's slope must be a constant with one value per channel."""
    slope = node.required(1)
    if slope.constant is None:
        return f"its slope {slope.name} is computed"
    rank, shape = len(node.required(0).shape or ()), slope.constant.shape
    elsewhere = [i for i, length in enumerate(shape) if length != 1 and i + rank - len(shape) != 1]
    return f"its slope has shape {list(shape)}" if elsewhere else None


def standard_hard_sigmoid(node: Node, limits: Limits) -> str | None:
    """HardSigmoid must have alpha 1/6 and beta 1/2."""
    alpha, beta = float(str(node.attributes.get("alpha", 0.2))), float(str(node.attributes.get("beta", 0.5)))
    same = math.isclose(alpha, 1 / 6, rel_tol=1e-3) and math.isclose(beta, 0.5, rel_tol=1e-3)
    return None if same else f"it has alpha {alpha:g} and beta {beta:g}"


def elu_alpha_one(node: Node, limits: Limits) -> str | None:
    """Elu must have alpha 1."""
    alpha = float(str(node.attributes.get("alpha", 1.0)))
    return None if alpha == 1 else f"it has alpha {alpha:g}"


def softmax_size(node: Node, limits: Limits) -> str | None:
    """Softmax takes a 1-D input of at most {elements} elements."""
    shape = [d for d in node.required(0).shape or () if d != 1]
    fits = len(shape) <= 1 and math.prod(d or 0 for d in shape) <= number(limits, "elements")
    return None if fits else f"its input has shape {shown(node.required(0))}"


def softmax_rows(node: Node, limits: Limits) -> str | None:
    """Softmax takes fewer than {rows} rows per image (height x width)."""
    shape, along = node.required(0).shape or (), axis(node)
    rows = elements(tuple(d for i, d in enumerate(shape) if i not in (0, along)))
    return None if rows < number(limits, "rows") else f"it has {rows}"


def axis_one_of(node: Node, limits: Limits) -> str | None:
    """It must be along one of the axes {axes}."""
    return None if axis(node) in choices(limits, "axes") else f"it is along axis {axis(node)}"


def pow_exponent(node: Node, limits: Limits) -> str | None:
    """The exponent must be one of {exponents}."""
    exponent = node.required(1)
    if exponent.constant is None:
        return f"its exponent {exponent.name} is computed"
    values = [float(v) for v in np.unique(exponent.real)]
    return None if len(values) == 1 and values[0] in choices(limits, "exponents") else f"it has {values}"


def lrn_window(node: Node, limits: Limits) -> str | None:
    """The window must be one of {sizes}."""
    window = node.int("size", 0)
    return None if window in choices(limits, "sizes") else f"it has {window}"


def euclidean_norm(node: Node, limits: Limits) -> str | None:
    """The norm must be the Euclidean one."""
    order = node.int("p", 2)
    return None if order == 2 else f"its p is {order}"


def one_direction(node: Node, limits: Limits) -> str | None:
    """A recurrent layer must run forward only."""
    direction = node.text("direction", "forward")
    return None if direction == "forward" else f"its direction is {direction}"


def no_peepholes(node: Node, limits: Limits) -> str | None:
    """A recurrent layer must have no peepholes."""
    return "it has peepholes" if node.input(7) is not None else None
