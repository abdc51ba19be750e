"""What a target's profile holds: frozen models of the YAML, with a source and a confidence for every figure."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Confidence = Literal["sourced", "weak", "derived", "unverified", "chosen"]
FIGURES = ("macs_per_cycle", "clock_hz", "memory_bytes_per_second", "link_bytes_per_second")
"""What the timeline needs of every target."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_Model):
    """A number with where it comes from; ``value`` is ``None`` when no usable figure is public."""

    value: float | None = Field(gt=0, allow_inf_nan=False)
    unit: str
    confidence: Confidence
    source: str


class RuleUse(_Model):
    """A rule as a target applies it: its name and the limits it is given."""

    rule: str
    limits: Mapping[str, int | float | tuple[int, ...]] = Field(default_factory=dict)


class Operator(_Model):
    """An operator that the NPU has, with the rules it must keep."""

    rules: tuple[RuleUse, ...] = ()
    source: str
    confidence: Confidence = "sourced"


class QuantizationScheme(_Model):
    """How the target wants tensors quantized."""

    activations: Literal["int8"]
    weights: Mapping[str, Literal["per_channel", "per_tensor"]]
    bias: Literal["int32"]


class PartitionPolicy(_Model):
    """How the target's toolchain cuts a graph; ``max_npu_partitions`` is ``None`` when any number is taken."""

    max_npu_partitions: int | None = Field(ge=1)
    source: str


class Target(_Model):
    """An NPU with its host.

    Attributes:
        name: as given in a configuration.
        title: what it is, for people.
        contract: name of its integer contract in ``runtime.npu.contracts``.
        figures: numbers by name; those in ``FIGURES`` are required.
        quantization: the scheme it takes.
        rules: what it demands of every operator.
        operators: what it has, by ONNX operator type; anything else is a fallback.
        partition: how it cuts a graph.
    """

    name: str
    title: str
    contract: str
    figures: Mapping[str, Figure]
    quantization: QuantizationScheme
    rules: tuple[RuleUse, ...] = ()
    operators: Mapping[str, Operator]
    partition: PartitionPolicy

    def device_figures(self) -> Mapping[str, float]:
        """The numbers that a program carries for its timeline; 0 stands for one that is not public."""
        return {name: float(self.figures[name].value or 0.0) for name in FIGURES}

    def per_channel(self) -> Mapping[str, bool]:
        """For each operator with weights, whether there is one weight scale per output channel."""
        return {op: kind == "per_channel" for op, kind in self.quantization.weights.items()}
