"""The stages between training and packaging in a row, on the tiny clip and networks that nobody trained."""

from types import SimpleNamespace

import tinynets
import yaml
from safetensors.torch import save_file
from smallmodels import TARGETS

from pipeline.configfile import load
from pipeline.cost import hosts
from pipeline.stages import coverage, export, partition, quantize
from pipeline.workspace import Context, Quiet

STAGES = {"quantize": quantize, "export": export, "coverage": coverage, "partition": partition}


class Chain(SimpleNamespace):
    """Runs the stages in order into a folder."""

    def run(self, *names, **changes):
        for name in names:
            out = self.folder / name
            out.mkdir(exist_ok=True)
            context = Context(
                changes.get("config", self.config), out, {n: self.folder / n for n in ("train", *STAGES)},
                profile=TARGETS / f"{changes.get('target', 'coral-edgetpu-usb3')}.yaml",
                host=hosts.find("desktop-xeon", hosts.folder()),
                provenance={"config_digest": "abc", "git_commit": "def"}, progress=changes.get("progress", Quiet()),
            )  # fmt: skip
            self.results[name] = STAGES[name].run(context)
        return self.results[names[-1]]

    def files(self):
        return {
            p.relative_to(self.folder).as_posix(): p.read_bytes() for p in sorted(self.folder.rglob("*")) if p.is_file()
        }


def chain(folder, settings, factory):
    settings = {**settings, "train": {**settings["train"], "model": {"factory": f"tinynets:{factory}"}}}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    runs = folder / "runs"
    (runs / "train").mkdir(parents=True)
    save_file(getattr(tinynets, factory)(1).state_dict(), runs / "train" / "model.safetensors")
    return Chain(folder=runs, config=load(path).config, results={})


def with_quantize(config, **changes):
    return config.model_copy(update={"quantize": config.quantize.model_copy(update=changes)})


class Stopped(Quiet):
    """Ctrl-C after two trials."""

    def __init__(self, stop=2):
        self.tried, self.said, self.stop = [], [], stop

    def message(self, text):
        self.said.append(text)

    def trial(self, what, numbers):
        self.tried.append(what)
        if len(self.tried) == self.stop:
            raise KeyboardInterrupt
