"""``python -m runtime`` and ``npu-run``: set how numpy's threads wait, then run the command line."""

import os
import sys
from collections.abc import Sequence

THREADS = {"OPENBLAS_NUM_THREADS": "1"}
"""Unless the user sets it, before numpy is imported: on small matrices its threads wait for each other, spinning."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    for name, value in THREADS.items():
        os.environ.setdefault(name, value)
    from runtime.cli import main as run  # noqa: PLC0415 (imports numpy)

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
