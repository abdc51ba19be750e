"""What a use case may say: one frozen pydantic model per section, unknown keys refused."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MOST_CORNERS = 100
"""Of a zone; ``runtime.manifest.MOST_CORNERS``."""

LARGEST = 2**31 - 1
"""Of every whole number but the seed: torch, numpy and FFmpeg take no larger one everywhere."""

FOLDERS = ("data.train_images", "data.validation_images")
"""The settings that name a folder; all other paths are files."""

Count = Annotated[int, Field(ge=1, le=LARGEST)]
Frame = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
Pixels = Annotated[int, Field(ge=16, le=2**14)]
Ceiling = Annotated[float, Field(ge=0)]
Deviation = Annotated[float, Field(gt=0)]
Range = Annotated[tuple[Frame, Frame], Field(description="first and one past the last, as in Python's range")]
Coordinate = Annotated[float, Field(ge=-1e6, le=1e6)]
Point = tuple[Coordinate, Coordinate]


class Section(BaseModel):
    """Base of every section: frozen; unknown keys, NaN and infinities are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class VideoData(Section):
    """One video with COCO boxes; each annotated image carries its ``frame_index``. Split by time."""

    format: Literal["video"]
    video: Path
    annotations: Path
    train_frames: Range
    validation_frames: Range


class CocoData(Section):
    """Folders of images with COCO boxes."""

    format: Literal["coco"]
    train_images: Path
    train_annotations: Path
    validation_images: Path
    validation_annotations: Path


class PreprocessConfig(Section):
    """How a frame becomes the network's input."""

    size: tuple[Pixels, Pixels] = Field((384, 288), description="width and height of the network's input in pixels")
    mean: tuple[float, float, float] = Field((0.0, 0.0, 0.0), description="subtracted after scaling to 0..1")
    std: tuple[Deviation, Deviation, Deviation] = Field((1.0, 1.0, 1.0), description="divided by after that")


class ModelConfig(Section):
    """The network: a factory ``module:callable`` and its options."""

    factory: str = Field(
        "pipeline.tasks.detection.model:person_detector",
        description="module:callable(labels: int, **options) -> torch.nn.Module",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the factory")


class AugmentConfig(Section):
    """Random changes to training images (torchvision transforms.v2); 0 turns one off."""

    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    colour: float = Field(0.3, ge=0, le=1, description="strength of brightness, contrast and saturation jitter")
    scale: float = Field(0.25, ge=0, lt=1, description="largest relative zoom in or out")
    shift: float = Field(0.1, ge=0, lt=1, description="largest shift, as a fraction of the image's size")


class TrainConfig(Section):
    """The train stage."""

    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    epochs: Count = 10
    patience: Count = Field(10, description="epochs without a better AP50 before training stops early")
    min_ap50: float = Field(0.0, ge=0, le=1, description="gate: the least AP50 that the float network must reach")
    batch_size: Count = 16
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    seed: int = Field(0, ge=0, lt=2**32)
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: Count | Literal["auto"] = Field("auto", description="processes per machine; auto is all GPUs, or one CPU")
    num_nodes: Count = 1
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto", description="auto: bf16-mixed on GPU, else 32-true"
    )
    workers: int = Field(0, ge=0, le=1024, description="data loader processes")


class QatConfig(Section):
    """Quantization-aware training: data, batches, augmentation, device and seed are those of ``train``."""

    epochs: Count = Field(2, description="of the training split, from the ranges and weights that were found without")
    learning_rate: float = Field(1e-4, gt=0, description="the largest; it rises and falls once")


class QuantizeConfig(Section):
    """The quantize stage."""

    mode: Literal["ptq", "qat"] = Field(
        "ptq", description="qat: then train the weights with rounding, and keep that if the integer engine gains by it"
    )
    qat: QatConfig = QatConfig()

    max_ap50_drop: float = Field(1.0, ge=0, le=1, description="gate: the most AP50 that int8 may cost, of 1")
    calibration_images: Count = Field(64, description="taken evenly from the training split")
    range: Literal["minmax", "moving-average", "percentile", "mse", "entropy"] = Field(
        "mse", description="how an activation's range is chosen, where there is no preset and no recipe"
    )
    percentile: float = Field(99.99, gt=50, le=100, description="of the values kept, when range is percentile")
    preset: Literal["fast", "balanced", "best"] | None = Field(None, description="how much to try")
    recipe: Path | None = Field(None, description="a YAML file that says what to try; comes before preset")
    budget: Ceiling | None = Field(None, description="seconds after which no other trial is begun; any time unless set")
    ladder: bool = Field(
        False, description="where int8 costs more than max_ap50_drop, climb: ranges, recovery, layers on the CPU last"
    )
    error_images: Count = Field(4, description="calibration images for the per-layer error table")


