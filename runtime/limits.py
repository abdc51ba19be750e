"""How much a bundle may ask of the device that opens it; checked before the memory is taken.

The defaults are far above what networks for embedded NPUs need and far below what harms a device of 1 GB. Somebody who
needs more says so in a JSON file with some of the names below (``npu-run --limits FILE``).
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from runtime import strict_json
from runtime.errors import LimitError, UserError


@dataclass(frozen=True)
class Limits:
    """The most that is accepted.

    Attributes:
        bundle_bytes: of the whole file; all of it is kept in memory.
        files: in the bundle.
        json_bytes: of the manifest.
        json_depth: objects and lists inside each other.
        json_values: objects, lists and their items, together.
        array_bytes: of the golden vectors of one file, unpacked.
        tensor_elements: of one tensor, in the manifest or in a model.
        all_elements: of all tensors of the manifest together.
        tensor_rank: dimensions of one tensor.
        model_fields: protobuf fields of one model, bulk data not counted.
        model_nodes: of one model, subgraphs included.
        model_depth: graphs inside each other.
        model_memory: bytes that ONNX Runtime may allocate for all models together while they run: a shape that a model
            computes can ask for anything.
    """

    bundle_bytes: int = 256 << 20
    files: int = 4096
    json_bytes: int = 8 << 20
    json_depth: int = 16
    json_values: int = 1 << 18
    array_bytes: int = 256 << 20
    tensor_elements: int = 1 << 26
    all_elements: int = 1 << 28
    tensor_rank: int = 8
    model_fields: int = 1 << 20
    model_nodes: int = 1 << 16
    model_depth: int = 8
    model_memory: int = 512 << 20

    def hold(self, name: str, value: int, what: str, where: object) -> None:
        """Refuse ``value`` above the limit ``name``; ``what`` has it, as in ``a.npy has 9 dimensions``.

        Raises:
            LimitError: it is above; the message says the limit and how to raise it.
        """
        limit = getattr(self, name)
        if value > limit:
            fix = f"the limit is {name} = {limit}; --limits can raise it"
            raise LimitError(what, where=where, fix=fix)


LIMITS = Limits()
"""The defaults."""


def read_limits(path: Path) -> Limits:
    """The limits in a JSON file: some of the names of :class:`Limits`, each a whole number of at least 1.

    Raises:
        UserError: the file cannot be read, has another name, or another value.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LIMITS.json_bytes)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=path) from error
    given = strict_json.parse(data, path)
    limits = strict_json.build(Limits, {**dataclasses.asdict(LIMITS), **given}, path)
    for name, value in dataclasses.asdict(limits).items():
        if value < 1:
            raise UserError(f"{name} is {value}; it must be at least 1", where=path)
    return limits
