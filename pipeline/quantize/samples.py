"""What a network is fed with at once: one array, or one for each of its inputs."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Sample = NDArray[np.float32] | Mapping[str, NDArray[np.float32]]
"""One array, float32 of the only input's shape; or one for each input, by name."""


def by_name(sample: Sample, names: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
    """``sample`` by the ``names`` of a network's inputs.

    Raises:
        ValueError: it is one array and the network has several inputs, or it is not of these names.
    """
    found = sample if isinstance(sample, Mapping) else dict.fromkeys(names[:1], sample)
    if found.keys() != set(names):
        raise ValueError(f"the network's inputs are {', '.join(names)}; given are {', '.join(found)}")
    return found
