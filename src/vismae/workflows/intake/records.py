"""What the store will know of each slice: ids, facts, flags, and one brightness range a volume."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from vismae.core.types import Flag, MedicalImage, SliceRecord, Spacing
from vismae.data.cases import PLACE_COLUMN, place_as_text
from vismae.data.downscale import downscale_label_map, downscale_pixels, downscaled_shape
from vismae.data.likeness import is_blank, is_nearly_blank
from vismae.data.manifest import CASE_COLUMN, SEQUENCE_COLUMN
from vismae.data.percentiles import scale_range
from vismae.data.store_format import pixel_sha256, storable_pixels
from vismae.workflows.intake.identity import Identity
from vismae.workflows.intake.work import Entry

_NAN = float("nan")
_OWN_GROUP_DIGITS = 16


@dataclass(frozen=True)
class ReadSettings:
    """What every read needs to know.

    Attributes:
        identity: Makes the pseudonyms.
        modality: Word for files that do not say, or None.
        keep: What is read although it is left out as a rule.
        max_side: Cap on height and width in pixels, or None.
        structures: Class number of every structure name of DICOM label objects.
        extra_columns: Of the store; ``modality`` among them keeps the word as given.
    """

    identity: Identity
    modality: str | None = None
    keep: frozenset[Flag] = frozenset()
    max_side: int | None = None
    structures: Mapping[str, int] = field(default_factory=dict)
    extra_columns: tuple[str, ...] = ()


@dataclass
class FoundSlice:
    """One slice on its way: its image says the units, its entry the table's facts.

    Attributes:
        image: The image it is part of.
        number: Which slice of the image.
        entry: The file it came from.
        place: Which slice of the file.
        index: Where it stands in its volume; slices that were left out keep their places empty.
        label_map: (H, W) class numbers, or None.
        flags: What was noticed beside the reader's flags.
    """

    image: MedicalImage
    number: int
    entry: Entry
    place: int
    index: int
    label_map: np.ndarray | None = None
    flags: frozenset[Flag] = frozenset()

    @property
    def pixels(self) -> np.ndarray:
        """Stored values, (H, W) or (H, W, 3)."""
        return self.image.pixels[self.number]


@dataclass
class FoundVolume:
    """Slices that belong together."""

    slices: list[FoundSlice] = field(default_factory=list)
    volume_id: str | None = None


@dataclass(frozen=True)
class ReadSlice:
    """A slice for the store, and the number of the ledger's entry it came from."""

    record: SliceRecord
    pixels: np.ndarray
    label_map: np.ndarray | None
    entry: int


@dataclass(frozen=True)
class _Shared:
    """What all slices of a volume have in common; ``own_group`` stands in for patient and study."""

    volume_id: str
    own_group: str
    scale: tuple[float, float]
    flags: frozenset[Flag]


def finish_volume(
    volume: FoundVolume,
    number: int,
    group_id: str | None,
    settings: ReadSettings,
    given: Counter[tuple[str, str, str]],
) -> list[ReadSlice]:
    """Return the slices of a volume with one brightness range and all their facts.

    Args:
        volume: At least one slice.
        number: Which volume of its work item.
        group_id: Stands in where neither patient nor study is known; that of the item's first
            volume.
        settings: How to read.
        given: Patient, series and key of the DICOM frames that the item's volumes have given ids
            to so far; counted on.

    Raises:
        DataError: Pixels that no store can keep.
    """
    identity = settings.identity
    stored = [storable_pixels(part.pixels) for part in volume.slices]
    ids = [_image_id(part, number, identity, given) for part in volume.slices]
    volume_id = _volume_id(volume, identity) or ids[0]
    own_group = group_id or ids[0]
    if group_id is None and identity.keep_ids and any(map(_is_of_nobody_known, volume.slices)):
        own_group = _group_of_pixels(stored)
    # Neighbours and scores by volume must not take what lies on both sides of a gap for adjacent.
    gaps = np.diff([part.index for part in volume.slices]) > 1
    flags = frozenset([Flag.MISSING_SLICES] if gaps.any() else ())
    shared = _Shared(volume_id, own_group, _volume_range(volume, stored), flags)
    return [
        _finish_slice(part, pixels, image_id, shared, settings)
        for part, pixels, image_id in zip(volume.slices, stored, ids, strict=True)
    ]


def _group_of_pixels(slices: list[np.ndarray]) -> str:
    """Return what stands in for the patient of whom nothing is known, from all of a volume.

    Where ids stay as written, each run ingests the same images for itself, with a secret of its
    own; by their pixels they are divided into the same train, val and test every time. One slice
    would not do: many volumes begin with an empty one.
    """
    digest = hashlib.sha256("".join(map(pixel_sha256, slices)).encode())
    return f"image-{digest.hexdigest()[:_OWN_GROUP_DIGITS]}"


def _is_of_nobody_known(part: FoundSlice) -> bool:
    """Tell whether neither table nor file say whose image it is."""
    row, image = part.entry.row, part.image
    in_file = image.patient_id or image.details.get("study_uid")
    return row.patient_id is None and (row.group_kind is not None or not in_file)


def _volume_id(volume: FoundVolume, identity: Identity) -> str | None:
    """Return the table's name of a volume; the patient belongs to it, as in ``P1/ED``."""
    if volume.volume_id is None:
        return None
    patient = volume.slices[0].entry.row.patient_id
    written = volume.volume_id if patient is None else f"{patient}/{volume.volume_id}"
    return identity.of_table("volume", written)


