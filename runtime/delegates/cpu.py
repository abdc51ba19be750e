"""The CPU: partitions as ONNX models through ONNX Runtime.

Also runs NPU partitions, from their QDQ model, when a session is asked for ``--delegate cpu``. QDQ is a float program:
its bits may differ from the NPU's by a step here and there.
"""

from dataclasses import dataclass
from types import MappingProxyType

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from runtime.bundle import Bundle, PartitionEntry
from runtime.delegates.protobuf import refuse_external_data
from runtime.errors import BundleError
from runtime.tensors import Tensors, TensorSpec

LOAD_ERRORS = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoModel,
    state.NotImplemented,
    state.RuntimeException,
    UnicodeDecodeError,
)
"""What ONNX Runtime raises for a model that it cannot use."""

ONNX_TYPES = MappingProxyType(
    {
        "int8": "tensor(int8)",
        "uint8": "tensor(uint8)",
        "int16": "tensor(int16)",
        "int32": "tensor(int32)",
        "int64": "tensor(int64)",
        "float16": "tensor(float16)",
        "float32": "tensor(float)",
        "bool": "tensor(bool)",
    }
)
"""ONNX Runtime's name of every type that a manifest may use."""


@dataclass(frozen=True)
class CpuExecutable:
    """A partition in an ONNX Runtime session; ``outputs`` are the names asked for, in order."""

    session: onnxruntime.InferenceSession
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(self, tensors: Tensors) -> Tensors:
        """The partition's outputs by name."""
        values = self.session.run(list(self.outputs), {name: tensors[name] for name in self.inputs})
        return dict(zip(self.outputs, values, strict=True))


class CpuDelegate:
    """Runs any partition from its ONNX model with ONNX Runtime's ``CPUExecutionProvider``."""

    def load(self, partition: PartitionEntry, bundle: Bundle) -> CpuExecutable:
        """Build the session from the bundle's memory and hold its inputs and outputs against the manifest.

        Raises:
            BundleError: the model keeps data outside itself, is refused by ONNX Runtime, or has other inputs or
                outputs than the manifest says.
        """
        where = f"{bundle.path}: {partition.model}"
        model = bundle.read(partition.model)
        refuse_external_data(model, where)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except LOAD_ERRORS as error:
            reason = str(error).splitlines()[0]
            raise BundleError(f"ONNX Runtime cannot load it: {reason}", where=where) from error
        _compare("input", session.get_inputs(), _specs(bundle, partition.inputs), where)
        _compare("output", session.get_outputs(), _specs(bundle, partition.outputs), where)
        return CpuExecutable(session, partition.inputs, partition.outputs)


def _specs(bundle: Bundle, names: tuple[str, ...]) -> dict[str, TensorSpec]:
    return {name: bundle.manifest.tensor(name) for name in names}


def _compare(kind: str, found: list[onnxruntime.NodeArg], specs: dict[str, TensorSpec], where: str) -> None:
    """Names, types and shapes of the model's inputs or outputs must be those of the manifest."""
    names = {argument.name for argument in found}
    if names != specs.keys():
        raise BundleError(f"has {kind}s {sorted(names)}, the manifest says {sorted(specs)}", where=where)
    for argument in found:
        spec = specs[argument.name]
        expected = f"{ONNX_TYPES[spec.dtype]} {list(spec.shape)}"
        if f"{argument.type} {argument.shape}" != expected:
            given = f"{argument.type} {argument.shape}"
            raise BundleError(f"{kind} {argument.name} is {given}, the manifest says {expected}", where=where)
