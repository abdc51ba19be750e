"""The NPU, simulated: partitions as compiled programs, in the target's integer arithmetic."""

from dataclasses import dataclass

from runtime.bundle import Bundle, PartitionEntry
from runtime.delegates import Executable
from runtime.delegates.failover import Supervised, Supervisor
from runtime.errors import BundleError, ProgramError
from runtime.npu.device import Device
from runtime.npu.encoding import loads
from runtime.npu.program import Program


@dataclass(frozen=True)
class NpuDelegate:
    """Runs NPU partitions on the simulated device, bit for bit as the target would.

    Attributes:
        fast: use the fast path; the plain kernels otherwise, which give the same bits and are the specification.
        supervisor: watches a device that may fail; ``None`` for one that cannot.
    """

    fast: bool = True
    supervisor: Supervisor | None = None

    def load(self, partition: PartitionEntry, bundle: Bundle) -> Executable:
        """Verify the partition's program against the manifest and put it on a device.

        Raises:
            BundleError: the partition has no program, or the program is for another target or contract, or has
                other inputs, outputs or quantization than the manifest says.
            ProgramError: the program is malformed.
        """
        if partition.program is None:
            raise BundleError(f"the partition of {partition.model} has no program for the NPU", where=bundle.path)
        where = f"{bundle.path}: {partition.program}"
        try:
            program = loads(bundle.read(partition.program))
        except ProgramError as error:
            raise ProgramError(str(error), where=where) from error
        _compare(program, partition, bundle, where)
        device = Device(program, fast=self.fast)
        if self.supervisor is None:
            return device
        self.supervisor.load(device)
        return Supervised(device, self.supervisor)


def _compare(program: Program, partition: PartitionEntry, bundle: Bundle, where: str) -> None:
    """What the program says about itself must be what the manifest says about it."""
    manifest = bundle.manifest
    facts = {
        "target": (program.target, manifest.target),
        "contract": (program.contract, manifest.contract),
        "inputs": (sorted(program.inputs), sorted(partition.inputs)),
        "outputs": (sorted(program.outputs), sorted(partition.outputs)),
    }
    for fact, (found, expected) in facts.items():
        if found != expected:
            raise BundleError(f"its {fact} is {found}, the manifest says {expected}", where=where)
    for spec in program.tensors:
        if spec.name in (*partition.inputs, *partition.outputs) and spec != manifest.tensor(spec.name):
            raise BundleError(f"tensor {spec.name} is not the {spec.name} of the manifest", where=where)
