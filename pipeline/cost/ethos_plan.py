"""Where feature maps lie while an Ethos-U runs a sequence of operators, and which of them run a few rows at a time.

Without a cache size (Shared_Sram) all feature maps live on chip. With one (Dedicated_Sram) they live in DRAM, and
those come on chip that fit beside cascades and staged weights, the ones with the most traffic first. Inputs and
outputs of the sequence lie row by row; everything between in bricks of 16 channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.cost.ethos_blocks import Block, Geometry
from pipeline.cost.ethos_cascades import Cascade, Chain, cascades, map_bytes
from pipeline.cost.ethos_cycles import Place, stored_bytes, traffic
from pipeline.cost.ethos_machine import Machine
from pipeline.cost.nouns import Kind, Work

KEPT_SHARE = 16
"""Weights of up to this part of the cache count into a cascade before its rows are chosen."""


@dataclass(frozen=True)
class Step:
    """Where one operator reads and writes, and how many rows of output at a time when it runs in a cascade."""

    reads: tuple[Place, ...]
    write: Place
    rows: int | None = None


@dataclass(frozen=True)
class Flow:
    """Who writes and who reads each feature map, by the tensor whose bytes it names.

    Attributes:
        works: the operators.
        roots: for each tensor the one whose bytes it names: renaming operators make no new one, and what a Concat
            joins is written into its output.
        order: indices of the operators that run; renaming and joining ones do not.
        writers, readers: indices by root.
        sizes: bytes by root, of those that are written.
    """

    works: Sequence[Work]
    roots: Mapping[str, str]
    order: Sequence[int]
    writers: Mapping[str, Sequence[int]]
    readers: Mapping[str, Sequence[int]]
    sizes: Mapping[str, int]

    def inside(self, tensor: str) -> bool:
        """Whether ``tensor`` lies between two operators, neither an input nor an output of the sequence."""
        root = self.roots.get(tensor, tensor)
        return root in self.writers and root in self.readers

    def output(self, index: int) -> str:
        """The tensor that operator ``index`` writes."""
        outputs = self.works[index].outputs
        return self.roots[outputs[0]] if outputs else ""

    def follower(self, index: int) -> int | None:
        """The operator that alone reads what ``index`` alone writes."""
        tensor = self.output(index)
        readers = self.readers.get(tensor, ())
        return readers[0] if len(readers) == 1 and len(self.writers[tensor]) == 1 else None


def flow(works: Sequence[Work]) -> Flow:
    """Who writes and who reads what among ``works``, run in this order."""
    roots = _roots(works)
    order = [i for i, work in enumerate(works) if work.kind is not Kind.VIEW and work.op != "Concat"]
    writers: dict[str, list[int]] = {}
    readers: dict[str, list[int]] = {}
    sizes: dict[str, int] = {}
    for work in works:
        for tensor in work.outputs if work.kind is not Kind.VIEW else ():
            sizes[roots[tensor]] = max(map_bytes(work), sizes.get(roots[tensor], 0))
    for i in order:
        for tensor in works[i].outputs:
            writers.setdefault(roots[tensor], []).append(i)
        for tensor in works[i].inputs:
            readers.setdefault(roots.get(tensor, tensor), []).append(i)
    return Flow(works, roots, order, writers, readers, sizes)


def _roots(works: Sequence[Work]) -> dict[str, str]:
    """For each tensor that is written the one whose bytes it names."""
    count: dict[str, int] = {}
    for tensor in (t for work in works for t in work.inputs):
        count[tensor] = count.get(tensor, 0) + 1
    joined = {t: w.outputs[0] for w in works if w.op == "Concat" for t in w.inputs if count[t] == 1}
    renamed = {t: w.inputs[0] for w in works if w.kind is Kind.VIEW and w.inputs for t in w.outputs}
    roots: dict[str, str] = {}
    for work in works:  # a renamed tensor is older than its names
        for tensor in work.outputs:
            roots[tensor] = roots.get(renamed[tensor], renamed[tensor]) if tensor in renamed else tensor
    for work in reversed(works):  # a joined one is younger than its parts
        for tensor in work.outputs:
            if roots[tensor] in joined:
                roots[tensor] = roots.get(joined[roots[tensor]], joined[roots[tensor]])
    return roots


def cascades_of(machine: Machine, known: Flow) -> tuple[Cascade, ...]:
    """The operators that run a few rows at a time; none on a machine whose feature maps all live on chip."""
    if machine.cache is None:
        return ()
    works, limit = known.works, machine.cache // KEPT_SHARE
    weights = [stored_bytes(machine, work) for work in works]
    following = dict(zip(known.order, known.order[1:], strict=False))
    return cascades(Chain(
        works, known.order, {a: b for a, b in following.items() if known.follower(a) == b},
        [w if w <= limit else 0 for w in weights], [sum(w.in_bytes) + map_bytes(w) for w in works], machine.cache,
    ))  # fmt: skip


def steps(machine: Machine, known: Flow, found: Sequence[Cascade], on_chip: frozenset[str]) -> tuple[Step, ...]:
    """Where each operator reads and writes when, of what lies between them, the tensors in ``on_chip`` are there."""
    rows = {i: r for cascade in found for i, r in cascade.rows.items()}

    def place(tensor: str) -> Place:
        near = machine.cache is None or known.roots.get(tensor, tensor) in on_chip
        return Place(machine.sram if near else machine.external, not known.inside(tensor))

    result = []
    for index, work in enumerate(known.works):
        reads = tuple(place(t) for t in work.inputs[:2]) or (place(""),)
        write = place(work.outputs[0]) if work.outputs else place("")
        result.append(Step(reads, write, rows.get(index)))
    return tuple(result)


def alone(machine: Machine, work: Work) -> Step:
    """Where ``work`` reads and writes in the middle of others that leave it the whole cache."""
    fits = machine.cache is None or sum(work.in_bytes) + map_bytes(work) <= machine.cache
    inside, outside = Place(machine.sram, False), Place(machine.external, False)
    keep_input = fits or (machine.cache is not None and sum(work.in_bytes) < map_bytes(work))
    reads = (inside if keep_input else outside,) * max(1, min(2, len(work.in_bytes)))
    return Step(reads, inside if fits or not keep_input else outside)


def brought_on_chip(
    machine: Machine,
    known: Flow,
    drafts: Sequence[Step],
    found: Sequence[Cascade],
    staged: Mapping[int, tuple[int, int]],
    tilings: Mapping[int, tuple[Geometry, Block]],
) -> frozenset[str]:
    """The feature maps inside cascades, and those that fit the cache beside all else, with the most traffic first.

    ``staged``: bytes of weights that lie on chip while each operator runs, and while the one before it does.
    """
    if machine.cache is None:
        return frozenset()
    spot = {index: n for n, index in enumerate(known.order)}
    held = np.zeros(len(spot) + 1, np.int64)
    for index, (own, ahead) in staged.items():
        held[spot[index]] += own
        if spot[index]:
            held[spot[index] - 1] += ahead
    span = {i: (min(spot[j] for j in c.rows), max(spot[j] for j in c.rows)) for c in found for i in c.rows}
    for cascade in found:
        first, last = span[cascade.last]
        held[first : last + 1] = cascade.bytes
    chosen = {known.output(i) for c in found for i in c.rows if i != c.last}  # inside a cascade they are there anyway
    for tensor, size in _by_traffic(machine, known, drafts, tilings):
        if tensor in chosen:
            continue
        users = (*known.writers[tensor], *known.readers[tensor])
        ends = [span.get(i, (spot[i], spot[i])) for i in users]
        first, last = min(a for a, _ in ends), max(b for _, b in ends)
        if held[first : last + 1].max() + size <= machine.cache:
            held[first : last + 1] += size
            chosen.add(tensor)
    return frozenset(chosen)


def _by_traffic(
    machine: Machine, known: Flow, drafts: Sequence[Step], tilings: Mapping[int, tuple[Geometry, Block]]
) -> list[tuple[str, int]]:
    """Feature maps between operators with their bytes, those first that are moved most."""
    moved: dict[str, int] = {}
    for index in known.order:
        work, step = known.works[index], drafts[index]
        found = traffic(machine, tilings[index], step.reads, step.write)
        for tensor, count in zip((*work.inputs[:2], *work.outputs[:1]), (*found.reads, found.writes), strict=False):
            root = known.roots.get(tensor, tensor)
            moved[root] = moved.get(root, 0) + count
    inside = [t for t in moved if known.inside(t)]
    return sorted(((t, known.sizes[t]) for t in inside), key=lambda pair: -moved[pair[0]])
