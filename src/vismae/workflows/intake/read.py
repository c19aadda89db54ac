"""One piece of work read: slices with their label maps and facts, or why not."""

import hashlib
import hmac
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vismae.core.errors import DataError, UnreadableFileError
from vismae.core.types import MedicalImage, Modality, SliceRecord, Spacing
from vismae.data.manifest import FileReference
from vismae.data.percentiles import scale_range
from vismae.data.store_format import (
    EncodedSlice,
    encode_slice,
    storable_label_map,
    storable_pixels,
)
from vismae.files.discover import Group, source_file
from vismae.files.read import read_image, read_label_map
from vismae.files.reasons import Reason
from vismae.workflows.intake.work import (
    Entry,
    IntakeReason,
    Rejection,
    WorkItem,
    reference_text,
    rejection,
)

_WITHOUT_UNIT = (Reason.NO_RESCALE, Reason.NO_SUV)


@dataclass(frozen=True)
class ReadSlice:
    """A slice for the store, and the file it came from (for the private table)."""

    encoded: EncodedSlice
    source: str

    @property
    def image_id(self) -> str:
        """Its id in the index."""
        return self.encoded.facts["image_id"]


@dataclass(frozen=True)
class ItemResult:
    """What became of one piece of work; ``files`` counts its files, good and bad."""

    slices: list[ReadSlice]
    rejected: list[Rejection]
    files: int


@dataclass(frozen=True)
class ReadSettings:
    """What every read needs to know.

    Attributes:
        salt: Secret that turns patient ids of file headers into pseudonyms.
        modality: Word for files that do not say, or None.
        encoding: Of the store.
        extra_columns: Of the store; ``modality`` among them keeps the word as given.
    """

    salt: bytes
    modality: str | None = None
    encoding: str = "zstd"
    extra_columns: tuple[str, ...] = ()


@dataclass
class _Slice:
    """One slice on its way: its image says the units, its entry the table's facts."""

    pixels: np.ndarray
    image: MedicalImage
    entry: Entry
    place: int  # number of the slice in its file
    label_map: np.ndarray | None = None


@dataclass
class _Volume:
    slices: list[_Slice] = field(default_factory=list)
    volume_id: str | None = None


@dataclass(frozen=True)
class _Shared:
    """What all slices of a volume have in common; ``own_group`` stands in for a patient id."""

    volume_id: str
    own_group: str
    scale: tuple[float, float]


def read_item(item: WorkItem, settings: ReadSettings) -> ItemResult:
    """Read one piece of work; whatever is wrong with its files ends up in ``rejected``."""
    rejected: list[Rejection] = []
    if item.joined:
        volumes = [_read_joined(item, settings, rejected)]
    else:
        volumes = _read_group(item, settings, rejected)
    result: list[ReadSlice] = []
    group_id: str | None = None
    for number, volume in enumerate(volumes):
        _attach_label_maps(volume, rejected)
        if not volume.slices:
            continue
        try:
            slices = _finish_volume(volume, number, group_id, settings)
        except DataError as error:
            bad = dict.fromkeys(part.entry.file.name for part in volume.slices)
            rejected.extend(
                Rejection(name, IntakeReason.NOT_STORABLE.value, f"{name}: {error}") for name in bad
            )
            continue
        group_id = group_id or slices[0].image_id
        result.extend(slices)
    # A file of several volumes whose label map does not fit is one file all the same.
    return ItemResult(result, list(dict.fromkeys(rejected)), len(item.entries))


def _read_group(item: WorkItem, settings: ReadSettings, rejected: list[Rejection]) -> list[_Volume]:
    entries = {entry.file.name: entry for entry in item.entries}
    try:
        images = _read_images(item.entries, settings)
    except (UnreadableFileError, MemoryError) as error:
        rejected.extend(_unreadable(entry, error) for entry in item.entries)
        return []
    volumes: list[_Volume] = []
    for number, image in enumerate(images):
        rejected.extend(rejection(found) for found in image.details.get("rejected_files", ()))
        names = image.details.get("slice_sources") or [image.source] * len(image.pixels)
        wanted = item.entries[0].row.volume_id
        volume = _Volume(volume_id=wanted if number == 0 or not wanted else f"{wanted}/{number}")
        volumes.append(volume)
        places: Counter[str] = Counter()
        for pixels, name in zip(image.pixels, names, strict=True):
            entry = entries.get(name, item.entries[0])
            volume.slices.append(_Slice(pixels, image, entry, places[name]))
            places[name] += 1
    return volumes


def _read_joined(item: WorkItem, settings: ReadSettings, rejected: list[Rejection]) -> _Volume:
    volume = _Volume(volume_id=item.entries[0].row.volume_id)
    for entry in item.entries:
        try:
            images = _read_images((entry,), settings)
        except (UnreadableFileError, MemoryError) as error:
            rejected.append(_unreadable(entry, error))
            continue
        frames = [(image, pixels) for image in images for pixels in image.pixels]
        volume.slices.extend(
            _Slice(pixels, image, entry, place) for place, (image, pixels) in enumerate(frames)
        )
    return volume


def _read_images(entries: Sequence[Entry], settings: ReadSettings) -> list[MedicalImage]:
    """Read with the table's modality; the option speaks only where table and file are silent."""
    group = Group(entries[0].file.kind, tuple(entry.file for entry in entries))
    word = entries[0].row.modality
    if word is None and group.kind == "raster":
        word = settings.modality
    try:
        images = read_image(group, None if word is None else Modality.parse(word))
    except UnreadableFileError as error:
        # The message of these names the option as the cure, so here it speaks for the file.
        if word is not None or settings.modality is None or error.reason not in _WITHOUT_UNIT:
            raise
        return read_image(group, Modality.parse(settings.modality))
    silent = all(image.modality is Modality.OTHER for image in images)
    if word is None and settings.modality is not None and silent:
        images = read_image(group, Modality.parse(settings.modality))
    return images


