"""Rules about Resize."""

from fractions import Fraction

from pipeline.graph.view import Node
from pipeline.targets.profile import Limits
from pipeline.targets.rules.reading import choices, number, shown

HALF_PIXEL = frozenset({"half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"})


def resize_nearest(node: Node, limits: Limits) -> str | None:
    """Resize must be nearest."""
    return None if _mode(node) == "nearest" else f"its mode is {_mode(node)}"


def resize_modes(node: Node, limits: Limits) -> str | None:
    """Resize must be one of {modes}."""
    parts = [_mode(node), node.text("coordinate_transformation_mode", "half_pixel")]
    if _mode(node) == "nearest":
        parts.append(node.text("nearest_mode", "round_prefer_floor"))
    text = " ".join(parts)
    known = any(f"{text} ".startswith(f"{mode} ") for mode in choices(limits, "modes"))
    return None if known else f"it is {text}"


def resize_factors(node: Node, limits: Limits) -> str | None:
    """Resize must scale height and width by the same factor, one of {factors}."""
    factors = set(_factors(node))
    known = len(factors) == 1 and next(iter(factors)) in choices(limits, "factors")
    return None if known else _scaling(node)


def resize_factors_or_point(node: Node, limits: Limits) -> str | None:
    """Resize must scale height and width by one factor of {factors}, unless the map is 1x1 or stays as it is."""
    return None if _free(node) else resize_factors(node, limits)


def half_pixel_factor(node: Node, limits: Limits) -> str | None:
    """A linear Resize by half pixels must scale by {factor}, unless the map is 1x1 or stays as it is."""
    half = node.text("coordinate_transformation_mode", "half_pixel") in HALF_PIXEL and _mode(node) == "linear"
    fits = set(_factors(node)) == {number(limits, "factor")}
    return None if _free(node) or fits or not half else _scaling(node)


def resize_whole_factor(node: Node, limits: Limits) -> str | None:
    """Height and width must grow by whole factors from {low}, up to {nearest} (nearest) or {linear} (linear)."""
    high = number(limits, "linear" if _mode(node) == "linear" else "nearest")
    factors = _factors(node)
    fits = bool(factors) and all(f.denominator == 1 and number(limits, "low") <= f <= high for f in factors)
    return None if fits else _scaling(node)


def resize_whole_factor_or_point(node: Node, limits: Limits) -> str | None:
    """Height and width must grow by whole factors from {low} to {high}, unless the map is 1x1."""
    given = {"low": limits["low"], "nearest": limits["high"], "linear": limits["high"]}
    return None if (node.required(0).shape or ())[2:] == (1, 1) else resize_whole_factor(node, given)


def resize_spatial_only(node: Node, limits: Limits) -> str | None:
    """Resize must keep batch and channels."""
    kept = (node.required(0).shape or ())[:2] == (node.outputs[0].shape or ())[:2]
    return None if kept else _scaling(node)


def resize_by_scales(node: Node, limits: Limits) -> str | None:
    """Resize must be given scales, not an output size."""
    return "it is given sizes" if node.input(3) is not None else None


def linear_resize_size(node: Node, limits: Limits) -> str | None:
    """A linear Resize must make at most {size} rows and columns."""
    result = (node.outputs[0].shape or ())[2:]
    large = any(d is None or d > number(limits, "size") for d in result)
    return f"it makes {list(result)}" if large and _mode(node) == "linear" else None


def _mode(node: Node) -> str:
    return node.text("mode", "nearest")


def _factors(node: Node) -> tuple[Fraction, ...]:
    """By how much height and width grow; nothing when that is not known."""
    source, result = node.required(0).shape, node.outputs[0].shape
    if source is None or result is None or len(source) != 4 or len(result) != 4 or not all((*source, *result)):
        return ()
    return tuple(Fraction(int(r or 0), int(s or 1)) for s, r in zip(source[2:], result[2:], strict=True))


def _free(node: Node) -> bool:
    source, result = node.required(0).shape, node.outputs[0].shape
    return source is not None and (source == result or source[2:] == (1, 1))


def _scaling(node: Node) -> str:
    return f"it scales {shown(node.required(0))[2:]} to {shown(node.outputs[0])[2:]}"
