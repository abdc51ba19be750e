"""What the runtime needs beyond numpy and onnxruntime, by extra, and how somebody who lacks it gets it."""

from collections.abc import Mapping
from types import MappingProxyType

EXTRAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "video": ("av", "pillow", "supervision", "trackers"),
        "signing": ("cryptography",),
        "mqtt": ("paho-mqtt",),
    }
)
"""Distributions of each extra; the deploy folder has a requirements file for each."""


def install(extra: str) -> str:
    """The commands that install an extra: the versions that a deploy folder pins, or the newest."""
    return f"pip install -r requirements-{extra}.txt in the deploy folder, or pip install {' '.join(EXTRAS[extra])}"
