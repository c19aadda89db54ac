"""Every setting of every command, declared once.

A command's settings come from, in rising order of weight: the defaults here, a YAML file
(``--config``), ``--set section.name=value``, and named options. Unknown names and wrong types
become plain sentences that name file and line (``core/settings.py``).
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from vismae.core.types import Modality

Device = Literal["auto", "cpu", "cuda", "mps"]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]


def _as_pair(value: object) -> object:
    """Let one number stand for a square."""
    return (value, value) if isinstance(value, int) else value


Size2D = Annotated[tuple[int, int], BeforeValidator(_as_pair)]


def _as_tuple(value: object) -> object:
    """Let one path or word, or a comma-separated text, stand for a list."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return (value,) if isinstance(value, Path) else value


def _parse_modalities(value: object) -> object:
    parts = _as_tuple(value)
    if isinstance(parts, (tuple, list)):
        return tuple(
            Modality.parse(part)
            if isinstance(part, str) and Modality.parse(part) is not Modality.OTHER
            else part
            for part in parts
        )
    return parts


Paths = Annotated[tuple[Path, ...], BeforeValidator(_as_tuple)]
Words = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Modalities = Annotated[tuple[Modality, ...], BeforeValidator(_parse_modalities)]


class Settings(BaseModel):
    """Base of every group of settings: immutable, and unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class TrainerSettings(Settings):
    """How long, on what, and how often to look."""

    max_steps: int = Field(2000, ge=1)
    """Optimiser steps; 0 epochs means these count."""
    max_epochs: float | None = Field(None, gt=0)
    """Passes over the training images; replaces max_steps when set."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass; weights stay fp32."""
    device: Device = "auto"
    """Where to train; auto takes CUDA, then MPS, then the CPU."""
    devices: int = Field(1, ge=1)
    """Processes (GPUs) on each machine."""
    nodes: int = Field(1, ge=1)
    """Machines, as started by torchrun or SLURM."""
    accumulate: int = Field(1, ge=1)
    """Batches whose gradients are added before one optimiser step."""
    checkpoint_every: int = Field(500, ge=1)
    """Optimiser steps between resume points."""
    log_every: int = Field(20, ge=1)
    """Optimiser steps between lines of metrics.csv."""
    picture_every: int = Field(1000, ge=0)
    """Optimiser steps between fill-in pictures; 0 makes none."""
    validate_every: int = Field(100, ge=1)
    """Optimiser steps between validations (fine-tuning)."""
    ema_decay: float | None = Field(None, gt=0.0, lt=1.0)
    """Average the weights over steps with this decay; none when unset."""
    gradient_clip: float = Field(1.0, ge=0.0)
    """Largest gradient norm; 0 does not clip."""


class OptimizerSettings(Settings):
    """AdamW with linear warm-up and cosine decay, counted in optimiser steps."""

    lr: float = Field(1e-3, gt=0)
    """Peak learning rate at ``lr_batch_size`` images a step."""
    lr_scaling: Literal["none", "sqrt", "linear"] = "none"
    """How lr follows the number of images a step."""
    lr_batch_size: int = Field(256, ge=1)
    """Batch size that lr is given for, when it is scaled."""
    min_lr_fraction: float = Field(0.01, ge=0.0, le=1.0)
    """lr at the end as a share of its peak."""
    warmup_fraction: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of all steps with rising lr."""
    weight_decay: float = Field(0.05, ge=0.0)
    """Decay of weight matrices; norms, biases and bias tables have none."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's moment decays."""
    layer_decay: float = Field(1.0, gt=0.0, le=1.0)
    """lr of each block below the top is this times the one above (fine-tuning)."""


class DataSettings(Settings):
    """What is read, and how it reaches the network."""

    sources: Paths = ()
    """Folders, files, archives, csv manifests or a store (``--data``)."""
    image_size: Size2D = (224, 224)
    """Height and width of the network's input in pixels; one number for a square."""
    batch_size: int = Field(64, ge=1)
    """Images in a batch on each device."""
    workers: int = Field(2, ge=0)
    """Processes that prepare images; 0 prepares in the training process."""
    modality: Modalities = ()
    """Only images of these modalities; all when empty."""


class PreprocessingSettings(Settings):
    """Wishes about the preprocessing contract; what is unset follows the start model."""

    fit: Literal["pad", "stretch"] | None = None
    """Keep the aspect ratio and pad bottom and right, or stretch; else pad."""
    ct_window_hu: tuple[float, float] | None = None
    """HU mapped to 0 and 1; else -1000 to 1000."""
    pet_range_suv: tuple[float, float] | None = None
    """SUV mapped to 0 and 1; else 0 to 10."""
    mean: float | None = None
    """Subtracted after scaling to 0..1; else 0.223."""
    std: float | None = Field(None, gt=0)
    """Divided by after that; else 0.202."""


