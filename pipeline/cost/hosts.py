"""The processor beside the NPU: how fast it runs what the NPU does not take.

An operator takes an overhead, plus its multiply-accumulates at the rate of its class, plus the bytes that it moves;
that is the per-kernel table that mobile CPU predictors use (nn-Meter: within 10 % for 99 % of models, when measured).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import yamltree
from pipeline.configerrors import explain
from pipeline.cost.common import relative_energy
from pipeline.cost.nouns import FREE, WEIGHTED, Kind, LayerCost, Work
from pipeline.errors import ConfigError, TargetError, nearest
from pipeline.files import exists, write_atomically

RATES = (
    "conv_macs_per_second",
    "depthwise_macs_per_second",
    "fc_macs_per_second",
    "table_elements_per_second",
    "bytes_per_second",
    "overhead_s",
)
"""What every host profile says, if only that it is not known."""

FINER: Mapping[str, str | None] = MappingProxyType(
    {
        "image_macs_per_second": "conv_macs_per_second",
        "pointwise_macs_per_second": "conv_macs_per_second",
        "softmax_elements_per_second": "table_elements_per_second",
        "pool_steps_per_second": None,
        "elementwise_elements_per_second": None,
    }
)
"""Rates of classes that a profile may tell apart, and the rate that stands for each where it does not; with ``None``
the bytes alone count."""

IMAGE = 4
"""Channels up to which a convolution reads an image, which kernels made for many channels do slowly."""

SUFFIXES = (".yaml", ".yml")
"""How the file of a profile ends; a word that ends so is a path, not a name."""

OWN = Path("hosts")
"""Where a user keeps host profiles of their own, which come before the shipped ones of their name."""

HostConfidence = Literal["measured", "fitted", "derived", "unverified"]


class Rate(BaseModel):
    """One rate of a host; ``value`` is ``None`` when it is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float | None = Field(gt=0, allow_inf_nan=False)
    confidence: HostConfidence
    source: str = Field(min_length=1)


class HostProfile(BaseModel):
    """A processor that runs fallbacks.

    Attributes:
        name: as targets give it.
        title: what it is, for people.
        threads: that the rates are for.
        figures: those of ``RATES``, and of ``FINER`` where they were told apart; all threads' together, in int8.
        power_w: watts that it draws at work, with its source; ``None`` when not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    threads: int = Field(ge=1)
    figures: Mapping[str, Rate]
    power_w: Rate | None = None

    def get(self, name: str) -> float | None:
        """A rate, ``None`` when it is not known."""
        return self.figures[name].value if name in self.figures else None

    @property
    def watts(self) -> float | None:
        """What it draws at work, ``None`` when that is not known."""
        return None if self.power_w is None else self.power_w.value

    @property
    def measured(self) -> bool:
        """Whether every rate was measured on, or fitted to, this very processor."""
        return all(rate.confidence in ("measured", "fitted") for rate in self.figures.values())


def folder() -> Path:
    """Where this project's host profiles lie."""
    return Path(__file__).parents[2] / "configs" / "hosts"


def find(name: str, profiles: Path) -> Path:
    """The file of the host ``name`` in ``profiles``; raises ``TargetError`` with the nearest name."""
    path = profiles / f"{name}.yaml"
    if not exists(path):
        fix = nearest(name, sorted(p.stem for p in profiles.glob("*.yaml")))
        raise TargetError(f"there is no host {name}", where=profiles, fix=fix)
    return path


def resolve(name: str, profiles: Path) -> Path:
    """The file of the host ``name``: a file's path, else a name in ``profiles``, else one that this project ships.

    Raises ``TargetError`` when there is no such file, or no such host, with the nearest name.
    """
    path = Path(name)
    if path.suffix in SUFFIXES or len(path.parts) > 1:
        if not exists(path):
            raise TargetError("there is no such host profile", where=path, fix="pipeline calibrate-host writes one")
        return path
    own = profiles / f"{name}.yaml"
    return own if exists(own) else find(name, folder())


def named(name: str | None, profiles: Path = OWN) -> HostProfile | None:
    """The host ``name`` as ``resolve`` finds it, ``None`` where none is named; raises ``TargetError`` as ``load``."""
    return None if name is None else load(resolve(name, profiles))


def load(path: Path) -> HostProfile:
    """The host in the file ``path``; raises ``TargetError`` when it cannot be read or says something wrong."""
    try:
        profile = HostProfile.model_validate(yamltree.read(path, "configs/hosts/desktop-xeon.yaml").values)
    except ConfigError as error:
        raise TargetError(error.what, where=error.where, fix=error.fix) from error
    except ValidationError as error:
        first = explain(error, HostProfile)[0]
        raise TargetError(first.what, where=path, fix=first.fix) from error
    return check(profile, path)


