"""What the frames of a CT, MR or PET object follow one another in that does not place each of them.

Converters, dental scanners and workstations write volumes as many frames of the classic classes,
which have one position for all. Standard: PS3.3 C.7.6.6 (multi-frame; FrameIncrementPointer tells
what changes from frame to frame), C.7.6.5 (cine).
"""

from typing import Literal

import numpy as np
from pydicom import Dataset

from vismae.files.dicom_numbers import number, numbers, readable, whole_number

FrameRow = Literal["slices", "times"]

_MADE_IN_SLICES = ("CT", "MR", "PT")
_SLICE_LOCATIONS = "SliceLocationVector"
_IN_TIME = ("FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate")
# Numbers of heart phases or other times, of which an object of one slice has several.
_COUNTS_OF_TIMES = ("NumberOfTemporalPositions", "CardiacNumberOfImages")
_REGULAR_FRACTION = 0.05


def frame_row(dataset: Dataset) -> FrameRow | None:
    """Return what frames follow one another in; None for one frame, or places for each.

    Frames are slices unless something counts them in time.
    """
    if whole_number(dataset, "NumberOfFrames") < 2:
        return None
    if dataset.get("Modality") not in _MADE_IN_SLICES:
        return None
    if readable(dataset, "PerFrameFunctionalGroupsSequence"):
        return None
    if readable(dataset, _SLICE_LOCATIONS):
        return "slices"
    timed = any(readable(dataset, keyword) for keyword in _IN_TIME)
    timed = timed or any(whole_number(dataset, keyword) > 1 for keyword in _COUNTS_OF_TIMES)
    return "times" if timed else "slices"


def row_step_mm(dataset: Dataset) -> float | None:
    """Return the distance of frames that are slices; None where it is not told or not constant.

    The thickness of a slice is no distance: slices overlap or leave gaps.
    """
    locations = numbers(dataset, _SLICE_LOCATIONS, whole_number(dataset, "NumberOfFrames"))
    if locations is not None:
        steps = np.abs(np.diff(locations))
        step = float(np.median(steps))
        regular = step > 0.0 and (np.abs(steps - step) <= _REGULAR_FRACTION * step).all()
        return step if regular else None
    step = abs(number(dataset, "SpacingBetweenSlices") or 0.0)
    return step or None
