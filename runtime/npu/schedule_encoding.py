"""The schedule's part of a program's header, in both directions.

Buffers are rows ``[name, holds, memory, address, bytes, first, last]`` and commands rows of integers ``[kind, step,
instruction, tile, operand, source, target, parameters, operands...]``, kind being 0 for load, 1 for compute and 2 for
store.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args

from runtime.errors import ProgramError
from runtime.npu.schedule import Buffer, Command, Estimates, Holds, Kind, LayerEstimate, Memory, Schedule

KINDS: tuple[Kind, ...] = get_args(Kind)
HOLDS: tuple[Holds, ...] = get_args(Holds)


def describe(schedule: Schedule) -> dict[str, Any]:
    """The schedule as JSON."""
    return {
        "memories": [[m.name, m.bytes, m.assumed, m.ecc] for m in schedule.memories],
        "lanes": schedule.lanes,
        "cuts": [[list(axis) for axis in cuts] for cuts in schedule.cuts],
        "buffers": [[b.name, b.holds, b.memory, b.address, b.bytes, b.first, b.last] for b in schedule.buffers],
        "commands": [
            [
                KINDS.index(c.kind),
                c.step,
                c.instruction,
                c.tile,
                c.operand,
                c.source,
                c.target,
                c.parameters,
                *c.operands,
            ]
            for c in schedule.commands
        ],
        "checksums": list(schedule.checksums),
        "estimates": None if schedule.estimates is None else _describe_estimates(schedule.estimates),
    }


def _describe_estimates(estimates: Estimates) -> dict[str, Any]:
    return {
        "provenance": estimates.provenance,
        "layers": [
            {
                "name": layer.name,
                "macs": layer.macs,
                "cycles": _real(layer.cycles),
                "ms": _real(layer.ms),
                "compute_ms": float(layer.compute_ms),
                "memory_ms": float(layer.memory_ms),
                "bytes": dict(layer.bytes),
                "bound": layer.bound,
                "energy_mj": _real(layer.energy_mj),
                "missing": list(layer.missing),
            }
            for layer in estimates.layers
        ],
        "crossing_ms": {name: _real(ms) for name, ms in estimates.crossing_ms.items()},
        "launch_ms": _real(estimates.launch_ms),
        "energy_mj": _real(estimates.energy_mj),
    }


def read(value: object) -> Schedule:
    """The schedule that JSON stands for.

    Raises:
        ProgramError: it has another form; the message names the place.
    """
    entry = _object(value, _names(Schedule), "schedule")
    return Schedule(
        memories=tuple(_memory(row, f"memory {i}") for i, row in enumerate(_list(entry["memories"], "memories"))),
        lanes=_integer(entry["lanes"], "lanes"),
        cuts=tuple(
            tuple(_integers(axis, f"cuts {i}") for axis in _list(cuts, f"cuts {i}"))
            for i, cuts in enumerate(_list(entry["cuts"], "cuts"))
        ),
        buffers=tuple(_read_buffer(row, f"buffer {i}") for i, row in enumerate(_list(entry["buffers"], "buffers"))),
        commands=tuple(_command(row, f"command {i}") for i, row in enumerate(_list(entry["commands"], "commands"))),
        checksums=_integers(entry["checksums"], "checksums"),
        estimates=None if entry["estimates"] is None else _estimates(entry["estimates"]),
    )


def _memory(value: object, where: str) -> Memory:
    row = _list(value, where)
    _require(len(row) == 4, "has another length than 4", where)
    name, size, assumed, ecc = row
    _require(isinstance(assumed, bool) and isinstance(ecc, bool), "does not end with two truths", where)
    return Memory(_text(name, where), _integer(size, where), bool(assumed), bool(ecc))


def _read_buffer(value: object, where: str) -> Buffer:
    row = _list(value, where)
    _require(len(row) == 7, "has another length than 7", where)
    _require(row[1] in HOLDS, f"holds {row[1]!r}, not one of {', '.join(HOLDS)}", where)
    memory, address, size, first, last = _integers(row[2:], where)
    return Buffer(_text(row[0], where), row[1], memory, address, size, first, last)


def _command(value: object, where: str) -> Command:
    row = _integers(value, where)
    _require(len(row) >= 8 and 0 <= row[0] < len(KINDS), "is not a command", where)
    _, step, instruction, tile, operand, source, target, parameters, *operands = row
    return Command(KINDS[row[0]], step, instruction, tile, operand, source, target, tuple(operands), parameters)


def _estimates(value: object) -> Estimates:
    entry = _object(value, _names(Estimates), "estimates")
    crossings = entry["crossing_ms"]
    _require(isinstance(crossings, dict), "is not an object", "crossing_ms")
    return Estimates(
        provenance=_text(entry["provenance"], "provenance"),
        layers=tuple(_layer(each, f"layer {i}") for i, each in enumerate(_list(entry["layers"], "layers"))),
        crossing_ms={name: _optional(ms, f"crossing_ms.{name}") for name, ms in crossings.items()},
        launch_ms=_optional(entry["launch_ms"], "launch_ms"),
        energy_mj=_optional(entry["energy_mj"], "energy_mj"),
    )


def _layer(value: object, where: str) -> LayerEstimate:
    entry = _object(value, _names(LayerEstimate), where)
    moved = entry["bytes"]
    _require(isinstance(moved, dict), "bytes is not an object", where)
    return LayerEstimate(
        name=_text(entry["name"], where),
        macs=_integer(entry["macs"], where),
        cycles=_optional(entry["cycles"], where),
        ms=_optional(entry["ms"], where),
        compute_ms=_number(entry["compute_ms"], where),
        memory_ms=_number(entry["memory_ms"], where),
        bytes={memory: _integer(count, where) for memory, count in moved.items()},
        bound=_text(entry["bound"], where),
        energy_mj=_optional(entry["energy_mj"], where),
        missing=tuple(_text(each, where) for each in _list(entry["missing"], where)),
    )


def _real(value: float | None) -> float | None:
    return None if value is None else float(value)


def _names(kind: type[Any]) -> set[str]:
    return {field.name for field in fields(kind)}


def _require(condition: bool, what: str, where: str) -> None:
    if not condition:
        raise ProgramError(what, where=f"schedule: {where}")


def _object(value: object, keys: set[str], where: str) -> Mapping[str, Any]:
    """A JSON object with exactly these keys."""
    if not isinstance(value, dict):
        raise ProgramError("is not an object", where=f"schedule: {where}")
    odd = sorted(value.keys() ^ keys)
    _require(not odd, f"{'misses' if odd and odd[0] in keys else 'has the unknown'} key {odd[:1]}", where)
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ProgramError("is not a list", where=f"schedule: {where}")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ProgramError(f"{_short(value)} is not a string", where=f"schedule: {where}")
    return value


def _integer(value: object, where: str) -> int:
    if type(value) is not int or abs(value) >= 1 << 53:
        raise ProgramError(f"{_short(value)} is not a whole number", where=f"schedule: {where}")
    return value


def _integers(value: object, where: str) -> tuple[int, ...]:
    return tuple(_integer(each, where) for each in _list(value, where))


def _number(value: object, where: str) -> float:
    if type(value) is not float or not 0 <= value < float("inf"):
        raise ProgramError(f"{_short(value)} is not a number of 0 or more", where=f"schedule: {where}")
    return value


def _optional(value: object, where: str) -> float | None:
    return None if value is None else _number(value, where)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
