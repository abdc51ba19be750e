"""The shelf of targets: finding a profile by name, reading its YAML and checking it."""

import difflib
from pathlib import Path

import yaml
from pydantic import ValidationError

from pipeline.errors import TargetError
from pipeline.targets.profile import FIGURES, Target
from pipeline.targets.rules import RULES


def folder(config: Path) -> Path:
    """Where the targets of the configuration ``config`` lie: ``targets/`` beside it, else this project's own."""
    beside = config.parent / "targets"
    return beside if beside.is_dir() else Path(__file__).parents[2] / "configs" / "targets"


def names(profiles: Path) -> tuple[str, ...]:
    """The targets in the folder ``profiles``, sorted."""
    return tuple(sorted(p.stem for p in profiles.glob("*.yaml")))


def find(name: str, profiles: Path) -> Path:
    """The file of the target ``name`` in the folder ``profiles``; raises ``TargetError`` with the nearest name."""
    path = profiles / f"{name}.yaml"
    if not path.is_file():
        known = names(profiles)
        near = difflib.get_close_matches(name, known, 1)
        fix = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise TargetError(f"there is no target {name}", where=profiles, fix=fix)
    return path


def load(path: Path) -> Target:
    """The target whose profile is the file ``path``.

    Raises:
        TargetError: it cannot be read, is no YAML, or says something unknown, missing or contradictory.
    """
    try:
        target = Target.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise TargetError(f"cannot be read: {error.strerror}", where=path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TargetError(f"is not YAML: {error}", where=path) from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors())
        raise TargetError(problems, where=path) from error
    _check(target, path)
    return target


def _check(target: Target, path: Path) -> None:
    if target.name != path.stem:
        raise TargetError(f"is named {target.name} inside", where=path, fix=f"name it {path.stem}")
    for figure in FIGURES:
        if figure not in target.figures:
            raise TargetError(f"figures.{figure} is missing", where=path, fix="value null when it is not public")
    uses = [u for op in target.operators.values() for u in op.rules]
    for use in (*target.rules, *uses):
        if use.rule not in RULES:
            near = difflib.get_close_matches(use.rule, list(RULES), 1)
            fix = f"did you mean {near[0]}?" if near else f"known: {', '.join(RULES)}"
            raise TargetError(f"there is no rule {use.rule}", where=path, fix=fix)
