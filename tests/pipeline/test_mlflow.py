import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.configfile import load
from pipeline.errors import TrackingError
from pipeline.run import Stage

mlflow = pytest.importorskip("mlflow")

from pipeline import tracking  # noqa: E402 (sets the environment that mlflow reads)


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "1")
    yield
    while mlflow.active_run():
        mlflow.end_run("KILLED")


def model():
    """y = relu(x) with x of a batch that is not fixed, [N, 3]."""
    x = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3])
    y = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])
    zero = numpy_helper.from_array(np.zeros(3, np.float32), "zero")
    graph = helper.make_graph([helper.make_node("Add", ["image", "zero"], ["scores"])], "tiny", [x], [y], [zero])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """An MLflow database without runs; making one takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    tracking._silence()
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracked(shop, empty_database):
    """The small use case with MLflow, an ONNX file in its export stage and a bundle in its package stage."""
    onnx.save(model(), shop.folder / "made.onnx")
    copy = f"import shutil; shutil.copy({str(shop.folder / 'made.onnx')!r}, context.out / 'model.onnx')"
    for name, more in (
        ("export", copy),
        ("package", "(context.out / 'shop.npub').write_bytes(b'bundle')"),
        ("package", "import time; time.sleep(1.0)"),
    ):
        old, new = "    hooks.enter", f"    {more}\n    hooks.enter"
        path = shop.src / f"{name}.py"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
    shutil.copy(empty_database, shop.folder / "mlflow.db")
    shop.uri = f"sqlite:///{shop.folder}/mlflow.db"  # mlflow remembers each address, whatever the working directory
    shop.set(tracking={"uri": shop.uri})
    shop.track = lambda **named: shop.run(track=tracking.open_tracker, **named)
    return shop


def use(shop, uri):
    shop.set(tracking={"uri": uri})


def runs(uri):
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("shop")
    return client, client.search_runs([experiment.experiment_id])


def check_tracked(uri, shop):
    client, found = runs(uri)
    assert len(found) == 1
    run = found[0]
    assert run.info.status == "FINISHED"
    assert run.data.params["train.epochs"] == "3"
    assert run.data.params["data.train_frames"] == "[0, 6]"
    assert not any("tracking" in name for name in run.data.params)
    assert run.data.tags["git_commit"] == "c0ffee"
    assert run.data.tags["target"] == "toy"
    assert run.data.tags["config_digest"] == load(shop.config).digest
    assert run.data.tags["stage.export"] == "ran"
    history = client.get_metric_history(run.info.run_id, "train.epoch.loss")
    assert [(m.step, round(m.value, 3)) for m in history if m.value != 0.5 or m.step] == [
        (0, 1.0),
        (1, 0.5),
        (2, 0.333),
    ]
    assert run.data.metrics["export.bytes"] == 36.0
    assert any(name.startswith("system/") for name in run.data.metrics)
    names = {
        file.path for folder in ("", "export", "package") for file in client.list_artifacts(run.info.run_id, folder)
    }
    assert {"report.json", "export/model.onnx", "package/shop.npub"} <= names
    version = client.search_model_versions("name='shop'")[0]
    assert version.run_id == run.info.run_id
    mlflow.set_tracking_uri(uri)
    described = mlflow.models.get_model_info("models:/shop/1").signature
    assert described.inputs.input_names() == ["image"]
    assert described.inputs.inputs[0].shape == (-1, 3)
    assert described.outputs.input_names() == ["scores"]


def test_a_run_is_kept_in_sqlite(tracked):
    tracked.track()
    check_tracked(tracked.uri, tracked)
    assert tracked.run(track=lambda *_: pytest.fail("nothing to do")) == [f"{s.name}: fresh" for s in tracked.stages]
    assert "MLflow" not in tracked.messages.getvalue()


def test_only_what_ran_is_logged_again(tracked):
    tracked.track()
    tracked.set(package={"golden": 3})
    tracked.track()
    client, found = runs(tracked.uri)
    assert len(found) == 2
    assert len(client.search_model_versions("name='shop'")) == 1
    assert found[0].data.tags["stage.export"] == "fresh"


@pytest.mark.parametrize(("error", "status"), [("1 / 0", "FAILED"), ("raise KeyboardInterrupt", "KILLED")])
def test_a_failed_run_is_marked(tracked, error, status):
    path = tracked.src / "train.py"
    path.write_text(path.read_text().replace("    hooks.enter", f"    {error}\n    hooks.enter"))
    with pytest.raises((ZeroDivisionError, KeyboardInterrupt)):
        tracked.track()
    _, found = runs(tracked.uri)
    assert found[0].info.status == status
    assert found[0].data.tags["stage.train"] == "failed"


def nested(uri, experiment):
    """The run of the experiment that has no parent, and those inside it, oldest first."""
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    (outer,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    inner = [run for run in found if run.data.tags.get("mlflow.parentRunId") == outer.info.run_id]
    assert len(inner) == len(found) - 1
    return outer, sorted(inner, key=lambda run: (run.info.start_time, run.data.metrics["seconds"]))


def test_what_a_stage_tries_is_a_run_inside_the_run(tracked):
    path = tracked.src / "train.py"
    tried = """    for what in ("range mse", "range minmax"):
        context.progress.trial(what, {"sqnr_db": 20.0, "sqnr_db.a/b (c)": 20.0, "seconds": 0.1})
