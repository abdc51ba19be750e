"""What a comparison of quantizers keeps: what it rests on, what still holds, and the file, with several processes."""

import hashlib
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import scipy
from benchentries import entry

from pipeline.benches.quantization import basis, bench, measured, table
from pipeline.benches.quantization.bench import Bench
from pipeline.benches.quantization.child import Failure, Spent
from pipeline.benches.quantization.contenders import CONTENDERS, TARGETS, Contender, named
from pipeline.benches.quantization.measured import Basis, Peak
from pipeline.errors import UserError
from pipeline.workspace import Quiet


def test_what_it_rests_on_is_code_and_versions_and_the_target():
    absent = Contender("absent", ("no_such_package.at_all",), print)
    found = basis.tools([named("ORT min-max"), absent], ["per-channel"])
    said = found["ORT min-max", "per-channel"]
    assert f"onnxruntime {onnxruntime.__version__}" in said
    assert f"numpy {np.__version__}" in said
    assert "ethos-u55-256" in said
    every = basis.tools(CONTENDERS, ["per-channel"])
    assert f"scipy {scipy.__version__}" in every["ours best", "per-channel"]
    assert f"torch {basis.version('torch')}" in every["AIMET CLE", "per-channel"]
    assert f"openvino {basis.version('openvino')}" in every["NNCF full", "per-channel"]
    assert "no_such_package absent" in found["absent", "per-channel"]
    assert basis.code([bench.__name__]) == basis.code([bench.__name__]) != basis.code([table.__name__])


def test_runs_of_different_cases_add_up_to_one_table_of_what_holds(tmp_path):
    here = Bench(tmp_path, "code", Quiet())
    here.models.mkdir()
    today = basis.tools(CONTENDERS, tuple(TARGETS))
    for name in ("mobilenet-v2", "skewed"):
        (here.models / f"{name}.onnx").write_bytes(name.encode())

    def keep(found, case, code="code", model=None):
        scheme = getattr(found, "scheme", bench.MEMORY_SCHEME)
        model = hashlib.sha256((model or case).encode()).hexdigest()
        here.keep(Basis(model, "", "", code, today[found.contender, scheme]), found)

    later, first = (entry(name, 89.0, case=case) for name, case in (("ORT min-max", "skewed"), ("ours best", "skewed")))
    keep(later, "skewed")
    keep(first, "skewed")
    keep(entry("ours best", 1.0, case="mobilenet-v2"), "mobilenet-v2")
    again = entry("ours best", 2.0, case="mobilenet-v2")
    keep(again, "mobilenet-v2")
    keep(entry("ours fast", 3.0, case="mobilenet-v2"), "mobilenet-v2", code="older")
    keep(entry("ours fast", 3.0, case="mobilenet-v2"), "mobilenet-v2", model="older")
    keep(Peak("ours fast", 1000, Spent(1, 1, 203.0)), "mobilenet-v2")
    keep(Peak("ours fast", 50, Failure("ended by signal 9")), "mobilenet-v2")
    found = bench.comparison(here, {})
    assert found.entries == [again, first, later]
    assert [peak.images for peak in found.peaks] == [50, 1000]


def test_after_a_change_of_the_data_only_what_was_measured_with_the_newest_is_in_the_table(tmp_path):
    here, today = Bench(tmp_path, "code", Quiet()), basis.tools(CONTENDERS, tuple(TARGETS))
    here.models.mkdir()
    (here.models / "skewed.onnx").write_bytes(b"skewed")
    (here.models / "mobilenet-v2.onnx").write_bytes(b"skewed")
    model = hashlib.sha256(b"skewed").hexdigest()

    def keep(found, images, evaluation):
        scheme = getattr(found, "scheme", bench.MEMORY_SCHEME)
        here.keep(Basis(model, images, evaluation, "code", today[found.contender, scheme]), found)
        return found

    for seed in range(3):
        keep(entry("ours best", 80.0, seed, case="skewed"), f"older {seed}", "older")
        keep(entry("ORT min-max", 80.0, seed, case="skewed", replicates=(80.0,) * 5), f"older {seed}", "older")
    keep(entry("ORT min-max", 70.0, case="skewed"), "older pool 0", "newer")
    others = keep(entry("ORT min-max", 71.0, 1, case="skewed"), "newer 1", "newer")
    newest = keep(entry("ours best", 89.0, case="skewed"), "newer 0", "newer")
    keep(Peak("ORT min-max", 50, Spent(1, 1, 203.0)), "older", "")
    peak = keep(Peak("ours fast", 50, Spent(1, 1, 203.0)), "newer", "")
    found = bench.comparison(here, {})
    assert (found.entries, found.peaks) == ([newest, others], [peak])


def test_processes_side_by_side_lose_no_line(tmp_path):
    path = tmp_path / "measured.jsonl"
    path.write_bytes(b'{"cut": "of')
    script = (
        "import sys; from pathlib import Path; from pipeline.benches.quantization.measured import *\n"
        "for i in range(100):\n"
        "    append(Path(sys.argv[1]), Line(Basis(*'abcde'), Peak(sys.argv[2], i, Failure('x' * 9999))))"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(path), name]) for name in ("one", "two")]
    assert [process.wait() for process in running] == [0, 0]
    assert sorted(line.what for line in measured.read(path)) == [(who, i) for who in ("one", "two") for i in range(100)]


def test_a_line_that_the_disk_has_no_room_for_is_an_error_and_leaves_nothing(tmp_path):
    path, line = tmp_path / "measured.jsonl", measured.Line(Basis(*"abcde"), Peak("ours fast", 50, Failure("x")))
    measured.append(path, line)
    before = path.read_bytes()
    script = (
        "import resource, sys; from pathlib import Path; from pipeline.benches.quantization import measured\n"
        "(line,), size = measured.read(Path(sys.argv[1])), len(Path(sys.argv[1]).read_bytes()) + 5\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)); measured.append(Path(sys.argv[1]), line)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert f"UserError: {path}: cannot be written: No space left on device" in done.stderr
    assert path.read_bytes() == before


def test_a_folder_that_takes_no_file_is_said_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/measured\.jsonl: cannot be written: File exists"):
        Bench(tmp_path / "file", "code", Quiet()).keep(Basis(*"abcde"), Peak("ours fast", 50, Failure("no")))
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        measured.read(tmp_path)


def test_what_was_killed_is_tried_again_and_what_failed_by_itself_is_not(tmp_path):
    here, of = Bench(tmp_path, "code", Quiet()), Basis(*"abcde")
    here.keep(of, Peak("ours fast", 50, Failure("ended by signal 9", passing=True)))
    here.keep(of, Peak("ours fast", 1000, Failure("it wrote no file")))
    assert bench.known(here.file) == {(("ours fast", 1000), of): Peak("ours fast", 1000, Failure("it wrote no file"))}
