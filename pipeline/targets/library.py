"""The shelf of targets: finding a profile by name, reading its YAML and checking it."""

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from pipeline.configerrors import Problem, explain
from pipeline.errors import TargetError
from pipeline.quantize.weights import WEIGHTED
from pipeline.targets import inheritance
from pipeline.targets.inheritance import SHIPPED
from pipeline.targets.profile import FIGURES, RuleUse, Target
from pipeline.targets.rules import RULES, placeholders
from pipeline.targets.rules.limits import mistakes
from runtime.errors import ProgramError
from runtime.npu.contracts import find_contract


def folder(config: Path) -> Path:
    """Where the configuration ``config`` has targets of its own, which come before the shipped ones of their name."""
    return config.parent / "targets"


def names(profiles: Path) -> tuple[str, ...]:
    """The targets in the folder ``profiles`` and the shipped ones, sorted."""
    return tuple(sorted({p.stem for home in (profiles, SHIPPED) for p in home.glob("*.yaml")}))


def find(name: str, profiles: Path) -> Path:
    """The file of the target ``name``, in ``profiles`` or shipped; raises ``TargetError`` with the nearest name."""
    paths = [home / f"{name}.yaml" for home in (profiles, SHIPPED)]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise TargetError(f"there is no target {name}", where=profiles, fix=_near(name, names(profiles)))
    return found


def resolve(name: str, profiles: Path) -> Path:
    """The profile ``name``: a YAML file by its path, or a target by its name as ``find`` does."""
    return Path(name) if name.endswith((".yaml", ".yml")) else find(name, profiles)


def load(path: Path) -> Target:
    """The target whose profile is the file ``path``.

    Raises:
        TargetError: it or what it inherits from cannot be read, is no YAML, or says something unknown, missing or
            contradictory; every mistake of its form is told at once.
    """
    try:
        target = Target.model_validate(inheritance.document(path))
    except ValidationError as error:
        raise _report(explain(error, Target), path) from error
    problems = _problems(target, path)
    if problems:
        raise _report(problems, path)
    return target


def _report(problems: Sequence[Problem], path: Path) -> TargetError:
    """One error with a sentence for each problem, ``(fix)`` behind all but the last, whose fix is the error's."""
    *others, last = problems
    before = "".join(f"{p.what} ({p.fix}); " if p.fix else f"{p.what}; " for p in others)
    return TargetError(before + last.what, where=path, fix=last.fix)


def _problems(target: Target, path: Path) -> list[Problem]:
    """What is wrong beyond the form of the profile."""
    problems = []
    if target.name != path.stem:
        problems.append(Problem(("name",), f"is named {target.name} inside", f"name it {path.stem}"))
    problems += _contract_problems(target)
    for figure in FIGURES:
        if figure not in target.figures:
            what = f"figures.{figure} is missing"
            problems.append(Problem(("figures", figure), what, "value null when it is not public"))
    for op in target.quantization.weights:
        if op not in WEIGHTED:
            what = f"quantization.weights.{op}: there is no operator {op} with weights"
            problems.append(Problem(("quantization", "weights", op), what, _near(op, WEIGHTED)))
    for op in sorted(target.absent.keys() & target.operators.keys()):
        what = f"absent.{op}: the target both has and has not {op}"
        problems.append(Problem(("absent", op), what, f"set absent.{op} to null where it inherits that"))
    if target.takes_everything and (target.operators or target.absent or target.operators_unknown):
        what = "takes_everything contradicts operators, absent and operators_unknown"
        problems.append(Problem(("takes_everything",), what, "leave them empty"))
    uses = [("rules", use) for use in target.rules]
    uses += [(f"operators.{name}", use) for name, op in target.operators.items() for use in op.rules]
    problems += _twice("rules", target.rules)
    problems += [p for name, op in target.operators.items() for p in _twice(f"operators.{name}", op.rules)]
    return problems + [problem for where, use in uses for problem in _rule_problems(where, use)]


def _rule_problems(where: str, use: RuleUse) -> list[Problem]:
    if use.rule not in RULES:
        return [Problem((where,), f"{where}: there is no rule {use.rule}", _near(use.rule, RULES))]
    wanted, given = placeholders(use.rule), use.limits.keys()
    said = f"{where}: rule {use.rule}"
    missing = [Problem((where,), f"{said} needs the limit {n}", "add it to its limits") for n in sorted(wanted - given)]
    unknown = [Problem((where,), f"{said} has no limit {n}", _near(n, wanted)) for n in sorted(given - wanted)]
    if missing or unknown:
        return missing + unknown
    return [Problem((where,), f"{said}: {what}", fix) for what, fix in mistakes(use.rule, use.limits)]


def _twice(where: str, uses: Sequence[RuleUse]) -> list[Problem]:
    """Rules that are given twice for the same form, so that one of them means nothing."""
    counts = Counter((use.rule, use.when) for use in uses)
    return [
        Problem((where,), f"{where}: rule {rule} is given {count} times", "give it once, or with another when")
        for (rule, _), count in counts.items()
        if count > 1
    ]


def _contract_problems(target: Target) -> list[Problem]:
    """What is wrong with the target's contract: unknown, known to nothing, or against its quantization."""
    try:
        contract = find_contract(target.contract)
    except ProgramError as error:
        return [Problem(("contract",), error.what, error.fix or "")]
    if contract.symmetric and not target.quantization.symmetric:
        fact = f"the contract {contract.name} is symmetric, quantization.symmetric is not set"
        return [Problem(("contract",), fact, "set it")]
    return []


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known)) or 'none'}"
