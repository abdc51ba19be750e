"""What is compared: a model, and what was measured of it where there are data to measure with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from pipeline.comparing.nouns import Accuracy
from pipeline.compile.closure import without_kernel
from pipeline.graph.opening import open_model
from pipeline.graph.view import Graph


@dataclass(frozen=True)
class Measured:
    """What was measured of a model's accuracy.

    Attributes:
        floating: of the float model.
        int8: of its int8 forms, by target; targets that agree in scheme and contract share one.
        notes: what else there is to know about these, by target.
    """

    floating: Accuracy | None = None
    int8: Mapping[str, Accuracy] = field(default_factory=lambda: MappingProxyType({}))
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Subject:
    """A model that is compared.

    Attributes:
        name: its file, or the use case's.
        graph: its view; a float model is costed as its int8 form under each target's scheme.
        measured: accuracies.
        notes: what its owner must know of it, whatever the target.
    """

    name: str
    graph: Graph
    measured: Measured = field(default_factory=Measured)
    notes: tuple[str, ...] = ()


def of_file(path: Path, dims: Mapping[str, int]) -> Subject:
    """The model in ``path`` with the sizes ``dims`` of its open dimensions.

    Raises:
        ModelError: it cannot be opened, see ``pipeline.graph.opening``.
    """
    opened = open_model(path, dims)
    missing = without_kernel(opened.model, opened.graph, [node.name for node in opened.graph.nodes])
    told = [f"No host can run {name}: {fact}" for name, fact in missing.items()]
    return Subject(str(path), opened.graph, notes=(*opened.notes, *told))
