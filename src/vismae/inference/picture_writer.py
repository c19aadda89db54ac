"""Label maps as palette PNG and maps of values as 16-bit grey PNG, in the image's own pixels."""

from pathlib import Path

import numpy as np
from PIL import Image

from vismae.evaluation.overlay import colour_of
from vismae.inference.output_files import whole_or_none

_PALETTE_SIZE = 256


def write_pictures(path: Path, slices: np.ndarray, palette: bool) -> list[Path]:
    """Write one PNG, or one for each of several slices in a folder of the name's stem.

    Args:
        path: Ends with ``.png``; several slices become ``NAME.slices/0001.png`` and so on.
        slices: (S, H, W), uint8 or uint16.
        palette: The numbers are classes: give them the project's colours. More than 256 classes
            stay grey, since a palette has no more.

    Returns:
        The files written.
    """
    if len(slices) == 1:
        _write(path, slices[0], palette)
        return [path]
    folder = path.with_name(f"{path.stem}.slices")
    paths = [folder / f"{number:04d}.png" for number in range(1, len(slices) + 1)]
    for place, pixels in zip(paths, slices, strict=True):
        _write(place, pixels, palette)
    return paths


def _write(path: Path, pixels: np.ndarray, palette: bool) -> None:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if palette and pixels.dtype == np.uint8:
        picture.putpalette([part for k in range(_PALETTE_SIZE) for part in colour_of(k)])
    with whole_or_none(path) as place:
        picture.save(place, format="PNG")
