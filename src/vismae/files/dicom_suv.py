"""PET uptake to SUV by body weight, for classic and enhanced objects.

The "vendor-neutral pseudo-code for SUV calculation" of the Quantitative Imaging Biomarkers
Alliance (QIBA FDG-PET/CT profile), with the private factors of Philips and the scan time of GE
described there. Standard: PS3.3 C.8.9.1 (PET series), C.8.22 (enhanced PET), C.8.9.8 (legacy
converted PET, which keeps the classic elements in sequences of their own), C.12.1.1.8 (time zone);
PS3.5 6.2 (offsets of date-times), 7.8.1 (private blocks and their creators).
"""

import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

from pydicom import Dataset
from pydicom.valuerep import DT

from vismae.core.advice import advice
from vismae.core.errors import UnreadableFileError
from vismae.files.dicom_geometry import functional_group
from vismae.files.dicom_numbers import is_malformed, number, without_use
from vismae.files.reasons import Reason

# Below this a dose was certainly written in MBq (a mouse gets some 10^6 Bq).
_LEAST_DOSE_BQ = 1e5
# Above this a weight was written in grams.
_MOST_WEIGHT_KG = 700.0
# After ten half-lives nothing is left to measure, so the times must be wrong.
_MOST_HALF_LIVES = 10.0
# Such a tracer is scanned days later too: with F-18 and the like it is the day of the injection.
_LONG_HALF_LIFE_SECONDS = 12 * 3600.0
# Units of real-world values (UCUM, PS3.16 CID 84 and 85) that are SUV by body weight already.
_SUV_UNITS = {"{SUVBW}G/ML", "G/ML{SUVBW}", "{SUVBW}G/CM3", "G/CM3{SUVBW}"}
_ACTIVITY_UNITS = {"BQ/ML", "BQ/CM3"}
_PHILIPS_GROUP, _PHILIPS_CREATOR = 0x7053, "Philips PET Private Group"
_SUV_SCALE, _ACTIVITY_SCALE = 0x00, 0x09
_CONVERTED = (
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
)


@dataclass
class BedTimes:
    """When the beds of PET series were begun, noted while their files are read.

    SeriesTime is the start of the scan unless it is later than the first bed, which is known only
    when all files have been read: then those of such a series are read again.

    Attributes:
        first: SeriesInstanceUID -> start of the first bed, of series whose SeriesTime is not the
            start of the scan; empty until ``settle`` was called.
    """

    first: dict[str, datetime] = field(default_factory=dict[str, datetime])
    _begun: defaultdict[str, set[datetime]] = field(default_factory=lambda: defaultdict(set))
    _relied_on: defaultdict[str, set[datetime]] = field(default_factory=lambda: defaultdict(set))
    _refused: set[str] = field(default_factory=set[str])

    def note(self, series: str, begun: datetime) -> None:
        """Remember when the bed of a slice was begun."""
        self._begun[series].add(begun)

    def rely_on(self, series: str, start: datetime | None) -> None:
        """Remember what was taken for the start of the scan of a slice; None if nothing was."""
        if start is None:
            self._refused.add(series)
        else:
            self._relied_on[series].add(start)

    def settle(self) -> bool:
        """Find the first bed of series with another start than was thought; whether any has."""
        for series, begun in self._begun.items():
            latest = max(self._relied_on[series], default=None)
            if series in self._refused or (latest is not None and latest > min(begun)):
                self.first[series] = min(begun)
        return bool(self.first)


def suv_factor(dataset: Dataset, name: str, beds: BedTimes | None = None) -> float:
    """Return the number that turns rescaled PET values into SUV by body weight (g/ml).

    Args:
        dataset: The header.
        name: Of the file, for messages.
        beds: Of the series; None for a slice by itself.

    Raises:
        UnreadableFileError: ``no-suv``, naming the element that is missing or unusable.
    """
    _require_attenuation_correction(dataset, name)
    units = str(dataset.get("Units") or "").strip().upper()
    if units == "GML":
        kind = str(dataset.get("SUVType") or "BW").strip().upper()
        if kind != "BW":
            raise no_suv(name, f"SUVType is {kind}, not BW (body weight)")
        return 1.0
    if units == "CNTS":
        suv_scale = _philips_number(dataset, _SUV_SCALE)
        if suv_scale:
            return suv_scale
        activity_scale = _philips_number(dataset, _ACTIVITY_SCALE)
        if not activity_scale:
            raise no_suv(
                name, "Units is CNTS and the Philips factors (7053,1000), (7053,1009) are missing"
            )
        return activity_scale * _per_dose(dataset, name, beds)
    if units == "BQML":
        return _per_dose(dataset, name, beds)
    raise no_suv(name, f"Units is '{units}'" if units else "Units is missing")


