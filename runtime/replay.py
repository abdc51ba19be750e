"""Golden vectors: what the simulated NPU made of some inputs when the bundle was packaged, held against what runs here.

Every partition is given the golden tensors that it reads, so that a step that a CPU partition may differ by on another
processor does not spread to the partitions after it.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle
from runtime.delegates import Executable
from runtime.delegates.cpu import CpuExecutable
from runtime.errors import BundleError
from runtime.session import Session
from runtime.tensors import Tensors

Rule = Literal["exact", "one step", "half a step on average", "1e-4 of the largest"]
"""How near is near enough: integer partitions on the NPU are exact; a float partition that gives integers may round one
of them the other way on another processor; an NPU partition that runs as a float program rounds at every layer; float
results are held against the largest golden magnitude."""


@dataclass(frozen=True)
class Crossing:
    """One tensor that a partition gives, over all golden vectors.

    Attributes:
        tensor: its name.
        partition: its partition's place in the manifest.
        bytes: compared.
        differing: of them, that differ.
        worst: the largest difference, in steps (integers) or in units of the largest golden magnitude (floats).
        mean: the mean difference, in the same unit.
        rule: what ``worst`` or ``mean`` is held against.
        passed: whether it holds.
    """

    tensor: str
    partition: int
    bytes: int
    differing: int
    worst: float
    mean: float
    rule: Rule
    passed: bool


@dataclass(frozen=True)
class Replay:
    """Golden vectors replayed.

    Attributes:
        vectors: how many.
        bytes: compared, of every tensor that a partition gives.
        differing: of them, that differ.
        crossings: tensor by tensor.
    """

    vectors: int
    bytes: int
    differing: int
    crossings: tuple[Crossing, ...]

    @property
    def passed(self) -> bool:
        """Whether every tensor is as near as its rule asks."""
        return all(crossing.passed for crossing in self.crossings)


def replay(bundle: Bundle, delegate: str = "npu") -> Replay:
    """Load the bundle and replay its golden vectors.

    Raises:
        BundleError: the bundle has no golden vectors, or they do not fit its tensors.
        UserError: there is no such delegate here.
    """
    return replay_session(Session(bundle, delegate))


def replay_session(session: Session) -> Replay:
    """As :func:`replay`, with a session that is loaded already."""
    bundle, manifest = session.bundle, session.manifest
    golden = manifest.golden
    if golden is None:
        raise BundleError("has no golden vectors", where=bundle.path, fix="package it with package.golden")
    inputs, outputs = bundle.arrays(golden.inputs), bundle.arrays(golden.outputs)
    given = tuple(name for entry in manifest.partitions for name in entry.outputs)
    _check_golden(bundle, golden.count, golden.inputs, inputs, manifest.inputs)
    _check_golden(bundle, golden.count, golden.outputs, outputs, given)
    values = {**inputs, **outputs}
    crossings: list[Crossing] = []
    for index, (entry, executable) in enumerate(session.partitions):
        found = [
            executable.run({name: values[name][vector] for name in entry.inputs}) for vector in range(golden.count)
        ]
        for name in entry.outputs:
            rule = _rule(entry.device, executable, values[name])
            stacked = np.stack([tensors[name] for tensors in found])
            crossings.append(_compare(name, index, stacked, values[name], rule))
    compared, differing = sum(c.bytes for c in crossings), sum(c.differing for c in crossings)
    return Replay(golden.count, compared, differing, tuple(crossings))


def _rule(device: str, executable: Executable, expected: NDArray[np.generic]) -> Rule:
    in_floats = isinstance(executable, CpuExecutable)
    if not in_floats or expected.dtype == np.bool_:
        return "exact"
    if np.issubdtype(expected.dtype, np.floating):
        return "1e-4 of the largest"
    return "half a step on average" if device == "npu" else "one step"


def _compare(
    name: str, partition: int, found: NDArray[np.generic], expected: NDArray[np.generic], rule: Rule
) -> Crossing:
    differing = int((_bytes(found) != _bytes(expected)).sum())
    exact = np.longdouble if expected.dtype == np.int64 else np.float64
    distance = np.abs(found.astype(exact) - expected.astype(exact))
    unit = float(np.abs(expected).max()) or 1.0 if rule == "1e-4 of the largest" else 1.0
    worst, mean = float(distance.max()) / unit, float(distance.mean()) / unit
    passed = {
        "exact": differing == 0,
        "one step": worst <= 1,
        "half a step on average": mean <= 0.5,
        "1e-4 of the largest": worst <= 1e-4,
    }[rule]
    return Crossing(name, partition, expected.nbytes, differing, worst, mean, rule, passed)


def _bytes(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.frombuffer(array.tobytes(), np.uint8)


def _check_golden(bundle: Bundle, count: int, file: str, arrays: Tensors, names: tuple[str, ...]) -> None:
    where = f"{bundle.path}: {file}"
    if arrays.keys() != set(names):
        raise BundleError(f"has arrays {sorted(arrays)}, the manifest says {sorted(names)}", where=where)
    for name, array in arrays.items():
        spec = bundle.manifest.tensor(name)
        found, expected = f"{array.dtype} {list(array.shape)}", f"{spec.dtype} {[count, *spec.shape]}"
        if found != expected:
            raise BundleError(f"{name} is {found}, the manifest says {expected}", where=where)
