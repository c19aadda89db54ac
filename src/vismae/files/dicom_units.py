"""What DICOM pixel values mean: slope, intercept and unit of every frame.

Standard: PS3.3 C.11.1 (modality LUT and rescale), C.7.6.16.2.9 (the same for each frame),
C.7.6.16.2.11 (real-world values). Uptake is in ``dicom_suv``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.pixels.utils import get_nr_frames

from vismae.core.advice import advice
from vismae.core.errors import UnreadableFileError
from vismae.core.types import Modality, PixelUnit
from vismae.files.dicom_geometry import functional_group
from vismae.files.dicom_numbers import is_malformed, number, require_numbers, whole_number
from vismae.files.dicom_suv import BedTimes, no_suv, suv_factor, suv_of_frame
from vismae.files.reasons import Reason

_RESCALE = ("RescaleSlope", "RescaleIntercept")
# Slope and intercept of scanners that store Hounsfield units without a sign.
_HU_CUSTOMS = ((1.0, -1024.0), (1.0, -1000.0))


@dataclass(frozen=True)
class Rescale:
    """Physical value = stored * slope + intercept, and what it is called."""

    slope: float
    intercept: float
    kind: str


@dataclass(frozen=True)
class FrameScale:
    """Scale of one frame.

    Attributes:
        slope, intercept: Physical value = stored * slope + intercept.
        unit: What the physical value means.
        factor: Physical value over rescaled value; other than 1 where uptake became SUV.
    """

    slope: float
    intercept: float
    unit: PixelUnit
    factor: float = 1.0


def frame_scales(
    dataset: Dataset,
    modality: Modality,
    name: str,
    of_a_screen: bool,
    beds: BedTimes | None = None,
) -> Sequence[FrameScale]:
    """Return the scale of every frame.

    Args:
        dataset: The header.
        modality: Its modality, or the one the user says.
        name: For messages.
        of_a_screen: A secondary capture. It has Hounsfield units or SUV only where its header
            gives a true rescale or Units; else its values are grey levels.
        beds: Of a PET series; None for a file by itself.

    Raises:
        UnreadableFileError: ``no-rescale`` for CT and ``no-suv`` for PET.
    """
    count = get_nr_frames(dataset, warn=False)
    table = dataset.get("ModalityLUTSequence")
    table_kind = str(table[0].get("ModalityLUTType") or "").upper() if table else ""
    if of_a_screen and not _has_unit(dataset, modality):
        return [FrameScale(1.0, 0.0, PixelUnit.DISPLAY)] * count
    if modality is Modality.CT and whole_number(dataset, "SamplesPerPixel") > 1:
        raise no_rescale(name, "It is a colour picture")
    if table and modality is Modality.CT and table_kind != "HU":
        raise no_rescale(name, f"Its ModalityLUTType is '{table_kind}'")
    if modality is Modality.PET and not dataset.get("Units"):
        scales = [suv_of_frame(dataset, frame, name, beds) for frame in range(count)]
        return [FrameScale(m, b, PixelUnit.SUV, factor) for m, b, factor in scales]
    factor = suv_factor(dataset, name, beds) if modality is Modality.PET else 1.0
    result: list[FrameScale] = []
    for frame in range(count):
        group = functional_group(dataset, frame, "PixelValueTransformationSequence")
        found = Rescale(1.0, 0.0, table_kind) if table else find_rescale(dataset, group)
        if found is None:
            holders = [group or dataset, dataset]
            _require_no_rescale(modality, holders, name)
            found = _slope_alone(holders) or Rescale(1.0, 0.0, "")
        unit = unit_of(modality, found)
        unscaled = not table and (found.slope, found.intercept) == (1.0, 0.0)
        if unit is PixelUnit.HU and unscaled and _has_grey_levels(dataset):
            raise no_rescale(name, "They go from 0 to 255, as those of a picture do")
        result.append(FrameScale(found.slope * factor, found.intercept * factor, unit, factor))
    return result


def find_rescale(dataset: Dataset, transformation: Dataset | None) -> Rescale | None:
    """Return a frame's rescale, from its functional group if it has one, else from the header.

    Args:
        dataset: The whole header.
        transformation: Item of PixelValueTransformationSequence for the frame, or None.
    """
    for holder in (transformation, dataset):
        if holder is None:
            continue
        slope, intercept = (number(holder, keyword) for keyword in _RESCALE)
        if slope and intercept is not None and math.isfinite(slope * intercept):
            kind = str(holder.get("RescaleType") or "").strip().upper()
            return Rescale(slope, intercept, kind)
    return None


def _slope_alone(holders: Sequence[Dataset]) -> Rescale | None:
    """Return the rescale of a header that leaves the intercept out, which then is 0."""
    for holder in holders:
        slope = number(holder, "RescaleSlope")
        if slope and math.isfinite(slope) and holder.get("RescaleIntercept") in (None, ""):
            return Rescale(slope, 0.0, str(holder.get("RescaleType") or "").strip().upper())
    return None


def _require_no_rescale(modality: Modality, holders: Sequence[Dataset], name: str) -> None:
    """Refuse a frame without a usable rescale if its values mean nothing without it.

    Magnetic resonance needs none; but where there is one that cannot be read, the slice has another
    scale than its neighbours. Of grey levels for the eye nobody would miss it.
    """
    there = {word for word in _RESCALE for holder in holders if number(holder, word) is not None}
    missing = [word for word in _RESCALE if word not in there]
    found = f"{' and '.join(missing or _RESCALE)} {'is' if len(missing) == 1 else 'are'} missing"
    for keyword in _RESCALE:
        if any(is_malformed(holder, keyword) for holder in holders):
            found = f"{keyword} is no number"
    if any(number(holder, "RescaleSlope") == 0.0 for holder in holders):
        found = "RescaleSlope is 0"
    if modality is Modality.CT:
        raise no_rescale(name, found)
    if modality is Modality.PET:
        raise no_suv(name, found)
    if modality is Modality.MR:
        for holder in holders:
            require_numbers(holder, _RESCALE, name)


def unit_of(modality: Modality, rescale: Rescale) -> PixelUnit:
    """Return what rescaled values of a modality mean.

    A CT rescale type other than Hounsfield units (material density, effective atomic number,
    unspecified) is a scale of its own. Where it is unspecified, but air has the number that it has
    in Hounsfield units, the writer left the word out.
    """
    if modality is Modality.CT:
        unnamed = rescale.kind == "US" and (rescale.slope, rescale.intercept) in _HU_CUSTOMS
        # Some write the unit's name where its code belongs.
        named = rescale.kind in ("", "HU", "HU_MOD") or "HOUNSFIELD" in rescale.kind
        return PixelUnit.HU if named or unnamed else PixelUnit.ARBITRARY
    if modality is Modality.PET:
        return PixelUnit.SUV
    return PixelUnit.ARBITRARY if modality is Modality.MR else PixelUnit.DISPLAY


def no_rescale(name: str, found: str) -> UnreadableFileError:
    """Return the error for a CT image without a usable rescale; ``found`` says what it has."""
    cure = advice("Pass --modality xr", "Choose 'xr' under Read as (field modality)")
    return UnreadableFileError(
        Reason.NO_RESCALE,
        f"{name}: pixel values have no unit. {found}, so HU cannot be computed. {cure} to treat "
        f"it as plain grey levels, or leave the file out.",
    )


def _has_grey_levels(dataset: Dataset) -> bool:
    """Whether stored values are those of a picture: no number of 8 bits stands for air in HU."""
    bits = whole_number(dataset, "BitsStored") or whole_number(dataset, "BitsAllocated")
    return bits <= 8 and whole_number(dataset, "PixelRepresentation") == 0


def _has_unit(dataset: Dataset, modality: Modality) -> bool:
    photometric = str(dataset.get("PhotometricInterpretation") or "")
    if not photometric.startswith("MONOCHROME"):
        return False
    if modality is Modality.PET:
        return bool(dataset.get("Units"))
    if modality is not Modality.CT:
        return False
    found = find_rescale(dataset, None)
    return found is not None and (found.slope, found.intercept) != (1.0, 0.0)
