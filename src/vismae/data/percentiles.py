"""The brightness range of a volume: exact percentiles, fast for the integers of image files."""

import numpy as np

SCALE_PERCENTILES = (0.5, 99.5)
# Up to this many different values a histogram is faster than sorting.
_HISTOGRAM_RANGE = 1 << 17
# Volumes with more pixels are thinned by rows, evenly over all slices: the percentiles of millions
# of pixels do not change, and counting them all would take as long as reading them.
_MOST_PIXELS = 1 << 22


def scale_range(
    volume: list[np.ndarray], slope: float = 1.0, intercept: float = 0.0
) -> tuple[float, float]:
    """Return the physical values at the 0.5 and 99.5 percentile of a volume.

    Equal to ``numpy.percentile`` of ``stored * slope + intercept`` over all slices, linear
    interpolation; values that are not finite do not count. Of volumes with more than 4 million
    pixels every second, third, ... row counts, so that about 4 million are left.

    Args:
        volume: Stored pixels of its slices, each (H, W) or (H, W, 3), sizes may differ.
        slope, intercept: Physical value = stored * slope + intercept.

    Returns:
        Low and high; both the intercept's value for 0 where no value is finite.
    """
    step = max(1, sum(pixels.size for pixels in volume) // _MOST_PIXELS)
    volume = [pixels[min(step, len(pixels)) // 2 :: step] for pixels in volume]
    low, high = (
        _integer_percentiles(volume)
        if all(np.issubdtype(pixels.dtype, np.integer) for pixels in volume)
        else _float_percentiles(volume)
    )
    ends = (low * slope + intercept, high * slope + intercept)
    return min(ends), max(ends)


def _integer_percentiles(volume: list[np.ndarray]) -> tuple[float, float]:
    lowest = min(int(pixels.min()) for pixels in volume)
    highest = max(int(pixels.max()) for pixels in volume)
    if highest - lowest >= _HISTOGRAM_RANGE:
        return _float_percentiles(volume)
    counts = np.zeros(highest - lowest + 1, dtype=np.int64)
    for pixels in volume:
        counts += np.bincount(
            pixels.ravel().astype(np.int64) - lowest, minlength=highest - lowest + 1
        )
    cumulative = np.cumsum(counts)
    low, high = (
        _order_statistic(cumulative, percentile / 100.0 * (cumulative[-1] - 1))
        for percentile in SCALE_PERCENTILES
    )
    return low + lowest, high + lowest


def _order_statistic(cumulative: np.ndarray, position: float) -> float:
    """Return the value at a fractional position of the sorted values, interpolated."""
    below = int(position)
    above = min(below + 1, int(cumulative[-1]) - 1)
    first, second = np.searchsorted(cumulative, [below, above], side="right")
    return float(first + (second - first) * (position - below))


def _float_percentiles(volume: list[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate([pixels.ravel() for pixels in volume])
    if not np.issubdtype(values.dtype, np.integer):
        values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 0.0
    low, high = np.percentile(values, SCALE_PERCENTILES)
    return float(low), float(high)
