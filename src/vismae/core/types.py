"""Words that every layer uses: modalities, pixel units and the images read from files."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

IGNORED_LABEL = -1
"""Class of pixels that count in no loss, such as the padding of the network's canvas."""


class Modality(StrEnum):
    """How an image was made. Words we do not know count as ``other``."""

    CT = "ct"
    MR = "mr"
    PET = "pet"
    XR = "xr"
    US = "us"
    OTHER = "other"

    @classmethod
    def parse(cls, text: str | None) -> "Modality":
        """Return the modality named by a DICOM code, a manifest cell or an option.

        Case does not matter. CR, DX, MG and the like are X-ray, PT is PET, MRI is MR.
        """
        word = (text or "").strip().lower()
        return _SYNONYMS.get(word, cls.OTHER)


_SYNONYMS = {
    "ct": Modality.CT,
    "mr": Modality.MR,
    "mri": Modality.MR,
    "pet": Modality.PET,
    "pt": Modality.PET,
    "xr": Modality.XR,
    "cr": Modality.XR,
    "dx": Modality.XR,
    "mg": Modality.XR,
    "rf": Modality.XR,
    "rg": Modality.XR,
    "xa": Modality.XR,
    "px": Modality.XR,
    "io": Modality.XR,
    "x-ray": Modality.XR,
    "xray": Modality.XR,
    "us": Modality.US,
    "ivus": Modality.US,
    "ultrasound": Modality.US,
}


class PixelUnit(StrEnum):
    """What ``stored value * slope + intercept`` means.

    ``hu``: Hounsfield units. ``suv``: standardised uptake value by body weight.
    ``arbitrary``: a scanner's own scale (MR, uncalibrated volumes). ``display``: grey levels
    already chosen for the eye (PNG, JPEG, ultrasound, radiographs).
    """

    HU = "hu"
    SUV = "suv"
    ARBITRARY = "arbitrary"
    DISPLAY = "display"


class Flag(StrEnum):
    """What intake noticed about an image; ``docs/intake.md`` says what follows from each.

    Those of ``KEEPABLE`` are left out with a reason unless the user asks for them.
    """

    BLANK = "blank"
    NEARLY_BLANK = "nearly-blank"
    BURNED_IN = "burned-in"
    SECONDARY_CAPTURE = "secondary-capture"
    LOCALIZER = "localizer"
    OVERLAY = "overlay"
    LOSSY = "lossy"
    COLOUR_DOPPLER = "colour-doppler"
    REGION_CROPPED = "region-cropped"
    GANTRY_TILT = "gantry-tilt"
    MISSING_SLICES = "missing-slices"
    IRREGULAR_SPACING = "irregular-spacing"
    OVERLAPPING_STRUCTURES = "overlapping-structures"
    DOWNSCALED = "downscaled"


KEEPABLE = frozenset({Flag.BURNED_IN, Flag.SECONDARY_CAPTURE, Flag.LOCALIZER})


@dataclass(frozen=True)
class Spacing:
    """Distance between pixel centres in millimetres; ``None`` where the file does not say."""

    slice_mm: float | None = None
    row_mm: float | None = None
    column_mm: float | None = None


@dataclass(frozen=True)
class MedicalImage:
    """One image, frame sequence or volume as its file gives it.

    Attributes:
        pixels: Stored values, (S, H, W) grey or (S, H, W, 3) colour; S is 1 for a single image.
            Physical value = ``pixels * slope + intercept``.
        modality: How it was made.
        unit: What the physical value means.
        slope, intercept: The linear map above; one pair for the whole image.
        spacing: Between slices, rows, columns.
        patient_id: As the file gives it, or None.
        affine: Voxel (column, row, slice) to patient mm in RAS, (4, 4), or None.
        source: Path or archive member, for messages and the private source table.
        details: Further facts a reader wants to hand on (series description and the like).
    """

    pixels: np.ndarray
    modality: Modality
    unit: PixelUnit
    source: str
    slope: float = 1.0
    intercept: float = 0.0
    spacing: Spacing = field(default_factory=Spacing)
    patient_id: str | None = None
    affine: np.ndarray | None = None
    details: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class SliceRecord:
    """What the store knows of one slice beside its pixels; one row of ``index.parquet``.

    Attributes:
        image_id: Salted hash; the private source table maps it to a path.
        modality, unit: See ``MedicalImage``.
        patient_id: Group that must never be divided between splits.
        group_kind: What ``patient_id`` really is: ``patient``; ``group``, of a table or a DICOM
            study without PatientID; or ``image``.
        volume_id: Slices that belong together; scores pool over it.
        study_id, series_id: Salted hashes of the DICOM identifiers, or None.
        slice_index: Order inside the volume.
        slope, intercept: Physical value = stored * slope + intercept.
        scale_low, scale_high: Physical values at the 0.5 and 99.5 percentile of the whole volume
            (of the image for single images), so that slices of one volume share one scale.
        spacing_slice_mm, spacing_row_mm, spacing_column_mm: NaN where unknown.
        window_low, window_high: Physical values that the file's own display window maps to black
            and white; NaN without one.
        body_part, sex, age_band, manufacturer: From closed lists of words only, so that nothing
            typed by hand can enter; None where unknown.
        flags: What intake noticed, in alphabetical order.
        original_height, original_width: Pixels before a cap made the image smaller; None if not.
        label: Class name, several joined by ``|``, or None.
        split: ``train``, ``val``, ``test``, ``pretrain`` or None, as the manifest says.
        extra: Columns kept because the user named them.
    """

    image_id: str
    modality: Modality
    unit: PixelUnit
    patient_id: str
    group_kind: str
    volume_id: str
    slice_index: int = 0
    slope: float = 1.0
    intercept: float = 0.0
    scale_low: float = 0.0
    scale_high: float = 1.0
    spacing_slice_mm: float = float("nan")
    spacing_row_mm: float = float("nan")
    spacing_column_mm: float = float("nan")
    study_id: str | None = None
    series_id: str | None = None
    window_low: float = float("nan")
    window_high: float = float("nan")
    body_part: str | None = None
    sex: str | None = None
    age_band: str | None = None
    manufacturer: str | None = None
    flags: tuple[Flag, ...] = ()
    original_height: int | None = None
    original_width: int | None = None
    label: str | None = None
    split: str | None = None
    extra: dict[str, str] = field(default_factory=dict[str, str])