def suv_of_frame(
    dataset: Dataset, frame: int, name: str, beds: BedTimes | None = None
) -> tuple[float, float, float]:
    """Return slope and intercept to SUV, and the factor in them, of a PET image without Units.

    Legacy converted images have the classic elements in their converted attributes. Enhanced
    images map stored values to real-world ones, which are SUV or activity; activity needs the
    dose, the weight and the time to which it was decay-corrected.

    Raises:
        UnreadableFileError: As for ``suv_factor``.
    """
    classic = _with_converted(dataset, frame)
    transformation = functional_group(dataset, frame, "PixelValueTransformationSequence")
    if classic.get("Units"):
        holder = transformation or dataset
        slope, intercept = number(holder, "RescaleSlope"), number(holder, "RescaleIntercept")
        if slope is None:
            raise no_suv(name, without_use(holder, "RescaleSlope"))
        if intercept is None:
            raise no_suv(name, without_use(holder, "RescaleIntercept"))
        factor = suv_factor(classic, name, beds)
        return slope * factor, intercept * factor, factor
    _require_attenuation_correction(dataset, name)
    mappings = _real_world_mappings(dataset, frame)
    for units, factor_of in ((_SUV_UNITS, None), (_ACTIVITY_UNITS, _per_dose_enhanced)):
        for mapping in mappings:
            if _unit_code(mapping) in units:
                slope = _number(mapping, "RealWorldValueSlope", name)
                intercept = number(mapping, "RealWorldValueIntercept") or 0.0
                if is_malformed(mapping, "RealWorldValueIntercept"):
                    raise no_suv(name, without_use(mapping, "RealWorldValueIntercept"))
                factor = 1.0 if factor_of is None else factor_of(dataset, name)
                return slope * factor, intercept * factor, factor
    found = ", ".join(_unit_code(mapping) for mapping in mappings)
    raise no_suv(
        name,
        f"Units is missing and real-world values are in {found}"
        if found
        else "Units is missing, and so is a RealWorldValueMappingSequence in SUV or Bq/ml",
    )


def no_suv(name: str, found: str) -> UnreadableFileError:
    """Return the error for a PET image without SUV; ``found`` says what is wrong."""
    cure = advice("pass --modality other", "choose 'other' under Read as (field modality)")
    return UnreadableFileError(
        Reason.NO_SUV,
        f"{name}: uptake cannot be turned into SUV: {found}. Fetch the original with its dose, "
        f"weight and times, or {cure} to treat it as a plain scale.",
    )


def _require_attenuation_correction(dataset: Dataset, name: str) -> None:
    """Refuse uptake that was not corrected; without the element nothing is known against it."""
    words = dataset.get("CorrectedImage") or ()
    words = words.split("\\") if isinstance(words, str) else [str(word) for word in words]
    words = [word.strip().upper() for word in words if word.strip()]
    if words and "ATTN" not in words:
        raise no_suv(name, "it is not corrected for attenuation (CorrectedImage lacks ATTN)")
    if str(dataset.get("AttenuationCorrected") or "").strip().upper() == "NO":
        raise no_suv(name, "it is not corrected for attenuation (AttenuationCorrected is NO)")


def _weight_and_tracer(dataset: Dataset, name: str) -> tuple[float, Dataset, float]:
    """Return weight in grams, the item that describes the injection, and the dose in Bq."""
    weight_kg = _number(dataset, "PatientWeight", name)
    if weight_kg > _MOST_WEIGHT_KG:
        raise no_suv(name, f"PatientWeight is {weight_kg:g}, too much for kg")
    sequence = dataset.get("RadiopharmaceuticalInformationSequence")
    if not sequence:
        raise no_suv(name, "RadiopharmaceuticalInformationSequence is missing")
    dose_bq = _number(sequence[0], "RadionuclideTotalDose", name)
    if dose_bq < _LEAST_DOSE_BQ:
        raise no_suv(name, f"RadionuclideTotalDose is {dose_bq:g}, too little for Bq")
    return weight_kg * 1000.0, sequence[0], dose_bq


