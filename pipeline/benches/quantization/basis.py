"""What a measurement rests on, as digests and versions: only with the same it need not be made again."""

import hashlib
import importlib.metadata
from collections.abc import Sequence

import numpy as np

from pipeline import digests, sources
from pipeline.benches.quantization.cases import Case
from pipeline.benches.quantization.contenders import TARGETS, Contender, Scheme
from pipeline.benches.quantization.judge import Reference
from pipeline.targets import library
from pipeline.targets.inheritance import SHIPPED

RUNNERS = ("numpy", "onnx", "onnxruntime")
"""Distributions whose versions every measurement rests on."""


def code(modules: Sequence[str]) -> str:
    """SHA-256 of every source file of this project that ``modules`` run."""
    sha = hashlib.sha256()
    for name, path in sources.walk(modules, [sources.project()]).items():
        sha.update(f"{name}\0{digests.sha256(path)}\n".encode())
    return sha.hexdigest()


def tools(contender: Contender, scheme: Scheme) -> str:
    """What besides the project's code makes and judges a file: libraries with versions, and the target's profile."""
    profile = library.load(SHIPPED / f"{TARGETS[scheme]}.yaml").model_dump_json()
    packages = sorted({*RUNNERS, *(() if contender.ours else (contender.package,))})
    versions = [f"{package} {version(package)}" for package in packages]
    return ", ".join([*versions, f"{TARGETS[scheme]} {hashlib.sha256(profile.encode()).hexdigest()[:12]}"])


def version(package: str) -> str:
    """The version of an installed distribution, ``absent`` when there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def evaluated(case: Case, real: Reference) -> str:
    """SHA-256 of the inputs to measure ``case`` with, and of what the metric is of the float model's outputs."""
    sha = hashlib.sha256(repr((case.metric, real.points, real.replicates)).encode())
    for each in case.inputs:
        sha.update(np.ascontiguousarray(each).data)
    return sha.hexdigest()
