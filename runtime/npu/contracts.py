"""Integer contracts as data: the arithmetic of a target, chosen field by field.

A contract's name is that of a preset, with modifiers where a chip differs from it: ``tflite-r1``, ``tflite-r2+uint8``,
``pot-r9-half-up+acc16``. Only combinations that some documented runtime or chip has are legal; any other one is an
error that names the nearest. Two names joined by a slash, ``tflite-r1/tflite-r8``, are a chip that computes in both
types: each instruction by the contract of its output's type. Common to all: ``real = scale * (q - zero_point)``,
symmetric int8 weights, padding counts as zero (that is, as the zero point), the output's zero point is added after
rounding, then the output is clamped.
The arithmetic itself is in ``runtime.npu.requantize``.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from runtime.errors import ProgramError
from runtime.npu.requantize import RULES, Integers, Rule, quantize_factor

Activations = Literal["int8", "uint8", "int16"]

PRODUCTS = frozenset({"conv2d", "conv_transpose2d", "fully_connected", "matmul"})
"""Opcodes that sum products."""


@dataclass(frozen=True)
class Contract:
    """The integer arithmetic of a target.

    Attributes:
        name: what a program and a target profile call it.
        rule: key of ``runtime.npu.requantize.RULES``.
        multiplier_bits: width of a folded factor's multiplier.
        accumulator_bits: an accumulator that leaves it is an error; with 16 it saturates after every product instead,
            in the order input channel, kernel row, kernel column, bias first.
        activations: integer type of every activation.
        symmetric: whether activations must have zero point 0.
        add: ``shifted``: ADD and SUB rescale both inputs to a common step and then to the output, three
            requantizations (TFLite); ``float32``: one float32 sum of two products, as ONNX Runtime's QLinearAdd; its
            QLinearMul adds the zero point before it rounds, so MUL does.
        add_shift: bits by which ``shifted`` moves the inputs left first.
        average_pool: ``raw``: the raw integers are summed and divided, half away from zero (TFLite); ``reciprocal``:
            TOSA's reciprocal_scale of the centred sum; ``scaled``: the centred sum times a factor 1/n by the rule.
        mean: ``folded``: 1/n is folded into the integer multiplier (TFLite); ``scaled``: into the real factor.
        tables: how Sigmoid, Tanh and HardSwish become tables: ``tflite`` fixed point, or ``float64`` to the nearest,
            ties to even. All other functions are ``float64``, and have no form with int16 under ``tflite``.
        source: whose arithmetic it is.
        products: ``same``: all accumulators are requantized by ``rule``; ``r8``: sums of products by rule R8 from
            ``accumulator_bits``, everything else by ``rule`` from 32 bits (TFLite with int16 activations).
        wide: the contract of int16 activations where the chip has both types.
    """

    name: str
    rule: str
    multiplier_bits: int
    accumulator_bits: int
    activations: Activations
    symmetric: bool
    add: Literal["shifted", "float32"]
    add_shift: int
    average_pool: Literal["raw", "reciprocal", "scaled"]
    mean: Literal["folded", "scaled"]
    tables: Literal["tflite", "float64"]
    source: str
    products: Literal["same", "r8"] = "same"
    wide: "Contract | None" = None

    @property
    def types(self) -> tuple[str, ...]:
        """The activation types it computes with, the narrowest first."""
        return (self.activations,) if self.wide is None else (self.activations, self.wide.activations)

    def by_type(self, dtype: str) -> "Contract | None":
        """The contract of activations of type ``dtype``; ``None`` where it computes with no such."""
        if dtype == self.activations:
            return self
        return None if self.wide is None else self.wide.by_type(dtype)

    def of(self, opcode: str) -> "Contract":
        """The contract by which an instruction is requantized: see ``products``."""
        if self.products == "same":
            return self
        if opcode in PRODUCTS:
            return replace(self, rule="r2", multiplier_bits=15, products="same")
        return replace(self, accumulator_bits=32, products="same")

    @property
    def arithmetic(self) -> Rule:
        """The requantization rule's functions."""
        return RULES[self.rule]

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest activation."""
        info = np.iinfo(self.activations)
        return int(info.min), int(info.max)

    def quantize_multiplier(self, real: float) -> tuple[int, int]:
        """Multiplier and shift of a real factor; raises ``ProgramError`` as ``requantize.quantize_factor``."""
        value = float(np.float32(real)) if self.arithmetic.float32_products else real
        return quantize_factor(value, self.multiplier_bits)

    def multiply(self, acc: ArrayLike, multiplier: ArrayLike, shift: ArrayLike) -> Integers:
        """Scaled integer of an accumulator, without zero point and clamp; monotone in the accumulator."""
        return self.arithmetic.multiply(acc, multiplier, shift, self.multiplier_bits)

    def divide(self, value: ArrayLike, exponent: ArrayLike) -> Integers:
        """``value / 2**exponent`` with the rule's rounding."""
        return self.arithmetic.divide(value, exponent)

    def ratio(self, numerators: tuple[float, ...], denominator: float) -> float:
        """The real factor: product of one or two scales over a scale, in the rule's precision, from the left.

        Source: float64 products in TFLite (``kernel_util.cc``), float32 ones in ONNX Runtime's QLinearConv.
        """
        if not self.arithmetic.float32_products:
            return float(np.prod(np.array(numerators, np.float64)) / np.float64(denominator))
        product = np.float32(1)
        for scale in numerators:
            product = np.float32(product * np.float32(scale))
        return float(product / np.float32(denominator))


