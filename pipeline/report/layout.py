"""Places boxes of a directed acyclic graph in layers, wraps the layers into columns, and routes the arrows.

After Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system structures" (1981): ranks by
the longest path, a bend for every rank that a long arrow passes, few arrow crossings by barycentres. Positions within
a rank are the least-squares ones that keep the order and the gaps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

BOX = (180.0, 38.0)
"""Width and height of a box."""

GAP = 16.0
"""Between two boxes of one rank."""

LAYER = 59.0
"""From the top of one rank to the top of the next."""

GUTTER = 36.0
"""Between two columns."""

MARGIN = 34.0
"""Around the picture; arrows that wrap to the next column run in it."""

_BEND, _SWEEPS, _FEWEST_LAYERS, _TRACK = 10.0, 6, 8, 7.0

Point = tuple[float, float]


@dataclass(frozen=True)
class Spot:
    """Where a box is: its left and upper edge, and its column."""

    x: float
    y: float
    column: int

    @property
    def centre(self) -> float:
        """The middle, from the left."""
        return self.x + BOX[0] / 2


@dataclass(frozen=True)
class Layout:
    """A laid-out graph.

    Attributes:
        width: of the whole picture.
        height: of the whole picture.
        spots: where each box is, by key.
        routes: the corners of each arrow, by its two keys; from the lower edge of a box to the upper edge of another.
    """

    width: float
    height: float
    spots: Mapping[str, Spot]
    routes: Mapping[tuple[str, str], tuple[Point, ...]]


def lay_out(keys: Sequence[str], arrows: Sequence[tuple[str, str]], widest: float) -> Layout:
    """Lay out a graph in as many columns as fit into the width ``widest``, at least one.

    Args:
        keys: the boxes, every one after those that point to it.
        arrows: from one key to another, each pair once.
        widest: the width to fill; a single column may be wider.

    Raises:
        ValueError: an arrow points to an earlier box or to one that is not there.
    """
    layers, chains = _layers(_ranks(keys, arrows), arrows)
    centres = _centres(layers, chains)
    wrapped = _wrap(layers, chains, centres, widest)
    return _place(layers, chains, centres, wrapped, keys)


Item = str | tuple[str, str, int]
"""A box's key, or the bend of an arrow at a rank."""


