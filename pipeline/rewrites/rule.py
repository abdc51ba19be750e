"""A rule: a rewriter with its name, its class and its proof."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from pipeline.errors import ModelError
from pipeline.rewrites.checking import checked
from pipeline.rewrites.equivalence import verify
from pipeline.rewrites.nouns import Applied, Kind, Replacement, Rewriter

OPSETS = range(13, 24)
"""Versions of the standard operator set that the rules are written for."""

EXACT_BOUND = 1e-5
"""Largest difference that float32 rounding makes in an exact rewrite, relative to the largest magnitude."""

ROUNDS = 64
"""Rounds after which a rule that still changes the model is taken for endless."""


@dataclass(frozen=True)
class Rule:
    """A change that a model can take.

    Attributes:
        name: lower case with hyphens; what users and reports call it.
        kind: how far it moves the model's results.
        sentence: what it does and when that helps, for the report.
        rewriter: finds the places and replaces their nodes.
        close_bound: for a close rule, the largest difference it makes, relative to the largest magnitude.
    """

    name: str
    kind: Kind
    sentence: str
    rewriter: Rewriter
    close_bound: float | None = None

    @property
    def bound(self) -> float | None:
        """The largest relative difference that ``apply`` lets pass; ``None`` where the function changes."""
        return EXACT_BOUND if self.kind is Kind.EXACT else self.close_bound

    def apply(self, model: onnx.ModelProto, nodes: Collection[str] | None = None) -> Applied:
        """``model`` with the rule applied wherever it fits, until it fits nowhere; or once, among ``nodes`` only.

        Inputs, outputs and metadata of the model stay, ``model`` itself is not touched. A new node is named after the
        one it replaces: the same name, or the name with ``/Operator`` appended.

        Args:
            model: a float model, opset 13 to 23.
            nodes: names of nodes, such as a candidate's; only places that consist of these are rewritten.

        Raises:
            ModelError: ``model`` is not valid, is quantized, or has another opset; the rule fits nowhere among
                ``nodes``; or a result moved by more than the rule's class allows.
        """
        current = prepared(model)
        wanted = None if nodes is None else frozenset(nodes)
        if wanted is not None:
            after, changes = self._round(current, wanted)
            if not changes:
                raise ModelError(f"{self.name} does not fit here", where=", ".join(sorted(wanted)) or "no nodes")
            return Applied(after, tuple(changes))
        changes = []
        for _ in range(ROUNDS):
            current, more = self._round(current, None)
            if not more:
                return Applied(current if changes else model, tuple(changes))
            changes = _merged(changes, more)
        raise ModelError(f"{self.name} still changes it after {ROUNDS} rounds", where=model.graph.name or "model")

    def _round(
        self, model: onnx.ModelProto, wanted: frozenset[str] | None
    ) -> tuple[onnx.ModelProto, list[Replacement]]:
        """One sweep over a prepared model, verified."""
        working = lifted(model)
        changes = self.rewriter.sweep(working, wanted)
        if not changes:
            return model, []
        after = checked(ir.to_proto(working), f"after {self.name}")
        if self.bound is not None:
            verify(self.name, self.bound, model, after, changes)
        return after, changes


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model``, checked, with shapes and names, that rules can read.

    Raises:
        ModelError: ``model`` is not valid, is quantized, or has an opset that the rules do not know.
    """
    where = model.graph.name or "model"
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if not versions or versions[0] not in OPSETS:
        said = f"opset {versions[0]}" if versions else "no standard opset"
        raise ModelError(
            f"has {said}; rewrites know {OPSETS[0]} to {OPSETS[-1]}",
            where=where,
            fix="convert it with onnx's converter",
        )
    quantizing = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
    if any(n.op_type in quantizing for n in model.graph.node):
        raise ModelError("is quantized", where=where, fix="rewrite the float model, then quantize it")
    return checked(model, where)


def lifted(model: onnx.ModelProto) -> ir.Model:
    """A copy of ``model`` whose constants are all initializers."""
    copy = ir.from_proto(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
    return copy


def _merged(earlier: Iterable[Replacement], later: Iterable[Replacement]) -> list[Replacement]:
    """Replacements of two rounds as one: from the nodes of the first model to those of the last."""
    known = list(earlier)
    for change in later:
        parents = [k for k in known if set(k.after) & set(change.before)]
        made = {name for p in parents for name in p.after}
        before = [name for p in parents for name in p.before] + [n for n in change.before if n not in made]
        kept = [name for p in parents for name in p.after if name not in change.before]
        outputs = dict.fromkeys([o for p in parents for o in p.outputs] + list(change.outputs))
        known = [k for k in known if k not in parents]
        known.append(Replacement(tuple(before), (*kept, *change.after), tuple(outputs)))
    return known
