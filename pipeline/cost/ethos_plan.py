"""Where feature maps lie while an Ethos-U runs a sequence of operators.

Without a cache size (Shared_Sram) they all live on chip. With one (Dedicated_Sram) they live in DRAM and are staged
on chip while they fit. Where an operator and its neighbour do not fit, the compiler runs them as a cascade, a few
rows at a time: what lies inside a cascade stays on chip, its end goes to DRAM. Inputs and outputs of the sequence lie
row by row; everything between in bricks of 16 channels. A simplification of Vela's scheduler (no search over
stripes).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.cost.ethos_cycles import Place, up
from pipeline.cost.ethos_machine import Machine
from pipeline.cost.nouns import Kind, Work


@dataclass(frozen=True)
class Step:
    """Where one operator reads and writes, and how many rows of output at a time when it runs in a cascade."""

    reads: tuple[Place, ...]
    write: Place
    rows: int | None = None


def plan(machine: Machine, works: Sequence[Work]) -> tuple[Step, ...]:
    """Where each of ``works``, run in this order, reads and writes."""
    roots = _roots(works)
    writer = {roots[t]: i for i, w in enumerate(works) if w.kind is not Kind.VIEW for t in w.outputs}
    readers: dict[str, list[int]] = {}
    for i, work in enumerate(works):
        if work.kind is not Kind.VIEW:
            for tensor in work.inputs:
                readers.setdefault(roots.get(tensor, tensor), []).append(i)
    sizes = {t: _size(works[i]) for t, i in writer.items() if t in readers}
    cascades, outside = _cascades(
        machine, works, roots, sizes, _held(len(works), sizes, writer, readers), writer, readers
    )
    rows = _rows_at_a_time(machine, works, cascades)

    def place(tensor: str) -> Place:
        root = roots.get(tensor, tensor)
        inside = root in sizes
        memory = machine.sram if machine.cache is None or (inside and root not in outside) else machine.external
        return Place(memory, not inside)

    steps = []
    for index, work in enumerate(works):
        reads = tuple(place(t) for t in work.inputs[:2]) or (place(""),)
        write = place(work.outputs[0]) if work.outputs else place("")
        steps.append(Step(reads, write, rows.get(index)))
    return tuple(steps)


def alone(machine: Machine, work: Work) -> Step:
    """Where ``work`` reads and writes in the middle of others that leave it the whole cache."""
    fits = machine.cache is None or sum(work.in_bytes) + _size(work) <= machine.cache
    inside, outside = Place(machine.sram, False), Place(machine.external, False)
    keep_input = fits or (machine.cache is not None and sum(work.in_bytes) < _size(work))
    reads = (inside if keep_input else outside,) * max(1, min(2, len(work.in_bytes)))
    return Step(reads, inside if fits or not keep_input else outside)


def _roots(works: Sequence[Work]) -> dict[str, str]:
    """For each tensor the one whose bytes it names: renaming operators make no new one."""
    roots: dict[str, str] = {}
    for work in works:
        for tensor in work.outputs:
            same = work.kind is Kind.VIEW and bool(work.inputs)
            roots[tensor] = roots.get(work.inputs[0], work.inputs[0]) if same else tensor
    return roots


def _size(work: Work) -> int:
    return work.height * work.width * up(work.channels, 16) * work.element_bytes


def _held(count: int, sizes: dict[str, int], writer: dict[str, int], readers: dict[str, list[int]]) -> list[int]:
    """Bytes of feature maps alive while each operator runs."""
    change = [0] * (count + 1)
    for tensor, size in sizes.items():
        change[writer[tensor]] += size
        change[max(readers[tensor]) + 1] -= size
    held, total = [], 0
    for delta in change[:count]:
        total += delta
        held.append(total)
    return held


def _cascades(
    machine: Machine, works: Sequence[Work], roots: dict[str, str], sizes: dict[str, int], held: list[int],
    writer: dict[str, int], readers: dict[str, list[int]],
) -> tuple[list[list[int]], set[str]]:  # fmt: skip
    """The operators that run as cascades, and the tensors that lie in DRAM: ends of cascades, and what is too large."""
    limit, chains, outside = machine.cache, dict[int, list[int]](), set[str]()
    for index, work in enumerate(works):
        tensor = roots[work.outputs[0]] if work.outputs else ""
        if limit is None or work.kind is Kind.VIEW or held[index] <= limit or tensor not in sizes:
            continue
        after = readers[tensor][0]
        chain = chains.pop(index, None) or _start(index, work, roots, sizes, writer, readers)
        if len(readers[tensor]) == 1 and held[after] > limit and _rows(works[after], work) <= limit:
            chains[after] = [*chain, after]
        else:
            outside.add(tensor)
            chains[-1 - index] = chain
    return [chain for chain in chains.values() if len(chain) > 1], outside


def _start(
    index: int, work: Work, roots: dict[str, str], sizes: dict[str, int], writer: dict[str, int],
    readers: dict[str, list[int]],
) -> list[int]:  # fmt: skip
    """The beginning of a cascade at operator ``index``: with who writes its input, if for it alone."""
    given = roots.get(work.inputs[0], work.inputs[0]) if work.inputs else ""
    alone_for_it = given in sizes and readers[given] == [index]
    return [writer[given], index] if alone_for_it else [index]


def _rows_at_a_time(machine: Machine, works: Sequence[Work], cascades: list[list[int]]) -> dict[int, int]:
    """Rows of output that each operator of a cascade makes at a time: as many as the cache has room for."""
    rows: dict[int, int] = {}
    for chain in cascades:
        best = _stripes([works[i] for i in chain], machine.block[0])
        for final in range(2 * machine.block[0], works[chain[-1]].height + 1, machine.block[0]):
            tried = _stripes([works[i] for i in chain], final)
            if _buffers([works[i] for i in chain], tried) > (machine.cache or 0):
                break
            best = tried
        rows.update(zip(chain, best, strict=True))
    return rows


def _stripes(chain: Sequence[Work], final: int) -> list[int]:
    """Rows of output of each operator when the last one makes ``final``."""
    rows, need = [], final
    for work in reversed(chain):
        rows.append(min(work.height, need))
        need = (rows[-1] - 1) * work.stride[0] + (work.kernel[0] - 1) * work.dilation[0] + 1
    return rows[::-1]


def _buffers(chain: Sequence[Work], rows: Sequence[int]) -> int:
    """Bytes that a cascade keeps between its operators: what one reads, and what the one before makes meanwhile."""
    held = 0
    for before, work, made, out in zip(chain, chain[1:], rows, rows[1:], strict=False):
        need = (out - 1) * work.stride[0] + (work.kernel[0] - 1) * work.dilation[0] + 1
        held += min(before.height, up(need + made, need)) * before.width * up(before.channels, 16)
    return held


def _rows(reader: Work, writer: Work) -> int:
    """Bytes of the rows that a cascade keeps between two operators: the window, and as much again."""
    rows = min(writer.height, reader.kernel[0] + reader.stride[0])
    return rows * writer.width * up(writer.channels, 16) * 2