def check(profile: HostProfile, where: object) -> HostProfile:
    """``profile``, if it has the figures in ``RATES`` and no other than ``FINER``; raises ``TargetError`` otherwise."""
    wrong = sorted((set(RATES) ^ set(profile.figures)) - set(FINER))
    if wrong:
        fact = "missing" if wrong[0] in RATES else "not a rate"
        raise TargetError(f"figures.{wrong[0]} is {fact}", where=where, fix=f"rates: {', '.join((*RATES, *FINER))}")
    return profile


def demand(work: Work) -> tuple[str, float] | None:
    """The rate that ``work`` is counted by, overhead and bytes apart, and how much of it it asks for."""
    walked = work.elements * work.passes
    if work.kind in WEIGHTED:
        return f"{_macs_class(work)}_macs_per_second", work.macs
    if work.kind is Kind.POOL:
        return "pool_steps_per_second", work.elements * work.taps
    if work.kind is Kind.ELEMENTWISE:
        return "elementwise_elements_per_second", walked
    if work.kind in (Kind.LUT, Kind.OTHER):
        return "softmax_elements_per_second" if work.passes > 1 else "table_elements_per_second", walked
    return None


def _macs_class(work: Work) -> str:
    if work.kind is Kind.CONV and work.in_channels <= IMAGE:
        return "image"
    return "pointwise" if work.kind is Kind.CONV and work.taps == 1 else work.kind


def cost(work: Work, host: HostProfile) -> LayerCost:
    """What ``work`` costs on ``host``."""
    if work.kind is Kind.VIEW:
        return FREE
    moved = {"dram": work.feature_bytes * work.passes + work.weight_bytes}
    needed = {"overhead_s": 1.0, "bytes_per_second": float(moved["dram"])}
    asked = demand(work)
    if asked is not None:
        rate, amount = asked
        known = rate if host.get(rate) is not None else FINER.get(rate, rate)
        needed |= {} if known is None else {known: float(amount)}
    missing = tuple(name for name in needed if host.get(name) is None)
    energy = relative_energy(work, moved)
    if missing:
        return LayerCost(None, None, moved, "unknown", energy, None, missing)
    seconds = {
        n: v * (host.get(n) or 0.0) if n == "overhead_s" else v / (host.get(n) or 1.0) for n, v in needed.items()
    }
    bound = max(seconds, key=lambda name: seconds[name])
    names = {"overhead_s": "overhead", "bytes_per_second": "dram"}
    ms = 1e3 * sum(seconds.values())
    joules = None if host.watts is None else ms * host.watts
    return LayerCost(ms, None, moved, names.get(bound, "compute"), energy, joules)


def text(profile: HostProfile) -> str:
    """``profile`` as the YAML file that ``load`` reads."""
    head: Mapping[str, str | int] = {"name": profile.name, "title": profile.title, "threads": profile.threads}
    lines = ["# What fallbacks cost on this processor: all threads together, int8.", *_yaml(head), "", "figures:"]
    lines += [f"  {name}: {_flow(rate)}" for name, rate in profile.figures.items()]
    return "\n".join([*lines, *([] if profile.power_w is None else [f"power_w: {_flow(profile.power_w)}"]), ""])


def _yaml(values: Mapping[str, str | int]) -> list[str]:
    return [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]


def _flow(rate: Rate) -> str:
    value = "null" if rate.value is None else f"{rate.value:.4e}" if abs(rate.value) < 1e3 else f"{rate.value:.0f}"
    return f"{{value: {value}, confidence: {rate.confidence}, source: {json.dumps(rate.source, ensure_ascii=False)}}}"


def writable(path: Path, *, replace: bool) -> None:
    """Raises ``TargetError`` when ``path`` cannot become a profile, or exists and is not to be replaced."""
    if path.suffix not in SUFFIXES:
        raise TargetError("is no name of a host profile", where=path, fix=f"end it in {' or '.join(SUFFIXES)}")
    if path.is_dir() or not path.parent.is_dir():
        fact = "is a folder" if path.is_dir() else f"cannot be written: there is no folder {path.parent}"
        raise TargetError(fact, where=path, fix="name a file in an existing folder")
    if path.exists() and not replace:
        raise TargetError("exists", where=path, fix="--force replaces it")


def save(profile: HostProfile, path: Path) -> None:
    """Write ``profile`` to ``path`` in one step; raises ``TargetError`` when that fails."""
    try:
        write_atomically(path, text(profile).encode())
    except OSError as error:
        raise TargetError(f"cannot be written: {error.strerror or error}", where=path) from error
