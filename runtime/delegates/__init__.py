"""The contract that a delegate fulfils: load a partition, run it."""

from typing import Protocol

from runtime.bundle import Bundle, PartitionEntry
from runtime.tensors import Tensors


class Executable(Protocol):
    """A loaded partition."""

    def run(self, tensors: Tensors) -> Tensors:
        """The partition's outputs by name, for ``tensors`` with each of its inputs (and nothing else)."""


class Delegate(Protocol):
    """The code that runs partitions on one device."""

    def load(self, partition: PartitionEntry, bundle: Bundle) -> Executable:
        """Prepare a partition of a bundle; everything comes from the bundle's memory.

        Raises:
            BundleError: the partition's file does not fit the manifest or cannot be used.
            ProgramError: the partition's program cannot run on this device.
        """
