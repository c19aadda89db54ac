"""The settings of every command; one frozen class for each.

A command's settings come from, in rising order of weight: the defaults here, a YAML file
(``--config``), ``--set section.name=value``, and named options. Unknown names and wrong types
become plain sentences that name file and line (``core/settings.py``).
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from vismae.core.augment_section import AugmentSettings
from vismae.core.config_data import ConvertConfig, IngestConfig, InspectConfig, SelectConfig
from vismae.core.contrastive_section import ContrastiveSettings
from vismae.core.monitor_section import MonitorSettings
from vismae.core.sections import (
    DataSettings,
    MAESettings,
    NetworkSettings,
    OptimizerSettings,
    PreprocessingSettings,
    PretrainDataSettings,
    Settings,
    TrainerSettings,
)
from vismae.core.setting_types import (
    Device,
    Fraction,
    InitPath,
    Keepable,
    Modalities,
    Paths,
    Seed,
    Size2D,
    Words,
)
from vismae.core.study_config import StudyConfig
from vismae.core.task_section import TaskSettings

__all__ = [
    "AugmentSettings",
    "ContrastiveSettings",
    "ConvertConfig",
    "DataSettings",
    "DemoConfig",
    "Device",
    "EvaluateConfig",
    "FinetuneConfig",
    "Fraction",
    "IngestConfig",
    "InspectConfig",
    "Keepable",
    "MAESettings",
    "Modalities",
    "MonitorSettings",
    "NetworkSettings",
    "OptimizerSettings",
    "Paths",
    "PredictConfig",
    "PreprocessingSettings",
    "PretrainConfig",
    "PretrainDataSettings",
    "SelectConfig",
    "Settings",
    "Size2D",
    "StudyConfig",
    "TaskSettings",
    "TrainerSettings",
    "WebConfig",
    "Words",
]


class PretrainConfig(Settings):
    """Settings of ``vismae pretrain``."""

    out: Path
    """Run folder."""
    store: Path | None = None
    """Store to learn from; or name sources in data.sources to ingest on the way."""
    init: InitPath = None
    """Model folder or checkpoint whose weights to start from; ``none`` starts at random."""
    resume: bool = False
    """Continue the run in ``out``."""
    overwrite: bool = False
    """Empty ``out`` first."""
    licence: str = "not stated"
    """Licence of the weights, written into the model folder."""
    seed: Seed = Field(default=0, ge=0)
    """Seed of everything random."""
    method: Literal["mae", "simclr"] = "mae"
    """How to learn: mae fills in hidden patches (VIS-MAE), simclr tells views of one image from
    views of others; what hides patches does not concern simclr, whose batches want to be large."""
    model: MAESettings = MAESettings()
    contrastive: ContrastiveSettings = ContrastiveSettings()
    data: PretrainDataSettings = PretrainDataSettings()
    preprocessing: PreprocessingSettings = PreprocessingSettings()
    optimizer: OptimizerSettings = OptimizerSettings(lr_scaling="sqrt")
    trainer: TrainerSettings = TrainerSettings()
    monitor: MonitorSettings = MonitorSettings()

    @model_validator(mode="after")
    def _one_source(self) -> "PretrainConfig":
        if (self.store is None) == (not self.data.sources):
            raise ValueError("give either store (--store) or data.sources (--data), one of the two")
        return self

    @model_validator(mode="after")
    def _others_to_compare_with(self) -> "PretrainConfig":
        if self.method == "simclr" and self.data.batch_size < 2:
            raise ValueError("data.batch_size is 1, but simclr compares images; use at least 2")
        return self


class FinetuneConfig(Settings):
    """Settings of ``vismae finetune``."""

    out: Path
    """Run folder."""
    init: InitPath = None
    """Model folder or checkpoint to start from; ``none`` starts from random weights."""
    label_fraction: Fraction = 1.0
    """Share of the training patients whose labels are used."""
    labelled: Path | None = None
    """csv with a column patient_id: the training patients whose labels are used, in place of the
    share."""
    fold: int | None = Field(default=None, ge=1)
    """Which of the five folds validates, counted from 1; the data's own split when unset."""
    resume: bool = False
    """Continue the run in ``out``."""
    overwrite: bool = False
    """Empty ``out`` first."""
    licence: str = "not stated"
    """Licence of the weights, written into the model folder."""
    seed: Seed = Field(default=0, ge=0)
    """Seed of everything random."""
    subset_seed: Seed = Field(default=0, ge=0)
    """Seed of the choice of labelled patients, apart from the training's own seed."""
    task_pretrain_steps: int = Field(default=0, ge=0)
    """First go on with masked pre-training for so many steps on the images of all training
    patients, labelled or not; 0 does not. Validation and test patients are never seen."""
    model: NetworkSettings = NetworkSettings()
    task: TaskSettings
    data: DataSettings = DataSettings(batch_size=16)
    preprocessing: PreprocessingSettings = PreprocessingSettings()
    augment: AugmentSettings = AugmentSettings()
    optimizer: OptimizerSettings = OptimizerSettings(lr=None, betas=(0.9, 0.999))
    trainer: TrainerSettings = TrainerSettings(max_steps=None, ema_decay=0.99)

    @model_validator(mode="after")
    def _has_data_and_network(self) -> "FinetuneConfig":
        if not self.data.sources:
            raise ValueError("data.sources (--data) is empty; name a folder, a csv or a store")
        self.model.network_for(self.task.kind)
        return self