def _volume_range(volume: FoundVolume, stored: list[np.ndarray]) -> tuple[float, float]:
    scales = {(part.image.slope, part.image.intercept) for part in volume.slices}
    if len(scales) == 1:
        return scale_range(stored, *scales.pop())
    return scale_range(
        [
            pixels * part.image.slope + part.image.intercept
            for part, pixels in zip(volume.slices, stored, strict=True)
        ]
    )


def _image_id(
    part: FoundSlice,
    number: int,
    identity: Identity,
    given: Counter[tuple[str, str, str]],
) -> str:
    """Return an id that DICOM files keep wherever they lie, and others under their name."""
    keys = part.image.details.get("slice_keys")
    name = part.entry.row.name
    if keys is None:
        return identity.pseudonym("image", name, number, part.place)
    # An object without SOPInstanceUID is known by its path; its name in the source stays the same.
    key = keys[part.number].replace(part.entry.file.name, name)
    words = (part.image.patient_id or "", part.image.details.get("series_uid") or "", key)
    # Other pixels under the same identifiers are another image.
    again = given[words]
    given[words] += 1
    return identity.pseudonym("dicom image", *words, part.entry.copy + again)


def _finish_slice(
    part: FoundSlice,
    pixels: np.ndarray,
    image_id: str,
    shared: _Shared,
    settings: ReadSettings,
) -> ReadSlice:
    image, details, identity = part.image, part.image.details, settings.identity
    patient_id, group_kind = _patient(part, shared, identity)
    shape = pixels.shape[:2]
    wanted = downscaled_shape(shape, settings.max_side)
    window = details.get("window") or (_NAN, _NAN)
    spacing = _first_known(part.entry.row.spacing, image.spacing)
    record = SliceRecord(
        image_id=image_id,
        modality=image.modality,
        unit=image.unit,
        patient_id=patient_id,
        group_kind=group_kind,
        volume_id=shared.volume_id,
        study_id=_hashed(identity, "study", details.get("study_uid")),
        series_id=_hashed(identity, "series", details.get("series_uid")),
        slice_index=part.index,
        slope=image.slope,
        intercept=image.intercept,
        scale_low=shared.scale[0],
        scale_high=shared.scale[1],
        spacing_slice_mm=_number(spacing.slice_mm),
        spacing_row_mm=_number(spacing.row_mm) * shape[0] / wanted[0],
        spacing_column_mm=_number(spacing.column_mm) * shape[1] / wanted[1],
        window_low=window[0],
        window_high=window[1],
        body_part=details.get("body_part"),
        sex=details.get("sex"),
        age_band=details.get("age_band"),
        manufacturer=details.get("manufacturer"),
        flags=_flags(part, pixels, shared, smaller=wanted != shape),
        original_height=shape[0] if wanted != shape else None,
        original_width=shape[1] if wanted != shape else None,
        label=part.entry.row.label,
        split=part.entry.row.split,
        extra=_extra(part, settings),
    )
    label_map = part.label_map
    if wanted != shape:
        pixels = downscale_pixels(pixels, wanted)
        label_map = None if label_map is None else downscale_label_map(label_map, wanted)
    return ReadSlice(record, pixels, label_map, part.entry.number)


def _patient(part: FoundSlice, shared: _Shared, identity: Identity) -> tuple[str, str]:
    row = part.entry.row
    if _is_of_nobody_known(part):
        return shared.own_group, "image"
    if row.patient_id is not None:
        return identity.of_table("patient", row.patient_id), row.group_kind or "group"
    if part.image.patient_id:
        return identity.pseudonym("patient", part.image.patient_id), "patient"
    # A study is of one person, so its series must not be divided between splits.
    return identity.pseudonym("study", part.image.details["study_uid"]), "group"


def _flags(
    part: FoundSlice, pixels: np.ndarray, shared: _Shared, smaller: bool
) -> tuple[Flag, ...]:
    details = part.image.details
    flags = set(part.flags) | shared.flags | set(details.get("flags", ()))
    if "slice_flags" in details:
        flags |= set(details["slice_flags"][part.number])
    if is_nearly_blank(pixels):
        flags.add(Flag.BLANK if is_blank(pixels) else Flag.NEARLY_BLANK)
    if smaller:
        flags.add(Flag.DOWNSCALED)
    return tuple(sorted(flags))


def _extra(part: FoundSlice, settings: ReadSettings) -> dict[str, str]:
    extra = dict(part.entry.row.extra)
    if "modality" in settings.extra_columns:
        word = part.entry.row.modality or settings.modality or part.image.modality.value
        extra.setdefault("modality", word)
    if SEQUENCE_COLUMN in settings.extra_columns:
        if case := extra.get(CASE_COLUMN):
            extra[CASE_COLUMN] = settings.identity.of_table("case", case)
        if part.image.affine is not None:
            extra[PLACE_COLUMN] = place_as_text(part.image.affine)
    return extra


def _hashed(identity: Identity, kind: str, uid: str | None) -> str | None:
    return identity.pseudonym(kind, uid) if uid else None


def _first_known(table: Spacing, file: Spacing) -> Spacing:
    return Spacing(
        *(
            getattr(table, name) if getattr(table, name) is not None else getattr(file, name)
            for name in ("slice_mm", "row_mm", "column_mm")
        )
    )


def _number(value: float | None) -> float:
    return _NAN if value is None else float(value)
