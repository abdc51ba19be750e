"""One trained model in every int8 form that the targets want: trained once, quantized once per scheme and contract.

::

    runs/cctv/train/                          of the use case, as pipeline run leaves it
    runs/cctv/quantize/                       likewise: the form of the use case's own target
    runs/cctv/compare/<digest>/quantize/      a form that only other targets want, kept in the same way

So ``pipeline run`` finds fresh what a comparison measured, and the other way round; a kill loses no form that is done.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.comparing.nouns import Accuracy
from pipeline.comparing.subjects import Measured, Subject
from pipeline.configfile import LoadedConfig, flatten
from pipeline.cost import hosts
from pipeline.freshness import Assessment
from pipeline.graph.model import load
from pipeline.graph.view import view
from pipeline.planning import Plan
from pipeline.progress import Console
from pipeline.quantize import encodings
from pipeline.run import STAGES, OpenTracker, Options, plan, run, work
from pipeline.stages.common import ENCODINGS, FLOAT_MODEL
from pipeline.targets import library
from pipeline.targets.profile import Target
from pipeline.workspace import Record, Workspace

FOLDER = "compare"
LADDER = "quantize.ladder"
TRAIN, QUANTIZE = (next(stage for stage in STAGES if stage.name == name) for name in ("train", "quantize"))


@dataclass(frozen=True)
class Form:
    """An int8 form of the model.

    Attributes:
        targets: that want it.
        profile: of one of them: what the form depends on is the same in all.
        folder: where it is kept; ``None`` for the use case's own folder.
    """

    targets: tuple[Target, ...]
    profile: Path
    folder: Path | None

    @property
    def names(self) -> str:
        """Its targets in one line."""
        return ", ".join(target.name for target in self.targets)


def forms(loaded: LoadedConfig, options: Options, profiles: Sequence[Path]) -> tuple[Form, ...]:
    """The forms that the targets of ``profiles`` want, each once; raises ``TargetError`` when a profile is wrong."""
    whole = bool(loaded.settings.get(LADDER))
    own = _digest(library.load(options.profile), whole)
    found: dict[str, Form] = {}
    for profile in profiles:
        target = library.load(profile)
        digest = _digest(target, whole)
        folder = None if digest == own else options.runs / loaded.config.name / FOLDER / digest[:12]
        known = found.get(digest, Form((), options.profile if folder is None else profile, folder))
        found[digest] = replace(known, targets=(*known.targets, target))
    return tuple(found.values())


def outlook(loaded: LoadedConfig, options: Options, wanted: Sequence[Form]) -> Iterator[str]:
    """A line for each stage and form: whether it is fresh, or why ``measure`` would make it; changes nothing."""
    train = next(stage for stage in plan(loaded, options).stages if stage.name == TRAIN.name)
    yield _told(TRAIN.name, train.why)
    for form in wanted:
        why = f"{TRAIN.name} comes first"
        if train.current:
            why = _plan(loaded, options, form).assess(QUANTIZE).brief
        yield _told(f"{QUANTIZE.name} for {form.names}", why)


def measure(
    loaded: LoadedConfig, options: Options, wanted: Sequence[Form], console: Console, track: OpenTracker | None = None
) -> Subject:
    """The float model with what each form of it reaches on the validation data; what is stale is made.

    Args:
        loaded: the use case.
        options: where its runs lie; its target's profile.
        wanted: the forms.
        console: where to tell how far the work is.
        track: opens the tracker for training.

    Raises:
        GateMissedError: the float model misses a gate of the use case; a form that does gets a note.
        UserError: a stage fails for a reason that the user can mend.
    """
    records: list[tuple[Form, Record, Path]] = []

    def quantize(main: Plan) -> None:
        for form in wanted:
            own = form.folder is None
            chosen = main if own else _plan(loaded, options, form)
            with nullcontext() if own else chosen.workspace.open([QUANTIZE.name]):
                records.append((form, _record(chosen, form, console), chosen.workspace.stage(QUANTIZE.name)))
                chosen.digests.save()

    run(loaded, replace(options, last=TRAIN.name), console, track=track, then=quantize)
    return Subject(str(loaded.path), view(load(records[0][2] / FLOAT_MODEL)), _measured(records))


def _plan(loaded: LoadedConfig, options: Options, form: Form) -> Plan:
    """The plan of a form that has a folder of its own, on the weights of the use case."""
    main = Workspace(options.runs / loaded.config.name)
    workspace = Workspace(form.folder or main.folder, {TRAIN.name: main.stage(TRAIN.name)})
    name = loaded.config.partition.host or form.targets[0].host
    host = None if name is None else hosts.resolve(name, loaded.path.parent / hosts.OWN)
    return Plan(loaded, replace(options, profile=form.profile, host=host), (QUANTIZE,), workspace)


def _record(chosen: Plan, form: Form, console: Console) -> Record:
    """The record of a form, which is made when it is stale."""
    assessment: Assessment = chosen.assess(QUANTIZE)
    console.line(_told(f"{QUANTIZE.name} for {form.names}", assessment.brief))
    if assessment.fresh and assessment.record is not None:
        return assessment.record
    return work(chosen, QUANTIZE, assessment, console)


def _measured(records: Sequence[tuple[Form, Record, Path]]) -> Measured:
    int8: dict[str, Accuracy] = {}
    notes: dict[str, tuple[str, ...]] = {}
    for form, record, folder in records:
        found = _accuracy(record.metrics, "")
        used = encodings.load(folder / ENCODINGS)
        zero = all(encoding.zero_point == 0 for encoding in used.activations.values())
        for target in form.targets:
            notes[target.name] = record.gates
            if target.quantization.symmetric and not zero:
                told = "Its int8 accuracy is not known: it wants zero point 0, and the quantize stage chose others"
                notes[target.name] = (*record.gates, told)
            elif found is not None:
                int8[target.name] = found
    return Measured(_accuracy(records[0][1].metrics, "float_"), int8, notes)


def _accuracy(metrics: Mapping[str, float], prefix: str) -> Accuracy | None:
    """The accuracy in a stage's numbers; ``None`` when it is not there, or is no number."""
    ap50, ap = (metrics.get(f"{prefix}{name}", math.nan) for name in ("ap50", "ap"))
    return Accuracy(ap50, ap) if math.isfinite(ap50) and math.isfinite(ap) else None


def _told(what: str, why: str) -> str:
    return f"{what}: stale because {why}" if why else f"{what}: fresh"


def _digest(target: Target, whole: bool) -> str:
    """SHA-256 of what a form depends on of its target; of the ``whole`` target where costs decide."""
    facts = target.model_dump() if whole else target.arithmetic()
    return hashlib.sha256(json.dumps(dict(flatten(facts)), sort_keys=True).encode()).hexdigest()
