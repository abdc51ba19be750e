"""The memories of a target, as its profile has them; where it has no figure, a default that is marked as assumed."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.targets.profile import Target
from runtime.npu.schedule import Memory

ON_CHIP = (
    "activation_memory_bytes",
    "unified_buffer_bytes",
    "sram_bytes",
    "vtcm_bytes",
    "convolution_buffer_bytes",
    "l1_bytes",
)
"""Figures that say how large the memory is in which activations are worked on; the first that is public counts."""

DEFAULT_SRAM = 1 << 20
"""Taken where none of them is public: 1 MiB, the default pool of TensorRT on a DLA (profile jetson-xavier-nx-dla)."""
OUTSIDE = 1 << 30
"""Room outside of the chip, always assumed: no profile says how much of the host's memory a program may take."""
LANES = ("ofm_block_depth", "array_columns")
"""Figures that say how many output channels are computed side by side."""
DEFAULT_LANES = 16
"""Taken where neither is public: NVDLA's atom and the brick of Ethos-U."""


@dataclass(frozen=True)
class Layout:
    """A target's memories, the outside last, and the output channels by which its weights are interleaved."""

    memories: tuple[Memory, ...]
    lanes: int

    @property
    def cache(self) -> int | None:
        """Index of the memory for parameters that stay on the chip, ``None`` without."""
        return 1 if len(self.memories) == 3 else None


def layout(target: Target) -> Layout:
    """The memories and lanes of ``target``."""
    figures = {name: int(figure.value) for name, figure in target.figures.items() if figure.value is not None}
    ecc = bool(figures.get("memory_ecc", 0))
    size = _first(figures, ON_CHIP)
    found = [Memory("sram", DEFAULT_SRAM if size is None else size, size is None, ecc)]
    if "parameter_cache_bytes" in figures:
        found.append(Memory("cache", figures["parameter_cache_bytes"], ecc=ecc))
    found.append(Memory("dram", OUTSIDE, assumed=True, ecc=ecc))
    return Layout(tuple(found), _first(figures, LANES) or DEFAULT_LANES)


def _first(figures: Mapping[str, int], names: tuple[str, ...]) -> int | None:
    return next((figures[name] for name in names if name in figures), None)
