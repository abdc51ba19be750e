"""Which targets are compared: by name, all of them, and always the GPU beside them."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.comparing.rows import Candidate
from pipeline.cost import hosts
from pipeline.errors import UserError
from pipeline.targets import library

EVERY = "all"
GPU = "jetson-xavier-nx-gpu"
"""Full freedom: what a model would take where everything runs."""


def profiles(wanted: str, folder: Path) -> tuple[Path, ...]:
    """The profiles of ``wanted``, and that of the GPU, sorted by name.

    Args:
        wanted: ``all``, or names of targets and paths of their YAML files with commas between them.
        folder: with targets of the user's own, which come before the shipped ones of their name.

    Raises:
        UserError: no target is named, or one twice.
        TargetError: a target cannot be found.
    """
    if wanted == EVERY:
        names: Sequence[str] = library.names(folder)
    else:
        names = [name.strip() for name in wanted.split(",")]
        if not all(names):
            raise UserError(
                "no target is named" if not any(names) else "a name is empty",
                where=f"--targets {wanted!r}",
                fix=f"--targets {EVERY}, or names with commas between them; pipeline targets lists them",
            )
    found: dict[str, Path] = {}
    for name in names:
        path = library.resolve(name, folder)
        if path.stem in found:
            raise UserError(f"{path.stem} is named twice", where=f"--targets {wanted}", fix="name it once")
        found[path.stem] = path
    found.setdefault(GPU, library.find(GPU, folder))
    return tuple(found[name] for name in sorted(found))


def load(paths: Sequence[Path], host: str | None) -> tuple[Candidate, ...]:
    """The targets of ``paths`` with their hosts.

    Args:
        paths: of profiles.
        host: a host's name or the path of its profile, for all of them; ``None`` for each target's own.

    Raises:
        TargetError: a profile is wrong, or a host cannot be found.
    """
    targets = [library.load(path) for path in paths]
    known = {name: hosts.named(name) for name in {host or target.host for target in targets}}
    return tuple(Candidate(target, known[host or target.host]) for target in targets)
