"""Rounding a layer's weights so that its outputs, not its weights, are nearest to the float model's.

Layer by layer in order, from what the engine really feeds it (Nagel et al., "Up or Down? Adaptive Rounding for
Post-Training Quantization", ICML 2020, state the problem; here it is solved in closed form as Frantar et al., "GPTQ",
ICLR 2023): with X the engine's inputs and y the float model's outputs, first the real weights that bring X closest to
y, then one weight after the other is rounded and its error passed on to those still open. Channel order is kept, and
a layer that does not get better on images it has not seen keeps its weights.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.graph.view import Node
from pipeline.quantize.patches import geometry, rows
from pipeline.quantize.walk import Step, as_real
from pipeline.quantize.weights import BIAS_LIMIT, channel_bias

Values = NDArray[np.float64]

DAMPING = 0.02
"""Pull towards the float weights, as a share of the mean square of the inputs; GPTQ's is 0.01."""

MOST_UNCERTAIN = 0.99
"""Weights over rows of inputs that are counted: with more, the inputs say next to nothing of how weights depend."""

CHANGED = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators whose weights may change, and their bias; a MatMul has none to take what is left on average."""


@dataclass(frozen=True)
class Layer:
    """A step's weights as the engine has them.

    Attributes:
        weight: int8 [O, ...] as its instruction has it.
        bias: int32 [O]; zeros of a MatMul.
        steps: real value of one weight step, per output channel: [O].
        input_scale: real value of one step of its input.
        biased: whether it can have a bias.
    """

    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    steps: Values
    input_scale: float
    biased: bool

    @property
    def products(self) -> Values:
        """Real value of one bias step per output channel: [O]."""
        return self.steps * self.input_scale


def layer(step: Step) -> Layer | None:
    """The weights of ``step``; ``None`` when it has none in integers, or shares them with other operators."""
    program, node = step.unit.program, step.unit.nodes[0]
    if program is None or node.op not in CHANGED or not step.sole or "weight" not in program.instructions[0].constants:
        return None
    quantization, source = node.required(1).quantization, node.required(0).quantization
    if quantization is None or source is None:
        return None
    constants = program.instructions[0].constants
    weight, bias = constants["weight"], constants["bias"]
    steps = np.broadcast_to(quantization.scale.astype(np.float64).reshape(-1), (len(bias),))
    return Layer(weight.astype(np.int8), bias.astype(np.int32), steps, float(source.scale), node.op != "MatMul")


def compensate(step: Step, learn: int) -> bool:
    """Round the weights of ``step`` anew and fit its bias, from its first ``learn`` images; whether that was kept.

    It is kept when the squared error of the step's outputs is smaller on the images after those (on all, when there
    are no others).
    """
    own = layer(step)
    if own is None:
        return False
    before = error(step, learn)
    weight, bias = _solve(step, own, learn)
    step.replace({"weight": weight, "bias": bias})
    if error(step, learn) < before:
        return True
    step.replace({"weight": own.weight, "bias": own.bias})
    return False


def error(step: Step, learn: int) -> float:
    """The squared error of the step's output, on the images after the first ``learn``, or all without others."""
    (wire, name), *_ = step.outputs()
    first = learn if learn < len(step.feeds) else 0
    real = np.stack([values[name] for values in step.reals[first:]]).astype(np.float64)
    found = as_real(step.engine, wire, step.results()[first:]).astype(np.float64)
    return float(((real - found) ** 2).sum())


def _solve(step: Step, own: Layer, learn: int) -> tuple[NDArray[np.int8], NDArray[np.int32]]:
    node = step.unit.nodes[0]
    wire = node.required(0).wire
    shape = geometry(node)
    given = rows(shape, [step.engine.real(wire, feeds) for feeds in step.feeds[:learn]])
    real_name = step.node.required(0).name
    real = rows(shape, [values[real_name] for values in step.real_inputs[:learn]])
    weights, biases = _real_weights(step.node, own.weight.shape[0], shape.groups)
    rounded, fitted = [], []
    per_group = len(own.bias) // shape.groups
    for group in range(shape.groups):
        channels = slice(group * per_group, (group + 1) * per_group)
        y = real[group] @ weights[group].T + biases[channels]
        means, target = own.biased * given[group].mean(axis=0), own.biased * y.mean(axis=0)
        q = round_rows(weights[group], own.steps[channels], given[group] - means, y - target)
        rounded.append(q)
        fitted.append((target - (q * own.steps[channels, None]) @ means) / own.products[channels])
    weight = np.concatenate(rounded).reshape(own.weight.shape).astype(np.int8)
    return weight, whole_bias(np.concatenate(fitted)) if own.biased else own.bias


def whole_bias(values: Values) -> NDArray[np.int32]:
    """``values`` as int32 that leave room for the products in the accumulator."""
    return np.clip(np.rint(values), -BIAS_LIMIT, BIAS_LIMIT).astype(np.int32)


def _real_weights(node: Node, outputs: int, groups: int) -> tuple[Values, Values]:
    """Float weights [groups, O/groups, K] and biases [O] of the float model's operator."""
    values = node.required(1).real.astype(np.float64)
    if node.op != "Conv" and not (node.op == "Gemm" and node.int("transB", 0)):
        values = values.T
    biases = channel_bias(node)
    return values.reshape(groups, outputs // groups, -1), np.zeros(outputs) if biases is None else biases


def pull(rows: int, inputs: int) -> float:
    """The pull towards the float weights for so many ``rows`` of so many ``inputs``.

    Covariances of K inputs from n rows err by the order of K / n, so that share rho of them is taken to be noise, as
    Ledoit and Wolf shrink ("A well-conditioned estimator for large-dimensional covariance matrices", 2004): rho parts
    of the mean square on the diagonal for each 1 - rho of what was seen. A classifier that a few images reach, with
    fewer rows than inputs, is all but rounded to the nearest; else it would be fitted to just these images.
    """
    rho = min(inputs / rows, MOST_UNCERTAIN)
    return DAMPING + rho / (1 - rho)


def round_rows(weights: Values, steps: Values, given: Values, wanted: Values) -> Values:
    """Integers q, [O, K], with which ``given @ (q * steps).T`` is near ``wanted``; each in [-127, 127].

    Args:
        weights: the float weights, [O, K].
        steps: real value of one step, [O].
        given: what the layer is given, [rows, K].
        wanted: what it should give, [rows, O].
    """
    hessian = given.T @ given
    damping = pull(*given.shape) * float(np.trace(hessian)) / len(hessian)
    if not damping > 0:  # what never varies is left to the bias
        return np.clip(np.rint(weights / steps[:, None]), -127, 127)
    hessian[np.diag_indices_from(hessian)] += damping
    best = np.linalg.solve(hessian, given.T @ wanted + damping * weights.T).T
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T  # inverse = upper.T @ upper
    open_ = best / steps[:, None]
    q = np.empty_like(open_)
    for k in range(len(hessian)):
        q[:, k] = np.clip(np.rint(open_[:, k]), -127, 127)
        open_[:, k + 1 :] -= np.outer((open_[:, k] - q[:, k]) / upper[k, k], upper[k, k + 1 :])
    return q
