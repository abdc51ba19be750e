"""What is checked: a model from a file, the target and its host, with everything that a command does to them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from pipeline.checking import whatif
from pipeline.checking.check import Demands, check
from pipeline.checking.nouns import Check
from pipeline.checking.pins import fitting
from pipeline.compile.closure import without_kernel
from pipeline.compile.fallbacks import save_fallbacks
from pipeline.cost import hosts
from pipeline.cost.hosts import HostProfile
from pipeline.errors import ModelError
from pipeline.files import write_atomically
from pipeline.graph.opening import open_model
from pipeline.graph.view import Graph, view
from pipeline.placing.problem import CPU
from pipeline.targets import library
from pipeline.targets.profile import Target
from pipeline.workspace import Progress


@dataclass(frozen=True)
class Subject:
    """A model on a target.

    Attributes:
        path: the model's file.
        model: the model, checked, with shapes and names.
        graph: its view.
        target: the chip.
        host: the processor beside it, ``None`` when nothing is known of it.
        notes: what opening did to the model that its owner must know.
    """

    path: Path
    model: onnx.ModelProto
    graph: Graph
    target: Target
    host: HostProfile | None
    notes: tuple[str, ...] = ()

    def check(self, demands: Demands) -> Check:
        """The check of the model, and whether ONNX Runtime has a kernel for each operator that it leaves to the CPU.

        Raises:
            ModelError: a demand is impossible.
        """
        checked = check(str(self.path), self.graph, self.target, self.host, demands)
        left = [node.name for node in checked.nodes if node.device == CPU]
        missing = [f"{name}: {fact}" for name, fact in without_kernel(self.model, self.graph, left).items()]
        return replace(checked, notes=(*self.notes, *missing, *checked.notes))

    def save_fallbacks(self, checked: Check, folder: Path) -> tuple[Path, ...]:
        """Write each operator that the NPU does not take into ``folder``, as a model of its own with inputs.

        Raises:
            ModelError: ``folder`` holds something, or cannot be written.
        """
        return save_fallbacks(self.model, self.graph, checked.refused, folder)

    def what_if(self, checked: Check, demands: Demands, progress: Progress) -> Check:
        """``checked`` with every rewrite that fits, best first; with a note instead where no rule can be tried."""
        try:
            gains = whatif.gains(self.model, checked, self._judge(demands), progress.message)
        except ModelError as error:
            return replace(checked, rewrites=(), notes=(*checked.notes, f"No rewrite was tried: {error}"))
        return replace(checked, rewrites=gains)

    def apply_exact(self, checked: Check, demands: Demands, progress: Progress, out: Path) -> Check:
        """Write the model with the exact rewrites that gain something to ``out``; the check of what was written.

        Raises:
            ModelError: the model is quantized, or has an opset that the rules do not know.
            UserError: ``out`` cannot be written.
        """
        result = whatif.apply_exact(self.model, checked, self._judge(demands), progress.message)
        for gain in result.gains:
            progress.message(f"applied {gain.rule} to {len(gain.nodes)} operators")
        if not result.gains:
            progress.message("no exact rewrite helps; the model is written as it is")
        try:
            write_atomically(out, result.model.SerializeToString(deterministic=True))
        except OSError as error:
            raise ModelError(f"cannot be written: {error.strerror or error}", where=out) from error
        after = view(result.model)
        named = replace(demands, place=fitting([n.name for n in after.nodes], demands.place))
        return replace(check(str(out), after, self.target, self.host, named), rewrites=checked.rewrites)

    def _judge(self, demands: Demands) -> whatif.Judge:
        """Checks rewritten forms of the model; demands on operators that are gone are dropped with them."""

        def judge(model: onnx.ModelProto) -> Check:
            graph = view(model)
            place = fitting([n.name for n in graph.nodes], demands.place)
            return check(str(self.path), graph, self.target, self.host, replace(demands, place=place, prices=False))

        return judge


def open_subject(path: Path, dims: Mapping[str, int], target: str, targets: Path, host: str | None) -> Subject:
    """The model in ``path`` on ``target``.

    Args:
        path: an ONNX file.
        dims: sizes of its dynamic dimensions, by name.
        target: a target's name, or the path of its profile.
        targets: a folder with targets of the user's own.
        host: a host's name or the path of its profile; ``None`` for the target's own.

    Raises:
        ModelError: the model cannot be opened, see ``pipeline.graph.opening``.
        TargetError: the target or the host cannot be found, or its profile is wrong.
    """
    chip = library.load(library.resolve(target, targets))
    opened = open_model(path, dims)
    return Subject(path, opened.model, opened.graph, chip, hosts.named(host or chip.host), opened.notes)
