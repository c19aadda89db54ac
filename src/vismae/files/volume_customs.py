"""What NIfTI, MetaImage and NRRD files leave unsaid, taken from names and custom."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vismae.core.errors import UnreadableFileError
from vismae.core.types import MedicalImage, Modality, PixelUnit
from vismae.files.reasons import Reason

MAX_VOLUMES = 32
"""Volumes taken from a 4-D file, spread evenly from first to last: neighbours in time are nearly
copies, and one long run would outweigh all other patients."""

# No tissue takes up so many times the mean; activity in Bq/ml, which BIDS asks for, is ten times as
# much in any.
_MOST_SUV = 2000.0
# Noise alone spans more HU than this: a CT within such a range was normalised, to 0 to 1, or to a
# mean of 0 and a spread of 1.
_NORMALISED = 20.0

# Suffixes of the Brain Imaging Data Structure (BIDS) and of common practice.
_NAME_HINTS = {
    Modality.MR: r"t1w|t2w|t2starw|t2star|flair|pdw|pdt2|bold|dwi|sbref|adc|t1|t2|t1ce|mr|mri",
    Modality.CT: r"ct",
    Modality.PET: r"pet|suv",
}


def modality_from_name(name: str) -> Modality:
    """Return the modality that a file name ends with or holds as a word, else ``other``."""
    words = re.split(r"[_\-. ]", re.split(r"[/\\!]", name)[-1].lower())
    for word in reversed(words):  # the last word that says something: BIDS puts it there
        for made, pattern in _NAME_HINTS.items():
            if re.fullmatch(pattern, word):
                return made
    return Modality.OTHER


def customary_unit(modality: Modality, unscaled_8_bit: bool) -> PixelUnit:
    """Return Hounsfield units for CT and SUV for PET, as is the custom of these formats.

    Unscaled 8-bit numbers cannot be either and count as arbitrary, as does everything else.
    """
    unit = {Modality.CT: PixelUnit.HU, Modality.PET: PixelUnit.SUV}.get(modality)
    return PixelUnit.ARBITRARY if unit is None or unscaled_8_bit else unit


def with_believable_unit(images: Sequence[MedicalImage]) -> list[MedicalImage]:
    """Return the volumes of one file, on an arbitrary scale if their unit cannot be the custom's.

    A PET in Bq/ml has numbers that no SUV reaches, and a CT that was normalised (to 0 to 1, or by
    its mean and spread) has none that are air and bone.
    """
    unit = images[0].unit
    if unit not in (PixelUnit.SUV, PixelUnit.HU):
        return list(images)
    ends = [
        float(end(image.pixels)) * image.slope + image.intercept
        for image in images
        for end in (np.min, np.max)
    ]
    low, high = min(ends), max(ends)
    if unit is PixelUnit.SUV:
        believable = high <= _MOST_SUV
    else:
        whole = images[0].pixels.dtype.kind in "iu"  # as a few voxels of water may be
        believable = whole or low == high or high - low > _NORMALISED
    return [image if believable else replace(image, unit=PixelUnit.ARBITRARY) for image in images]


def wanted_volumes(count: int, channel: int | None, name: str) -> list[int]:
    """Return the numbers of the volumes of a file to read: all (``spread_volumes``), or one.

    Args:
        count: Volumes in the file.
        channel: The one that is wanted, counted from 0.
        name: Of the file, for messages.

    Raises:
        UnreadableFileError: ``no-channel``: the file has fewer.
    """
    if channel is None:
        return spread_volumes(count)
    if channel >= count:
        raise UnreadableFileError(
            Reason.NO_CHANNEL,
            f"{name}: channel {channel} is wanted, but it holds {count} volume(s), counted from 0. "
            "Correct the column channel of the table.",
        )
    return [channel]


def spread_volumes(count: int) -> list[int]:
    """Return the numbers of the volumes to take, at most ``MAX_VOLUMES``, evenly spread."""
    return np.unique(
        np.linspace(0, count - 1, min(count, MAX_VOLUMES)).round().astype(int)
    ).tolist()
