"""From what is asked for (``--delegate``) to the code that runs each partition, and where each one went.

==================================  ====================================================================================
``npu``                             the simulated NPU, bit for bit; CPU partitions in ONNX Runtime
``plain``                           as ``npu``, by its slow reference kernels
``cpu``                             everything in ONNX Runtime on the CPU, NPU partitions from their QDQ models
``ort:PROVIDER[,OPTION=VALUE]...``  NPU partitions on an execution provider of ONNX Runtime, as ``ort:OpenVINO``
``auto``                            ``ort:`` with the first accelerator that ONNX Runtime has here, else ``npu``
==================================  ====================================================================================
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runtime.bundle import PartitionEntry
from runtime.delegates import Delegate, Executable
from runtime.delegates.cpu import CpuDelegate
from runtime.delegates.failover import Supervisor
from runtime.delegates.npu import NpuDelegate
from runtime.delegates.ort import OrtDelegate, OrtExecutable, accelerators, full_name
from runtime.errors import UserError

NAMES = ("npu", "plain", "cpu", "auto")
_ORT = "ort:"
_OPTION = re.compile(r",(?=\w+=)")


def resolve(name: str) -> str:
    """The delegate that ``auto`` means here; any other name as it is."""
    if name != "auto":
        return name
    found = accelerators()
    return _ORT + found[0] if found else "npu"


def delegates(name: str, supervisor: Supervisor | None = None) -> Mapping[str, Delegate]:
    """The delegate for NPU partitions (``npu``) and the one for CPU partitions (``cpu``).

    Args:
        name: a word of the module's table.
        supervisor: watches the simulated NPU, which then may fail.

    Raises:
        UserError: there is no such delegate, its options cannot be read, or it has nothing to supervise.
    """
    chosen = resolve(name)
    if supervisor is not None and chosen not in ("npu", "plain"):
        fix = "choose the delegate npu or plain"
        raise UserError(f"faults are those of the simulated NPU, the delegate is {chosen}", fix=fix)
    if chosen.startswith(_ORT):
        return {"npu": _ort(chosen.removeprefix(_ORT)), "cpu": CpuDelegate()}
    if chosen not in NAMES:
        known = ", ".join((*NAMES, "ort:PROVIDER[,OPTION=VALUE]"))
        raise UserError(f"there is no delegate {name!r}", fix=f"choose from {known}")
    on_npu: Mapping[str, Delegate] = {
        "npu": NpuDelegate(supervisor=supervisor),
        "plain": NpuDelegate(fast=False, supervisor=supervisor),
        "cpu": CpuDelegate(),
    }
    return {"npu": on_npu[chosen], "cpu": CpuDelegate()}


def _ort(text: str) -> OrtDelegate:
    """``OpenVINO,device_type=CPU``; a comma that no ``OPTION=`` follows belongs to the value."""
    provider, *words = _OPTION.split(text)
    if not re.fullmatch(r"\w+", provider):
        raise UserError(f"there is no delegate {_ORT + text!r}", fix="write it as ort:OpenVINO,device_type=CPU")
    return OrtDelegate(full_name(provider), dict(word.split("=", 1) for word in words))


@dataclass(frozen=True)
class Placement:
    """Where a partition was planned to run, and where it runs.

    Attributes:
        partition: its ONNX model's file in the bundle.
        planned: ``npu`` or ``cpu``.
        actual: what runs it: ``npu (simulated)``, ``cpu``, or an execution provider.
        nodes: of the partition.
        left: nodes that run on the CPU though another processor was asked for, as ``Operator name``.
        why: why all of them do, where that is known.
    """

    partition: str
    planned: str
    actual: str
    nodes: int
    left: tuple[str, ...] = ()
    why: str | None = None

    @property
    def fallback(self) -> str | None:
        """What falls back to the CPU, in one line; ``None`` when nothing does."""
        if not self.left:
            return None
        shown = ", ".join(self.left[:3]) + (", ..." if len(self.left) > 3 else "")
        what = f"{len(self.left)} operators fall back to the CPU ({shown})"
        because = "" if self.why is None else f"; {self.why}"
        return f"{self.partition}: planned {self.planned}, runs on {self.actual}; {what}{because}"


def summarize(placements: Sequence[Placement]) -> list[str]:
    """Planned and actual placement in a few lines; each partition that falls back has its own."""
    pairs = Counter((each.planned, each.actual) for each in placements)
    lines = [f"{count} partitions planned for {planned} run on {actual}" for (planned, actual), count in pairs.items()]
    return [*lines, *(each.fallback for each in placements if each.fallback is not None)]


def placement(entry: PartitionEntry, delegate: Delegate, executable: Executable) -> Placement:
    """Where ``executable``, which ``delegate`` made of ``entry``, runs."""
    actual = "cpu"
    left: tuple[str, ...] = ()
    why = None
    if isinstance(executable, OrtExecutable):
        left, why = executable.left, executable.why
        actual = executable.provider if executable.taken else "cpu"
    elif isinstance(delegate, NpuDelegate):
        actual = "npu (simulated)"
    return Placement(entry.model, entry.device, actual, len(entry.nodes), left, why)
