import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from pipeline import __main__ as entry
from pipeline import cli
from pipeline.benches.rows import Row
from pipeline.configfile import schema
from pipeline.run import plan, run

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "onnx", "mlflow", "torchvision", "pytorch_lightning", "onnxruntime", "matplotlib")


@pytest.fixture
def command(shop, monkeypatch, capsys):
    """The command line on the small stages: ``command("run", ...)`` gives exit code, standard output and error."""
    monkeypatch.setattr(cli, "STAGES", shop.stages)
    monkeypatch.setattr(cli, "run", lambda *given, **named: run(*given, stages=shop.stages, **named))
    monkeypatch.setattr(cli, "plan", lambda *given: plan(*given, shop.stages))
    monkeypatch.setattr(cli.loading, "profile", lambda loaded: shop.folder / "toy.yaml")
    monkeypatch.setattr(cli.loading, "host", lambda loaded, profile: None)
    monkeypatch.chdir(shop.folder)

    def call(*words):
        shop.reload()
        code = 0
        try:
            cli.main(words)
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


def edit(shop, name, old, new):
    path = shop.src / f"{name}.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def python(*words, **options):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT, check=False, **options)


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_help_is_fast_and_imports_nothing_heavy():
    code = (
        "import sys; from pipeline.cli import main\n"
        "try: main(['--help'])\n"
        f"except SystemExit: sys.stderr.write(','.join(m for m in {HEAVY} if m in sys.modules))"
    )
    seconds = []
    for _ in range(3):
        began = cpu_seconds()  # a machine that is busy with other things makes nothing slower than it is
        done = python("-c", code)
        seconds.append(cpu_seconds() - began)
        assert (done.returncode, done.stderr) == (0, "")
        assert "quantize" in done.stdout
    assert min(seconds) < 0.5


def test_every_command_has_help(capsys):
    commands = typer.main.get_command(cli.app).commands
    inner = [(group, name) for group in ("config", "keys") for name in commands[group].commands]
    assert len(inner) == 3
    for words in [*((name,) for name in commands), *inner]:
        with pytest.raises(SystemExit) as stop:
            cli.main([*words, "--help"])
        assert stop.value.code == 0
        assert f"Usage: pipeline {' '.join(words)} " in capsys.readouterr().out


def test_run_says_what_it_does_on_standard_output(command):
    code, out, _ = command("run", "shop.yaml")
    assert code == 0
    assert out.splitlines()[0] == "train: stale because never run"
    assert "report  runs/shop/report.html" in out
    assert command("run", "shop.yaml")[1].splitlines()[:3] == ["train: fresh", "export: fresh", "package: fresh"]


def test_json_is_all_there_is_on_standard_output(command):
    code, out, err = command("run", "shop.yaml", "--json", "--set", "train.epochs=2")
    assert code == 0
    assert json.loads(out)["metrics"]["train.epochs"] == 2.0
    assert "train: stale because never run" in err


def test_dry_run_only_talks(command, shop):
    code, out, _ = command("run", "shop.yaml", "--dry-run")
    assert code == 0
    assert out.splitlines()[:2] == ["train: stale because never run", "export: stale because train comes first"]
    assert json.loads(command("run", "shop.yaml", "--dry-run", "--json")[1])["stages"][0]["ran"] is False
    assert not (shop.folder / "runs").exists()


@pytest.mark.parametrize("words", [("--force",), ("--force", "all"), ("--from", "train")])
def test_force_everything(command, words):
    command("run", "shop.yaml")
    out = command("run", *words, "shop.yaml") if words == ("--force",) else command("run", "shop.yaml", *words)
    assert out[1].count("stale because forced") == 3


def test_force_and_to_take_a_stage(command):
    command("run", "shop.yaml")
    out = command("run", "shop.yaml", "--force", "train", "--to", "export")[1]
    assert [line.split(":")[0] for line in out.splitlines() if ":" in line] == ["train", "train", "export"]
    assert "package    fresh" in out


def test_runs_folder_can_be_chosen(command, shop):
    assert command("run", "shop.yaml", "--runs", "elsewhere")[0] == 0
    assert (shop.folder / "elsewhere/shop/package/bundle.txt").exists()


