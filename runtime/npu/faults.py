"""Faults of a device, for tests and drills: which, in which frame, for how long. Nothing happens that nobody asked for.

==============  ====================================================================================================
``timeout``     the job does not finish within the watchdog's time
``lost``        the device is gone
``memory``      another program holds its memory
``sram``        a bit of its working memory flips while it computes
``weights``     a bit of the parameters flips before it computes
``throttle``    it is too hot and runs at a quarter of its clock
==============  ====================================================================================================

The first three may also strike while a program is put on the device, before frame 0.
"""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from runtime.errors import UserError

FaultKind = Literal["timeout", "lost", "memory", "sram", "weights", "throttle"]
KINDS: tuple[FaultKind, ...] = get_args(FaultKind)

LOADING = -1
"""The frame in which a program is put on the device."""
AT_LOADING: tuple[FaultKind, ...] = ("timeout", "lost", "memory")
"""Those that may strike then."""

_FORM = re.compile(r"([a-z]+)@(\d{1,9}|load)(?:\+(\d{1,9}))?")


@dataclass(frozen=True)
class Fault:
    """What goes wrong in ``frames`` frames from ``frame`` on, which count from 0; ``LOADING`` is the one before."""

    kind: FaultKind
    frame: int
    frames: int = 1

    def covers(self, frame: int) -> bool:
        """Whether it is there in a frame."""
        return self.frame <= frame < self.frame + self.frames


def parse_fault(text: str) -> Fault:
    """``lost@5``: in frame 5; ``lost@5+10``: in ten frames from frame 5 on; ``lost@load``: while loading.

    Raises:
        UserError: the text has another form or names another fault, or one that needs a frame.
    """
    found = _FORM.fullmatch(text)
    kind = next((kind for kind in KINDS if found is not None and found[1] == kind), None)
    if found is None or kind is None or found[3] == "0":
        raise UserError(f"{text!r} is not a fault", fix=f"write FAULT@FRAME or FAULT@FRAME+FRAMES: {', '.join(KINDS)}")
    if found[2] == "load" and kind not in AT_LOADING:
        raise UserError(f"{kind} needs a frame", fix=f"while loading there are {', '.join(AT_LOADING)}")
    return Fault(kind, LOADING if found[2] == "load" else int(found[2]), int(found[3] or 1))
