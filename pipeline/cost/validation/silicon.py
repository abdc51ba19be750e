"""The calibration table: measured silicon, row by row, against what the model says."""

import csv
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from pipeline.cost import hosts
from pipeline.cost.fitted import Fit, fit_of
from pipeline.cost.model import CostModel, Totals
from pipeline.cost.nouns import Provenance, Work
from pipeline.cost.validation import networks
from pipeline.cost.validation.networks import vgg16_works, works_of
from pipeline.targets import library

TARGETS: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("edge_tpu", "usb3_desktop_xeon"): "coral-edgetpu-usb3",
        ("edge_tpu", "pcie_dev_board"): "coral-edgetpu-pcie",
        ("edge_tpu", "usb2_raspberry_pi_3b"): "coral-edgetpu-usb2",
        ("edge_tpu", "usb2_raspberry_pi_3b+"): "coral-edgetpu-usb2",
        ("imx93_ethos_u65_256", "npu"): "ethos-u65-256",
        ("imx93_ethos_u65_256", "cpu_2_threads"): "ethos-u65-256",
        ("imx8m_plus_vip8000", "cpu_4_threads"): "coral-edgetpu-pcie",  # for its host, a Cortex-A53 too
        ("rk3588", "npu_1_core_int8"): "rk3588",
        ("xavier_nx", "1xdla_b32_int8"): "jetson-xavier-nx-dla",
        ("xavier_nx", "gpu_b1_int8"): "jetson-xavier-nx-gpu",
        ("snapdragon_855", "hexagon_690_hvx_int8"): "snapdragon-855",
        ("sapeon_x220", "x220_compact"): "sapeon-x220",
    }
)
"""The target that stands for each chip and engine of the table; what is not here has no model of one inference."""

NETWORKS: Mapping[str, Callable[[], Sequence[Work]]] = MappingProxyType(
    {
        "Inception v1": partial(works_of, networks.inception_v1),
        "Inception v4": partial(works_of, networks.inception_v4),
        "MobileNet v1 1.0": partial(works_of, networks.mobilenet_v1),
        "SqueezeNet": partial(works_of, networks.squeezenet),
        "VGG16": vgg16_works,
        "MobileNet v1 0.25": partial(works_of, networks.mobilenet_v1_small),
        "MobileNet v1 0.25 VWW (MLPerf Tiny)": partial(works_of, networks.mobilenet_v1_wake),
        "resnet50-v2-7": partial(works_of, networks.resnet50),
        "yolov5s_relu": partial(works_of, networks.yolo_v5s),
        "yolov8n": partial(works_of, networks.yolo_v8n),
        "ResNet-50": partial(works_of, networks.resnet50),
        "DeepLabV3": partial(works_of, networks.deeplab_v3),
    }
)
"""The works of each model of the table that is built here. FaceDet YOLO is not: its layers are not public as text."""

MILLISECONDS: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {"ms": float, "fps": lambda rate: 1e3 / rate, "samples/s": lambda rate: 1e3 / rate}
)
METRICS = (
    "latency",
    "latency_singlestream_mean",
    "throughput",
    "throughput_offline",
    "throughput_offline_share_derived",
)
"""What counts as the time of one inference; a server's latencies wait in a queue."""
OLDER = "inference_results_v0.7"
"""The source of rows that a later one repeats on the same board with newer software."""


@dataclass(frozen=True)
class Measured:
    """A row of the table that the model has an answer to.

    Attributes:
        target: whose figures are used.
        engine: of the table: the link, the host's threads or the engine.
        model: of the table.
        ms: measured, of one inference.
    """

    target: str
    engine: str
    model: str
    ms: float

    @property
    def on_host(self) -> bool:
        """Whether the host ran it."""
        return self.engine.startswith("cpu")


@dataclass(frozen=True)
class Answer:
    """What the model says to a row: milliseconds with their band and provenance."""

    row: Measured
    ms: float
    low_ms: float
    high_ms: float
    provenance: Provenance

    @property
    def error(self) -> float:
        """Relative, of what is said here."""
        return self.ms / self.row.ms - 1


def table() -> Path:
    """Where the calibration table lies."""
    return Path(__file__).parents[3] / "configs" / "data" / "measured" / "calibration.csv"


def rows(path: Path) -> Iterator[Measured]:
    """The rows of the table at ``path`` that the model has an answer to."""
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            target = TARGETS.get((row["target"], row["link_or_engine"]))
            known = row["metric"] in METRICS and row["model"] in NETWORKS and OLDER not in row["source"]
            if target is not None and known:
                ms = MILLISECONDS[row["unit"]](float(row["value"]))
                yield Measured(target, row["link_or_engine"], row["model"], ms)


def cost_model(name: str, fit: Fit | None = None) -> CostModel:
    """The model of the target ``name`` that this project ships, with its host."""
    profiles = Path(__file__).parents[3] / "configs" / "targets"
    target = library.load(library.find(name, profiles))
    return CostModel(target, hosts.named(target.host, hosts.folder()), fit)


def whole(model: CostModel, items: Sequence[Work], inside: bool = True) -> Totals:
    """The total of ``items`` all on the NPU, or all on the host."""
    read = {t for work in items for t in work.inputs}
    written = {t for work in items for t in work.outputs}
    ends = sorted(read ^ written) if inside else ()
    return model.total(model.price_works(items), {w.name for w in items} if inside else (), int(inside), ends)


def answer(row: Measured, model: CostModel) -> Answer:
    """What ``model`` says to ``row``."""
    total = whole(model, NETWORKS[row.model](), not row.on_host)
    assert total.ms is not None
    assert total.low_ms is not None
    assert total.high_ms is not None
    fit, kind = fit_of(row.target), Provenance.A_PRIORI
    if row.on_host:
        kind = Provenance.FITTED
    elif fit is not None:
        kind = Provenance.FITTED if row.model in fit.rows else Provenance.HELD_OUT
    return Answer(row, total.ms, total.low_ms, total.high_ms, kind)


def answers(path: Path) -> Iterator[Answer]:
    """What the shipped models say to the rows of the table at ``path``."""
    for name, group in itertools.groupby(rows(path), lambda row: row.target):
        model = cost_model(name)
        for row in group:
            yield answer(row, model)
