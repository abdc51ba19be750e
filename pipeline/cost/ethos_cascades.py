"""Which operators an Ethos-U runs as a cascade, a few rows at a time, where whole feature maps do not fit its cache.

As the scheduler of ethos-u-vela 5 does (``cascade_builder.cpp``, as facts): from an operator on, each that follows
joins while neither it fits the cache whole nor the buffers of the cascade overflow it. Between two operators lies a
rolling buffer: the rows that one makes at a time and those that the next reads, rounded up to a multiple of the
latter. Then the rows grow, for as long as all fits and the cascade does not fall into more pieces.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.cost.ethos_cycles import up
from pipeline.cost.nouns import Kind, Work

WINDOWED = (Kind.CONV, Kind.DEPTHWISE, Kind.POOL, Kind.ELEMENTWISE)
"""What can run on some rows at a time."""


@dataclass(frozen=True)
class Cascade:
    """Operators that run together, by their index, with rows of output at a time and the bytes that they keep.

    Attributes:
        rows: by operator.
        buffers: bytes between the operators.
        weights: bytes of the weights that were counted in.
    """

    rows: Mapping[int, int]
    buffers: int
    weights: int

    @property
    def bytes(self) -> int:
        """Of the cache."""
        return self.buffers + self.weights

    @property
    def last(self) -> int:
        """The operator whose output leaves the cascade."""
        return max(self.rows)


@dataclass(frozen=True)
class Chain:
    """Operators in the order in which they run, as far as cascades ask.

    Attributes:
        works: the operators.
        order: indices of those that run at all; renaming ones do not.
        follower: for each the one that alone reads its output, if that is the next to run.
        weights: bytes of encoded weights that are kept on chip while it runs in a cascade.
        sizes: bytes of each operator's inputs and output.
        cache: bytes of the cache.
    """

    works: Sequence[Work]
    order: Sequence[int]
    follower: Mapping[int, int]
    weights: Sequence[int]
    sizes: Sequence[int]
    cache: int


def map_bytes(work: Work) -> int:
    """Bytes of the output in bricks of 16 channels."""
    return work.height * work.width * up(work.channels, 16) * work.element_bytes


def cascades(chain: Chain) -> tuple[Cascade, ...]:
    """The cascades of ``chain``."""
    found: list[Cascade] = []
    for first in _build(chain, chain.order, _least_rows(chain)):
        found.extend(_grown(chain, first))
    return tuple(found)


def _least_rows(chain: Chain) -> dict[int, int]:
    """As few rows as the operator behind takes in one step."""
    behind = [chain.works[i].stride[0] for i in chain.order[1:]]
    return dict(zip(chain.order, [*behind, 1], strict=False))


def _grown(chain: Chain, first: Cascade) -> tuple[Cascade, ...]:
    """``first``, with as many rows at a time as the cache has room for; it may fall into pieces at once, not later."""
    part, last = sorted(first.rows), chain.works[first.last]
    best: tuple[Cascade, ...] = (first,)
    pieces = 0
    for height in range(first.rows[first.last] + 1, (last.height + 1) // 2 + 1):
        rows = _rows(chain, part, height)
        found = _build(chain, part, rows)
        pieces = pieces or len(found)
        inside = {i for cascade in found for i in cascade.rows}
        whole = max((chain.sizes[i] for i in part if i not in inside), default=0)
        if len(found) > pieces or max([whole, *(c.bytes for c in found)]) > chain.cache:
            break
        best = found
        if not found:
            break
    return best


def _rows(chain: Chain, part: Sequence[int], height: int) -> dict[int, int]:
    """Rows of output of each operator when the last makes ``height``."""
    rows = {}
    for index in reversed(part):
        rows[index] = min(height, chain.works[index].height)
        height = rows[index] * chain.works[index].stride[0]
    return rows


def _build(chain: Chain, part: Sequence[int], rows: Mapping[int, int]) -> tuple[Cascade, ...]:
    """Cascades among ``part`` when the operators make ``rows`` at a time."""
    found: list[Cascade] = []
    position = 0
    while position < len(part):
        members, held = _run(chain, part[position:], rows)
        if len(members) > 1:
            weights = sum(chain.weights[i] for i in members)
            found.append(Cascade({i: rows[i] for i in members}, held - weights, weights))
        position += len(members)
    return tuple(found)


def _run(chain: Chain, part: Sequence[int], rows: Mapping[int, int]) -> tuple[list[int], int]:
    """The operators that join the first of ``part``, itself included, and the bytes that they keep."""
    members, held = [part[0]], chain.weights[part[0]]
    if not _striped(chain, part[0], rows):
        return members, held
    for index in part[1:]:
        joins = chain.follower.get(members[-1]) == index and _striped(chain, index, rows)
        if not joins or chain.sizes[index] < chain.cache:
            break
        more = held + _rolling(chain.works[members[-1]], chain.works[index], rows[members[-1]], rows[index])
        more += chain.weights[index]
        if more > chain.cache:
            break
        members.append(index)
        held = more
    return members, held


def _striped(chain: Chain, index: int, rows: Mapping[int, int]) -> bool:
    work = chain.works[index]
    return work.kind in WINDOWED and rows[index] < work.height


def _rolling(writer: Work, reader: Work, made: int, out: int) -> int:
    """Bytes between two operators that make ``made`` and ``out`` rows at a time."""
    need = min(writer.height, (out - 1) * reader.stride[0] + (reader.kernel[0] - 1) * reader.dilation[0] + 1)
    return up(made + need, need) * writer.width * up(writer.channels, 16) * writer.element_bytes
