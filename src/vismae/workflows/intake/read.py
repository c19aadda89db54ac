"""One piece of work read: slices with their label maps and facts, or why not."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vismae.core.errors import DataError, UnreadableFileError
from vismae.core.types import Flag, MedicalImage, Modality
from vismae.files.dicom_labels import read_dicom_labels
from vismae.files.discover import Group
from vismae.files.read import read_image, read_where_silent
from vismae.files.reasons import Reason
from vismae.workflows.intake.label_maps import attach_label_maps
from vismae.workflows.intake.lone_labels import require_no_lone_label_map
from vismae.workflows.intake.records import (
    FoundSlice,
    FoundVolume,
    ReadSettings,
    ReadSlice,
    finish_volume,
)
from vismae.workflows.intake.stored_copies import without_stored
from vismae.workflows.intake.work import (
    MOST_CULPRITS,
    Begin,
    Entry,
    IntakeReason,
    LabelFile,
    Rejection,
    WorkItem,
    rejection,
)


@dataclass(frozen=True)
class ItemResult:
    """What became of one piece of work.

    Attributes:
        slices: For the store.
        rejected: Files of images that were left out.
        labels: Entry of each label file that was tried -> why it fits none of the volumes; None
            if it was drawn on one.
        label_maps: Entry of an image and why the label map of its table is not used.
    """

    slices: list[ReadSlice]
    rejected: list[Rejection]
    labels: dict[int, Rejection | None]
    label_maps: list[tuple[int, Rejection]]


def read_item(item: WorkItem, settings: ReadSettings, begin: Begin) -> ItemResult:
    """Read one piece of work; whatever is wrong with its files ends up in ``rejected``.

    Args:
        item: What to read.
        settings: How.
        begin: Called before each file, so that a limit on its time can begin anew and the file
            that breaks it is known.
    """
    item, rejected = without_stored(item, settings.keep, begin)
    if not item.entries:
        volumes = []
    elif item.joined:
        volumes = [_read_joined(item, settings, rejected, begin)]
    else:
        volumes = _read_group(item, settings, rejected, begin)
    result: list[ReadSlice] = []
    labels: dict[int, Rejection | None] = {}
    unused: list[tuple[int, Rejection]] = []
    group_id: str | None = None
    given: Counter[tuple[str, str, str]] = Counter()
    for number, volume in enumerate(volumes):
        unused.extend(attach_label_maps(volume, settings.structures, begin))
        _attach_label_objects(volume, item.labels, settings, labels, begin)
        begin(None)
        if not volume.slices:
            continue
        try:
            slices = finish_volume(volume, number, group_id, settings, given)
        except DataError as error:
            bad = dict.fromkeys(part.entry.file.name for part in volume.slices)
            rejected.extend(
                Rejection(name, IntakeReason.NOT_STORABLE.value, f"{name}: {error}") for name in bad
            )
            continue
        group_id = group_id or slices[0].record.patient_id
        result.extend(slices)
    # A file of several volumes that cannot be stored is one file all the same.
    return ItemResult(result, list(dict.fromkeys(rejected)), labels, list(dict.fromkeys(unused)))


def _read_group(
    item: WorkItem,
    settings: ReadSettings,
    rejected: list[Rejection],
    begin: Begin,
) -> list[FoundVolume]:
    entries = {entry.file.name: entry for entry in item.entries}
    try:
        images = _read_within_memory(item.entries, settings, rejected, begin)
        begin(None)
    except (UnreadableFileError, MemoryError) as error:
        of_each = {name: Rejection(name, *why) for name, *why in getattr(error, "of_each", ())}
        known = {found.path for found in rejected}
        rejected.extend(
            of_each.get(entry.file.name) or _unreadable(entry, error)
            for entry in item.entries
            if entry.file.name not in known
        )
        return []
    volumes: list[FoundVolume] = []
    for number, image in enumerate(images):
        rejected.extend(rejection(found) for found in image.details.get("rejected_files", ()))
        names = image.details.get("slice_sources") or [image.source] * len(image.pixels)
        wanted = item.entries[0].row.volume_id
        volume = FoundVolume(
            volume_id=wanted if number == 0 or not wanted else f"{wanted}/{number}"
        )
        volumes.append(volume)
        places: Counter[str] = Counter()
        for slice_number, name in enumerate(names):
            entry = entries.get(name, item.entries[0])
            found = FoundSlice(image, slice_number, entry, places[name], slice_number)
            volume.slices.append(found)
            places[name] += 1
    return volumes


def _read_within_memory(
    entries: Sequence[Entry], settings: ReadSettings, rejected: list[Rejection], begin: Begin
) -> list[MedicalImage]:
    """Read files together; the few at which the memory gives out are left out alone."""
    begun: int | None = None

    def note(entry: int | None, label_map: bool = False) -> None:
        nonlocal begun
        begun = entry
        begin(entry, label_map)

    for _ in range(MOST_CULPRITS):
        try:
            return _read_images(entries, settings, note)
        except MemoryError:
            if len(entries) == 1:
                raise
        # Not inside the handler: there the exception holds on to what filled the memory.
        rejected.extend(
            _unreadable(entry, MemoryError()) for entry in entries if entry.number == begun
        )
        entries = [entry for entry in entries if entry.number != begun]
    return _read_images(entries, settings, note)


def _read_joined(
    item: WorkItem,
    settings: ReadSettings,
    rejected: list[Rejection],
    begin: Begin,
) -> FoundVolume:
    volume = FoundVolume(volume_id=item.entries[0].row.volume_id)
    more = 0  # slices beyond one of each file so far
    for entry, index in zip(item.entries, _indices(item.entries), strict=True):
        try:
            images = _read_images((entry,), settings, begin)
        except (UnreadableFileError, MemoryError) as error:
            rejected.append(_unreadable(entry, error))
            continue
        frames = [(image, number) for image in images for number in range(len(image.pixels))]
        volume.slices.extend(
            FoundSlice(image, number, entry, place, index + more + place)
            for place, (image, number) in enumerate(frames)
        )
        more += len(frames) - 1
    return volume


def _indices(entries: Sequence[Entry]) -> list[int]:
    """Return where each file stands in its volume: by its number, or else by its row in the table.

    Numbers may count otherwise than by one, as where every second slice was exported.
    """
    numbers = [entry.row.slice_index for entry in entries if entry.row.slice_index is not None]
    if len(numbers) < len(entries):
        return [entry.place for entry in entries]
    steps = np.diff(numbers)
    if (steps < 1).any():  # a number that occurs twice tells no places
        return list(range(len(entries)))
    step = math.gcd(*steps.tolist()) or 1
    return [number // step for number in numbers]


def _read_images(
    entries: Sequence[Entry], settings: ReadSettings, begin: Begin
) -> list[MedicalImage]:
    """Read with the table's modality; the option speaks only where table and file are silent."""
    group = Group(entries[0].file.kind, tuple(entry.file for entry in entries))
    word = entries[0].row.modality
    if word is None and group.kind == "raster":
        word = settings.modality
    numbers = {entry.file.name: entry.number for entry in entries}

    def read(modality: Modality | None) -> list[MedicalImage]:
        return read_image(
            group,
            modality,
            settings.keep,
            lambda file: begin(numbers[file.name]),
            entries[0].row.channel,
        )

    if word is not None:
        images = read(Modality.parse(word))
    else:
        said = settings.modality
        images = read_where_silent(read, None if said is None else Modality.parse(said))
    if group.kind != "dicom":
        require_no_lone_label_map(images, entries[0])
    return images