def _per_dose(dataset: Dataset, name: str, beds: BedTimes | None) -> float:
    """Return weight in grams over the dose left at the time the image was decay-corrected to."""
    weight_g, tracer, dose_bq = _weight_and_tracer(dataset, name)
    correction = str(dataset.get("DecayCorrection") or "").strip().upper()
    if correction == "ADMIN":
        return weight_g / dose_bq
    if correction != "START":
        raise no_suv(name, f"DecayCorrection is '{correction}', not START or ADMIN")
    half_life = _number(tracer, "RadionuclideHalfLife", name)
    zone = _zone(str(dataset.get("TimezoneOffsetFromUTC") or ""))
    scan = _scan_start(dataset, half_life, zone, name, beds or BedTimes())
    injected = _injection(tracer, scan, zone, name)
    return weight_g / _dose_left(dose_bq, half_life, injected, scan, name)


def _per_dose_enhanced(dataset: Dataset, name: str) -> float:
    """Do the same by the elements of enhanced PET, which names the moment of correction."""
    weight_g, tracer, dose_bq = _weight_and_tracer(dataset, name)
    if str(dataset.get("DecayCorrected") or "").strip().upper() != "YES":
        raise no_suv(name, "DecayCorrected is not YES")
    text = str(dataset.get("DecayCorrectionDateTime") or "").strip()
    zone = _zone(str(dataset.get("TimezoneOffsetFromUTC") or "")) or _zone(text[-5:])
    corrected_to = _date_time(text, zone)
    if corrected_to is None:
        raise no_suv(name, "DecayCorrectionDateTime is missing")
    half_life = _number(tracer, "RadionuclideHalfLife", name)
    injected = _injection(tracer, corrected_to, zone, name)
    return weight_g / _dose_left(dose_bq, half_life, injected, corrected_to, name)


def _dose_left(
    dose_bq: float, half_life_seconds: float, injected: datetime, scan: datetime, name: str
) -> float:
    waited = (scan - injected).total_seconds()
    if not 0.0 <= waited <= _MOST_HALF_LIVES * half_life_seconds:
        raise no_suv(
            name,
            f"the scan starts {waited:.0f} s after the injection, with a half-life of "
            f"{half_life_seconds:g} s",
        )
    return dose_bq * 2.0 ** (-waited / half_life_seconds)


def _with_converted(dataset: Dataset, frame: int) -> Dataset:
    """Return a header with the converted attributes of one frame among its own elements."""
    groups = [functional_group(dataset, frame, sequence) for sequence in _CONVERTED]
    if not any(groups):
        return dataset
    joined = Dataset()
    for group in (dataset, *groups):
        if group is not None:
            joined.update({tag: group.get_item(tag) for tag in group.keys()})  # noqa: SIM118
    return joined


def _real_world_mappings(dataset: Dataset, frame: int) -> list[Dataset]:
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    holders = (*per_frame[frame : frame + 1], *shared[:1], dataset)
    return [item for holder in holders for item in holder.get("RealWorldValueMappingSequence", [])]


def _unit_code(mapping: Dataset) -> str:
    codes = mapping.get("MeasurementUnitsCodeSequence")
    return str(codes[0].get("CodeValue") or "").strip().upper() if codes else "no unit"


def _number(holder: Dataset, tag: str, name: str) -> float:
    value = number(holder, tag)
    if value is None:
        raise no_suv(name, without_use(holder, tag))
    if not value > 0.0:
        raise no_suv(name, f"{tag} is {value:g}, not above 0")
    return value


def _philips_number(dataset: Dataset, offset: int) -> float | None:
    """Return a decimal string of Philips' private block, wherever in its group that lies.

    Where no creator is named at all, as some anonymisers leave it, the block is taken to lie where
    Philips puts it. The value arrives as bytes when its dictionary is unknown.
    """
    try:
        element = dataset.private_block(_PHILIPS_GROUP, _PHILIPS_CREATOR)[offset]
    except KeyError:
        place = (_PHILIPS_GROUP, 0x1000 + offset)
        if dataset.private_creators(_PHILIPS_GROUP) or place not in dataset:
            return None
        element = dataset[place]
    value: Any = element.value
    if isinstance(value, bytes):
        value = value.decode("ascii", "ignore").strip(" \x00")
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _moment(date: object, time: object) -> datetime | None:
    """Return a moment, or None where a part is missing or is no date or time.

    Older programs write 2024.01.31 and 10:30:00 (PS3.5 6.2). pydicom would take the digits before
    the first odd character and leave the rest: midnight, or the full hour.
    """
    date = re.sub(r"[.\-/]", "", str(date or "").strip())
    time = str(time or "").strip().replace(":", "")
    if not re.fullmatch(r"\d{8}", date) or not re.fullmatch(r"\d\d(\d\d(\d\d(\.\d*)?)?)?", time):
        return None
    try:
        moment = DT(f"{date}{time}")
    except (TypeError, ValueError):
        return None
    return None if moment is None else moment.replace(tzinfo=None)