class ExportConfig(Section):
    """The export stage."""

    opset: int = Field(18, ge=13, le=23)


class CoverageConfig(Section):
    """The coverage stage and its gate."""

    min_macs_on_npu: float = Field(0.0, ge=0, le=1, description="fraction of the MACs that must run on the NPU")


class PartitionConfig(Section):
    """The partition stage."""

    objective: Literal["latency", "coverage"] = Field(
        "latency", description="latency: the least estimated time; coverage: all that the NPU takes, as toolchains do"
    )
    place: dict[str, Literal["npu", "cpu"]] = Field(
        default_factory=dict, description="the device of operators, by name or by a pattern with * and ?"
    )
    host: str | None = Field(None, min_length=1, description="a host's profile instead of the target's own")
    max_npu_partitions: Count | None = Field(None, description="overrides the target's own policy")
    max_ms: Ceiling | None = Field(None, description="gate: estimated milliseconds of one inference")
    max_crossings: int | None = Field(None, ge=0, le=LARGEST, description="gate: tensors between the devices")
    max_partitions: int | None = Field(None, ge=0, le=LARGEST, description="gate: on both devices")
    max_mb: Ceiling | None = Field(None, description="gate: 10^6 bytes over the link")
    max_mj: Ceiling | None = Field(None, description="gate: estimated millijoules of one inference")


class LineConfig(Section):
    """A line over which tracked objects are counted, in source pixels."""

    name: str = Field(min_length=1)
    start: Point
    end: Point

    @model_validator(mode="after")
    def _has_two_ends(self) -> Self:
        if self.start == self.end:
            raise ValueError("needs two different points")
        return self


class ZoneConfig(Section):
    """A polygon in which tracked objects are counted and timed, in source pixels."""

    name: str = Field(min_length=1)
    points: tuple[Point, ...] = Field(description=f"3 to {MOST_CORNERS} corners, in order")

    @field_validator("points")
    @classmethod
    def _has_different_corners(cls, points: tuple[Point, ...]) -> tuple[Point, ...]:
        if not 3 <= len(points) <= MOST_CORNERS:
            raise ValueError(f"has {len(points)} corners; a zone has 3 to {MOST_CORNERS}")
        if len(set(points)) != len(points):
            raise ValueError("has a corner twice; the last one is joined to the first by itself")
        return points


class PackageConfig(Section):
    """The package stage and what the packaged application does."""

    score_threshold: float = Field(0.3, ge=0, le=1)
    iou_threshold: float = Field(0.5, ge=0, le=1, description="non-maximum suppression")
    max_detections: Count = 100
    lines: tuple[LineConfig, ...] = ()
    zones: tuple[ZoneConfig, ...] = ()
    golden: Count = Field(1, description="golden input/output vectors in the bundle")
    demo: bool = Field(True, description="play the packaged bundle on the validation source")
    version: int = Field(0, ge=0, description="of the bundle; a device that checks signatures never goes back")
    sign: Path | None = Field(None, description="private key that signs the bundle, as pipeline keys new makes it")

    @field_validator("lines", "zones")
    @classmethod
    def _each_has_its_name(cls, places: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [place.name for place in places]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"name {twice[0]} twice")
        return places


class TrackingConfig(Section):
    """Where MLflow keeps the run."""

    uri: str = "sqlite:///mlflow.db"
    experiment: str | None = Field(None, description="the use case's name unless given")


class RunConfig(Section):
    """A use case: a target, data, and a section per stage."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=100)
    target: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    data: Annotated[VideoData | CocoData, Field(discriminator="format")]
    preprocess: PreprocessConfig = PreprocessConfig()
    train: TrainConfig = TrainConfig()
    quantize: QuantizeConfig = QuantizeConfig()
    export: ExportConfig = ExportConfig()
    coverage: CoverageConfig = CoverageConfig()
    partition: PartitionConfig = PartitionConfig()
    package: PackageConfig = PackageConfig()
    tracking: TrackingConfig | Literal["off"] = TrackingConfig()