def _attach_label_objects(
    volume: FoundVolume,
    labels: Sequence[LabelFile],
    settings: ReadSettings,
    outcomes: dict[int, Rejection | None],
    begin: Begin,
) -> None:
    """Paint DICOM segmentations and structure sets onto their slices, one over the other.

    Their order is that of their identifiers; slices where they overlap are marked. A series may
    have volumes that they were not drawn on, such as a reformat: one that they fit is enough.
    """
    if not volume.slices:
        return
    image = volume.slices[0].image
    for label in labels:
        begin(label.number)
        numbers = {
            name: settings.structures[of_class] for name, of_class in label.class_names.items()
        }
        try:
            painted, overlapping = read_dicom_labels(label.file, image, numbers)
        except (UnreadableFileError, MemoryError) as error:
            reason = getattr(error, "reason", Reason.TOO_LARGE)
            outcomes.setdefault(label.number, Rejection(label.file.name, str(reason), str(error)))
            continue
        outcomes[label.number] = None
        for part in volume.slices:
            found = painted[part.number]
            below = np.zeros_like(found) if part.label_map is None else part.label_map
            drawn = below.astype(np.int32)
            np.copyto(drawn, found, where=found > 0)
            part.label_map = drawn
            if overlapping or ((found > 0) & (below > 0)).any():
                part.flags |= {Flag.OVERLAPPING_STRUCTURES}


def _unreadable(entry: Entry, error: UnreadableFileError | MemoryError) -> Rejection:
    if isinstance(error, UnreadableFileError):
        return Rejection(entry.file.name, str(error.reason), str(error))
    return Rejection(
        entry.file.name,
        IntakeReason.READER_MEMORY.value,
        f"{entry.file.name}: not enough memory to read it. Use fewer --workers, or raise "
        "--set file_memory_gib=...",
    )
