"""The CPU: partitions as ONNX models through ONNX Runtime.

Also runs NPU partitions, from their QDQ model, when a session is asked for ``--delegate cpu``. QDQ is a float program:
its bits may differ from the NPU's by a step here and there.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from runtime.bundle import Bundle, PartitionEntry
from runtime.errors import BundleError, LimitError
from runtime.tensors import Tensors, TensorSpec

LOAD_ERRORS = (
    state.EPFail,
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoModel,
    state.NotImplemented,
    state.RuntimeException,
    RuntimeError,  # options that a provider refuses
    ValueError,
)
"""What ONNX Runtime raises for a model, or for a provider's options, that it cannot use."""

RUN_ERRORS = (state.EPFail, state.Fail, state.InvalidArgument, state.RuntimeException)
"""What ONNX Runtime raises when a model that it could load cannot be run."""

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

_OUT_OF_MEMORY = "BFCArena::AllocateRawInternal"
"""In the words of ONNX Runtime when its allocator has come to its end (core/framework/bfc_arena.cc)."""


@dataclass(frozen=True)
class CpuExecutable:
    """A partition in an ONNX Runtime session; ``outputs`` are the names asked for, in order."""

    session: onnxruntime.InferenceSession
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    where: str = ""

    def run(self, tensors: Tensors) -> Tensors:
        """The partition's outputs by name.

        Raises:
            LimitError: it wants more memory than ``Limits.model_memory``.
            BundleError: ONNX Runtime failed on it.
        """
        try:
            values = self.session.run(list(self.outputs), {name: tensors[name] for name in self.inputs})
        except RUN_ERRORS as error:
            reason = " ".join(str(error).split())
            if _OUT_OF_MEMORY in reason:
                fix = "the limit is model_memory, of all models together; --limits can raise it"
                raise LimitError(
                    "wants more memory while it runs than it may have", where=self.where, fix=fix
                ) from error
            raise BundleError(f"ONNX Runtime failed on it: {reason[:300]}", where=self.where) from error
        return dict(zip(self.outputs, values, strict=True))


class CpuDelegate:
    """Runs any partition from its ONNX model with ONNX Runtime's ``CPUExecutionProvider``."""

    def load(self, partition: PartitionEntry, bundle: Bundle) -> CpuExecutable:
        """Build the session from the bundle's memory and hold its inputs and outputs against the manifest.

        Raises:
            BundleError: the model is refused by ONNX Runtime, or has other inputs or outputs than the manifest says.
        """
        where = f"{bundle.path}: {partition.model}"
        session = load_model(partition, bundle, ["CPUExecutionProvider"])
        return CpuExecutable(session, partition.inputs, partition.outputs, where)


def load_model(
    partition: PartitionEntry, bundle: Bundle, providers: Sequence[str | tuple[str, Mapping[str, str]]]
) -> onnxruntime.InferenceSession:
    """A partition's ONNX model in ONNX Runtime, its inputs and outputs held against the manifest.

    Args:
        partition: which one.
        bundle: it comes from this one's memory.
        providers: as ``InferenceSession`` takes them; no other is tried when one of them fails.

    Raises:
        BundleError: the model is refused by ONNX Runtime, or has other inputs or outputs than the manifest says.
    """
    where = f"{bundle.path}: {partition.model}"
    _share_memory(bundle.limits.model_memory)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = onnxruntime.InferenceSession(
            bundle.read(partition.model), options, providers=list(providers), enable_fallback=0
        )
    except LOAD_ERRORS as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BundleError(f"ONNX Runtime cannot load it: {reason}", where=where) from error
    _compare("input", session.get_inputs(), _specs(bundle, partition.inputs), where)
    _compare("output", session.get_outputs(), _specs(bundle, partition.outputs), where)
    return session


@functools.lru_cache(maxsize=1)
def _share_memory(limit: int) -> None:
    """Give all sessions of this process that ask for it, from now on, one allocator that ends at ``limit`` bytes."""
    information = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    bound = onnxruntime.OrtArenaCfg({"max_mem": limit, "arena_extend_strategy": 1})
    onnxruntime.create_and_register_allocator(information, bound)


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
