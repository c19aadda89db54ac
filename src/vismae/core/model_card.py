"""``model.json``: what a model folder says about its weights."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vismae.core.preprocessing import Preprocessing
from vismae.core.types import Modality

MODEL_FORMAT_VERSION = 1


class TaskCard(BaseModel):
    """What the outputs of a fine-tuned model mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[str, ...]
    """Class names in the order of the logits; class 0 of a segmenter is the background."""
    label_values: dict[int, int] | None = None
    """Value in a label map file -> class index (segmentation)."""
    multi_label: bool = False
    """Several classes may be true of one image (classification)."""
    thresholds: tuple[float, ...] | None = None
    """Probability from which a class counts as present, chosen on validation (classification)."""
    network: str = "swin_unet"
    """Network built round the encoder."""

    @model_validator(mode="after")
    def _one_threshold_for_each_class(self) -> "TaskCard":
        if self.thresholds is not None and len(self.thresholds) != len(self.classes):
            raise ValueError(
                f"{len(self.thresholds)} thresholds for {len(self.classes)} classes; there must be "
                "one for each"
            )
        return self


class FingerprintCard(BaseModel):
    """Hashes that tell whether an image or patient was in the training data.

    ``groups``, ``pixels`` and ``likeness`` are sorted 64-bit hashes, packed little-endian and
    base64-coded (``data/fingerprint.py``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int = 0
    patients: int = 0
    by_modality: dict[str, int] = Field(default_factory=dict)
    groups: str = ""
    pixels: str = ""
    likeness: str = ""


class ModelCard(BaseModel):
    """All that is needed, beside the weights, to use a model and to judge it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = MODEL_FORMAT_VERSION
    kind: Literal["mae", "contrastive", "segmenter", "classifier"]
    architecture: dict[str, Any]
    preprocessing: Preprocessing
    task: TaskCard | None = None
    modalities: tuple[Modality, ...] = ()
    licence: str = "not stated"
    training: dict[str, FingerprintCard] = Field(default_factory=dict)
    """Fingerprints by stage: ``pretrain``, ``finetune``."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """Versions, settings in short, transfer report, validation scores."""
