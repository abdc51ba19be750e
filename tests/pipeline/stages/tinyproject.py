"""The tiny use case as ``pipeline run`` does it, up to the quantize stage; and the same in a process that is killed."""

import io
import multiprocessing
import os
import signal

import torch
import yaml
from smallmodels import TARGETS

from pipeline.configfile import load
from pipeline.progress import PlainConsole
from pipeline.run import STAGES, Options, run
from pipeline.workspace import read_record


class Deadly(PlainConsole):
    """Kills its process, which has no chance to tidy up, when it counts so many of what it has begun so often."""

    def __init__(self, what, starts, advances):
        super().__init__(io.StringIO(), io.StringIO())
        self.what, self.starts, self.advances, self.inside = what, starts, advances, False

    def start(self, total, what):
        self.inside = what.startswith(self.what)
        self.starts -= self.inside

    def advance(self, n=1):
        if self.inside and self.starts == 0:
            self.advances -= n
            if self.advances <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


def killed(work, *given, start):
    """Do it in a process that is killed, and that is started by ``fork``, or by ``spawn`` where gradients are taken."""
    child = multiprocessing.get_context(start).Process(target=work, args=given)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL


class Project:
    """The tiny use case in a folder of its own."""

    def __init__(self, folder, settings):
        self.folder, self.settings, self.config = folder, settings, folder / "tiny.yaml"

    def run(self, runs, **quantize):
        """Run up to the quantize stage; what was said of that stage, and all messages."""
        said, messages = io.StringIO(), io.StringIO()
        self.run_on(PlainConsole(said, messages), runs, quantize)
        return [line for line in said.getvalue().splitlines() if line.startswith("quantize: ")], messages.getvalue()

    def run_on(self, console, runs, quantize):
        self.config.write_text(yaml.safe_dump({**self.settings, "quantize": {**self.settings["quantize"], **quantize}}))
        options = Options(self.folder / runs, TARGETS / "coral-edgetpu-usb3.yaml")
        run(load(self.config), options, console, stages=STAGES[:2])

    def kill(self, runs, what, starts, advances, **quantize):
        """Run in a process that is killed while the stage does ``what``."""

        def work():
            torch.set_num_threads(1)  # a forked process has none of the threads that OpenMP counts on
            self.run_on(Deadly(f"quantize: {what}", starts, advances), runs, quantize)

        killed(work, start="fork")

    def record(self, runs):
        return read_record(self.folder / runs / "tiny" / "quantize")