def test_a_missed_gate_is_exit_code_3_also_when_everything_is_fresh(command, shop):
    edit(shop, "hooks", "gates = ()", "gates = ('coverage is 0.5, the floor is 0.9',)")
    for expected in ("stale", "fresh"):
        code, out, err = command("run", "shop.yaml")
        assert code == 3
        assert f"export: {expected}" in out
        assert err.endswith("gate missed: coverage is 0.5, the floor is 0.9\n")
    assert json.loads(command("run", "shop.yaml", "--json")[1])["gates_missed"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("run", "none.yaml"), 1, "error: none.yaml: does not exist"),
        (("run", "shop.yaml", "--set", "train.epoch=1"), 1, "error: --set train.epoch=1: train.epoch is not a setting"),
        (("run", "shop.yaml", "--from", "packing"), 2, "packing is not a stage"),
        (("run", "shop.yaml", "--to", "packing"), 2, "packing is not a stage"),
        (("run", "shop.yaml", "--force=packing"), 2, "packing is not a stage"),
        (("run", "shop.yaml", "--from", "package", "--to", "train"), 2, "--from package comes after --to train"),
        (("run", "shop.yaml", "--nonsense"), 2, "No such option"),
        (("run",), 2, "Missing argument"),
        (("ui", "shop.yaml"), 1, "tracking is off"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(command, words, code, said):
    found, out, err = command(*words)
    assert (found, out) == (code, "")
    assert said in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


def test_a_failing_stage_is_exit_code_1_with_the_command_that_continues(command, shop):
    edit(
        shop,
        "train",
        "    hooks.enter",
        "    from pipeline import errors; raise errors.DataError('no')\n    hooks.enter",
    )
    code, _, err = command("run", "shop.yaml", "--set", "train.epochs=2")
    assert code == 1
    assert err.splitlines() == [
        "  train did not end; earlier results are intact, continue with: pipeline run shop.yaml --set train.epochs=2",
        "error: no",
    ]


def test_a_bug_shows_its_traceback(command, shop):
    edit(shop, "train", "    hooks.enter", "    1 / 0\n    hooks.enter")
    with pytest.raises(ZeroDivisionError):
        command("run", "shop.yaml")


def test_interruption_is_exit_code_130_with_the_command_that_continues(command, shop):
    edit(shop, "train", "    hooks.enter", "    raise KeyboardInterrupt\n    hooks.enter")
    code, _, err = command("run", "shop.yaml", "--runs", "here")
    assert code == 130
    assert err.splitlines()[-1] == "interrupted; continue with: pipeline run shop.yaml --runs here"


def test_schema_and_validate():
    assert python("-m", "pipeline", "config", "schema").stdout == schema()
    done = python("-m", "pipeline", "config", "validate", "configs/cctv.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("configs/cctv.yaml: valid; target coral-edgetpu-usb3; digest ")


def test_validate_tells_missing_files_and_targets_at_once(tmp_path):
    settings = yaml.safe_load((ROOT / "configs/cctv.yaml").read_text())
    settings["target"] = "coral-edgetpu-usb33"
    path = tmp_path / "cctv.yaml"
    path.write_text(yaml.safe_dump(settings))
    done = python("-m", "pipeline", "config", "validate", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("which does not exist") == 2
    assert "did you mean coral-edgetpu-usb3?" in done.stderr


def test_an_unknown_target_stops_a_run_before_training(tmp_path, tiny_config):
    done = python(
        "-m", "pipeline", "run", str(tiny_config), "--set", "target=nothing", "--runs", str(tmp_path / "runs")
    )
    assert done.returncode == 1
    assert "there is no target nothing" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_targets_are_listed_with_their_confidence():
    done = python("-m", "pipeline", "targets")
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == sorted(path.stem for path in (ROOT / "configs/targets").glob("*.yaml"))
    assert "Google Coral Edge TPU, USB 3 host link (confidence: high)" in done.stdout
    assert "(confidence: low, hypothetical)" in done.stdout


def test_no_words_print_the_help(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code in (0, 2)
    assert "Usage: pipeline" in "".join(capsys.readouterr())


def test_a_targets_page_is_printed(capsys):
    for words, path in (("conv-only", "conv-only.md"), (None, "README.md")):
        with pytest.raises(SystemExit):
            cli.main(["targets", *([words] if words else []), "--markdown"])
        assert capsys.readouterr().out == (ROOT / "configs/targets/pages" / path).read_text(encoding="utf-8")


def test_the_targets_beside_a_configuration_are_listed(tmp_path, capsys):
    (tmp_path / "targets").mkdir()
    profile = (ROOT / "configs/targets/conv-only.yaml").read_text()
    (tmp_path / "targets/mine.yaml").write_text(profile.replace("name: conv-only", "name: mine"))
    with pytest.raises(SystemExit):
        cli.main(["targets", "--config", str(tmp_path / "use.yaml")])
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {"mine", "conv-only", "coral-edgetpu-usb3"} <= set(listed)
    with pytest.raises(SystemExit) as stop:
        cli.main(["targets", "mime", "--config", str(tmp_path / "use.yaml")])
    assert stop.value.code == 1
    assert "did you mean mine?" in capsys.readouterr().err


def test_ui_opens_the_configured_database(tmp_path, tiny_settings, monkeypatch, capsys):
    calls = []
    done = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(cli.subprocess, "run", lambda words, check: calls.append(words) or done)
    path = tmp_path / "tiny.yaml"
    for uri in ("sqlite:///x.db", "http://host:1"):
        path.write_text(yaml.safe_dump({**tiny_settings, "tracking": {"uri": uri}}))
        with pytest.raises(SystemExit):
            cli.main(["ui", str(path), "--port", "5001"])
    assert [words[1:] for words in calls] == [
        ["-m", "mlflow", "ui", "--backend-store-uri", "sqlite:///x.db", "--port", "5001"]
    ]
    assert capsys.readouterr().out == "http://host:1\n"


def test_bench_without_a_run_is_told(tmp_path, tiny_config, monkeypatch):
    done = python("-m", "pipeline", "bench", str(tiny_config), "--runs", str(tmp_path / "runs"))
    assert done.returncode == 1
    assert "there is no bundle to measure" in done.stderr


def test_bench_prints_a_table(monkeypatch, tiny_config, capsys):
    from pipeline.benches import bundle, check, npu, streams  # noqa: PLC0415 (imports torch)

    rows = (Row("bytes", "0", "differing"), Row("ms per frame", "12.5", "host"))
    monkeypatch.setattr(bundle, "bench", lambda config, folder, console: rows)
    monkeypatch.setattr(streams, "rows", lambda config, folder, console: [Row("frames per second", "1.1", "loop")])
    monkeypatch.setattr(npu, "rows", lambda target, model, picture, console: [Row("ratio", "0.9", "of times")])
    monkeypatch.setattr(check, "rows", lambda console: [Row("error", "1 %", "against silicon")])
    with pytest.raises(SystemExit):
        cli.main(["bench", str(tiny_config)])
    table = "bytes            0  differing\nms per frame  12.5  host\n"
    assert (
        capsys.readouterr().out
        == f"{table}frames per second  1.1  loop\nratio  0.9  of times\nerror  1 %  against silicon\n"
    )


def test_keys_new_says_where_the_keys_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words in (["keys", "new"], ["keys", "new", "ci", "--out", "other", "--expires", "2099-12-31"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(words)
        assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "keys/bundle.key: signs; keep it secret" in out
    assert "other/ci.pub: goes onto devices (npu-run --trust)" in out
    assert "expires: 2099-12-31\n-----BEGIN PUBLIC KEY" in Path("other/ci.pub").read_text()
    with pytest.raises(SystemExit) as stop:
        cli.main(["keys", "new"])
    assert stop.value.code == 1
    assert "keys/bundle.key exists; a key is never replaced" in capsys.readouterr().err


def test_package_signs_a_use_case_and_again_when_the_key_changes(command, shop):
    (shop.folder / "a.key").write_text("one")
    assert "package: stale because never run" in command("package", "shop.yaml")[1]
    signed = command("package", "shop.yaml", "--sign", "a.key")
    assert signed[0] == 0
    assert "package: stale because package.sign changed None -> " in signed[1]
    assert command("package", "shop.yaml", "--sign", "a.key")[1].splitlines()[:3] == [
        "train: fresh",
        "export: fresh",
        "package: fresh",
    ]
    (shop.folder / "a.key").write_text("two")
    assert "a.key (package.sign) changed" in command("package", "shop.yaml", "--sign", "a.key")[1]


def test_package_signs_a_bundle_where_it_lies(command, tmp_path):
    from smallmodels import small_bundle  # noqa: PLC0415 (imports onnx)

    from runtime.bundle import open_bundle  # noqa: PLC0415 (imports numpy)
    from runtime.trust import read_trust  # noqa: PLC0415

    small_bundle(tmp_path / "x.npub")
    command("keys", "new", "ci")
    code, out, _ = command("package", str(tmp_path / "x.npub"), "--sign", "keys/ci.key")
    assert (code, out) == (0, f"{tmp_path}/x.npub: signed\n")
    assert open_bundle(tmp_path / "x.npub", trust=read_trust(Path("keys/ci.pub"))).signer.name == "ci"
    code, _, err = command("package", str(tmp_path / "x.npub"))
    assert code == 2
    assert "pipeline package BUNDLE --sign KEY" in err


def test_interruption_while_it_is_imported_is_exit_code_130(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.__import__", interrupted)
    with pytest.raises(SystemExit) as stop:
        entry.main()
    monkeypatch.undo()
    assert stop.value.code == 130


def test_an_error_moves_no_cursor(command):
    code, _, err = command("check", "a\x1b[2Jb.onnx", "--target", "conv-only")
    assert code == 1
    assert "\x1b" not in err
    assert "a\\x1b[2Jb.onnx" in err


def test_an_empty_file_is_told_an_example_of_its_kind(command, shop):
    (shop.folder / "empty.yaml").write_text("")
    assert "empty.yaml: is empty (configs/targets/conv-only.yaml is an example)" in command("targets", "empty.yaml")[2]
    assert "empty.yaml: is empty (configs/cctv.yaml is an example)" in command("run", "empty.yaml")[2]


def test_a_target_is_shown_from_its_file(command):
    from pipeline.targets import library  # noqa: PLC0415 (imports onnx)

    assert command("targets", str(library.SHIPPED / "rk3588.yaml")) == command("targets", "rk3588")
