"""What a target's profile holds: frozen models of the YAML, with a source and a confidence for every figure."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr, model_validator

Confidence = Literal["sourced", "weak", "derived", "unverified", "chosen", "unknown"]
"""Where a fact comes from: a primary source; a blog, forum or excerpt; arithmetic on sourced figures; plausible, but no
source seen; chosen for a made-up target; not public."""

When = Literal["dense", "depthwise", "grouped", "constant", "computed"]
"""The form of an operator that a rule is about, where it is not about all."""

FIGURES = ("macs_per_cycle", "clock_hz", "memory_bytes_per_second", "link_bytes_per_second")
"""What the timeline needs of every target."""

Limit = StrictInt | StrictFloat | StrictStr | tuple[StrictInt | StrictFloat | StrictStr, ...]
Limits = Mapping[str, Limit]
"""The numbers and names that a rule is given, by their place in its sentence."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_Model):
    """A number with where it comes from; ``value`` is ``None`` when none is public, and ``source`` then says why."""

    value: float | None = Field(gt=0, allow_inf_nan=False)
    unit: str
    confidence: Confidence
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _unknown_has_no_value(self) -> "Figure":
        if (self.value is None) != (self.confidence == "unknown"):
            raise ValueError("should have value null exactly when its confidence is unknown")
        return self


class RuleUse(_Model):
    """A rule as a target applies it: its name, the limits it is given, and the form of the operator it is about."""

    rule: str
    limits: Limits = Field(default_factory=dict)
    when: When | None = None


class Operator(_Model):
    """An operator that the NPU has, with the rules it must keep.

    Attributes:
        rules: what it must keep beside the rules of the target.
        source: where that is said, and what is said that no rule can ask.
        confidence: how far to believe it.
        precision: what the NPU computes it in.
    """

    rules: tuple[RuleUse, ...] = ()
    source: str
    confidence: Confidence = "sourced"
    precision: Literal["int8", "fp16"] = "int8"


class QuantizationScheme(_Model):
    """How the target wants tensors quantized.

    Attributes:
        activations: the type that models are quantized to for it.
        symmetric: whether activations must have zero point 0.
        shared_scales: operators whose inputs must share one scale.
        weights: granularity for each operator with weights.
        bias: type of the bias.
        confidence: how far to believe it.
        source: where it is said, and what else the target takes.
    """

    activations: Literal["int8", "int16"]
    symmetric: bool = False
    shared_scales: tuple[str, ...] = ()
    weights: Mapping[str, Literal["per_channel", "per_tensor"]]
    bias: Literal["int32"]
    confidence: Confidence
    source: str


class PartitionPolicy(_Model):
    """How the target's toolchain cuts a graph; ``max_npu_partitions`` is ``None`` when any number is taken."""

    max_npu_partitions: int | None = Field(ge=1)
    confidence: Confidence = "sourced"
    source: str


class Target(_Model):
    """An NPU with its host.

    Attributes:
        name: as given in a configuration.
        title: what it is, for people.
        confidence: how good the profile is as a whole.
        hypothetical: whether no such chip exists.
        cost_model: the kind of cost model that its figures fit.
        host: name of the profile of its host's processor; ``None`` when it is not known.
        contract: name of the integer contract in ``runtime.npu.contracts`` that the simulation uses.
        contract_confidence: how far that contract is known to be the chip's.
        contract_note: what is known about the chip's own arithmetic.
        figures: numbers by name; those in ``FIGURES`` are required. ``macs_per_cycle`` is what one inference gets.
        quantization: the scheme it takes.
        rules: what it demands of every operator.
        operators: what it has, by ONNX operator type; anything else is a fallback.
        absent: operators that it documents not to have, or not on the NPU, with the reason.
        operators_unknown: why its full list of operators is not known; ``None`` when it is known.
        takes_everything: why every operator runs on it, as on a GPU; ``None`` on an NPU.
        partition: how it cuts a graph.
        notes: what else a reader must know, repeated by reports.
    """

    name: str
    title: str
    confidence: Literal["high", "medium", "low"]
    hypothetical: bool = False
    cost_model: Literal["systolic", "ethos-u", "nvdla", "throughput", "unknown"]
    host: str | None
    contract: str
    contract_confidence: Confidence
    contract_note: str
    figures: Mapping[str, Figure]
    quantization: QuantizationScheme
    rules: tuple[RuleUse, ...] = ()
    operators: Mapping[str, Operator]
    absent: Mapping[str, str] = Field(default_factory=dict)
    operators_unknown: str | None = Field(default=None, min_length=1)
    takes_everything: str | None = Field(default=None, min_length=1)
    partition: PartitionPolicy
    notes: tuple[str, ...] = ()

    def device_figures(self) -> Mapping[str, float]:
        """The numbers that a program carries for its timeline; 0 stands for one that is not public."""
        return {name: float(self.figures[name].value or 0.0) for name in FIGURES}

    def per_channel(self) -> Mapping[str, bool]:
        """For each operator with weights, whether there is one weight scale per output channel."""
        return {op: kind == "per_channel" for op, kind in self.quantization.weights.items()}

    def arithmetic(self) -> Mapping[str, object]:
        """What decides the integers that a model comes to on it: how tensors are quantized, and the contract.

        Targets that agree in this give one model the same int8 results; where it is told does not count.
        """
        return {
            "quantization": self.quantization.model_dump(exclude={"confidence", "source"}),
            "contract": self.contract,
        }

    def unknown(self) -> tuple[str, ...]:
        """What is not public about the target, each as a sentence."""
        figures = [f"{name}: {f.source}" for name, f in self.figures.items() if f.value is None]
        return (*figures, *([f"operators: {self.operators_unknown}"] if self.operators_unknown else []))
