"""What a recipe names, as a search goes by it: recipe after recipe, and in each the choices of ranges."""

import re
from collections.abc import Sequence

from pipeline.errors import ConfigError
from pipeline.graph.view import Graph
from pipeline.quantize.ptq import Choosing
from pipeline.quantize.recipe import PRESETS, Recipe


def ways(recipe: Recipe) -> tuple[tuple[str, Recipe], ...]:
    """What ``recipe`` is gone by: what it is to be no worse than, and so on, then itself; the others with a name."""
    name = recipe.no_worse_than
    if name is None:
        return (("", recipe),)
    same = {"overrides": recipe.overrides, "absorb_high_bias": recipe.absorb_high_bias}
    earlier = ways(PRESETS[name].model_copy(update=same))
    return (*((each or f"as {name}: ", way) for each, way in earlier), ("", recipe))


def choosings(recipe: Recipe, graph: Graph) -> Sequence[Choosing]:
    """Every way to choose ranges that the recipe names, its overrides in each.

    Raises:
        ConfigError: an override matches no activation.
    """
    names = {t.name for node in graph.nodes for t in node.outputs} | {t.name for t in graph.inputs}
    by_tensor: dict[str, str | tuple[float, float]] = {}
    for override in recipe.overrides:
        matching = [name for name in names if re.fullmatch(override.tensors, name)]
        if not matching:
            raise ConfigError(
                f"no activation is called {override.tensors}", where="overrides", fix="see --json: layers"
            )
        by_tensor.update(dict.fromkeys(matching, override.range))
    return [
        Choosing(choice, percentile, by_tensor)
        for choice in recipe.range
        for percentile in (recipe.percentiles if choice == "percentile" else recipe.percentiles[:1])
    ]


def ranged(choosing: Choosing, kind: str) -> str:
    """What a trial of ranges is called: how those of activations are chosen and those of weights, ``kind``."""
    return f"range {_said(choosing)}, weights {kind}"


def _said(choosing: Choosing) -> str:
    return f"{choosing.choice} {choosing.percentile:g}" if choosing.choice == "percentile" else choosing.choice
