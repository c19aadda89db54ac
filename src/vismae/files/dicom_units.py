"""What DICOM pixel values mean: rescale to Hounsfield units, and PET uptake to SUV.

Rescale: PS3.3 C.11.1. SUV by body weight: the "vendor-neutral pseudo-code for SUV calculation" of
the Quantitative Imaging Biomarkers Alliance (QIBA FDG-PET/CT profile), with the Philips private
factors described there.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydicom import Dataset
from pydicom.valuerep import DT

from vismae.core.errors import UnreadableFileError
from vismae.core.types import Modality, PixelUnit
from vismae.files.reasons import Reason

# Below this a dose was certainly written in MBq (a mouse gets some 10^6 Bq).
_LEAST_DOSE_BQ = 1e5
# After ten half-lives nothing is left to measure, so the times must be wrong.
_MOST_HALF_LIVES = 10.0


@dataclass(frozen=True)
class Rescale:
    """Physical value = stored * slope + intercept, and what it is called."""

    slope: float
    intercept: float
    kind: str


def find_rescale(dataset: Dataset, transformation: Dataset | None) -> Rescale | None:
    """Return a frame's rescale, from its functional group if it has one, else from the header.

    Args:
        dataset: The whole header.
        transformation: Item of PixelValueTransformationSequence for the frame, or None.
    """
    for holder in (transformation, dataset):
        if holder is None:
            continue
        slope, intercept = holder.get("RescaleSlope"), holder.get("RescaleIntercept")
        if slope not in (None, "") and intercept not in (None, ""):
            kind = str(holder.get("RescaleType") or "").strip().upper()
            if float(slope) != 0.0 and math.isfinite(float(slope) * float(intercept)):
                return Rescale(float(slope), float(intercept), kind)
    return None


def unit_of(modality: Modality, rescale_kind: str) -> PixelUnit:
    """Return what rescaled values of a modality mean.

    A CT rescale type other than Hounsfield units (material density, effective atomic number,
    unspecified) is a scale of its own.
    """
    if modality is Modality.CT:
        return PixelUnit.HU if rescale_kind in ("", "HU", "HU_MOD") else PixelUnit.ARBITRARY
    if modality is Modality.PET:
        return PixelUnit.SUV
    return PixelUnit.ARBITRARY if modality is Modality.MR else PixelUnit.DISPLAY


def no_rescale(name: str, found: str) -> UnreadableFileError:
    """Return the error for a CT image without a usable rescale; ``found`` says what it has."""
    return UnreadableFileError(
        Reason.NO_RESCALE,
        f"{name}: pixel values have no unit. {found}, so "
        f"HU cannot be computed. Pass --modality xr to treat it as plain grey levels, or leave "
        f"the file out.",
    )


def suv_factor(dataset: Dataset, name: str) -> float:
    """Return the number that turns rescaled PET values into SUV by body weight (g/ml).

    Raises:
        UnreadableFileError: ``no-suv``, naming the element that is missing or unusable.
    """
    units = str(dataset.get("Units") or "").strip().upper()
    if units == "GML":
        kind = str(dataset.get("SUVType") or "BW").strip().upper()
        if kind != "BW":
            raise no_suv(name, f"SUVType is {kind}, not BW (body weight)")
        return 1.0
    if units == "CNTS":
        suv_scale = _private_number(dataset, 0x7053, 0x1000)
        if suv_scale:
            return suv_scale
        activity_scale = _private_number(dataset, 0x7053, 0x1009)
        if not activity_scale:
            raise no_suv(
                name, "Units is CNTS and the Philips factors (7053,1000), (7053,1009) are missing"
            )
        return activity_scale * _per_dose(dataset, name)
    if units == "BQML":
        return _per_dose(dataset, name)
    raise no_suv(name, f"Units is '{units}'" if units else "Units is missing")


def no_suv(name: str, found: str) -> UnreadableFileError:
    """Return the error for a PET image without SUV; ``found`` says what is wrong."""
    return UnreadableFileError(
        Reason.NO_SUV,
        f"{name}: uptake cannot be turned into SUV: {found}. Fetch the original with its dose, "
        f"weight and times, or pass --modality other to treat it as a plain scale.",
    )


def _per_dose(dataset: Dataset, name: str) -> float:
    """Return weight in grams over the dose left at the time the image was decay-corrected to."""
    weight_kg = _number(dataset, "PatientWeight", name)
    sequence = dataset.get("RadiopharmaceuticalInformationSequence")
    if not sequence:
        raise no_suv(name, "RadiopharmaceuticalInformationSequence is missing")
    tracer = sequence[0]
    dose_bq = _number(tracer, "RadionuclideTotalDose", name)
    if dose_bq < _LEAST_DOSE_BQ:
        raise no_suv(name, f"RadionuclideTotalDose is {dose_bq:g}, too little for Bq")
    correction = str(dataset.get("DecayCorrection") or "").strip().upper()
    if correction == "ADMIN":
        return weight_kg * 1000.0 / dose_bq
    if correction != "START":
        raise no_suv(name, f"DecayCorrection is '{correction}', not START or ADMIN")
    half_life = _number(tracer, "RadionuclideHalfLife", name)
    scan = _scan_start(dataset, half_life, name)
    waited = (scan - _injection(tracer, scan, name)).total_seconds()
    if not 0.0 <= waited <= _MOST_HALF_LIVES * half_life:
        raise no_suv(
            name,
            f"the scan starts {waited:.0f} s after the injection, with a half-life of "
            f"{half_life:g} s",
        )
    return weight_kg * 1000.0 / (dose_bq * 2.0 ** (-waited / half_life))


def _number(holder: Dataset, tag: str, name: str) -> float:
    value = holder.get(tag)
    if value in (None, ""):
        raise no_suv(name, f"{tag} is missing")
    if not float(value) > 0.0:
        raise no_suv(name, f"{tag} is {value}, not above 0")
    return float(value)


def _private_number(dataset: Dataset, group: int, element: int) -> float | None:
    """Return a private decimal string; it arrives as bytes when its dictionary is unknown."""
    if (group, element) not in dataset:
        return None
    value: Any = dataset[group, element].value
    if isinstance(value, bytes):
        value = value.decode("ascii", "ignore").strip(" \x00")
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _moment(date: object, time: object) -> datetime | None:
    if not date or not time:
        return None
    try:
        moment = DT(f"{date}{time}")
    except (TypeError, ValueError):
        return None
    # All times of one image are in one zone, though only some of them may say which.
    return None if moment is None else moment.replace(tzinfo=None)


def _scan_start(dataset: Dataset, half_life_seconds: float, name: str) -> datetime:
    """Return the moment to which START-corrected activity refers.

    That is the series time, unless later processing has overwritten it: then GE's private scan
    time, or else the acquisition time moved back by the frame's own reference time.
    """
    series = _moment(dataset.get("SeriesDate"), dataset.get("SeriesTime"))
    acquired = _moment(
        dataset.get("AcquisitionDate") or dataset.get("SeriesDate"), dataset.get("AcquisitionTime")
    )
    if series is not None and (acquired is None or series <= acquired):
        return series
    scanned = _ge_scan_time(dataset)
    if scanned is not None:
        return scanned
    reference_ms = float(dataset.get("FrameReferenceTime") or 0)
    duration = float(dataset.get("ActualFrameDuration") or 0) / 1000.0
    if acquired is None or reference_ms <= 0 or duration <= 0:
        raise no_suv(
            name,
            "the start of the scan is unknown (SeriesTime is missing or later than "
            "AcquisitionTime, and FrameReferenceTime or ActualFrameDuration is missing)",
        )
    decay = math.log(2.0) / half_life_seconds
    lost = decay * duration
    average = math.log(lost / (1.0 - math.exp(-lost))) / decay
    return acquired - timedelta(seconds=reference_ms / 1000.0 - average)


def _ge_scan_time(dataset: Dataset) -> datetime | None:
    try:
        value = dataset.private_block(0x0009, "GEMS_PETD_01")[0x0D].value
    except KeyError:
        return None
    text = value.decode("ascii", "ignore") if isinstance(value, bytes) else str(value)
    text = text.strip(" \x00")
    return _moment(text[:8], text[8:])


def _injection(tracer: Dataset, scan: datetime, name: str) -> datetime:
    full = str(tracer.get("RadiopharmaceuticalStartDateTime") or "")
    moment = _moment(full[:8], full[8:])
    if moment is not None:
        return moment
    moment = _moment(scan.strftime("%Y%m%d"), tracer.get("RadiopharmaceuticalStartTime"))
    if moment is None:
        raise no_suv(name, "RadiopharmaceuticalStartTime is missing")
    # A time without a date that lies after the scan was before midnight.
    return moment - timedelta(days=1) if moment > scan else moment
