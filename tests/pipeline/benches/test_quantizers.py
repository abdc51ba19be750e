"""The comparison of quantizers: real tools in processes of their own on a tiny model, and what is said of them."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from smallmodels import model, run_onnx, target

from pipeline import configfile
from pipeline.benches.quantization import bench, cases, child, detector, digits, judge, measured, table
from pipeline.benches.quantization.bench import Bench
from pipeline.benches.quantization.child import Failure, Spent
from pipeline.benches.quantization.contenders import CONTENDERS, TARGETS, Contender, Job, named
from pipeline.benches.quantization.whole import as_compiled
from pipeline.cli import main
from pipeline.commands.bench_quant import bench_quant_command
from pipeline.errors import ConfigError, ModelError
from pipeline.quantize.engine import Engine
from pipeline.workspace import Quiet

sys.path.append(str(Path(__file__).parents[1] / "quantize"))
from enginenets import net, smooth

CONFIG_FILE = Path(__file__).parents[3] / "configs" / "cctv.yaml"
CONFIG = configfile.load(CONFIG_FILE).config


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    inputs = smooth(24, seed=2)
    made = cases.saved(net(), folder / "net.onnx")
    reference = [run_onnx(onnx.load(made), {"x": each}) for each in inputs]
    return cases.Case("tiny", "agreement", made, smooth(12, seed=1), inputs, cases.agreement(reference), images=8)


def test_a_model_is_there_prepared_or_not_at_all_and_stays_when_it_is_the_same(tmp_path, monkeypatch):
    path, seen, two = tmp_path / "net.onnx", [], np.full(2, 2, np.float32)
    given = model(
        "g (float[1,2,4,4] x) => (float[1,2,4,4] y) { c = Conv (x, w) y = BatchNormalization (c, s, s, s, s) }",
        w=np.ones((2, 2, 1, 1), np.float32), s=two,
    )  # fmt: skip
    real = cases.write_atomically
    monkeypatch.setattr(cases, "write_atomically", lambda path, data: seen.append(data) or real(path, data))
    assert seen == [cases.saved(given, path).read_bytes()]  # nothing else was ever in its place
    assert seen[0] != given.SerializeToString(deterministic=True)
    before = path.stat().st_ino
    assert (cases.saved(given, path).stat().st_ino, len(seen)) == (before, 1)


def one(case, name, scheme, folder):
    (entry,) = bench.compare(Bench(folder, "code", Quiet()), case, folder, 1, [named(name)], [scheme])
    return entry


@pytest.mark.parametrize(("name", "scheme"), [("ours fast", "per-tensor"), ("ORT min-max", "per-channel")])
def test_a_tool_quantizes_in_a_process_of_its_own_and_is_judged_on_the_engine(case, tmp_path, name, scheme):
    entry = one(case, name, scheme, tmp_path)
    assert entry.judgement.where == "engine"
    assert entry.judgement.sqnr_db > 20
    assert 70 < entry.judgement.points <= entry.floating == 100
    assert 0 < entry.spent.cpu_seconds < 60
    assert 50 < entry.spent.peak_mb < 2000
    assert entry.judgement.floats == 0


def test_nncf_is_judged_on_the_engine_too(case, tmp_path):
    pytest.importorskip("nncf")
    entry = one(case, "NNCF fast", "per-channel", tmp_path)
    assert (entry.judgement.where, entry.judgement.sqnr_db > 15) == ("engine", True)


def test_what_fails_or_is_not_installed_is_told(case, tmp_path):
    images = case.draw(0, tmp_path / "images")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    job = Job(tmp_path / "broken.onnx", images, tmp_path / "out.onnx", "per-channel")
    assert "broken.onnx: is not an ONNX file" in bench.quantized(named("ours fast"), job).reason
    absent = Contender("absent", ("no_such_package.at_all",), print)
    assert bench.quantized(absent, job) == Failure("no_such_package is not installed")


def counting(monkeypatch):
    """Every quantization that is really made, by who makes it."""
    made, real = [], child.spawn
    monkeypatch.setattr(child, "spawn", lambda contender, job: made.append(contender.name) or real(contender, job))
    return made


def test_what_was_measured_is_not_measured_again_unless_something_changes(case, tmp_path, monkeypatch):
    made = counting(monkeypatch)

    def measure(seeds, code="code", measured_case=case):
        with_known = Bench(tmp_path, code, Quiet(), bench.known(tmp_path / bench.MEASURED))
        return bench.compare(with_known, measured_case, tmp_path, seeds, [named("ORT min-max")], ["per-channel"])

    first = measure(1)
    assert [*measure(2)[:1], len(made)] == [*first, 2]  # the second draw alone is new
    assert (measure(2)[0], len(made)) == (first[0], 2)
    written = (tmp_path / bench.MEASURED).read_bytes()
    (tmp_path / bench.MEASURED).write_bytes(written[: written.rindex(b'"judgement"')])  # as a kill leaves it
    assert [(e.seed, e.judgement) for e in measure(2)] == [(e.seed, e.judgement) for e in [*first, measure(2)[1]]]
    assert len(made) == 3
    assert len(measured.read(tmp_path / bench.MEASURED)) == 2
    measure(1, code="another")
    measure(1, measured_case=replace(case, inputs=case.inputs[:20], points=lambda outputs: lambda places: 50.0))
    assert len(made) == 5


def test_an_interrupted_run_goes_on_where_it_was_and_force_measures_anew(case, tmp_path, monkeypatch):
    made, names = [], {each.name for each in CONTENDERS if bench.installed(each.package)}

    def spawned(contender, job):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append((job.scheme, contender.name))
        return Failure(f"number {len(made)}")

    def ready(name, config, runs, folder, progress):
        (folder / f"{name}.onnx").write_bytes(case.model.read_bytes())
        return replace(case, name=name, model=folder / f"{name}.onnx")

    monkeypatch.setattr(bench, "make", ready)
    monkeypatch.setattr(bench, "code", lambda modules: "code")
    monkeypatch.setattr(child, "spawn", spawned)
    asked = (CONFIG, tmp_path, tmp_path / "out", ["skewed"], 1, Quiet())
    with pytest.raises(KeyboardInterrupt):
        bench.run(*asked)
    made.append(("", "stopped"))
    found = bench.run(*asked)
    assert sorted(made[:5] + made[6:]) == sorted((scheme, name) for scheme in TARGETS for name in names)
    assert len(found.entries) == len(TARGETS) * len(CONTENDERS)
    count = len(made)
    assert (bench.run(*asked), len(made)) == (found, count)
    again = bench.run(*asked, force=True)
    assert len(made) == count + len(TARGETS) * len(names)
    assert len(again.entries) == len(found.entries)
    assert again != found


def test_a_network_is_trained_anew_when_its_settings_layers_or_data_change(monkeypatch):
    network, (images, labels) = digits.mobilenet_v2(), digits.digits()
    first = digits.key(network, images[:10], labels[:10])
    assert first == digits.key(digits.mobilenet_v2(), images[:10], labels[:10])
    others = [digits.key(digits.unclamped(), images[:10], labels[:10]), digits.key(network, images[:9], labels[:9])]
    for package in (digits.torch, digits.torchvision):
        with monkeypatch.context() as other:
            other.setattr(package, "__version__", "0.0")
            others.append(digits.key(network, images[:10], labels[:10]))
    monkeypatch.setattr(digits, "EPOCHS", 3)
    assert len({first, *others, digits.key(network, images[:10], labels[:10])}) == 6


def test_a_trained_network_is_used_again(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "EPOCHS", 1)
    images, labels = (each[:32] for each in digits.digits())
    first = digits.trained("relu", tmp_path, images, labels, Quiet()).state_dict()
    monkeypatch.setattr(digits, "train", None)
    again = digits.trained("relu", tmp_path, images, labels, Quiet()).state_dict()
    assert all(torch.equal(values, again[name]) for name, values in first.items())


def test_a_tool_that_writes_nothing_is_not_judged_by_the_file_before(case, tmp_path, monkeypatch):
    images = case.draw(0, tmp_path / "images")
    job = Job(case.model, images, tmp_path / "out.onnx", "per-channel")
    job.out.write_bytes(case.model.read_bytes())
    job.out.with_suffix(".json").write_text('{"seconds": 1, "cpu_seconds": 1, "peak_mb": 1}')
    monkeypatch.setattr(child.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, "", ""))
    assert child.spawn(named("ours fast"), job) == Failure("it wrote no file")
    monkeypatch.setattr(child.subprocess, "run", late)
    assert child.spawn(named("ours fast"), job) == Failure("not done after 1800 s", passing=True)
    killed = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(child.subprocess, "run", lambda command, **_: killed)
    assert child.spawn(named("ours fast"), job) == Failure("ended by signal 9", passing=True)


@pytest.mark.parametrize(
    ("script", "passing"),
    [
        ("import numpy; numpy.empty(2**60, 'b')", True),
        ("raise RuntimeError('std::bad_alloc')", True),
        ("import errno, os; raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))", True),
        ("raise ValueError('no')", False),
    ],
)
def test_what_had_no_room_is_tried_again(tmp_path, monkeypatch, script, passing):
    real = subprocess.run
    monkeypatch.setattr(child.subprocess, "run", lambda command, **options: real([command[0], "-c", script], **options))
    job = Job(tmp_path / "net.onnx", tmp_path, tmp_path / "out.onnx", "per-channel")
    found = child.spawn(named("ours fast"), job)
    assert (found.passing, "Error" in found.reason) == (passing, True)


def late(command, timeout, **_):
    raise subprocess.TimeoutExpired(command, timeout)


def test_a_file_that_nothing_runs_is_a_failure_and_no_end(case, tmp_path, monkeypatch):
    def damaged(contender, job):
        job.out.write_bytes(b"no model")
        return Spent(1.0, 1.0, 1.0)

    monkeypatch.setattr(bench, "quantized", damaged)
    entry = one(case, "ours fast", "per-channel", tmp_path)
    assert entry.judgement is None
    assert "neither the engine nor ONNX Runtime takes it" in entry.spent.reason


def test_pairs_without_a_zero_point_stay():
    given = model(
        "g (float[1,4] x) => (float[1,4] y) { a = QuantizeLinear (x, s) b = DequantizeLinear (a, s) y = Relu (b) }",
        s=np.float32(0.1),
    )
    assert [n.op_type for n in as_compiled(given).graph.node] == [n.op_type for n in given.graph.node]


def test_a_draw_is_the_same_for_the_same_seed_and_takes_images_again_beyond_all(case, tmp_path):
    first, again, other = (case.draw(seed, tmp_path / name) for seed, name in ((0, "a"), (0, "b"), (1, "c")))
    contents = [[path.read_bytes() for path in sorted(each.iterdir())] for each in (first, again, other)]
    assert contents[0] == contents[1] != contents[2]
    assert len(set(contents[0])) == len(contents[0]) == 8
    assert len(list(case.draw(0, tmp_path / "many", 30).iterdir())) == 30


def test_uint8_and_float_biases_become_what_the_engine_takes_without_other_values():
    scales = {"sx": np.float32(0.02), "sw": np.array([0.01, 0.03], np.float32), "sy": np.float32(0.05)}
    zeros = {"zx": np.uint8(100), "zw": np.zeros(2, np.int8), "zy": np.uint8(131)}
    weight = np.arange(-9, 9, dtype=np.int8).reshape(2, 1, 3, 3)
    given = model(
        "g (float[1,1,6,6] x) => (float[1,2,4,4] y) { a = QuantizeLinear (x, sx, zx) b = DequantizeLinear (a, sx, zx)"
        " v = DequantizeLinear <axis = 0> (w, sw, zw) c = Conv (b, v, bias) d = QuantizeLinear (c, sy, zy)"
        " y = DequantizeLinear (d, sy, zy) }",
        **scales, **zeros, w=weight, bias=np.array([0.5, -0.7], np.float32),
    )  # fmt: skip
    made = judge.shaped(as_compiled(given))
    image = np.random.default_rng(0).uniform(-2, 3, (1, 1, 6, 6)).astype(np.float32)
    assert np.abs(run_onnx(made, {"x": image})["y"] - run_onnx(given, {"x": image})["y"]).max() <= 0.05001
    (unit,) = Engine(made, target("ethos-u55-256")).units
    assert unit.reasons == ()  # among them would be the zero point's type, and the bias's


def test_a_scale_per_channel_of_an_activation_is_refused():
    scales = {"s": np.full(3, 0.1, np.float32), "z": np.zeros(3, np.int8)}
    given = model(
        "g (float[1,3,4,4] x) => (float[1,3,4,4] y) { a = QuantizeLinear <axis = 1> (x, s, z)"
        " b = DequantizeLinear <axis = 1> (a, s, z) y = Relu (b) }", **scales
    )  # fmt: skip
    with pytest.raises(ModelError, match="is an activation with 3 scales, one per channel"):
        Engine(given, target("ethos-u55-256"))


def test_boxes_and_scores_in_one_tensor_come_apart_as_they_were():
    given = model(
        "g (float[1,1,8,16] image) => (float[1,2,2,4] scores, float[1,4,2,4] boxes)"
        " { scores = Conv <strides = [4,4]> (image, s) boxes = Conv <strides = [4,4]> (image, b) }",
        s=np.random.default_rng(0).normal(size=(2, 1, 4, 4)).astype(np.float32),
        b=np.random.default_rng(1).normal(size=(4, 1, 4, 4)).astype(np.float32),
    )
    joined, split = detector.join(given)
    image = np.random.default_rng(2).normal(size=(1, 1, 8, 16)).astype(np.float32)
    one_tensor, apart = run_onnx(joined, {"image": image}), run_onnx(given, {"image": image})
    assert list(one_tensor) == ["detections"]
    assert np.abs(one_tensor["detections"][:, :4]).max() > 10
    assert one_tensor["detections"][:, 4:].max() < 1
    for name, values in split(one_tensor).items():
        np.testing.assert_allclose(values, apart[name], atol=2e-4)


CHANGED = {
    "skew": (digits.unclamped, 0.03),
    "outliers": (digits.unclamped, 1.0),
    "skew_below": (digits.mobilenet_v2, 1e-3),
}


@pytest.mark.parametrize("change", CHANGED)
def test_pathologies_change_ranges_but_no_function(change):
    torch.manual_seed(0)
    made, least = CHANGED[change]
    network, factors = made().eval(), getattr(digits, change)(torch.Generator().manual_seed(0))
    images = torch.randn(2, 3, digits.SIZE, digits.SIZE)
    norm = network.features[3].conv[0][1]
    with torch.no_grad():
        norm.bias[:4] = 7.0  # beyond the clamp's limit
        before, weight = network(images), norm.weight.clone()
        after = digits.scale(network, images, factors)(images)
        ratio = norm.weight / weight
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3 * float(before.abs().max()))
    assert 60 < float(ratio.max() / ratio.min()) <= digits.SKEW
    assert float(ratio.min()) >= least * 0.999
    assert change != "skew_below" or (ratio[:4].tolist() == [1.0] * 4 and float(ratio[4:].max()) < 1)


def test_what_is_missing_is_told_and_the_rest_runs(tmp_path):
    with pytest.raises(ConfigError, match=r"is no case: mobilnet-v2 .did you mean mobilenet-v2"):
        bench.run(CONFIG, tmp_path, tmp_path / "out", ["mobilnet-v2"], 1, Quiet())
    found = bench.run(CONFIG, tmp_path, tmp_path / "out", ["cctv", "cctv-joined"], 1, Quiet())
    assert set(found.missing) == {"cctv", "cctv-joined"}
    assert "pipeline run the cctv config first" in found.missing["cctv"]
    assert "- cctv: left out: " in table.markdown(found)


def test_an_interrupted_command_says_what_goes_on(tmp_path, capsys, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "make", stopped)
    with pytest.raises(SystemExit) as ended:
        main(["bench-quant", str(CONFIG_FILE), "--only", "skewed", "--out", str(tmp_path)])
    assert ended.value.code == 130
    assert "what was measured is kept" in capsys.readouterr().err


def test_the_command_writes_the_tables_and_prints_them(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["bench-quant", str(CONFIG_FILE), "--only", "cctv", "--runs", str(tmp_path), "--out", f"{tmp_path}/out"])
    assert ended.value.code == 0
    said = (tmp_path / "out" / "table.md").read_text()
    assert "- cctv: left out: " in said
    assert capsys.readouterr().out == said
    assert set(json.loads((tmp_path / "out" / "table.json").read_text())["missing"]) == {"cctv"}


def test_the_command_refuses_what_it_does_not_know(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["bench-quant", str(CONFIG_FILE), "--only", "vgg", "--out", str(tmp_path)])
    assert stopped.value.code == 1
    assert "--only: is no case: vgg" in capsys.readouterr().err


def test_the_command_names_the_cases_with_a_pathology():
    said = " ".join((bench_quant_command.__doc__ or "").split())
    assert [name for name in ("skewed", "skewed-relu6", "outliers") if name not in said] == []
