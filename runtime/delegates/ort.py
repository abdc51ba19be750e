"""Any processor that ONNX Runtime has an execution provider for: partitions as ONNX models.

What the provider does not take runs on ONNX Runtime's CPU; which nodes those are is asked, never guessed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnxruntime

from runtime.bundle import Bundle, PartitionEntry
from runtime.delegates.cpu import CpuExecutable, load_model
from runtime.errors import UserError

CPU = "CPUExecutionProvider"
_SUFFIX = "ExecutionProvider"


@dataclass(frozen=True)
class OrtExecutable(CpuExecutable):
    """A partition on an execution provider.

    Attributes:
        provider: that it was loaded for.
        taken: how many nodes the provider runs.
        left: the nodes that ONNX Runtime's CPU runs instead, as ``Operator name``.
        why: why it takes nothing at all, as far as ONNX Runtime tells; ``None`` when it takes something.
    """

    provider: str = CPU
    taken: int = 0
    left: tuple[str, ...] = ()
    why: str | None = None


@dataclass(frozen=True)
class OrtDelegate:
    """Runs partitions with one execution provider of ONNX Runtime.

    Attributes:
        provider: its full name, as ``OpenVINOExecutionProvider``.
        options: the provider's own, as ``device_type`` of OpenVINO.
    """

    provider: str
    options: Mapping[str, str] = field(default_factory=dict)

    def load(self, partition: PartitionEntry, bundle: Bundle) -> OrtExecutable:
        """Load the partition's ONNX model and ask where its nodes went.

        Raises:
            BundleError: the provider or ONNX Runtime refuses the model or the options, or the model has other inputs
                or outputs than the manifest says.
            UserError: this ONNX Runtime has no such provider, or is too old to say where nodes went.
        """
        require(self.provider)
        wanted = (self.provider, dict(self.options))
        session = load_model(partition, bundle, [wanted] if self.provider == CPU else [wanted, CPU])
        nodes = [
            (group.ep_name, node)
            for group in session.get_provider_graph_assignment_info()
            for node in group.get_nodes()
        ]
        left = tuple(f"{node.op_type} {node.name}".strip() for name, node in nodes if name != self.provider)
        where = f"{bundle.path}: {partition.model}"
        taken = len(nodes) - len(left)
        why = None if taken else self._why(session)
        return OrtExecutable(session, partition.inputs, partition.outputs, where, self.provider, taken, left, why)

    def _why(self, session: onnxruntime.InferenceSession) -> str:
        """What is known of a provider that takes nothing: some take any option, as the name of a device, in silence."""
        given = ",".join(f"{name}={value}" for name, value in self.options.items())
        asked = f"{self.provider} with {given}" if given else self.provider
        if self.provider not in session.get_providers():
            return f"{asked} cannot be made here: there is no such device"
        return f"{asked} takes nothing" + (": is that a device of it, and here?" if given else "")


def full_name(name: str) -> str:
    """``OpenVINO`` and ``OpenVINOExecutionProvider`` are the same provider."""
    return name if name.endswith(_SUFFIX) else name + _SUFFIX


def accelerators() -> tuple[str, ...]:
    """The providers of this ONNX Runtime that run models on another processor than its own CPU code, best first."""
    return tuple(name for name in onnxruntime.get_available_providers() if name not in (CPU, "Azure" + _SUFFIX))


def require(provider: str) -> None:
    """Demand that ONNX Runtime here has ``provider`` and can say what it took.

    Raises:
        UserError: it has not, or is too old.
    """
    there = onnxruntime.get_available_providers()
    if provider not in there:
        fix = "install the onnxruntime package that has it, as onnxruntime-openvino, in place of onnxruntime"
        raise UserError(f"ONNX Runtime has no {provider} here; it has {', '.join(there)}", fix=fix)
    if not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        what = f"ONNX Runtime {onnxruntime.__version__} cannot say which nodes a provider took"
        raise UserError(what, fix="install 1.24 or newer")
