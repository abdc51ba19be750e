"""The nouns of a rewrite: what kind of change it is, where it fits, what it changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import onnx
import onnx_ir as ir


class Kind(StrEnum):
    """How far a rewrite moves the model's results."""

    EXACT = "exact"
    """Only float rounding moves."""
    CLOSE = "close"
    """An approximation of the same function, within the rule's bound."""
    NEEDS_FINE_TUNING = "needs-fine-tuning"
    """Another function; train the model again with it."""


@dataclass(frozen=True)
class Candidate:
    """A place where a rule fits.

    Attributes:
        rule: the rule's name.
        nodes: names of the nodes it would replace, in the model's order.
    """

    rule: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Replacement:
    """Nodes that gave way to others.

    Attributes:
        before: names of the nodes that were replaced, in the model's order.
        after: names of the nodes that stand in their place; empty when constants do.
        outputs: names of the tensors that both compute.
    """

    before: tuple[str, ...]
    after: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Applied:
    """What a rule made of a model.

    Attributes:
        model: the rewritten model, checked, with shapes and names; the argument itself when nothing fitted.
        replacements: what it changed.
    """

    model: onnx.ModelProto
    replacements: tuple[Replacement, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes of ``model`` that are new."""
        return tuple(name for replacement in self.replacements for name in replacement.after)


class Rewriter(Protocol):
    """Finds the places in a graph where it fits, and replaces their nodes."""

    def find(self, model: ir.Model) -> Iterator[tuple[ir.Node, ...]]:
        """The nodes of every place, in the model's order; places may overlap. ``model`` stays as it is."""

    def sweep(self, model: ir.Model, wanted: frozenset[str] | None) -> list[Replacement]:
        """Rewrite, in place, what fits among the nodes ``wanted`` (``None``: all), no node twice."""
