"""Where a result came from."""

import subprocess
from pathlib import Path

FOLDER = Path(__file__).absolute().parent


def git_commit(folder: Path = FOLDER) -> str:
    """The commit that ``folder`` is at, with ``-dirty`` when tracked files differ; ``unknown`` outside a repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return "unknown"
    return f"{commit}-dirty" if _git(folder, "status", "--porcelain", "--untracked-files=no") else commit


def _git(folder: Path, *words: str) -> str:
    """What git answers, nothing when it cannot."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
