"""Where the slices of a reconstructed nuclear medicine image lie.

Standard: PS3.3 C.8.4.9 (image type), C.8.4.14 (slice vector), C.8.4.15 (reconstruction). One
position and orientation, those of the first slice, stand in the detector's sequence; the slices
follow along its normal, or against it where the distance is negative.
"""

import numpy as np
from pydicom import Dataset

from vismae.files.dicom_numbers import number, numbers, readable, whole_number

# Of a gated heart each slice comes once for each time slot; only a list says which a frame shows.
_RECONSTRUCTION, _GATED_RECONSTRUCTION = ["RECON TOMO"], ["RECON GATED TOMO"]


def reconstructed_place(dataset: Dataset, frame: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return position (3,) and direction cosines (6,) of a frame, LPS, counted from 0.

    Returns:
        None for every other image, and where the header does not say.
    """
    if dataset.get("Modality") != "NM":
        return None
    words = [str(word).strip().upper() for word in readable(dataset, "ImageType") or ()]
    gated = words[2:3] == _GATED_RECONSTRUCTION
    if words[2:3] != _RECONSTRUCTION and not (gated and dataset.get("SliceVector")):
        return None
    detectors = dataset.get("DetectorInformationSequence") or ()
    if not detectors:
        return None
    first = numbers(detectors[0], "ImagePositionPatient", 3)
    axes = numbers(detectors[0], "ImageOrientationPatient", 6)
    step_mm = number(dataset, "SpacingBetweenSlices")
    if first is None or axes is None or not step_mm:
        return None
    place = _slice_of(dataset, frame)
    return None if place is None else (first + place * step_mm * np.cross(axes[:3], axes[3:]), axes)


def _slice_of(dataset: Dataset, frame: int) -> int | None:
    """Return which slice a frame shows, from 0: its own number where the header lists none.

    Returns:
        None where the list does not fit the frames.
    """
    count = whole_number(dataset, "NumberOfFrames")
    if count < 2 or not dataset.get("SliceVector"):
        return frame
    listed = numbers(dataset, "SliceVector", count)
    return None if listed is None else int(listed[frame]) - 1
