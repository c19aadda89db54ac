"""Settings of what is learnt from labels, and by which loss; beside ``core/sections.py``."""

from typing import Literal

from pydantic import Field, model_validator

from vismae.core.sections import Settings
from vismae.core.setting_types import Words


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
    class_weights: Literal["none", "inverse", "sqrt"] | None = None
    """Weight of each class in the loss by its rarity (classification); chosen by the recipe when
    unset."""
    dice_weight: float = Field(default=0.6, ge=0.0)
    """Weight of Dice in the loss (segmentation)."""
    cross_entropy_weight: float = Field(default=0.4, ge=0.0)
    """Weight of cross-entropy in the loss (segmentation)."""
    focal_weight: float = Field(default=0.0, ge=0.0)
    """Weight of the focal loss (segmentation)."""
    focal_gamma: float = Field(default=2.0, ge=0.0)
    """How strongly the focal loss turns to pixels that are still wrong."""
    tversky_weight: float = Field(default=0.0, ge=0.0)
    """Weight of the Tversky loss (segmentation)."""
    tversky_alpha: float = Field(default=0.3, ge=0.0)
    """Its weight of what is predicted but not there."""
    tversky_beta: float = Field(default=0.7, ge=0.0)
    """Its weight of what is missed."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Smoothing of the labels (classification)."""

    @model_validator(mode="after")
    def _some_loss(self) -> "TaskSettings":
        weights = ("dice_weight", "cross_entropy_weight", "focal_weight", "tversky_weight")
        if self.kind == "segment" and not any(getattr(self, name) for name in weights):
            raise ValueError(f"nothing would be learnt: {', '.join(weights)} are all 0")
        return self
