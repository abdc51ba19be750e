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


def load(name: str, profiles: Path) -> Target:
    """The target ``name`` of the folder ``profiles``.

    Raises:
        TargetError: there is no such target (the nearest is named), or its file is wrong.
    """
    path = profiles / f"{name}.yaml"
    if not path.is_file():
        known = names(profiles)
        near = difflib.get_close_matches(name, known, 1)
        fix = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise TargetError(f"there is no target {name}", where=profiles, fix=fix)
    try:
        target = Target.model_validate(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TargetError(f"is not YAML: {error}", where=path) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise TargetError(f"{place}: {first['msg']}", where=path) from error
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
