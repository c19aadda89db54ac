"""DICOM files to images: one ``MedicalImage`` for each geometrically consistent stack.

``dicom_frames`` reads one file; what is an image and what is left out is in ``dicom_objects``,
pixels are in ``dicom_decode``, ``dicom_bits``, ``dicom_colour`` and ``dicom_grey``, their meaning
in ``dicom_units`` and ``dicom_suv``, places in ``dicom_geometry``, their division into volumes in
``dicom_kinds`` and ``dicom_volumes``.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from vismae.core.errors import UnreadableFileError
from vismae.core.types import Flag, MedicalImage, Modality
from vismae.files.dicom_concatenation import lacking_parts
from vismae.files.dicom_frames import Frame, read_frames
from vismae.files.dicom_geometry import volume_geometry
from vismae.files.dicom_header import Known
from vismae.files.dicom_objects import CROSS_SECTIONS
from vismae.files.dicom_quiet import quiet_pydicom
from vismae.files.dicom_suv import BedTimes
from vismae.files.dicom_unnamed_series import is_one_stack
from vismae.files.dicom_volumes import order_volumes
from vismae.files.discover import RejectedFile, SourceFile
from vismae.files.pixels import grey_if_equal
from vismae.files.reasons import Reason


def read_dicom(
    files: Sequence[SourceFile],
    modality: Modality | None = None,
    keep: frozenset[Flag] = frozenset(),
    on_file: Callable[[SourceFile], None] | None = None,
) -> list[MedicalImage]:
    """Read the files of one series, the parts of one divided multi-frame image, or one file.

    CT comes in Hounsfield units, PET in SUV by body weight. Slices are ordered by position along
    the slice normal; frames of another shape, orientation or pixel size, and positions that
    occur again (another echo, phase, b-value or acquisition), become images of their own.
    Radiographs and ultrasound without positions are one image for each file, with the frames of
    a cine as slices. Ultrasound is cropped to its pictures of tissue where the header says where
    they are. Where slices differ in slope or intercept the pixels are float32 physical values.

    ``details`` holds nothing that was typed by hand but identifiers, which intake hashes:

    - ``study_uid``, ``series_uid``, and one per slice ``slice_keys`` (SOPInstanceUID and frame)
      and ``slice_sources`` (the file);
    - ``body_part``, ``sex``, ``age_band``, ``manufacturer``: words of closed lists, or None;
    - ``flags``, for the whole image, and ``slice_flags``, one set per slice with what holds for
      some slices only;
    - ``window``: the physical values that the first window of the header maps to black and white
      (the median over slices), or None;
    - ``crop`` (top, left, height, width) where the pixels are part of frames of ``full_shape``
      (height, width), None where they are the whole; no ``crop`` at all where slices differ in it;
    - ``planes`` (one per slice), ``slices_in_space``, ``regular_spacing``;
    - ``concatenated``: whether the slices come from the parts of a divided multi-frame image; it
      is flagged ``missing-slices`` where parts are missing;
    - ``tiled``: whether the slices are tiles of mosaics, which no other object can refer to;
    - on the first image ``rejected_files``, a tuple of ``RejectedFile`` for the files that could
      not be used.

    Args:
        files: One series as ``group_series`` gives it, in any order.
        modality: Overrides what the header says, and with it the unit.
        keep: Of ``KEEPABLE``, what is read all the same; it is flagged.
        on_file: Called with each file before it is read.

    Raises:
        UnreadableFileError: No file could be used; carries the first file's reason, and those of
            all in ``of_each``.
    """
    beds = BedTimes()
    with quiet_pydicom():
        frames, errors = _read_each(files, modality, keep, on_file, beds)
        if len(files) > 1 and beds.settle():
            frames.clear()  # their memory is needed for the same again
            frames, errors = _read_each(files, modality, keep, on_file, beds)
    rejected = [RejectedFile(name, Reason(e.reason), str(e)) for name, e in errors.items()]
    if errors and not frames:
        first_error = next(iter(errors.values()))
        first_error.of_each = tuple((f.path, str(f.reason), f.message) for f in rejected)
        raise first_error
    if not frames:
        raise UnreadableFileError(Reason.NO_PIXELS, "no DICOM file was given. Give at least one.")
    frames, copies = _without_copies(frames)
    rejected.extend(copies)
    lacking = lacking_parts(frame.part for frame in frames if frame.part is not None)
    images = [
        _assemble([stack[index] for index in volume], lacking)
        for stack in _stacks(frames)
        for volume in _volumes(stack)
    ]
    images[0].details["rejected_files"] = tuple(rejected)
    return images


def _read_each(
    files: Sequence[SourceFile],
    modality: Modality | None,
    keep: frozenset[Flag],
    on_file: Callable[[SourceFile], None] | None,
    beds: BedTimes,
) -> tuple[list[Frame], dict[str, UnreadableFileError]]:
    """Return the frames of all files, and why files could not be used, by their names."""
    frames: list[Frame] = []
    errors: dict[str, UnreadableFileError] = {}
    known: Known = {}
    for file in files:
        if on_file is not None:
            on_file(file)
        try:
            facts = frames[0].facts if frames else None
            frames.extend(read_frames(file, modality, keep, facts, known, beds))
        except UnreadableFileError as error:
            errors[file.name] = error
    return frames, errors


def _volumes(stack: list[Frame]) -> list[list[int]]:
    """Return the frames of each volume, by their numbers in a stack."""
    planes = [frame.plane for frame in stack]
    volumes = order_volumes(
        planes, [frame.order for frame in stack], [frame.kinds for frame in stack]
    )
    first = stack[0]
    several = len({frame.source for frame in stack}) > 1
    if several and first.part is None and not dict(first.identifiers)["series_uid"]:
        # That they are one scan was probable only.
        certain = len(volumes) == 1 and is_one_stack([planes[index] for index in volumes[0]])
        return volumes if certain else [[index] for index in range(len(stack))]
    return volumes


def _without_copies(frames: list[Frame]) -> tuple[list[Frame], list[RejectedFile]]:
    """Drop frames that came twice, as when a folder holds a copy of a file.

    Anonymisers are known to give all slices of a series one UID: an empty slice elsewhere in the
    patient is no copy.

    Returns:
        The frames to keep, and the files of which none is kept.
    """
    first: dict[tuple[str, tuple[float, ...]], Frame] = {}
    kept: list[Frame] = []
    originals: dict[str, str] = {}
    for frame in frames:
        position = frame.plane.position
        place = () if position is None else tuple(position.round(2).tolist())
        known = first.setdefault((frame.key, place), frame)
        if known is not frame and np.array_equal(known.pixels, frame.pixels):
            originals[frame.source] = known.source
        else:
            kept.append(frame)
    used = {frame.source for frame in kept}
    return kept, [
        RejectedFile(
            source, Reason.COPY, f"{source}: the same image as {original}, which is used instead."
        )
        for source, original in originals.items()
        if source not in used
    ]


def _stacks(frames: list[Frame]) -> list[list[Frame]]:
    """Divide frames into sets of one shape, unit, orientation and pixel size."""
    stacks: list[list[Frame]] = []
    for frame in frames:
        home = next((stack for stack in stacks if _belongs(frame, stack[0])), None)
        if home is None:
            stacks.append([frame])
        else:
            home.append(frame)
    return stacks


def _belongs(frame: Frame, first: Frame) -> bool:
    if frame.pixels.shape != first.pixels.shape or frame.scale.unit is not first.scale.unit:
        return False
    if not frame.plane.parallel_to(first.plane):
        return False
    if frame.plane.located or frame.whole == first.whole:
        return True
    # Slices without places are stacked by their numbers; objects of many frames are whole each.
    return frame.modality in CROSS_SECTIONS and frame.plane.row is None and first.plane.row is None


def _assemble(frames: list[Frame], lacking: frozenset[str]) -> MedicalImage:
    first = frames[0]
    pixels, slope, intercept = _one_scale(_padding_as_background(frames))
    if pixels.ndim == 4:
        pixels = grey_if_equal(pixels)
    geometry = volume_geometry([frame.plane for frame in frames])
    identifiers = dict(first.identifiers)
    crops = {(frame.crop, frame.full_shape) for frame in frames}
    crop = {"crop": first.crop, "full_shape": first.full_shape} if len(crops) == 1 else {}
    everywhere = frozenset.intersection(*(frame.flags for frame in frames))
    of_image = geometry.flags
    if any(frame.whole in lacking for frame in frames):
        of_image |= {Flag.MISSING_SLICES}
    return MedicalImage(
        pixels=pixels,
        modality=first.modality,
        unit=first.scale.unit,
        source=first.source,
        slope=slope,
        intercept=intercept,
        spacing=geometry.spacing,
        patient_id=identifiers.pop("patient_id"),
        affine=geometry.affine,
        details={
            **identifiers,
            **first.facts,
            **crop,
            "flags": everywhere | of_image,
            "slice_flags": [frame.flags - everywhere for frame in frames],
            "window": _median_window(frames),
            "slice_keys": [frame.key for frame in frames],
            "slice_sources": [frame.source for frame in frames],
            "planes": tuple(frame.plane for frame in frames),
            "slices_in_space": geometry.in_space,
            "regular_spacing": geometry.regular,
            "concatenated": first.part is not None,
            "tiled": first.tiled,
        },
    )


def _padding_as_background(frames: list[Frame]) -> list[Frame]:
    """Give slices of padding alone the smallest value of the others.

    An oblique reformat has such slices at its ends; their padding would be the range of the volume.
    """
    valid = [frame for frame in frames if not frame.nothing_valid]
    if len(valid) in (0, len(frames)):
        return frames

    def ends(frame: Frame) -> tuple[float, float]:
        """Physical values of the smallest and the largest number."""
        scale = frame.scale
        low, high = (float(value) for value in (frame.pixels.min(), frame.pixels.max()))
        return low * scale.slope + scale.intercept, high * scale.slope + scale.intercept

    least = min(min(ends(frame)) for frame in valid)

    def background(frame: Frame) -> np.ndarray:
        stored = (least - frame.scale.intercept) / frame.scale.slope
        if frame.pixels.dtype.kind in "iu":
            range_of = np.iinfo(frame.pixels.dtype)
            stored = int(np.clip(round(stored), range_of.min, range_of.max))
        return np.full_like(frame.pixels, stored)

    return [
        replace(frame, pixels=background(frame)) if frame.nothing_valid else frame
        for frame in frames
    ]


def _median_window(frames: list[Frame]) -> tuple[float, float] | None:
    windows = [frame.window for frame in frames if frame.window is not None]
    if not windows:
        return None
    low, high = np.median(np.array(windows), axis=0)
    return float(low), float(high)


def _one_scale(frames: list[Frame]) -> tuple[np.ndarray, float, float]:
    """Return stacked pixels with one slope and intercept; lossless where all slices agree."""
    first = frames[0]
    slope, intercept = first.scale.slope, first.scale.intercept
    if all((f.scale.slope, f.scale.intercept) == (slope, intercept) for f in frames):
        return np.stack([frame.pixels for frame in frames]), slope, intercept
    physical = np.empty((len(frames), *first.pixels.shape), dtype=np.float32)
    for index, frame in enumerate(frames):
        scale = frame.scale
        physical[index] = frame.pixels.astype(np.float64) * scale.slope + scale.intercept
    return physical, 1.0, 0.0