"""
    path.write_text(path.read_text().replace("    data = ", f"{tried}    data = "))
    tracked.track(stages=tracked.stages[:1])
    outer, inner = nested(tracked.uri, "shop")
    assert (outer.info.run_name, outer.info.status) == ("shop", "FINISHED")
    assert {run.info.run_name for run in inner} == {"train: range mse", "train: range minmax"}
    assert {run.info.status for run in inner} == {"FINISHED"}
    assert inner[0].data.metrics == {"sqnr_db": 20.0, "sqnr_db.a/b _c_": 20.0, "seconds": 0.1}


@pytest.fixture
def floating(tmp_path):
    """A float model of the user's own, and images for it."""
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32), "w")
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size, 6, 6]) for name, size in (("x", 3), ("y", 4))
    ]
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [weight])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "net.onnx"
    )
    np.save(tmp_path / "images.npy", np.random.default_rng(1).uniform(-1, 1, (8, 3, 6, 6)).astype(np.float32))
    return tmp_path / "net.onnx", "--calibration", tmp_path / "images.npy", "--target", "kirin-970"


def test_every_trial_of_a_quantization_is_a_run_inside_its_run(floating, tmp_path, empty_database, command_line):
    shutil.copy(empty_database, tmp_path / "mine.db")
    words = ["quantize", *map(str, floating), "--json", "--tracking"]
    code, said, _ = command_line(*words, f"sqlite:///{tmp_path}/mine.db")
    assert code == 0
    report = json.loads(said)
    outer, inner = nested(f"sqlite:///{tmp_path}/mine.db", "net")
    assert (outer.info.status, outer.data.tags["target"]) == ("FINISHED", "kirin-970")
    assert outer.data.metrics["sqnr_db"] == report["sqnr_db"]
    assert outer.data.params["bias_correction"] == "fast"
    assert {run.info.run_name: run.data.metrics["sqnr_db"] for run in inner} == {
        trial["what"]: trial["sqnr_db"] for trial in report["trials"]
    }
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mine.db")
    names = {file.path for file in client.list_artifacts(outer.info.run_id)}
    assert names == {"net.int8.recipe.yaml", "net.int8.encodings.json"}
    assert command_line(*words, f"http://127.0.0.1:{free_port()}")[0] == 1
    (tmp_path / "images.npy").unlink()
    assert command_line(*words, f"sqlite:///{tmp_path}/mine.db")[0] == 1
    newest = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mine.db").search_runs([outer.info.experiment_id])[
        0
    ]
    assert newest.info.status == "FAILED"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def server(tmp_path, empty_database):
    """A real MLflow server on this machine; its process and its address."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    (tmp_path / "server").mkdir()
    shutil.copy(empty_database, tmp_path / "server" / "server.db")
    words = [
        "-m",
        "mlflow",
        "server",
        "--port",
        str(port),
        "--workers",
        "1",
        "--backend-store-uri",
        "sqlite:///server.db",
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (tmp_path / "server" / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=tmp_path / "server",
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment,
        )
        try:
            wait_for(f"{uri}/health", process)
            yield process, uri
        finally:
            stop(process)


def wait_for(address, process):
    for _ in range(600):
        assert process.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(address, timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("the server did not come up")


def stop(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_run_is_kept_by_a_server_and_outlives_it(tracked, server):
    process, uri = server
    use(tracked, uri)
    tracked.track()
    check_tracked(uri, tracked)
    tracker = tracking.open_tracker(load(tracked.config), "c0ffee", Heard())
    stop(process)
    for _ in range(3):
        tracker.metric("train.loss", 1.0, 0)
    tracker.close(None)
    assert len(tracker._console.said) == 1
    assert "MLflow stopped answering, this run goes on untracked" in tracker._console.said[0]
    assert mlflow.active_run() is None


class Heard:
    def __init__(self):
        self.said = []

    def message(self, text):
        self.said.append(text)


def test_an_unreachable_server_stops_the_run_before_training(tracked):
    use(tracked, f"http://127.0.0.1:{free_port()}")
    began = time.monotonic()
    with pytest.raises(TrackingError, match=r"no tracking server answers: .*refused.*`tracking: off`"):
        tracked.track()
    assert time.monotonic() - began < 10
    assert not (tracked.folder / "runs/shop/train").exists()


def test_a_server_that_accepts_and_never_answers_stops_the_run_in_time(tracked, monkeypatch):
    monkeypatch.setattr(tracking, "_PROBE_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        use(tracked, f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(TrackingError, match="no tracking server answers: timed out"):
            tracked.track()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("sqlite:///no/such/folder/mlflow.db", "the tracking database cannot be used: unable to open database file"),
        ("sqlite:///not.db", "the tracking database cannot be used: file is not a database"),
        ("http://", "no tracking server answers"),
        ("nonsense://host", "MLflow cannot be used"),
        ("postgresql+nosuchdriver://host/db", "MLflow cannot be used"),
    ],
)
def test_other_uris_that_cannot_be_used(tracked, uri, said):
    (tracked.folder / "not.db").write_bytes(b"not a database" * 100)
    use(tracked, uri)
    with pytest.raises(TrackingError, match=said) as caught:
        tracked.track()
    assert str(caught.value).startswith(f"{uri}: ")


def test_a_tracker_is_not_opened_when_tracking_is_off(tracked):
    tracked.set(tracking="off")
    with pytest.raises(TrackingError, match="tracking is off"):
        tracked.track()


def test_the_signature_leaves_out_weights_that_are_listed_as_inputs():
    made = model()
    made.graph.input.append(helper.make_tensor_value_info("zero", TensorProto.FLOAT, [3]))
    assert tracking.signature(made).inputs.input_names() == ["image"]
    assert json.loads(tracking.signature(made).to_dict()["outputs"])[0]["tensor-spec"]["shape"] == [-1, 3]


def test_settings_with_names_that_mlflow_refuses_are_renamed(tracked):
    tracked.set(train={"model": {"options": {"width (x)": 1, **{f"k{n}": "v" * 7000 for n in range(120)}}}})
    tracked.track(stages=(Stage("train", "fakes.train", ("data", "train")),))
    _, found = runs(tracked.uri)
    assert found[0].data.params["train.model.options.width _x_"] == "1"
    assert len(found[0].data.params["train.model.options.k119"]) == 6000
