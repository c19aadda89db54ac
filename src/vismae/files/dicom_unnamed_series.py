"""Slices of one scan whose SeriesInstanceUID is missing, as some anonymisers leave them.

What they are told by instead must never mix two scans. So all that a scan writes alike into its
slices has to agree, and a frame of reference or the number of the series within a study has to be
there; what was put together must then be one even stack, or its slices stand alone.
"""

import hashlib
from collections.abc import Sequence
from pathlib import PurePath, PurePosixPath

import numpy as np
from pydicom import Dataset

from vismae.core.types import Flag
from vismae.files.dicom_geometry import FramePlane, volume_geometry
from vismae.files.discover import SourceFile

PREFIX = "unnamed series "
"""Begins what stands for the UID, which is none."""

# PS3.3 C.7.3.1, C.7.4.1, C.7.6.1, C.7.6.2, C.7.6.3 and, of CT and MR, C.8.2.1 and C.8.3.1. None of
# them changes from slice to slice of one stack.
SAME_IN_SERIES = (
    *("Modality", "SOPClassUID", "StudyInstanceUID", "FrameOfReferenceUID", "PatientID"),
    *("SeriesNumber", "SeriesDate", "SeriesTime", "SeriesDescription", "ProtocolName"),
    *("ImageType", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"),
    *("SliceThickness", "KVP", "ConvolutionKernel", "GantryDetectorTilt"),
    *("EchoTime", "RepetitionTime", "InversionTime", "FlipAngle", "SequenceName"),
)
_DECIMALS = 4
_WIDE, _MOST_WIDE = 1.5, 0.25


def unnamed_series(header: Dataset, file: SourceFile) -> str:
    """Return what stands for the SeriesInstanceUID of a slice; empty where nothing safe does.

    Args:
        header: With ``SAME_IN_SERIES`` and ImagePositionPatient.
        file: Whose folder counts too.
    """
    study, space = header.get("StudyInstanceUID"), header.get("FrameOfReferenceUID")
    numbered = study and header.get("SeriesNumber") not in (None, "")
    owner = study or header.get("PatientID")
    if not (numbered or (space and owner)):
        return ""
    if len(header.get("ImagePositionPatient") or ()) != 3:
        return ""
    if len(header.get("ImageOrientationPatient") or ()) != 6:
        return ""
    place = file.path if file.member is None else PurePosixPath(file.member)
    facts = [_text(header.get(keyword)) for keyword in SAME_IN_SERIES]
    return PREFIX + hashlib.sha256("\0".join([*facts, _folder(place)]).encode()).hexdigest()[:32]


def is_one_stack(planes: Sequence[FramePlane]) -> bool:
    """Tell whether slices, in their order, lie at even distances on a straight line.

    Some may be missing; where that looks like many, two stacks lie between one another.
    """
    geometry = volume_geometry(planes)
    if not geometry.in_space or Flag.IRREGULAR_SPACING in geometry.flags:
        return False
    gaps = np.diff([plane.height_mm for plane in planes])
    wide = np.count_nonzero(gaps > _WIDE * np.median(gaps)) if len(gaps) else 0
    return bool(wide <= _MOST_WIDE * len(gaps))


def _folder(place: PurePath) -> str:
    """Return the name of the folder alone: an archive may be moved."""
    return place.parent.name.encode("utf-8", "surrogateescape").hex()


def _text(value: object) -> str:
    """Return a value with numbers as far as they are meant."""
    many = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    return "\\".join(
        f"{float(one):.{_DECIMALS}f}" if isinstance(one, (int, float)) else str(one or "").strip()
        for one in many
    )
