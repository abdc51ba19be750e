"""The rewriter that matches patterns: ``onnxscript.rewriter`` rules, ours and those it ships, at chosen places."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import RewriteRule

from pipeline.rewrites.naming import Names, name_replacement
from pipeline.rewrites.nouns import Replacement
from pipeline.rewrites.reading import Builder, constant, dims, maker


def _always(_: ir.Node) -> bool:
    return True


@dataclass(frozen=True)
class Rewriting:
    """One pattern of a rule.

    Attributes:
        root: operator of the last node of the pattern.
        rule: the pattern, its check and its replacement.
        only_if: what the last node must fulfil before the rule is asked.
    """

    root: str
    rule: RewriteRule
    only_if: Callable[[ir.Node], bool] = _always


def single(
    operator: str,
    fits: Callable[[ir.Node], bool],
    replace: Callable[[Builder, ir.Node], ir.Value | Sequence[ir.Value]],
    outputs: int = 1,
) -> Rewriting:
    """A rewrite of single nodes of ``operator`` with ``outputs`` outputs: where they fit, and what stands for those."""
    names = [f"output{i}" for i in range(outputs)]

    def pattern(op: Any) -> object:  # noqa: ANN401  any operator by attribute
        build = getattr(op, operator)
        return build(_allow_other_inputs=True, _allow_other_attributes=True, _outputs=names)

    def check(_: object, **values: ir.Value) -> bool:
        return fits(maker(values[names[0]]))

    def rewrite(op: Builder, **values: ir.Value) -> ir.Value | Sequence[ir.Value]:
        return replace(op, maker(values[names[0]]))

    return Rewriting(operator, RewriteRule(pattern, rewrite, check))


def expression(
    root: str,
    pattern: Callable[..., object],
    check: Callable[..., bool],
    replace: Callable[..., ir.Value],
    commute: bool = True,
) -> tuple[Rewriting, ...]:
    """A rewrite of several nodes, written as ``onnxscript.rewriter`` patterns are; sums and products in any order."""
    rule = RewriteRule(pattern, replace, check)
    return tuple(Rewriting(root, r) for r in (rule.commute() if commute else [rule]))


@dataclass(frozen=True)
class Patterns:
    """Replaces what any of its patterns matches; a ``pipeline.rewrites.nouns.Rewriter``.

    A match must read and compute float32 tensors of static, non-empty shapes, so that its cost and its numbers can be
    checked, and no constant that the model lets its caller replace.
    """

    rewritings: tuple[Rewriting, ...]

    def find(self, model: ir.Model) -> Iterator[tuple[ir.Node, ...]]:
        """The nodes of every match, once each."""
        order = {node: index for index, node in enumerate(model.graph)}
        for node in model.graph:
            for rewriting in self.rewritings:
                nodes = _match(model, rewriting, node, order)
                if nodes:
                    yield nodes
                    break

    def sweep(self, model: ir.Model, wanted: frozenset[str] | None) -> list[Replacement]:
        """Replace every match among ``wanted``, from first to last; what a replacement makes is not matched again."""
        order = {node: i for i, node in enumerate(model.graph) if wanted is None or node.name in wanted}
        names = Names(model.graph)
        done = []
        for node in list(order):
            for rewriting in self.rewritings:
                nodes = _match(model, rewriting, node, order) if node.graph is not None else ()
                replacement = _replace(model, rewriting, node, nodes, names) if nodes else None
                if replacement is not None:
                    done.append(replacement)
                    break
        return done


def _match(model: ir.Model, rewriting: Rewriting, node: ir.Node, order: dict[ir.Node, int]) -> tuple[ir.Node, ...]:
    """The nodes that ``rewriting`` matches with ``node`` as the last, all of them in ``order``; empty for no match."""
    if node.op_type != rewriting.root or not _can_be_checked(node) or not rewriting.only_if(node):
        return ()
    match = rewriting.rule.match(model, model.graph, node)
    if not match or not all(n in order and _can_be_checked(n) for n in match.nodes):
        return ()
    return tuple(sorted(match.nodes, key=order.__getitem__))


def _can_be_checked(node: ir.Node) -> bool:
    """Whether ``node`` is standard and its computed tensors are float32, static and not empty."""
    if node.domain not in ("", "ai.onnx"):
        return False
    values = [v for v in (*node.inputs, *node.outputs) if v is not None and constant(v) is None]
    return all(
        v.dtype == ir.DataType.FLOAT and v.const_value is None and v.shape is not None and 0 not in v.shape
        and (dims(v) or v.shape.rank() == 0)
        for v in values
    )  # fmt: skip


def _replace(
    model: ir.Model, rewriting: Rewriting, node: ir.Node, nodes: tuple[ir.Node, ...], names: Names
) -> Replacement | None:
    """Put the replacement of matched ``nodes``, of which ``node`` is the last, in their place; ``None`` if refused."""
    made = rewriting.rule.try_rewrite(model, model.graph, node)
    if made is None:
        return None
    constants = [v for n in nodes for v in n.inputs if v is not None and v.is_initializer()]
    before = tuple(str(n.name) for n in nodes)
    ir.convenience.replace_nodes_and_values(
        model.graph, node, nodes, made.new_nodes, made.match.outputs, made.new_outputs
    )
    for value in constants:
        if value.name in model.graph.initializers and not value.uses() and not value.is_graph_output():
            names.forget(str(model.graph.initializers.pop(str(value.name)).name))
    name_replacement(names, nodes, made.new_nodes, made.new_outputs, made.new_initializers)
    for value in made.new_initializers:
        model.graph.initializers.add(value)
    outputs = tuple(str(v.name) for v in made.new_outputs)
    return Replacement(before, tuple(str(n.name) for n in made.new_nodes), outputs)