def _tflite(name: str, rule: str, bits: int, source: str) -> Contract:
    return Contract(name, rule, bits, 32, "int8", False, "shifted", 20, "raw", "folded", "tflite", source)


def _power(name: str, source: str) -> Contract:
    rule = name.removeprefix("pot-")
    return Contract(name, rule, 1, 32, "int8", True, "shifted", 20, "scaled", "scaled", "float64", source)


_TFLM = "TensorFlow Lite reference kernels, tensorflow/tflite-micro at 90b983c"
_TOSA = "TOSA specification, arm/tosa-specification at cd5acdd"
_PRESETS = (
    _tflite("tflite-r1", "r1", 31, f"{_TFLM}: the default build; CMSIS-NN; Ethos-U's rounding mode TFL"),
    _tflite("tflite-r2", "r2", 31, f"{_TFLM}, built with TFLITE_SINGLE_ROUNDING; CMSIS-NN likewise"),
    _tflite("litert-r6", "r6", 53, "LiteRT's reference FULLY_CONNECTED since commit 7743831"),
    replace(
        _tflite("tflite-r8", "r1", 31, f"{_TFLM}: int16 activations, int8 weights, 64-bit accumulators of 48 bits"),
        accumulator_bits=48,
        activations="int16",
        symmetric=True,
        add_shift=15,
        products="r8",
    ),
    replace(_tflite("tosa-r2", "r2", 31, f"{_TOSA}: SINGLE_ROUND"), average_pool="reciprocal", tables="float64"),
    replace(_tflite("tosa-r3", "r3", 31, f"{_TOSA}: DOUBLE_ROUND"), average_pool="reciprocal", tables="float64"),
    Contract(
        "ort-r4",
        "r4",
        24,
        32,
        "int8",
        False,
        "float32",
        0,
        "scaled",
        "scaled",
        "float64",
        "ONNX Runtime's CPU kernels QLinearConv, QGemm, QLinearAdd, QLinearMul (mlas/lib/quantize.cpp, qladd.cpp)",
    ),
    _power("pot-r9-half-up", "ESP-DL at 12c0616: ESP32 and ESP32-S3, ROUND_HALF_UP"),
    _power("pot-r9-half-even", "ESP-DL at 12c0616: ESP32-P4, ROUND_HALF_EVEN"),
)

CONTRACTS: Mapping[str, Contract] = MappingProxyType({preset.name: preset for preset in _PRESETS})
"""The presets by name."""

_MODIFIERS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "int8": {"activations": "int8"},
        "uint8": {"activations": "uint8"},
        "int16": {"activations": "int16", "add_shift": 15},
        "acc16": {"accumulator_bits": 16},
        "acc32": {"accumulator_bits": 32},
        "acc40": {"accumulator_bits": 40},
        "acc48": {"accumulator_bits": 48},
        "mul15": {"multiplier_bits": 15},
        "mul31": {"multiplier_bits": 31},
        "symmetric": {"symmetric": True},
        "asymmetric": {"symmetric": False},
    }
)

