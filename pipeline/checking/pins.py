"""Manual placement: which operators the user wants on which device, by name or by pattern."""

import difflib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from pipeline.checking.units import JudgedUnit
from pipeline.errors import ModelError
from pipeline.placing.problem import CPU, NPU, Device


def pins(units: Sequence[JudgedUnit], wanted: Mapping[str, Device]) -> dict[str, Device]:
    """By name of a unit, the device that ``wanted`` demands.

    Args:
        units: of the model.
        wanted: by an operator's name, or a pattern with ``*`` and ``?``, the device; a name comes before patterns, a
            later pattern before an earlier one.

    Raises:
        ModelError: nothing has the name or fits the pattern, the NPU does not take the operator, or operators that are
            fused are wanted on different devices.
    """
    by_node = _by_node([node.name for unit in units for node in unit.nodes], wanted)
    found: dict[str, Device] = {}
    for unit in units:
        devices = {by_node[n.name]: n for n in unit.nodes if n.name in by_node}
        if len(devices) > 1:
            names = " and ".join(n.name for n in unit.nodes)
            raise ModelError(f"{names} are fused and wanted on two devices", where="placement", fix="place both alike")
        for device, node in devices.items():
            if device == NPU and not unit.taken:
                reasons = "; ".join(why for n in unit.nodes for why in unit.reasons.get(n.name, ()))
                what = f"{node.op} cannot be placed on the NPU, which does not take it: {reasons}"
                raise ModelError(what, where=node.name, fix="place it on the CPU, or rewrite it (--what-if)")
            found[unit.name] = device
    return found


def fitting(names: Sequence[str], wanted: Mapping[str, Device]) -> dict[str, Device]:
    """Those of ``wanted`` that name, or fit, one of ``names``."""
    known = set(names)
    return {p: d for p, d in wanted.items() if p in known or any(fnmatchcase(name, p) for name in names)}


def _by_node(names: Sequence[str], wanted: Mapping[str, Device]) -> dict[str, Device]:
    known = set(names)
    found: dict[str, Device] = {}
    for pattern, device in wanted.items():
        if device not in (CPU, NPU):
            raise ModelError(f"is placed on {device}, which is no device", where=pattern, fix=f"{CPU} or {NPU}")
        if pattern not in known:
            fitting = [name for name in names if fnmatchcase(name, pattern)]
            if not fitting:
                near = difflib.get_close_matches(pattern, names, 1)
                fix = f"did you mean {near[0]}?" if near else "the names are those that `pipeline check` prints"
                raise ModelError("is no operator of the model, nor a pattern that fits one", where=pattern, fix=fix)
            found.update(dict.fromkeys(fitting, device))
    return found | {name: device for name, device in wanted.items() if name in known}