def _date_time(text: str, zone: tzinfo | None) -> datetime | None:
    """Return the local time of a date-time, which may end in an offset from UTC.

    Dates and times of an image are in its zone; a date-time with another offset is moved there.
    Where the image does not say its zone, all are taken to be in one.
    """
    offset = _zone(text[-5:])
    moment = _moment(text[:8], text[8:] if offset is None else text[8:-5])
    if moment is None or zone is None or offset is None:
        return moment
    return moment.replace(tzinfo=offset).astimezone(zone).replace(tzinfo=None)


def _zone(text: str) -> timezone | None:
    """Return the zone of an offset such as ``+0200``, or None for any other text."""
    match = re.fullmatch(r"([+-])(\d\d)([0-5]\d)", text.strip())
    if match is None or int(match[2]) > 14:
        return None
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return timezone(-offset if match[1] == "-" else offset)


def _scan_start(
    dataset: Dataset, half_life_seconds: float, zone: tzinfo | None, name: str, beds: BedTimes
) -> datetime:
    """Return the moment to which START-corrected activity refers.

    That is the series time, unless later processing has overwritten it, so that it is later than a
    bed: then GE's private scan time, or else the acquisition time moved back by the frame's own
    reference time, or else the start of the first bed.
    """
    uid = str(dataset.get("SeriesInstanceUID") or "")
    first = beds.first.get(uid)
    series = _moment(dataset.get("SeriesDate"), dataset.get("SeriesTime"))
    acquired = _moment(
        dataset.get("AcquisitionDate") or dataset.get("SeriesDate"), dataset.get("AcquisitionTime")
    )
    if acquired is not None:
        # Scans take less than two hours: a time without a date so far before is behind midnight.
        if series is not None and not dataset.get("AcquisitionDate"):
            acquired += timedelta(days=int(series - acquired > timedelta(hours=22)))
        beds.note(uid, acquired)
    known = [moment for moment in (acquired, first) if moment is not None]
    if series is not None and series <= min(known, default=series):
        beds.rely_on(uid, series)
        return series
    scanned = _ge_scan_time(dataset, zone)
    if scanned is not None:
        return scanned
    reference_ms = number(dataset, "FrameReferenceTime") or 0.0
    duration = (number(dataset, "ActualFrameDuration") or 0.0) / 1000.0
    if first is not None and (acquired is None or reference_ms <= 0 or duration <= 0):
        return first
    if acquired is None or reference_ms <= 0 or duration <= 0:
        beds.rely_on(uid, None)
        raise no_suv(
            name,
            "the start of the scan is unknown (SeriesTime is missing or later than "
            "AcquisitionTime, FrameReferenceTime or ActualFrameDuration is missing, and no other "
            "slice of the series tells when it began)",
        )
    decay = math.log(2.0) / half_life_seconds
    lost = decay * duration
    average = math.log(lost / (1.0 - math.exp(-lost))) / decay
    return acquired - timedelta(seconds=reference_ms / 1000.0 - average)


def _ge_scan_time(dataset: Dataset, zone: tzinfo | None) -> datetime | None:
    try:
        value = dataset.private_block(0x0009, "GEMS_PETD_01")[0x0D].value
    except KeyError:
        return None
    text = value.decode("ascii", "ignore") if isinstance(value, bytes) else str(value)
    return _date_time(text.strip(" \x00"), zone)


def _injection(tracer: Dataset, scan: datetime, zone: tzinfo | None, name: str) -> datetime:
    text = str(tracer.get("RadiopharmaceuticalStartDateTime") or "").strip()
    moment = _date_time(text, zone)
    if moment is not None:
        return moment
    moment = _moment(scan.strftime("%Y%m%d"), tracer.get("RadiopharmaceuticalStartTime"))
    if moment is None:
        raise no_suv(name, "RadiopharmaceuticalStartTime is missing")
    half_life = _number(tracer, "RadionuclideHalfLife", name)
    if half_life > _LONG_HALF_LIFE_SECONDS:
        day = f"a half-life of {half_life / 3600:.3g} h does not tell the day of the injection"
        raise no_suv(name, f"RadiopharmaceuticalStartDateTime is missing, and {day}")
    # A time without a date that lies after the scan was before midnight.
    return moment - timedelta(days=1) if moment > scan else moment
