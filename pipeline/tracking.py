"""Runs in MLflow: settings, numbers, files and the registered model. The only module that imports mlflow."""

import http.client
import io
import logging
import os
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from pipeline.config import TrackingConfig
from pipeline.configfile import LoadedConfig
from pipeline.errors import TrackingError
from pipeline.summary import RunSummary
from pipeline.workspace import Progress

_ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }
)
"""A server that stops answering must not hold training up for minutes; what the user has set stays."""

for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

import mlflow  # noqa: E402 (reads the environment when it is imported)
import mlflow.onnx  # noqa: E402
import numpy as np  # noqa: E402
import onnx  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.models import ModelSignature  # noqa: E402
from mlflow.types import Schema, TensorSpec  # noqa: E402
from mlflow.utils.logging_utils import MLFLOW_LOGGING_STREAM  # noqa: E402
from sqlalchemy.exc import SQLAlchemyError  # noqa: E402

_FAILURES = (MlflowException, SQLAlchemyError, OSError)
_FIX = (
    "start the server or mend tracking.uri; `tracking: off` in the configuration, or --set tracking=off, does without"
)
_PROBE_SECONDS = 5.0
_PARAMETERS_PER_CALL = 100
_LONGEST_PARAMETER = 6000


def open_tracker(loaded: LoadedConfig, commit: str, console: Progress) -> "MlflowTracker":
    """Start an MLflow run that records the settings of ``loaded`` and the git ``commit``.

    Raises:
        TrackingError: the tracking URI cannot be used: no server answers, the database cannot be written, ...
    """
    tracking = loaded.config.tracking
    if tracking == "off":
        raise TrackingError("tracking is off", where=loaded.path)
    _silence()
    _probe(tracking.uri)
    try:
        _start(tracking, loaded, commit)
    except (*_FAILURES, ImportError) as error:
        _abandon()
        raise TrackingError(f"MLflow cannot be used: {_first_line(error)}", where=tracking.uri, fix=_FIX) from error
    return MlflowTracker(console, loaded.config.name)


class MlflowTracker:
    """One MLflow run; when MLflow stops answering it says so once and the pipeline's run goes on without it."""

    def __init__(self, console: Progress, model_name: str) -> None:
        """Take over the active MLflow run; the exported model will be registered as ``model_name``."""
        self._console = console
        self._model_name = model_name
        self._lost = False

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        """Record a number, ``step`` being an epoch."""
        self._attempt(lambda: mlflow.log_metric(name, value, step=step))

    def results(self, summary: RunSummary) -> None:
        """Record the reports, and of the stages that ran the exported model, registered, and the bundle."""
        self._attempt(lambda: self._results(summary))

    def close(self, error: BaseException | None) -> None:
        """End the MLflow run: finished, failed, or killed by the user."""
        self._attempt(lambda: self._close(error))
        if self._lost:
            _abandon()

    def _results(self, summary: RunSummary) -> None:
        for report in sorted(summary.folder.glob("report.*")):
            mlflow.log_artifact(str(report))
        mlflow.log_metrics(summary.metrics)  # also of stages that were fresh, so that every run can be compared
        mlflow.set_tags({f"stage.{stage.name}": "ran" if stage.ran else stage.state for stage in summary.stages})
        ran = {stage.name for stage in summary.stages if stage.ran}
        if "export" in ran:
            for model in sorted((summary.folder / "export").glob("*.onnx")):
                mlflow.log_artifact(str(model), "export")
                self._register(model)
        if "package" in ran:
            for bundle in sorted((summary.folder / "package").glob("*.npub")):
                mlflow.log_artifact(str(bundle), "package")

    def _close(self, error: BaseException | None) -> None:
        if error is not None:
            mlflow.set_tag("error", _first_line(error)[:500])
        mlflow.end_run("FINISHED" if error is None else "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")

    def _register(self, path: Path) -> None:
        """Log the ONNX model with its signature and make it a version of the registered model."""
        model = onnx.load(path)
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # it prints what it registers
            mlflow.onnx.log_model(
                model,
                name=self._model_name,
                signature=signature(model),
                registered_model_name=self._model_name,
                pip_requirements=[f"{name}=={metadata.version(name)}" for name in ("onnx", "onnxruntime", "numpy")],
                save_as_external_data=False,
            )

    def _attempt(self, action: Callable[[], object]) -> None:
        """Do it unless MLflow was lost before; say when it is lost now."""
        if self._lost:
            return
        try:
            action()
        except _FAILURES as error:
            self._lost = True
            self._console.message(f"MLflow stopped answering, this run goes on untracked: {_first_line(error)}")


def signature(model: onnx.ModelProto) -> ModelSignature:
    """The inputs and outputs of ``model`` as MLflow describes them; -1 stands for a size that is not fixed."""
    given = {initializer.name for initializer in model.graph.initializer}
    inputs = [_tensor(value) for value in model.graph.input if value.name not in given]
    return ModelSignature(Schema([*inputs]), Schema([_tensor(value) for value in model.graph.output]))


def _tensor(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim)
    return TensorSpec(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape, value.name)


def _start(tracking: TrackingConfig, loaded: LoadedConfig, commit: str) -> None:
    """Make an MLflow run active and give it tags and parameters."""
    mlflow.set_tracking_uri(tracking.uri)
    mlflow.set_experiment(tracking.experiment or loaded.config.name)
    tags = {"git_commit": commit, "target": loaded.config.target, "config_digest": loaded.digest}
    mlflow.start_run(run_name=loaded.config.name, tags=tags, log_system_metrics=True)
    settings = [(name, value) for name, value in loaded.settings.items() if name.partition(".")[0] != "tracking"]
    for first in range(0, len(settings), _PARAMETERS_PER_CALL):
        some = settings[first : first + _PARAMETERS_PER_CALL]
        mlflow.log_params({_parameter(name): str(value)[:_LONGEST_PARAMETER] for name, value in some})


def _abandon() -> None:
    """Let go of a run that could not be ended, without asking the server again."""
    try:
        mlflow.end_run("FAILED")
    except _FAILURES:
        logging.getLogger(__name__).debug("the MLflow run could not be ended", exc_info=True)


def _probe(uri: str) -> None:
    """Ask for a sign of life before MLflow does, which would try again for minutes.

    Raises:
        TrackingError: nothing answers at the URI, or its database cannot be opened for writing.
    """
    try:
        if uri.startswith(("http://", "https://")):
            urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_PROBE_SECONDS).close()
        elif uri.startswith("sqlite:///"):
            with sqlite3.connect(uri.removeprefix("sqlite:///").partition("?")[0], timeout=_PROBE_SECONDS) as database:
                database.execute("BEGIN IMMEDIATE")
                database.rollback()
            database.close()
    except urllib.error.HTTPError:
        return  # it answers; whether it lets us in, MLflow will tell
    except (OSError, ValueError, http.client.HTTPException, sqlite3.Error) as error:
        what = "no tracking server answers" if uri.startswith("http") else "the tracking database cannot be used"
        raise TrackingError(f"{what}: {_first_line(error)}", where=uri, fix=_FIX) from error


def _silence() -> None:
    """MLflow and its database tell about every migration and registration; errors still come through as exceptions."""
    MLFLOW_LOGGING_STREAM.enabled = False
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _parameter(name: str) -> str:
    """``name`` with the characters that MLflow refuses replaced."""
    return re.sub(r"[^\w\-./ ]", "_", name)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
