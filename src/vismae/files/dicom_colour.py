"""Colours of DICOM pixels to RGB: what they are, whatever PhotometricInterpretation says of them.

Standard: PS3.3 C.7.6.3.1.2 (photometric interpretation, the retired ones too), PS3.5 8.2.1 (JPEG);
ITU-T T.871 (JFIF) and T.872 (Adobe's marker, whose transform of 1 is YCbCr and of 0 is none).
"""

import io
from typing import Any

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.processing import convert_color_space
from pydicom.pixels.utils import get_expected_length, get_nr_frames, pixel_array

# Black of the range of television is 16 and its white 235; chroma spans 16 to 240 (ITU-R BT.601).
_TELEVISION_TO_RGB = np.array(
    [[1.164384, 0.0, 1.596027], [1.164384, -0.391762, -0.812968], [1.164384, 2.017232, 0.0]]
)
_BLACK, _NO_CHROMA = 16, 128
_TELEVISION = "YBR_PARTIAL_422"
YBR = ("YBR_FULL", "YBR_FULL_422", _TELEVISION, "YBR_PARTIAL_420")
"""What pixels are called that hold YCbCr when they have been decoded."""


def expected_bytes(dataset: Dataset) -> int:
    """Return the size of uncompressed pixels; pydicom knows one of two ways to halve chroma."""
    count = get_expected_length(dataset, unit="bytes")
    return count // 3 * 2 if dataset.PhotometricInterpretation == _TELEVISION else count


def decode_colour_jpeg(dataset: Dataset) -> np.ndarray:
    """Decode lossy JPEG of three samples to RGB, (F, H, W, 3).

    The codestream tells what its samples are, by the marker of JFIF or Adobe, by the letters R, G
    and B, or by chroma of fewer pixels. Where it is silent the header's word counts.

    Raises:
        ValueError: It has fewer frames than the header says.
        OSError: A frame is damaged.
    """
    count = get_nr_frames(dataset, warn=False)
    frames = [
        _rgb_of(frame, dataset.PhotometricInterpretation == "RGB")
        for frame in generate_frames(dataset.PixelData, number_of_frames=count)
    ]
    if len(frames) < count:
        raise ValueError(f"less than expected: {len(frames)} of {count} frames")
    return np.stack(frames)


def _rgb_of(codestream: bytes, said_to_be_rgb: bool) -> np.ndarray:
    with Image.open(io.BytesIO(codestream), formats=("JPEG",)) as image:
        silent = not {"jfif", "adobe_transform"} & image.info.keys()
        components: Any = getattr(image, "layer", ())
        letters = "".join(chr(component[0]) for component in components)
        subsampled = len({component[1:3] for component in components}) > 1
        plain = silent and letters != "RGB" and not subsampled
        if plain and (said_to_be_rgb or letters == "rgb"):
            image.draft("YCbCr", image.size)  # as they are: libjpeg takes them for YCbCr
        return np.asarray(image)


def decode_ybr(dataset: Dataset, decoder: str) -> np.ndarray:
    """Decode words that PhotometricInterpretation calls YCbCr, and make them RGB if they are.

    Older tools decompressed JPEG to RGB, and left the tag as it was. Of medical images most
    pixels are grey; whether they are grey as RGB or as YCbCr tells what they are.

    Args:
        dataset: The header; its PhotometricInterpretation may be changed.
        decoder: pydicom's name of the one to use; empty for any.
    """
    television = str(dataset.PhotometricInterpretation).startswith("YBR_PARTIAL")
    if dataset.PhotometricInterpretation in ("YBR_FULL_422", _TELEVISION):
        whole = get_expected_length(dataset, unit="pixels")
        native = not dataset["PixelData"].is_undefined_length
        dataset.PhotometricInterpretation = "YBR_FULL_422"
        if native and len(dataset.PixelData) >= whole:
            dataset.PhotometricInterpretation = "YBR_FULL"  # not subsampled, whatever it says
    pixels = pixel_array(dataset, raw=True, decoding_plugin=decoder)
    first, second, third = (pixels[..., channel].astype(np.int16) for channel in range(3))
    equal = (first == second) & (second == third)
    as_rgb = np.count_nonzero(equal & (np.abs(first - 128) > 2))
    as_ybr = np.count_nonzero((np.abs(second - 128) <= 2) & (np.abs(third - 128) <= 2))
    if as_rgb > as_ybr:
        return pixels
    if television:
        return _from_television(pixels)
    return convert_color_space(pixels, "YBR_FULL", "RGB")


def _from_television(pixels: np.ndarray) -> np.ndarray:
    shifted = pixels.astype(np.float32) - np.array([_BLACK, _NO_CHROMA, _NO_CHROMA], np.float32)
    return np.clip(np.rint(shifted @ _TELEVISION_TO_RGB.T), 0, 255).astype(np.uint8)
