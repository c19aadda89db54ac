"""Making images smaller where the user has set a cap: area averaging, nearest for label maps."""

import numpy as np

from vismae.data.likeness import averaging_matrix


def downscaled_shape(shape: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """Return height and width with the longer side at most ``max_side`` (no cap where None)."""
    longest = max(shape)
    if max_side is None or longest <= max_side:
        return shape
    height, width = (max(1, round(side * max_side / longest)) for side in shape)
    return height, width


def downscale_pixels(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a smaller image whose pixels are the averages of what they cover.

    Args:
        pixels: (H, W) or (H, W, 3); the type is kept, whole numbers are rounded.
        shape: Smaller height and width.
    """
    rows, columns = (
        averaging_matrix(long, short) for long, short in zip(pixels.shape, shape, strict=False)
    )
    channels = pixels[..., None] if pixels.ndim == 2 else pixels
    smaller = np.stack(
        [
            rows @ channels[..., channel].astype(np.float32) @ columns.T
            for channel in range(channels.shape[2])
        ],
        axis=2,
    ).reshape(*shape, *pixels.shape[2:])
    if np.issubdtype(pixels.dtype, np.integer):
        # Averages of extremes may leave the type's range by a rounding error.
        limits = np.iinfo(pixels.dtype)
        smaller = np.clip(np.rint(smaller.astype(np.float64)), limits.min, limits.max)
    return smaller.astype(pixels.dtype)


def downscale_label_map(label_map: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a smaller label map: at each new pixel centre the class that lies there."""
    rows, columns = (
        ((np.arange(short) + 0.5) * long / short).astype(int)
        for long, short in zip(label_map.shape, shape, strict=True)
    )
    return label_map[np.ix_(rows, columns)]
