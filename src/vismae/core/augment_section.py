"""Settings of the random changes to labelled training images; beside ``core/sections.py``."""

from pydantic import Field

from vismae.core.sections import Settings
from vismae.core.setting_types import PositiveRange


class AugmentSettings(Settings):
    """Random changes to training images; what moves pixels moves the label map alike."""

    flip_horizontal: bool = False
    """Mirror left to right; off by default because sides matter in anatomy."""
    flip_vertical: bool = False
    """Mirror top to bottom."""
    rotate: float | None = Field(default=None, ge=0.0, le=180.0)
    """Largest rotation in degrees, 180 where no direction is special; chosen by the recipe when
    unset."""
    scale: PositiveRange = (0.7, 1.4)
    """Range of zoom."""
    translate: float = Field(default=0.1, ge=0.0, le=1.0)
    """Largest shift as a share of the side."""
    probability: float = Field(default=0.8, ge=0.0, le=1.0)
    """Chance that an image is moved: rotated, zoomed and shifted, mirrored where that is on."""
    gamma: PositiveRange = (0.7, 1.5)
    """Range of the gamma exponent."""
    contrast: PositiveRange = (0.75, 1.25)
    """Range of the factor on differences from the image's mean."""
    brightness: PositiveRange = (0.75, 1.25)
    """Range of the factor on all values."""
    blur: float = Field(default=1.0, ge=0.0, le=3.0)
    """Largest standard deviation of the blur in pixels."""
    low_resolution: float = Field(default=0.5, gt=0.0, le=1.0)
    """Smallest resolution an image is brought down to, as a share of its own; 1 never does."""
    noise: float = Field(default=0.05, ge=0.0)
    """Largest standard deviation of added noise, on the 0..1 scale."""
    intensity_probability: float = Field(default=0.3, ge=0.0, le=1.0)
    """Chance of each change of intensity: gamma, contrast, brightness, blur, low resolution and
    noise, drawn one by one."""
    mixup: float = Field(default=0.0, ge=0.0)
    """Mix pairs of images and their labels, the share drawn from a beta distribution with this
    parameter (classification; Zhang et al. 2018 use 0.1 to 0.4); 0 never mixes."""