class PretrainDataSettings(DataSettings):
    """Data of pre-training."""

    sampling: Literal["natural", "sqrt", "balanced"] = "sqrt"
    """Share of each modality: as found, square root of its count, or equal."""
    crop_scale: tuple[float, float] = (0.35, 1.0)
    """Area of the random crop as a share of the image."""
    crop_aspect: tuple[float, float] = (0.75, 1.333)
    """Aspect ratio of the random crop relative to the image's own."""
    flip: bool = True
    """Mirror half of the images left to right."""
    rotate: float = Field(10.0, ge=0.0, le=180.0)
    """Largest random rotation in degrees."""
    jitter: float = Field(0.2, ge=0.0, le=1.0)
    """Strength of the random gamma, contrast and brightness."""
    use_test_rows: bool = False
    """Also learn from rows whose split is val or test."""
    min_side: int = Field(24, ge=1)
    """Leave out images whose shorter side has fewer pixels."""


class MAESettings(Settings):
    """The masked autoencoder."""

    size: str = "vismae"
    """Named network size: nano, micro, vismae, tiny, small, base."""
    in_channels: Literal[1, 3] = 1
    """Input channels: 1 grey, 3 colour (grey images are repeated)."""
    window_size: int | None = Field(None, ge=2)
    """Side of the attention window in tokens; the size's own when unset."""
    drop_path: float = Field(0.1, ge=0.0, lt=1.0)
    """Largest rate of stochastic depth, rising linearly from 0."""
    mask_ratio: float = Field(0.75, gt=0.0, lt=1.0)
    """Share of mask units hidden from the encoder."""
    mask_unit_px: int = Field(16, ge=1)
    """Side of a mask unit in pixels."""
    mask_strategy: Literal["random", "block", "foreground"] = "random"
    """Which units are hidden."""
    background_weight: float = Field(1.0, ge=0.0)
    """Weight of background patches in the loss (foreground strategy)."""
    normalise_patches: bool = True
    """Reconstruct each patch scaled to mean 0 and variance 1."""
    normalise_eps: float = Field(1e-3, gt=0)
    """Added to the patch variance, so that flat patches do not blow up noise."""


class NetworkSettings(Settings):
    """The network that is adapted."""

    size: str = "vismae"
    """Named size when starting from scratch; a start model brings its own."""
    in_channels: Literal[1, 3] | None = None
    """Input channels; the start model's, else 1."""
    drop_path: float = Field(0.1, ge=0.0, lt=1.0)
    """Largest rate of stochastic depth."""
    freeze: Literal["nothing", "encoder"] = "nothing"
    """What does not learn; encoder with a classifier is a linear probe."""
    decoder: Literal["transfer", "scratch"] = "transfer"
    """Take the start model's decoder too (segmentation), or begin it at random."""


class TaskSettings(Settings):
    """What is to be predicted."""

    kind: Literal["segment", "classify"]
    """A class for each pixel, or for each image."""
    classes: Words = ()
    """Class names in order (segmentation: without background); found in the data when empty."""
    label_values: dict[int, int] | None = None
    """Value in label map files -> class index; 0, 1, 2 ... in order when unset."""
    multi_label: bool = False
    """Several classes, joined by | in the manifest, may be true of one image."""
    class_weights: Literal["none", "inverse", "sqrt"] = "sqrt"
    """Weight of each class in the loss by its rarity (classification)."""
    dice_weight: float = Field(0.6, ge=0.0)
    """Weight of Dice in the loss (segmentation)."""
    cross_entropy_weight: float = Field(0.4, ge=0.0)
    """Weight of cross-entropy in the loss (segmentation)."""
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0)
    """Smoothing of the labels (classification)."""


class AugmentSettings(Settings):
    """Random changes to training images, alike for image and label map."""

    flip_horizontal: bool = False
    """Mirror left to right; off by default because sides matter in anatomy."""
    flip_vertical: bool = False
    """Mirror top to bottom."""
    rotate: float = Field(20.0, ge=0.0, le=180.0)
    """Largest rotation in degrees."""
    scale: tuple[float, float] = (0.8, 1.25)
    """Range of zoom."""
    translate: float = Field(0.1, ge=0.0, le=1.0)
    """Largest shift as a share of the side."""
    gamma: tuple[float, float] = (0.7, 1.5)
    """Range of the gamma exponent."""
    noise: float = Field(0.05, ge=0.0)
    """Largest standard deviation of added noise, on the 0..1 scale."""
    probability: float = Field(0.8, ge=0.0, le=1.0)
    """Chance that an image is changed."""


class IngestConfig(Settings):
    """Settings of ``vismae ingest``."""

    sources: Paths
    """Folders, files, zip archives or csv manifests."""
    store: Path
    """Folder of the store to make."""
    modality: str | None = None
    """Modality of files that do not say: ct, mr, pet, xr, us, other."""
    encoding: Literal["zstd", "raw"] = "zstd"
    """Lossless encoding of pixels in the shards."""
    shard_mib: int = Field(256, ge=1)
    """Size of a shard in MiB."""
    max_rejected_fraction: float | None = Field(None, ge=0.0, le=1.0)
    """Fail if more than this share of the files could not be read."""
    keep_column: Words = ()
    """Further manifest columns to keep in the index."""
    workers: int = Field(2, ge=1)
    """Processes that read files."""
    overwrite: bool = False
    """Replace an existing store."""