class EvaluateConfig(Settings):
    """Settings of ``vismae evaluate``."""

    model: Path
    """Model folder."""
    out: Path
    """Folder for scores and report."""
    split: str | None = None
    """Rows to score; ``test`` where there is one, else rows must have no split."""
    fold: int | None = Field(default=None, ge=1)
    """Fold number of a reference-layout task folder."""
    report: bool = True
    """Write the HTML report beside the scores."""
    allow_training_rows: bool = False
    """Score patients the model was trained on; the report says so on top."""
    leave_out: Path | None = None
    """csv with ``patient_id`` of patients that are not scored."""
    bootstrap: int = Field(default=2000, ge=100)
    """Resamples of patients for the intervals."""
    nsd_tolerance: float = Field(default=2.0, gt=0)
    """Boundary tolerance of the surface Dice, in mm where spacing is known, else pixels."""
    overwrite: bool = False
    """Empty ``out`` first."""
    seed: int = Field(default=0, ge=0)
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


class PredictConfig(Settings):
    """Settings of ``vismae predict``."""

    model: Paths = Field(min_length=1)
    """Model folder; several answer together, as the mean of their probabilities."""
    inputs: Paths = Field(min_length=1)
    """Images, folders, zip archives, manifests, or ``dicomweb+https://host/path``."""
    query: dict[str, str] = Field(default_factory=dict)
    """What to ask a DICOMweb server for: DICOM keyword -> value."""
    send: bool = False
    """Store results beside their images on the DICOMweb server that the images came from."""
    out: Path
    """Folder for the results."""
    format: Literal["nifti", "png", "dicomseg", "dicomsr"] | None = None
    """Format of label maps; when unset nifti for volumes, dicomseg for DICOM, png for pictures.
    For a classifier dicomsr adds a structured report for each DICOM input to the table."""
    modality: str | None = None
    """Modality of files that do not say: ct, mr, pet, xr, us, other."""
    keep: tuple[Keepable, ...] = ("burned-in",)
    """DICOM images to predict although they are left out as a rule: burned-in,
    secondary-capture, localizer."""
    batch_size: int = Field(default=16, ge=1)
    """Slices, or windows, that go through the network at a time."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward pass."""
    tiling: bool = False
    """Move a window over images larger than the model's own size instead of shrinking them."""
    overlap: float = Field(default=0.5, ge=0.0, le=0.9)
    """Share of a window that the next one covers again, with tiling."""
    flips: tuple[Literal["horizontal", "vertical"], ...] = ()
    """Also look at mirrored images and take the mean; not for models that tell left from right."""
    uncertainty: bool = False
    """Write a map of the entropy of the class probabilities beside each label map."""
    explain: bool = False
    """Write a map of where a classifier's answer comes from."""
    largest_component: Words = ()
    """Classes of which only the largest piece is kept."""
    fill_holes: Words = ()
    """Classes whose holes are filled."""
    resume: bool = False
    """Skip inputs whose results are there and were asked for in the same way."""
    overwrite: bool = False
    """Empty ``out`` first."""


class WebConfig(Settings):
    """Settings of ``vismae web``."""

    model: Paths = Field(min_length=1)
    """Model folder; several are offered side by side."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    host: str = "127.0.0.1"
    """Address to listen on; any but a loopback address needs the access token on every request."""
    allow_host: Words = ()
    """Further names under which browsers may reach the server, such as its DNS name."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""
    batch_size: int = Field(default=16, ge=1)
    """Slices that go through the network at a time."""
    evaluation: Paths = ()
    """Folder of ``vismae evaluate`` that tells how far a classifier's probabilities came true."""
    uncertainty: bool = False
    """Offer the entropy of a segmenter's class probabilities as a layer."""
    waiting: int = Field(default=8, ge=1)
    """Uploads that are taken on at a time; further ones are answered with 'busy'."""
    max_upload_mib: int = Field(default=1024, ge=1)
    """Largest upload, in MiB."""
    max_expanded_mib: int = Field(default=4096, ge=1)
    """Most that an upload may unpack or decode to, in MiB."""
    memory_gib: float = Field(default=8.0, gt=0)
    """Memory of the process that reads and computes (Linux), in GiB above what it starts with."""
    seconds: float = Field(default=300.0, gt=0)
    """Longest time for one step: reading the upload, or one batch, in seconds."""
    keep_minutes: float = Field(default=30.0, gt=0)
    """Results are deleted so long after they were last asked for, in minutes."""
    keep_gib: float = Field(default=20.0, gt=0)
    """Most that the results of all pages take on the disk, in GiB; beyond it those go first that
    nobody has asked for the longest."""
    stop_after: float | None = Field(default=None, gt=0)
    """Stop after so many seconds without a request; when unset the server runs until Ctrl-C."""


class DemoConfig(Settings):
    """Settings of ``vismae demo``."""

    out: Path
    """Folder for the phantom archive, the runs and the report."""
    device: Device = "auto"
    """Where to train."""
    seed: int = Field(default=0, ge=0)
    """Seed of the phantoms and of every run."""
    overwrite: bool = False
    """Empty ``out`` first."""
