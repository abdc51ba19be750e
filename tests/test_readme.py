"""The README is true: its map is whole, its commands are understood, and its links lead somewhere."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from pipeline import cli

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
READERS = ("config", "run", "targets", "compare")
"""Commands that can be run here and change nothing; ``check`` has a test of its own."""
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]


def first_words(word):
    return [shlex.split(command)[1:] for command in COMMANDS if command.split()[0] == word]


def process(words, folder=ROOT):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = [sys.executable, *words]
    return subprocess.run(start, cwd=folder, capture_output=True, text=True, check=False, env=environment)


def test_every_command_is_one_of_ours():
    assert {command.split()[0] for command in COMMANDS} == {"make", "pipeline", "npu-run", "python"}


def test_the_two_commands_are_make_run_and_make_test():
    assert [command for command in COMMANDS if command.startswith("make")][:2] == ["make run", "make test"]


@pytest.mark.parametrize("words", first_words("make"), ids=" ".join)
def test_make_knows(words):
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_checks_give_the_numbers_of_the_text(tmp_path):
    ours = [words for words in map(shlex.split, COMMANDS) if "mobilenet_v3.onnx" in " ".join(words)]
    export, first, second = ours[:3]
    made = process(export[1:], tmp_path)
    assert made.returncode == 0, made.stderr
    done = process(["-m", *first, "--json"], tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    on_cpu = len(told["nodes"]) - told["totals"]["nodes_on_npu"]
    assert f"estimates {told['totals']['latency_ms']:.1f} ms" in TEXT
    assert f"{on_cpu} of {len(told['nodes'])} operators" in TEXT
    assert f"save {told['rewrites'][0]['delta_ms']:.1f} ms" in TEXT
    done = process(["-m", *second, "--json"], tmp_path)
    totals = json.loads(done.stdout)["totals"]
    assert totals["nodes_on_npu"] == totals["nodes"]
    band = f"({totals['latency_low_ms']:.1f} to {totals['latency_high_ms']:.1f})"
    assert f"{totals['nodes']} operators all run on the NPU: {totals['latency_ms']:.1f} ms {band}" in TEXT


EXPORT = """
import sys
from pathlib import Path
from pipeline import configfile, tasks
from pipeline.graph.capture import capture
from pipeline.graph.model import save
from pipeline.tasks.detection.model import example_input
for path in map(Path, sys.argv[1:]):
    task = tasks.load(configfile.load(path).config)
    image = example_input(task.preprocess.width, task.preprocess.height)
    save(capture(task.build().eval(), image, task.input_name, task.output_names, 18), Path(f"{path.stem}.onnx"))
"""
"""Writes the networks of use cases before training: what they cost does not depend on their weights."""


def test_comparisons_give_the_numbers_of_the_text(tmp_path):
    section = TEXT.split("## Is the NPU worth it?")[1].split("\n## ")[0]
    tables = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    names = ["cctv", "awkward-head"]
    made = process(["-c", EXPORT, *(ROOT / f"configs/{name}.yaml" for name in names)], tmp_path)
    assert made.returncode == 0, made.stderr
    for name, table in zip(names, tables, strict=True):
        done = process(["-m", "pipeline", "compare", f"{name}.onnx", "--json"], tmp_path)
        assert done.returncode == 0, done.stderr
        rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
        lines = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
        assert len(lines) > 10
        for device, coverage, partitions, ms, *_, worth in lines:
            row = rows[device]
            assert float(ms) == pytest.approx(row["latency_ms"], rel=0.01), device  # Ethos-U compresses weights
            assert coverage in ("", f"{100 * row['coverage']:.1f} %"), device
            assert partitions == f"{row['partitions']} ({row['npu_partitions']})", device
            answer = {"uncertain": "perhaps", None: "the host alone"}.get(row["worth"], row["worth"])
            assert worth.partition(":")[0] == answer, device


@pytest.mark.parametrize("words", [w for w in first_words("pipeline") if w[0] in READERS], ids=" ".join)
def test_pipeline_understands(words, tmp_path):
    dry = ["--dry-run", "--runs", tmp_path] if words[0] in ("run", "compare") else []
    done = process(["-m", "pipeline", *words, *dry])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [w for w in first_words("pipeline") if w[0] not in READERS], ids=" ".join)
def test_pipeline_has_the_command_and_its_options(words):
    command, given = typer.main.get_command(cli.app), list(words)
    while hasattr(command, "commands"):
        name = given.pop(0)
        command = command.commands[name]
    command.make_context(name, given)  # reads the words, and does nothing


@pytest.mark.parametrize("words", first_words("npu-run"), ids=" ".join)
def test_npu_run_understands(words):
    words = [word.replace("runs/cctv/package/cctv.npub", "no/such.npub") for word in words]
    done = process(["-m", "runtime", *words])
    assert done.returncode == 1, done.stderr  # 2 would be wrong usage
    assert re.match(r"npu-run: (no/such.npub|keys/ci.pub): cannot be read", done.stderr)


def test_everything_on_the_map_exists():
    table = TEXT.split("## Map")[1].split("## ")[0]
    named = re.findall(r"`([a-z_./]+[/.][a-z_./]*)`", table)
    paths = [name for name in named if "/" in name]
    assert len(paths) > 15
    assert [name for name in paths if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("package", ["pipeline", "runtime"])
def test_every_room_is_on_the_map(package):
    rooms = sorted(path.parent.name for path in (ROOT / package).glob("*/__init__.py"))
    assert [room for room in rooms if f"`{package}/{room}/`" not in TEXT] == []


def test_every_link_and_picture_exists():
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
