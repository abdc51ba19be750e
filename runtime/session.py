"""Run a bundle: partitions in order, tensors by name."""

import numpy as np
from numpy.typing import NDArray

from runtime.adapters.detection import Detections, decode
from runtime.adapters.image import letterbox, prepare
from runtime.bundle import Bundle
from runtime.delegates.choice import delegates, placement
from runtime.delegates.failover import Supervisor
from runtime.errors import PlacementError, SourceError, UserError
from runtime.tensors import Tensors


class Session:
    """A bundle that is ready to run.

    ``delegate`` is a word of ``runtime.delegates.choice``. With ``"npu"`` and ``"plain"`` NPU partitions run bit for
    bit; with any other they run from their QDQ model in ONNX Runtime, a float program: single steps may differ.

    Attributes:
        bundle: what runs.
        manifest: the bundle's.
        partitions: each with what runs it, in execution order.
        placement: where each runs, beside where it was planned to.
    """

    def __init__(
        self, bundle: Bundle, delegate: str = "npu", *, strict: bool = False, supervisor: Supervisor | None = None
    ) -> None:
        """Load every partition of the bundle.

        Args:
            bundle: what to run.
            delegate: on what.
            strict: refuse when an operator falls back to the CPU.
            supervisor: of a device that may fail, see ``runtime.delegates.failover``.

        Raises:
            UserError: there is no such delegate here.
            PlacementError: ``strict``, and a processor that was asked for does not take all of its partitions.
            BundleError: a partition does not fit the manifest or cannot be used.
            ProgramError: a program is malformed.
        """
        table = delegates(delegate, supervisor)
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.partitions = tuple(
            (entry, table[entry.device].load(entry, bundle)) for entry in bundle.manifest.partitions
        )
        self.placement = tuple(placement(entry, table[entry.device], each) for entry, each in self.partitions)
        fallen = [each.fallback for each in self.placement if each.fallback is not None]
        if strict and fallen:
            fix = "choose another delegate, or run without --strict"
            raise PlacementError(f"not as planned: {'; '.join(fallen)}", where=bundle.path, fix=fix)

    def run(self, tensors: Tensors) -> Tensors:
        """The bundle's outputs by tensor name, quantized as the manifest says.

        Args:
            tensors: one array for each of the manifest's inputs.

        Raises:
            UserError: an input is missing, unknown, or of another type or shape.
        """
        values = self.trace(tensors)
        return {name: values[name] for name in self.manifest.outputs}

    def trace(self, tensors: Tensors) -> dict[str, NDArray[np.generic]]:
        """As :meth:`run`, with every tensor that enters, leaves or crosses between partitions.

        Raises:
            UserError: an input is missing, unknown, or of another type or shape.
        """
        self._check(tensors)
        values = dict(tensors)
        for index in range(len(self.partitions)):
            values = self.step(values, index)
        return values

    def step(self, values: Tensors, index: int) -> dict[str, NDArray[np.generic]]:
        """``values`` and the outputs of partition ``index``, whose inputs are in ``values``.

        Different partitions may run at the same time, each for another frame.
        """
        entry, executable = self.partitions[index]
        return {**values, **executable.run({name: values[name] for name in entry.inputs})}

    def _check(self, tensors: Tensors) -> None:
        expected = {name: self.manifest.tensor(name) for name in self.manifest.inputs}
        if tensors.keys() != expected.keys():
            raise UserError(f"inputs are {sorted(tensors)}, the bundle takes {sorted(expected)}")
        for name, spec in expected.items():
            found = f"{tensors[name].dtype} {list(tensors[name].shape)}"
            if found != f"{spec.dtype} {list(spec.shape)}":
                raise UserError(f"input {name} is {found}, the bundle takes {spec.dtype} {list(spec.shape)}")

    def infer(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """The network's outputs as real numbers, float32 by output name: ``finish(run(begin(pixels)))``.

        Raises:
            SourceError: ``pixels`` has another size or type, see :meth:`begin`.
        """
        return self.finish(self.run(self.begin(pixels)))

    def begin(self, pixels: NDArray[np.uint8]) -> Tensors:
        """What enters the first partition.

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
        return {spec.name: prepare(pixels, pre, spec)}

    def finish(self, values: Tensors) -> dict[str, NDArray[np.float32]]:
        """The outputs among ``values`` as real numbers, float32 by output name."""
        pairs = zip(self.manifest.output_names, self.manifest.outputs, strict=True)
        return {name: self.manifest.tensor(tensor).dequantize(values[tensor]) for name, tensor in pairs}

    def detect(self, frame: NDArray[np.uint8]) -> Detections:
        """What the network finds in a frame, uint8 [H, W, 3], RGB, of any size; boxes in source pixels.

        Raises:
            SourceError: ``frame`` is not such an array.
        """
        pre = self.manifest.preprocess
        pixels, placement = letterbox(frame, pre.width, pre.height)
        size = (frame.shape[1], frame.shape[0])
        return decode(self.infer(pixels), self.manifest.decoder, placement, size)