class InspectConfig(Settings):
    """Settings of ``vismae inspect``."""

    store: Path
    """Folder of the store."""
    out: Path | None = None
    """Contact sheet to write (PNG); STORE/contact_sheet.png when unset."""
    images: int = Field(25, ge=1)
    """Images on the contact sheet."""
    verify: bool = False
    """Check every shard against its checksum and read every row."""


class PretrainConfig(Settings):
    """Settings of ``vismae pretrain``."""

    out: Path
    """Run folder."""
    store: Path | None = None
    """Store to learn from; or name sources in data.sources to ingest on the way."""
    init: Path | None = None
    """Model folder or checkpoint whose weights to start from."""
    resume: bool = False
    """Continue the run in ``out``."""
    overwrite: bool = False
    """Empty ``out`` first."""
    licence: str = "not stated"
    """Licence of the weights, written into the model folder."""
    seed: int = 0
    """Seed of everything random."""
    model: MAESettings = MAESettings()
    data: PretrainDataSettings = PretrainDataSettings()
    preprocessing: PreprocessingSettings = PreprocessingSettings()
    optimizer: OptimizerSettings = OptimizerSettings(lr_scaling="sqrt")
    trainer: TrainerSettings = TrainerSettings()

    @model_validator(mode="after")
    def _one_source(self) -> "PretrainConfig":
        if (self.store is None) == (not self.data.sources):
            raise ValueError("give either store (--store) or data.sources (--data), one of the two")
        return self


class FinetuneConfig(Settings):
    """Settings of ``vismae finetune``."""

    out: Path
    """Run folder."""
    init: Path | None = None
    """Model folder or checkpoint to start from; ``none`` starts from random weights."""
    label_fraction: Fraction = 1.0
    """Share of the training patients whose labels are used."""
    fold: int | None = Field(None, ge=1)
    """Which of the five folds validates, counted from 1; the data's own split when unset."""
    resume: bool = False
    """Continue the run in ``out``."""
    overwrite: bool = False
    """Empty ``out`` first."""
    licence: str = "not stated"
    """Licence of the weights, written into the model folder."""
    seed: int = 0
    """Seed of everything random."""
    subset_seed: int = 0
    """Seed of the choice of labelled patients, apart from the training's own seed."""
    model: NetworkSettings = NetworkSettings()
    task: TaskSettings
    data: DataSettings = DataSettings(batch_size=16)
    preprocessing: PreprocessingSettings = PreprocessingSettings()
    augment: AugmentSettings = AugmentSettings()
    optimizer: OptimizerSettings = OptimizerSettings(betas=(0.9, 0.999))
    trainer: TrainerSettings = TrainerSettings(max_steps=1000)

    @field_validator("init", mode="before")
    @classmethod
    def _none_is_scratch(cls, value: object) -> object:
        return None if isinstance(value, str) and value.lower() == "none" else value

    @model_validator(mode="after")
    def _has_data(self) -> "FinetuneConfig":
        if not self.data.sources:
            raise ValueError("data.sources (--data) is empty; name a folder, a csv or a store")
        return self


class EvaluateConfig(Settings):
    """Settings of ``vismae evaluate``."""

    model: Path
    """Model folder."""
    out: Path
    """Folder for scores and report."""
    split: str | None = None
    """Rows to score; ``test`` where there is one, else rows must have no split."""
    fold: int | None = Field(None, ge=1)
    """Fold number of a reference-layout task folder."""
    allow_training_rows: bool = False
    """Score patients the model was trained on; the report says so on top."""
    bootstrap: int = Field(2000, ge=100)
    """Resamples of patients for the intervals."""
    nsd_tolerance: float = Field(2.0, gt=0)
    """Boundary tolerance of the surface Dice, in mm where spacing is known, else pixels."""
    overwrite: bool = False
    """Empty ``out`` first."""
    seed: int = 0
    """Seed of the bootstrap."""
    device: Device = "auto"
    """Where to predict."""
    data: DataSettings = DataSettings(batch_size=16)
    preprocessing: PreprocessingSettings = PreprocessingSettings()

    @model_validator(mode="after")
    def _has_data(self) -> "EvaluateConfig":
        if not self.data.sources:
            raise ValueError("data.sources (--data) is empty; name a folder, a csv or a store")
        return self


class ExportConfig(Settings):
    """Settings of ``vismae export``."""

    model: Path
    """Model folder."""
    out: Path
    """Folder to write into."""
    format: Literal["reference"] = "reference"
    """File format: reference is the checkpoint layout of the published VIS-MAE code."""
    overwrite: bool = False
    """Empty ``out`` first."""


class DemoConfig(Settings):
    """Settings of ``vismae demo``."""

    out: Path
    """Folder for the phantom archive, the runs and the report."""
    device: Device = "auto"
    """Where to train."""
    seed: int = 0
    """Seed of the phantoms and of every run."""
    overwrite: bool = False
    """Empty ``out`` first."""
