"""What a measurement rests on, as digests and versions: only with the same it need not be made again."""

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence

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


def tools(contenders: Sequence[Contender], schemes: Sequence[Scheme]) -> Mapping[tuple[str, Scheme], str]:
    """What besides the project's code makes and judges a file, by contender and scheme.

    That is libraries with their versions, and the target's profile.
    """
    targets = {scheme: _profile(TARGETS[scheme]) for scheme in schemes}
    libraries = {each.name: _libraries(each) for each in contenders}
    return {(name, scheme): f"{libraries[name]}, {target}" for name in libraries for scheme, target in targets.items()}


def _profile(name: str) -> str:
    text = library.load(SHIPPED / f"{name}.yaml").model_dump_json()
    return f"{name} {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _libraries(contender: Contender) -> str:
    packages = sorted({*RUNNERS, *contender.dependencies, *(() if contender.ours else (contender.package,))})
    return ", ".join(f"{package} {version(package)}" for package in packages)


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
