"""Which source files a module runs: a walk along the import statements, without importing anything."""

import ast
import importlib.machinery
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("pipeline", "runtime")
FRAME = frozenset({"pipeline.config", "pipeline.workspace"})
"""Not part of any stage's code: their values reach the key as settings and outputs, whatever the code around them."""


@dataclass(frozen=True)
class Root:
    """A folder in which modules are looked up.

    Attributes:
        folder: the parent of the top-level modules.
        names: the top-level names that may be found there; ``None`` for any.
    """

    folder: Path
    names: tuple[str, ...] | None = None

    def find(self, module: str) -> Path | None:
        """The file of ``module``, or ``None`` when it is not here or has none."""
        if self.names is not None and module.partition(".")[0] not in self.names:
            return None
        path = self.folder.joinpath(*module.split("."))
        for candidate in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if candidate.is_file():
                return candidate
        return None


def project() -> Root:
    """Where this project's own packages lie."""
    return Root(Path(__file__).absolute().parent.parent, PACKAGES)


def walk(
    modules: Sequence[str], roots: Sequence[Root], known: dict[Path, tuple[str, ...]] | None = None
) -> Mapping[str, Path]:
    """Every source file that ``modules`` import, directly or not, by its path relative to its root.

    Imports inside functions count, packages bring their ``__init__``, and what is in no root (a library) does not.
    ``known`` remembers what each file imports from one walk to the next.
    """
    known = {} if known is None else known
    found: dict[str, Path] = {}
    seen: set[str] = set()
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name in seen or name in FRAME:
            continue
        seen.add(name)
        todo += [name.rpartition(".")[0]] if "." in name else []
        for root in roots:
            path = root.find(name)
            if path is not None:
                found[path.relative_to(root.folder).as_posix()] = path
                if path not in known:
                    known[path] = tuple(_imports(path, name))
                todo += known[path]
                break
    return dict(sorted(found.items()))


def packed(packages: Sequence[str]) -> Mapping[str, Path]:
    """Every source file in the project's ``packages``, by its path."""
    root = project().folder
    files = [file for package in packages for file in sorted((root / package).rglob("*.py"))]
    return {file.relative_to(root).as_posix(): file for file in files}


def locate(module: str) -> Root | None:
    """The root of a user's own module, looked up where importing it would look.

    ``None`` when it is part of an installed library or of Python, or cannot be found.
    """
    top = module.partition(".")[0]
    if top in PACKAGES:
        return None
    spec = importlib.machinery.PathFinder.find_spec(top, sys.path)
    places = list(spec.submodule_search_locations or []) if spec else []
    origin = spec.origin if spec and spec.origin and not places else None
    if not places and origin is None:
        return None
    folder = Path(places[0] if places else str(origin)).absolute().parent
    installed = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    if any(folder == each or each in folder.parents for each in installed):
        return None
    return Root(folder)


def _imports(path: Path, module: str) -> Iterator[str]:
    """The names of the modules that the file imports, and of the names it takes from them, which may be modules."""
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except SyntaxError:  # importing it will tell
        return
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
