"""Settings of the commands that use a trained model beside predict: embed, export."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from vismae.core.sections import Settings
from vismae.core.setting_types import Device, Keepable, Paths

ExportFormat = Literal[
    "onnx", "onnx-int8", "torch-export", "huggingface", "monai", "microsoft", "timm", "reference"
]


class EmbedConfig(Settings):
    """Settings of ``vismae embed``."""

    model: Path
    """Model folder."""
    inputs: Paths = Field(min_length=1)
    """A store, or images, folders, zip archives and manifests."""
    out: Path
    """Folder for the results."""
    modality: str | None = None
    """Modality of files that do not say: ct, mr, pet, xr, us, other."""
    keep: tuple[Keepable, ...] = ("burned-in",)
    """DICOM images to embed although they are left out as a rule: burned-in,
    secondary-capture, localizer."""
    batch_size: int = Field(default=16, ge=1)
    """Slices that go through the network at a time."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward pass."""
    neighbours: int = Field(default=5, ge=0)
    """Nearest images of other volumes to list for each image; 0 lists none. The time grows with
    the square of the number of images."""
    seed: int = Field(default=0, ge=0)
    """Seed of the map: which images it shows where there are many, and of UMAP."""
    resume: bool = False
    """Skip inputs whose features are there and were asked for in the same way."""
    overwrite: bool = False
    """Empty ``out`` first."""


class ExportConfig(Settings):
    """Settings of ``vismae export``."""

    model: Path
    """Model folder."""
    out: Path
    """Folder to write into."""
    format: ExportFormat = "onnx"
    """Form: onnx, onnx-int8, torch-export, huggingface, monai, microsoft, timm (encoder weights
    under these Swin names), or reference (the checkpoint layout of the published VIS-MAE code)."""
    data: Paths = ()
    """Labelled images to measure what int8 loses on: a store, or sources as for ingest."""
    overwrite: bool = False
    """Empty ``out`` first."""