def _ranks(keys: Sequence[str], arrows: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The longest path to each box; a box without arrows into it stands just above the first that needs it."""
    position = {key: index for index, key in enumerate(keys)}
    into: dict[str, list[str]] = {key: [] for key in keys}
    out: dict[str, list[str]] = {key: [] for key in keys}
    for source, target in arrows:
        if position.get(source, len(keys)) >= position.get(target, -1):
            raise ValueError(f"the arrow from {source} to {target} does not point to a later box")
        into[target].append(source)
        out[source].append(target)
    ranks: dict[str, int] = {}
    for key in keys:
        ranks[key] = max((ranks[source] + 1 for source in into[key]), default=0)
    for key in keys:
        if not into[key] and out[key]:
            ranks[key] = min(ranks[target] for target in out[key]) - 1
    return ranks


def _layers(
    ranks: Mapping[str, int], arrows: Sequence[tuple[str, str]]
) -> tuple[list[list[Item]], dict[tuple[str, str], list[Item]]]:
    """The items of every rank in a good order, and each arrow as the chain of items that it passes."""
    layers: list[list[Item]] = [[] for _ in range(max(ranks.values(), default=-1) + 1)]
    for key, rank in ranks.items():
        layers[rank].append(key)
    chains: dict[tuple[str, str], list[Item]] = {}
    for source, target in arrows:
        bends: list[Item] = [(source, target, rank) for rank in range(ranks[source] + 1, ranks[target])]
        for rank, bend in enumerate(bends, ranks[source] + 1):
            layers[rank].append(bend)
        chains[source, target] = [source, *bends, target]
    above, below = _neighbours(chains)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for layer in layers if down else reversed(layers):
            _order(layer, layers, above if down else below)
    return layers, chains


def _neighbours(chains: Mapping[tuple[str, str], Sequence[Item]]) -> tuple[dict[Item, list[Item]], ...]:
    above: dict[Item, list[Item]] = {}
    below: dict[Item, list[Item]] = {}
    for chain in chains.values():
        for upper, lower in pairwise(chain):
            above.setdefault(lower, []).append(upper)
            below.setdefault(upper, []).append(lower)
    return above, below


def _order(layer: list[Item], layers: Sequence[Sequence[Item]], near: Mapping[Item, Sequence[Item]]) -> None:
    """Sort the rank by where each item's neighbours stand; items without any keep their place."""
    wanted = {each for item in layer for each in near.get(item, ())}
    slots = {item: index / max(len(row), 1) for row in layers for index, item in enumerate(row) if item in wanted}

    def barycentre(entry: tuple[int, Item]) -> float:
        index, item = entry
        neighbours = near.get(item, ())
        return sum(slots[n] for n in neighbours) / len(neighbours) if neighbours else index / len(layer)

    layer[:] = [item for _, item in sorted(enumerate(layer), key=barycentre)]


def _width(item: Item) -> float:
    return BOX[0] if isinstance(item, str) else _BEND


def _centres(layers: Sequence[Sequence[Item]], chains: Mapping[tuple[str, str], Sequence[Item]]) -> dict[Item, float]:
    """The centre of every item, from the left, such that chains run straight where they can."""
    above, below = _neighbours(chains)
    centres: dict[Item, float] = {}
    for layer in layers:
        centres.update(_spread(layer, [0.0] * len(layer)))
    for sweep in range(2 * _SWEEPS):
        near = above if sweep % 2 == 0 else below
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wishes = [
                sum(centres[n] for n in near[item]) / len(near[item]) if item in near else centres[item]
                for item in layer
            ]
            centres.update(_spread(layer, wishes))
    return centres


def _spread(layer: Sequence[Item], wishes: Sequence[float]) -> dict[Item, float]:
    """The centres nearest to the wishes (least squares) that keep order and gaps, by pooling adjacent violators."""
    steps = [0.0, *((_width(a) + _width(b)) / 2 + GAP for a, b in pairwise(layer))]
    offsets = list(accumulate(steps))
    pools: list[tuple[float, int]] = []
    for wish, offset in zip(wishes, offsets, strict=False):
        pools.append((wish - offset, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, n), (b, m) = pools[-2:]
            pools[-2:] = [((a * n + b * m) / (n + m), n + m)]
    bases = [base for base, times in pools for _ in range(times)]
    return {item: base + offset for item, base, offset in zip(layer, bases, offsets, strict=False)}


@dataclass(frozen=True)
class _Column:
    """Ranks ``first`` to ``last`` (one past), with the leftmost and rightmost edge of their items."""

    first: int
    last: int
    left: float
    right: float

    @property
    def width(self) -> float:
        return self.right - self.left


def _wrap(
    layers: Sequence[Sequence[Item]],
    chains: Mapping[tuple[str, str], Sequence[Item]],
    centres: Mapping[Item, float],
    widest: float,
) -> list[_Column]:
    """The columns: as many as fit, cut where few arrows pass."""
    passing = [0] * (len(layers) + 1)
    rank = {item: index for index, layer in enumerate(layers) for item in layer}
    for chain in chains.values():
        for item in chain[1:]:
            passing[rank[item]] += 1
    best: list[_Column] = []
    for number in range(1, max(1, len(layers) // _FEWEST_LAYERS) + 1):
        edges = [0, *_cuts(passing, len(layers), number), len(layers)]
        columns = [_column(layers, centres, first, last) for first, last in pairwise(edges)]
        if not best or sum(c.width for c in columns) + GUTTER * (number - 1) + 2 * MARGIN <= widest:
            best = columns
    return best


def _cuts(passing: Sequence[int], length: int, number: int) -> list[int]:
    """Ranks at which columns begin: near the even ones, where the fewest arrows pass."""
    size = length / number
    reach = round(size / 5)
    evens = (round(size * k) for k in range(1, number))
    return [min((passing[r], abs(r - e), r) for r in range(e - reach, e + reach + 1))[2] for e in evens]


def _column(layers: Sequence[Sequence[Item]], centres: Mapping[Item, float], first: int, last: int) -> _Column:
    items = [item for layer in layers[first:last] for item in layer]
    left = min((centres[i] - _width(i) / 2 for i in items), default=0.0)
    right = max((centres[i] + _width(i) / 2 for i in items), default=0.0)
    return _Column(first, last, left, right)


def _place(
    layers: Sequence[Sequence[Item]],
    chains: Mapping[tuple[str, str], Sequence[Item]],
    centres: Mapping[Item, float],
    columns: Sequence[_Column],
    keys: Sequence[str],
) -> Layout:
    """Turn centres and columns into coordinates."""
    starts = list(accumulate((c.width + GUTTER for c in columns), initial=MARGIN))
    at: dict[Item, Spot] = {}
    for number, column in enumerate(columns):
        for row, layer in enumerate(layers[column.first : column.last]):
            for item in layer:
                centre = starts[number] + centres[item] - column.left
                at[item] = Spot(centre - BOX[0] / 2, MARGIN + row * LAYER, number)
    bottoms = [MARGIN + (c.last - c.first - 1) * LAYER + BOX[1] for c in columns]
    tracks: dict[int, int] = {}
    routes: dict[tuple[str, str], tuple[Point, ...]] = {}
    for arrow, chain in chains.items():
        points: list[Point] = []
        for upper, lower in pairwise(chain):
            a, b = at[upper], at[lower]
            points += [] if points else [(a.centre, a.y + BOX[1])]
            if a.column != b.column:
                lane = tracks[a.column] = tracks.get(a.column, 0) + 1
                offset = _TRACK * lane
                gutter = starts[b.column] - GUTTER / 2 + (lane - 1) * _TRACK / 2
                low, high = bottoms[a.column] + offset, MARGIN - offset
                points += [(a.centre, low), (gutter, low), (gutter, high), (b.centre, high)]
            points.append((b.centre, b.y))
            points += [] if isinstance(lower, str) else [(b.centre, b.y + BOX[1])]
        routes[arrow] = tuple(points)
    width = starts[-1] - GUTTER + MARGIN if columns else 2 * MARGIN
    height = max(bottoms, default=MARGIN) + MARGIN
    return Layout(width, height, {key: at[key] for key in keys}, routes)
