"""A process that ``torchrun`` started beside the first: it takes part in training and leaves the rest to the first.

All machines must see the same runs folder.
"""

import os
import time
from collections.abc import Callable, Sequence

from pipeline.errors import UserError
from pipeline.freshness import Stage
from pipeline.planning import Plan
from pipeline.workspace import Context, Quiet, Result

_PAUSE_SECONDS = 0.1
PATIENCE_SECONDS = 120.0
"""How long the first process may take from its start to the stage."""


def is_one() -> bool:
    """Whether ``torchrun`` started this process and it is not the first."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0"


def follow(
    plan: Plan,
    stages: Sequence[Stage],
    call: Callable[[Stage, Context], Result],
    patience: float = PATIENCE_SECONDS,
) -> None:
    """Take part in each shared stage that is stale, once the first process has begun it; its result is the first's.

    Raises:
        UserError: the first process does not begin it within ``patience`` seconds.
    """
    for stage in stages:
        if not stage.together:
            continue
        assessment = plan.assess(stage)
        if assessment.fresh:
            continue
        deadline = time.monotonic() + patience
        while not plan.workspace.at_work(stage.name, assessment.key):
            if time.monotonic() > deadline:
                raise UserError(
                    f"the first process has not begun {stage.name}",
                    where=plan.workspace.folder,
                    fix="let all machines share the --runs folder, and start them together",
                )
            time.sleep(_PAUSE_SECONDS)
        call(stage, plan.context(stage, plan.workspace.partial(stage.name), Quiet()))