_LEGAL: Mapping[tuple[str, int], tuple[frozenset[int], frozenset[str]]] = MappingProxyType(
    {
        ("r1", 31): (frozenset({16, 32}), frozenset({"int8", "uint8"})),
        ("r2", 31): (frozenset({16, 32}), frozenset({"int8", "uint8"})),
        ("r2", 15): (frozenset({32, 40, 48}), frozenset({"int8", "int16"})),
        ("r3", 31): (frozenset({16, 32}), frozenset({"int8", "uint8"})),
        ("r4", 24): (frozenset({32}), frozenset({"int8", "uint8"})),
        ("r6", 53): (frozenset({16, 32}), frozenset({"int8"})),
        ("r9-half-up", 1): (frozenset({16, 32, 40, 48}), frozenset({"int8", "int16"})),
        ("r9-half-even", 1): (frozenset({16, 32, 40, 48}), frozenset({"int8", "int16"})),
    }
)
"""Rule and multiplier width to the accumulators and activations they go with: the product of accumulator and multiplier
must fit 64 bits, and a rule that is defined for int32 takes no wider one."""


def find_contract(name: str) -> Contract:
    """The contract called ``name``: a preset, or a preset with modifiers.

    Raises:
        ProgramError: no such preset or modifier, or a combination that nothing is known to have, the message names the
            nearest one; two that are not of 8 bits and of int16.
    """
    if "/" in name:
        return _both(name)
    base, *modifiers = name.split("+")
    contract = CONTRACTS.get(base)
    if contract is None:
        raise ProgramError(f"{base!r} is not an integer contract", fix=_nearest(base, CONTRACTS))
    changes: dict[str, object] = {"name": name}
    for modifier in modifiers:
        if modifier not in _MODIFIERS:
            raise ProgramError(f"{modifier!r} does not modify a contract", fix=_nearest(modifier, _MODIFIERS))
        changes |= _MODIFIERS[modifier]
    found = replace(contract, **changes)  # type: ignore[arg-type]
    if not _legal(found):
        raise ProgramError(
            f"{name}: no known chip computes with {_facts(found)}", fix=f"the nearest is {_closest(found)}"
        )
    return found


def _both(name: str) -> Contract:
    narrow, wide = (find_contract(part) for part in name.split("/", 1))
    if narrow.activations == "int16" or wide.activations != "int16":
        raise ProgramError(
            f"{name}: {narrow.name} computes with {narrow.activations}, {wide.name} with {wide.activations}",
            fix="a contract of two types names one of 8 bits first and one of int16 behind the slash",
        )
    return replace(narrow, name=name, wide=wide)


def _legal(contract: Contract) -> bool:
    if contract.products == "r8":
        return contract.activations == "int16" and contract.symmetric and contract.accumulator_bits in (40, 48)
    key = (contract.rule, contract.multiplier_bits)
    if key not in _LEGAL:
        return False
    accumulators, activations = _LEGAL[key]
    wide = contract.activations == "int16" and (contract.accumulator_bits == 16 or not contract.symmetric)
    return contract.accumulator_bits in accumulators and contract.activations in activations and not wide


def _facts(contract: Contract) -> str:
    return (
        f"rule {contract.rule}, {contract.multiplier_bits}-bit multipliers, {contract.accumulator_bits}-bit "
        f"accumulators and {'symmetric' if contract.symmetric else 'asymmetric'} {contract.activations}"
    )


def _closest(contract: Contract) -> str:
    """The legal combination that differs in the fewest fields, named."""

    def distance(name: str) -> int:
        other = find_contract(name)
        return sum(getattr(contract, f.name) != getattr(other, f.name) for f in fields(Contract) if f.name != "source")

    names = [base + modifier for base in CONTRACTS for modifier in ("", *(f"+{m}" for m in _MODIFIERS))]
    return min((n for n in names if _known(n)), key=distance)


def _known(name: str) -> bool:
    base, *modifiers = name.split("+")
    changed: dict[str, object] = {}
    for modifier in modifiers:
        changed |= _MODIFIERS[modifier]
    return _legal(replace(CONTRACTS[base], **changed))  # type: ignore[arg-type]


def _nearest(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, list(known), 1, 0.5)
    every = f"known: {', '.join(sorted(known))}"
    return f"did you mean {close[0]!r}? {every}" if close else every
