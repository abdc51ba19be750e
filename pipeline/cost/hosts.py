"""The processor beside the NPU: how fast it runs what the NPU does not take.

An operator takes an overhead, plus its multiply-accumulates at the rate of its class, plus the bytes that it moves;
that is the per-kernel table that mobile CPU predictors use (nn-Meter: within 10 % for 99 % of models, when measured).
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import yamltree
from pipeline.configerrors import explain
from pipeline.cost.common import relative_energy
from pipeline.cost.nouns import FREE, Kind, LayerCost, Work
from pipeline.errors import ConfigError, TargetError

RATES = (
    "conv_macs_per_second",
    "depthwise_macs_per_second",
    "fc_macs_per_second",
    "table_elements_per_second",
    "bytes_per_second",
    "overhead_s",
)
"""What every host profile says, if only that it is not known."""

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
        figures: those of ``RATES``; rates are all threads' together, in int8.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    threads: int = Field(ge=1)
    figures: Mapping[str, Rate]

    def get(self, name: str) -> float | None:
        """A rate, ``None`` when it is not known."""
        return self.figures[name].value

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
    if not path.is_file():
        known = sorted(p.stem for p in profiles.glob("*.yaml"))
        near = difflib.get_close_matches(name, known, 1)
        fix = f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}"
        raise TargetError(f"there is no host {name}", where=profiles, fix=fix)
    return path


def load(path: Path) -> HostProfile:
    """The host in the file ``path``; raises ``TargetError`` when it cannot be read or says something wrong."""
    try:
        profile = HostProfile.model_validate(yamltree.read(path).values)
    except ConfigError as error:
        raise TargetError(error.what, where=error.where, fix=error.fix) from error
    except ValidationError as error:
        first = explain(error, HostProfile)[0]
        raise TargetError(first.what, where=path, fix=first.fix) from error
    return check(profile, path)


def check(profile: HostProfile, where: object) -> HostProfile:
    """``profile``, if it has just the figures in ``RATES``; raises ``TargetError`` otherwise."""
    wrong = sorted(set(RATES) ^ set(profile.figures))
    if wrong:
        fact = "missing" if wrong[0] in RATES else "not a rate"
        raise TargetError(f"figures.{wrong[0]} is {fact}", where=where, fix=f"rates: {', '.join(RATES)}")
    return profile


def cost(work: Work, host: HostProfile) -> LayerCost:
    """What ``work`` costs on ``host``."""
    if work.kind is Kind.VIEW:
        return FREE
    moved = {"dram": work.feature_bytes * work.passes + work.weight_bytes}
    needed = {"overhead_s": 1.0, "bytes_per_second": float(moved["dram"])}
    if work.kind in (Kind.CONV, Kind.DEPTHWISE, Kind.FC):
        needed[f"{work.kind}_macs_per_second"] = float(work.macs)
    elif work.kind in (Kind.LUT, Kind.OTHER):
        needed["table_elements_per_second"] = float(work.elements * work.passes)
    missing = tuple(name for name in needed if host.get(name) is None)
    energy = relative_energy(work, moved)
    if missing:
        return LayerCost(None, None, moved, "unknown", energy, None, missing)
    seconds = {
        n: v * (host.get(n) or 0.0) if n == "overhead_s" else v / (host.get(n) or 1.0) for n, v in needed.items()
    }
    bound = max(seconds, key=lambda name: seconds[name])
    names = {"overhead_s": "overhead", "bytes_per_second": "dram"}
    return LayerCost(1e3 * sum(seconds.values()), None, moved, names.get(bound, "compute"), energy, None)
