"""From stored numbers to the 0..1 scale and the network's normalised input; pure functions.

The one place where intensities change. Training, evaluation, prediction and the page call it.
Physical value = stored * slope + intercept.
"""

import numpy as np

from vismae.core.preprocessing import Preprocessing
from vismae.core.types import Modality, PixelUnit
from vismae.data.percentiles import SCALE_PERCENTILES


def window_hu(values_hu: np.ndarray, low_hu: float, high_hu: float) -> np.ndarray:
    """Map Hounsfield units to 0..1 linearly between two bounds, clipped outside.

    Args:
        values_hu: Any shape, Hounsfield units.
        low_hu, high_hu: Values that become 0 and 1.

    Raises:
        ValueError: The window is empty.
    """
    return _linear(values_hu, low_hu, high_hu)


def scale_suv(values_suv: np.ndarray, low_suv: float, high_suv: float) -> np.ndarray:
    """Map standardised uptake values to 0..1 linearly between two bounds, clipped outside."""
    return _linear(values_suv, low_suv, high_suv)


def scale_between(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map the range of a volume's percentiles to 0..1; a constant image becomes zeros.

    A blank image has ``low == high``; dividing by that range would turn it into noise or ones.
    """
    if not high > low:
        return np.zeros(values.shape, dtype=np.float32)
    return _linear(values, low, high)


def to_unit_range(
    pixels: np.ndarray,
    *,
    modality: Modality,
    unit: PixelUnit,
    slope: float,
    intercept: float,
    scale_low: float,
    scale_high: float,
    preprocessing: Preprocessing,
) -> np.ndarray:
    """Return stored pixels on the 0..1 scale, float32, in the shape they came in.

    Hounsfield units and SUV are windowed by the contract. Display images of 8 bit keep their
    grey levels (divided by 255), so that a dark picture stays dark, but one of a single grey level
    shows nothing and becomes zeros. Everything else (MR, 16-bit display images) is scaled between
    percentiles of its volume. A contract that names other percentiles than the store keeps, such
    as the 0 and 100 of official segmentation checkpoints, takes them of each image.

    Args:
        pixels: Stored values, (H, W) or (H, W, 3).
        modality, unit, slope, intercept, scale_low, scale_high: As in ``SliceRecord``.
        preprocessing: The contract.
    """
    own_percentiles = preprocessing.percentiles != SCALE_PERCENTILES
    is_grey_levels = unit is PixelUnit.DISPLAY and pixels.dtype == np.uint8
    if is_grey_levels and modality is not Modality.MR and not own_percentiles:
        if pixels.min() == pixels.max():
            return np.zeros(pixels.shape, dtype=np.float32)
        return pixels.astype(np.float32) / 255.0
    values = pixels.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    finite = np.isfinite(values)
    if not finite.all():
        # A scanner may write NaN outside its field of view; the lowest value is what air would be.
        values = np.nan_to_num(values, nan=scale_low, posinf=scale_high, neginf=scale_low)
    if unit is PixelUnit.HU:
        return window_hu(values, *preprocessing.ct_window_hu)
    if unit is PixelUnit.SUV:
        return scale_suv(values, *preprocessing.pet_range_suv)
    if own_percentiles and finite.any():
        low, high = np.percentile(values[finite], preprocessing.percentiles)
        return scale_between(values, float(low), float(high))
    return scale_between(values, scale_low, scale_high)


def normalise(values: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Subtract the contract's mean and divide by its spread; 0..1 in, about -1..4 out."""
    return (values - np.float32(preprocessing.mean)) / np.float32(preprocessing.std)


def _linear(values: np.ndarray, low: float, high: float) -> np.ndarray:
    if not high > low:
        raise ValueError(f"The window from {low} to {high} is empty; the second must be larger.")
    scaled = (values.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    return np.clip(scaled, 0.0, 1.0)