def _attach_label_maps(volume: _Volume, rejected: list[Rejection]) -> None:
    """Give each slice its label map; drop the slices of a file whose label map does not fit."""
    loaded: dict[str, np.ndarray | None] = {}
    frames = Counter(part.entry.file.name for part in volume.slices)
    kept: list[_Slice] = []
    for part in volume.slices:
        name, reference = part.entry.file.name, part.entry.row.label_map
        if reference is None:
            kept.append(part)
            continue
        if name not in loaded:
            try:
                loaded[name] = _read_labels(reference, part, frames[name])
            except UnreadableFileError as error:
                rejected.append(Rejection(name, str(error.reason), str(error)))
                loaded[name] = None
        label_maps = loaded[name]
        if label_maps is not None:
            part.label_map = label_maps[part.place]
            kept.append(part)
    volume.slices = kept


def _read_labels(reference: FileReference, part: _Slice, frames: int) -> np.ndarray:
    """Return the label map of one file, (S, H, W), checked against its image."""
    where = reference_text(reference)
    label_maps, _ = read_label_map(source_file(reference.path, reference.member))
    expected = (frames, *part.pixels.shape[:2])
    if label_maps.shape != expected:
        raise UnreadableFileError(
            IntakeReason.LABEL_SHAPE,
            f"{where}: {_size(label_maps.shape)}, but {part.entry.file.name} has "
            f"{_size(expected)}. An image and its label map must have the same size; resample "
            "the label map with nearest neighbour, or correct the manifest.",
        )
    try:
        return np.stack([storable_label_map(found, found.shape) for found in label_maps])
    except DataError as error:
        raise UnreadableFileError(IntakeReason.LABEL_VALUES, f"{where}: {error}") from error


def _finish_volume(
    volume: _Volume, number: int, group_id: str | None, settings: ReadSettings
) -> list[ReadSlice]:
    """Return the slices of a volume with one brightness range and all their facts."""
    for part in volume.slices:
        part.pixels = storable_pixels(part.pixels)
    scale = _volume_range(volume)
    ids = [_short_hash(f"{part.entry.row.name}|{number}|{part.place}") for part in volume.slices]
    shared = _Shared(volume.volume_id or ids[0], group_id or ids[0], scale)
    return [
        ReadSlice(
            encode_slice(
                _record(part, image_id, index, shared, settings),
                part.pixels,
                part.label_map,
                settings.encoding,
                settings.extra_columns,
            ),
            part.entry.file.name,
        )
        for index, (part, image_id) in enumerate(zip(volume.slices, ids, strict=True))
    ]


def _volume_range(volume: _Volume) -> tuple[float, float]:
    scales = {(part.image.slope, part.image.intercept) for part in volume.slices}
    if len(scales) == 1:
        return scale_range([part.pixels for part in volume.slices], *scales.pop())
    return scale_range(
        [part.pixels * part.image.slope + part.image.intercept for part in volume.slices]
    )


def _record(
    part: _Slice, image_id: str, index: int, shared: _Shared, settings: ReadSettings
) -> SliceRecord:
    row, image = part.entry.row, part.image
    if row.patient_id is not None:
        patient_id, group_kind = row.patient_id, row.group_kind or "group"
    elif row.group_kind is None and image.patient_id:
        patient_id, group_kind = _pseudonym(settings.salt, image.patient_id), "patient"
    else:
        patient_id, group_kind = shared.own_group, "image"
    spacing = _first_known(row.spacing, image.spacing)
    extra = dict(row.extra)
    if "modality" in settings.extra_columns:
        extra.setdefault("modality", row.modality or settings.modality or image.modality.value)
    return SliceRecord(
        image_id=image_id,
        modality=image.modality,
        unit=image.unit,
        patient_id=patient_id,
        group_kind=group_kind,
        volume_id=shared.volume_id,
        slice_index=index,
        slope=image.slope,
        intercept=image.intercept,
        scale_low=shared.scale[0],
        scale_high=shared.scale[1],
        spacing_slice_mm=_number(spacing.slice_mm),
        spacing_row_mm=_number(spacing.row_mm),
        spacing_column_mm=_number(spacing.column_mm),
        label=row.label,
        split=row.split,
        extra=extra,
    )


def _first_known(table: Spacing, file: Spacing) -> Spacing:
    return Spacing(
        *(
            getattr(table, name) if getattr(table, name) is not None else getattr(file, name)
            for name in ("slice_mm", "row_mm", "column_mm")
        )
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _pseudonym(salt: bytes, patient_id: str) -> str:
    return hmac.new(salt, f"patient:{patient_id}".encode(), hashlib.sha256).hexdigest()[:16]


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _unreadable(entry: Entry, error: UnreadableFileError | MemoryError) -> Rejection:
    if isinstance(error, UnreadableFileError):
        return Rejection(entry.file.name, str(error.reason), str(error))
    return Rejection(
        entry.file.name,
        Reason.TOO_LARGE.value,
        f"{entry.file.name}: not enough memory to read it. Use fewer --workers.",
    )


def _size(shape: Sequence[int]) -> str:
    slices, height, width = shape
    return f"{height}×{width} pixels" + (f" on {slices} slices" if slices > 1 else "")
