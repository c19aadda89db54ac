"""Label maps that a table, or a layout of folders, gives to the images of one piece of work.

A label map that cannot be used costs itself alone: its image stays, as one without a label.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vismae.core.errors import DataError, UnreadableFileError
from vismae.data.manifest import FileReference
from vismae.data.store_format import storable_label_map
from vismae.files.discover import source_file
from vismae.files.label_place import ImageBlock
from vismae.files.label_slices import cut_like_image, whole_frame
from vismae.files.read import read_label_map
from vismae.files.structure_folder import read_structure_folder
from vismae.workflows.intake.named_labels import segment_numbers
from vismae.workflows.intake.records import FoundSlice, FoundVolume
from vismae.workflows.intake.work import Begin, IntakeReason, Rejection


def attach_label_maps(
    volume: FoundVolume, structures: Mapping[str, int], begin: Begin
) -> list[tuple[int, Rejection]]:
    """Give each slice its label map, if it has one that fits.

    A label map is that of one file, or of all slices of a series whose folder its row names.

    Args:
        volume: Its slices are changed.
        structures: Class number of every name of a segment.
        begin: Called before each label map.

    Returns:
        Entry of an image and why its label map is not used, by the path of the label map.
    """
    loaded: dict[str, np.ndarray | None] = {}
    unused: list[tuple[int, Rejection]] = []
    frames = Counter(part.entry.file.name for part in volume.slices)
    of_series = _labels_of_series(volume, structures, begin)
    for part in volume.slices:
        name, reference = part.entry.file.name, part.entry.row.label_map
        if reference is None:
            continue
        if isinstance(of_series, np.ndarray):
            part.label_map = of_series[part.number]
            continue
        if name not in loaded:
            found = of_series
            if found is None:
                found = _read_labels(reference, part, frames[name], structures, begin)
            loaded[name] = None if isinstance(found, Rejection) else found
            if isinstance(found, Rejection):
                unused.append((part.entry.number, found))
        label_maps = loaded[name]
        if label_maps is not None:
            part.label_map = label_maps[part.place]
    return unused


def _labels_of_series(
    volume: FoundVolume, structures: Mapping[str, int], begin: Begin
) -> np.ndarray | Rejection | None:
    """Return the label map, (S, H, W), that all slices of an image share, or why it does not fit.

    Returns:
        None where slices have label maps of their own, or share one of a single slice.
    """
    slices = volume.slices
    references = {part.entry.row.label_map for part in slices}
    files = {part.entry.file.name for part in slices}
    if None in references or len(references) > 1 or len(files) < 2:
        return None
    first = slices[0]
    if first.entry.file.kind != "dicom" or len(slices) != len(first.image.pixels):
        return None
    if any(part.image is not first.image for part in slices):
        return None
    reference = next(filter(None, references))
    found = _read_labels(reference, first, len(slices), structures, begin)
    if isinstance(found, Rejection):
        # It may be a picture drawn on each of them.
        of_one = _read_labels(reference, first, 1, structures, begin)
        return found if isinstance(of_one, Rejection) else None
    return found


def _read_labels(
    reference: FileReference,
    part: FoundSlice,
    frames: int,
    structures: Mapping[str, int],
    begin: Begin,
) -> np.ndarray | Rejection:
    """Return the label map of one file, (S, H, W), or why it does not fit its image."""

    def begin_label_map() -> None:
        begin(part.entry.number, label_map=True)

    begin_label_map()
    try:
        return _fitting_labels(reference, part, frames, structures, begin_label_map)
    except UnreadableFileError as error:
        return Rejection(reference.text, str(error.reason), str(error))
    except MemoryError:
        return Rejection(
            reference.text,
            IntakeReason.READER_MEMORY.value,
            f"{reference.text}: not enough memory to read it beside its image. Use fewer "
            "--workers, or raise --set file_memory_gib=...",
        )


def _fitting_labels(
    reference: FileReference,
    part: FoundSlice,
    frames: int,
    structures: Mapping[str, int],
    begin: Callable[[], None],
) -> np.ndarray:
    block = ImageBlock(part.image, part.number, frames)
    classes = segment_numbers(part.entry.row, part.entry.file, structures)
    if reference.is_folder:
        label_maps = read_structure_folder(reference.path, block, classes or (), begin)
    else:
        file = source_file(reference.path, reference.member)
        label_maps, _ = read_label_map(file, block, classes)
    if label_maps.shape[1:] == whole_frame(part.image):
        label_maps = cut_like_image(label_maps, part.image)
    expected = (frames, *part.pixels.shape[:2])
    if label_maps.shape != expected:
        raise UnreadableFileError(
            IntakeReason.LABEL_SHAPE,
            f"{reference.text}: {_size(label_maps.shape)}, but {part.entry.file.name} has "
            f"{_size(expected)}. An image and its label map must have the same size; resample "
            "the label map with nearest neighbour, or correct the manifest.",
        )
    try:
        return np.stack([storable_label_map(found, found.shape) for found in label_maps])
    except DataError as error:
        raise UnreadableFileError(
            IntakeReason.LABEL_VALUES, f"{reference.text}: {error}"
        ) from error


def _size(shape: Sequence[int]) -> str:
    slices, height, width = shape
    return f"{height}×{width} pixels" + (f" on {slices} slices" if slices > 1 else "")
