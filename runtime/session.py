"""Run a bundle: partitions in order, tensors by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from runtime.adapters.detection import Detections, decode
from runtime.adapters.image import letterbox, prepare
from runtime.bundle import Bundle
from runtime.delegates import Delegate
from runtime.delegates.cpu import CpuDelegate
from runtime.delegates.npu import NpuDelegate
from runtime.errors import BundleError, SourceError, UserError
from runtime.tensors import Tensors

DelegateName = Literal["npu", "plain", "cpu"]

DELEGATES: Mapping[str, Mapping[str, Delegate]] = MappingProxyType(
    {
        "npu": {"npu": NpuDelegate(), "cpu": CpuDelegate()},
        "plain": {"npu": NpuDelegate(fast=False), "cpu": CpuDelegate()},
        "cpu": {"npu": CpuDelegate(), "cpu": CpuDelegate()},
    }
)
"""What is asked for (``--delegate``), then a partition's device, to the delegate that runs it."""


class Session:
    """A bundle that is ready to run.

    With ``delegate="npu"`` NPU partitions run on the simulated NPU, bit for bit; with ``"plain"`` too, by its slow
    reference kernels. With ``delegate="cpu"`` they run from
    their QDQ model in ONNX Runtime, which is a float program: sooner, but single steps may differ.
    """

    def __init__(self, bundle: Bundle, delegate: DelegateName = "npu") -> None:
        """Load every partition of the bundle.

        Raises:
            UserError: there is no such delegate.
            BundleError: a partition does not fit the manifest or cannot be used.
            ProgramError: a program is malformed.
        """
        if delegate not in DELEGATES:
            raise UserError(f"there is no delegate {delegate!r}", fix=f"choose from {', '.join(DELEGATES)}")
        table = DELEGATES[delegate]
        self.bundle = bundle
        self.manifest = bundle.manifest
        self._executables = tuple(
            (entry, table[entry.device].load(entry, bundle)) for entry in bundle.manifest.partitions
        )

    def run(self, tensors: Tensors) -> Tensors:
        """The bundle's outputs by tensor name, quantized as the manifest says.

        Args:
            tensors: one array for each of the manifest's inputs.

        Raises:
            UserError: an input is missing, unknown, or of another type or shape.
        """
        self._check(tensors)
        values = dict(tensors)
        for entry, executable in self._executables:
            values.update(executable.run({name: values[name] for name in entry.inputs}))
        return {name: values[name] for name in self.manifest.outputs}

    def _check(self, tensors: Tensors) -> None:
        expected = {name: self.manifest.tensor(name) for name in self.manifest.inputs}
        if tensors.keys() != expected.keys():
            raise UserError(f"inputs are {sorted(tensors)}, the bundle takes {sorted(expected)}")
        for name, spec in expected.items():
            found = f"{tensors[name].dtype} {list(tensors[name].shape)}"
            if found != f"{spec.dtype} {list(spec.shape)}":
                raise UserError(f"input {name} is {found}, the bundle takes {spec.dtype} {list(spec.shape)}")

    def infer(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """The network's outputs as real numbers, float32 by output name.

        Args:
            pixels: uint8 [height, width, 3], RGB, of the network's size.

        Raises:
            SourceError: ``pixels`` has another size or type.
        """
        pre = self.manifest.preprocess
        if pixels.shape != (pre.height, pre.width, 3) or pixels.dtype != np.uint8:
            fact = f"pixels are {pixels.dtype} {list(pixels.shape)}"
            raise SourceError(f"{fact}, the network takes uint8 {[pre.height, pre.width, 3]}")
        spec = self.manifest.tensor(self.manifest.inputs[0])
        image = prepare(pixels, pre, spec)
        outputs = self.run({spec.name: image})
        pairs = zip(self.manifest.output_names, self.manifest.outputs, strict=True)
        return {name: self.manifest.tensor(tensor).dequantize(outputs[tensor]) for name, tensor in pairs}

    def detect(self, frame: NDArray[np.uint8]) -> Detections:
        """What the network finds in a frame, uint8 [H, W, 3], RGB, of any size; boxes in source pixels.

        Raises:
            SourceError: ``frame`` is not such an array.
        """
        pre = self.manifest.preprocess
        pixels, placement = letterbox(frame, pre.width, pre.height)
        size = (frame.shape[1], frame.shape[0])
        return decode(self.infer(pixels), self.manifest.decoder, placement, size)


@dataclass(frozen=True)
class Replay:
    """Golden vectors replayed: how many, bytes compared, and bytes that differ."""

    vectors: int
    bytes: int
    differing: int


def replay(bundle: Bundle, delegate: DelegateName = "npu") -> Replay:
    """Run the bundle's golden inputs and compare the outputs with the golden ones, byte by byte.

    Raises:
        BundleError: the bundle has no golden vectors, or they do not fit its inputs and outputs.
    """
    golden = bundle.manifest.golden
    if golden is None:
        raise BundleError("has no golden vectors", where=bundle.path, fix="package it with package.golden")
    inputs, outputs = bundle.arrays(golden.inputs), bundle.arrays(golden.outputs)
    _check_golden(bundle, golden.count, golden.inputs, inputs, bundle.manifest.inputs)
    _check_golden(bundle, golden.count, golden.outputs, outputs, bundle.manifest.outputs)
    session = Session(bundle, delegate)
    compared = differing = 0
    for index in range(golden.count):
        found = session.run({name: array[index] for name, array in inputs.items()})
        for name, array in outputs.items():
            expected = np.frombuffer(array[index].tobytes(), np.uint8)
            compared += expected.size
            differing += int((np.frombuffer(found[name].tobytes(), np.uint8) != expected).sum())
    return Replay(golden.count, compared, differing)


def _check_golden(bundle: Bundle, count: int, file: str, arrays: Tensors, names: tuple[str, ...]) -> None:
    where = f"{bundle.path}: {file}"
    if arrays.keys() != set(names):
        raise BundleError(f"has arrays {sorted(arrays)}, the manifest says {sorted(names)}", where=where)
    for name, array in arrays.items():
        spec = bundle.manifest.tensor(name)
        found, expected = f"{array.dtype} {list(array.shape)}", f"{spec.dtype} {[count, *spec.shape]}"
        if found != expected:
            raise BundleError(f"{name} is {found}, the manifest says {expected}", where=where)
