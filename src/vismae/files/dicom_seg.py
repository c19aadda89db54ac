"""Frames of a DICOM segmentation to pieces of structures on the slices of an image.

Standard: PS3.3 C.8.20 (BINARY, FRACTIONAL and LABELMAP segmentations), C.7.6.16 (functional
groups). Frames that hold nothing may be missing, and several may lie on one slice.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.pixels.utils import iter_pixels, pixel_array

from vismae.core.errors import UnreadableFileError
from vismae.files.dicom_geometry import FramePlane, frame_plane, functional_group
from vismae.files.label_slices import (
    PARALLEL,
    SAME_HEIGHT_MM,
    LabelSlices,
    Patch,
    PixelGrid,
    crop,
    image_keys,
    not_on_image,
)
from vismae.files.pixels import require_size
from vismae.files.reasons import Reason
from vismae.files.structure_names import structure_name

_BACKGROUND = 0


@dataclass(frozen=True)
class _SegFrame:
    """One frame: its segment (None where pixels hold segment numbers), place and references."""

    segment: int | None
    grid: PixelGrid | None
    plane: FramePlane
    keys: tuple[str, ...]


def segment_names(dataset: Dataset) -> dict[int, str]:
    """Return segment number -> class name, in the file's order; number 0 is background."""
    numbered = [
        (int(item.get("SegmentNumber") or _BACKGROUND), item)
        for item in dataset.get("SegmentSequence") or ()
    ]
    return {
        number: structure_name(item.get("SegmentLabel"), number, dataset)
        for number, item in numbered
        if number != _BACKGROUND
    }


def segmented_images(dataset: Dataset) -> Iterator[tuple[str, ...]]:
    """Yield what each frame says that it was drawn on, as ``image_keys`` writes it."""
    yield from (frame.keys for frame in _frames(dataset))


def segmentation_patches(
    dataset: Dataset,
    slices: LabelSlices,
    wanted: Collection[int],
    name: str,
    series_named: bool,
    same_space: bool,
) -> dict[int, list[Patch]]:
    """Return the pieces of the wanted segments on the slices of an image.

    Args:
        dataset: Of the segmentation, with pixels.
        slices: Of the image.
        wanted: Segment numbers.
        name: Of the file, for messages.
        series_named: The segmentation names the image's series: then a frame that refers to
            instances lies on these alone, and not on the same place at another time.
        same_space: Positions are known to count from the same point.

    Raises:
        UnreadableFileError: ``label-geometry``, ``no-pixels``, ``too-large``.
    """
    frames = _frames(dataset)
    matched = _match(frames, slices, name, series_named, same_space)
    if not matched:
        raise not_on_image(name, slices.source, "none of its frames lies on the slices")
    shape = (int(dataset.Rows), int(dataset.Columns))
    require_size(shape, 4, name)
    if dataset.get("PixelData") is None:
        raise UnreadableFileError(
            Reason.NO_PIXELS, f"{name}: a segmentation without pixel data. Fetch it again."
        )
    patches: dict[int, list[Patch]] = {}
    # Where pixels hold segment numbers only they say which segments a frame has.
    order = sorted(i for i in matched if frames[i].segment is None or frames[i].segment in wanted)
    for index, stored in zip(order, _stored_frames(dataset, order, shape), strict=True):
        for segment, inside in _segments(dataset, frames[index], stored.reshape(shape), wanted):
            for place in matched[index]:
                moved = _onto_slice(inside, frames[index].grid, slices, place, name)
                patch = crop(place, moved)
                if patch is not None:
                    patches.setdefault(segment, []).append(patch)
    return patches


def _stored_frames(
    dataset: Dataset, order: Sequence[int], shape: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Yield the stored values of some frames, one at a time where pydicom can."""
    if int(dataset.BitsAllocated) != 1 or shape[0] * shape[1] % 8 == 0:
        yield from iter_pixels(dataset, indices=order, raw=True)
        return
    # Frames of single bits that do not end with a byte cannot be taken singly.
    stored = pixel_array(dataset, raw=True).reshape(-1, *shape)
    yield from (stored[index] for index in order)


def _frames(dataset: Dataset) -> list[_SegFrame]:
    holds_numbers = str(dataset.get("SegmentationType") or "").upper() == "LABELMAP"
    frames = []
    # A number of frames beyond those described is damage.
    described = len(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    for index in range(min(int(dataset.get("NumberOfFrames") or 1), max(described, 1))):
        group = functional_group(dataset, index, "SegmentIdentificationSequence")
        number = None if group is None else group.get("ReferencedSegmentNumber")
        segment = None if holds_numbers or number is None else int(number)
        derivation = functional_group(dataset, index, "DerivationImageSequence") or Dataset()
        sources = derivation.get("SourceImageSequence") or ()
        keys = tuple(key for source in sources for key in image_keys(source))
        plane = frame_plane(dataset, index)
        frames.append(_SegFrame(segment, PixelGrid.of(plane), plane, keys))
    return frames


def _match(
    frames: Sequence[_SegFrame],
    slices: LabelSlices,
    name: str,
    series_named: bool,
    same_space: bool,
) -> dict[int, list[int]]:
    """Return frame -> slices that take their pixels from it."""
    referenced = [slices.referenced(frame.keys) for frame in frames]
    grids = [frame.grid for frame in frames if frame.grid is not None]
    if len(grids) < len(frames) or not slices.in_space:
        return _by_reference(referenced, slices, name)
    by_reference = any(referenced)
    if not (same_space or by_reference):
        raise not_on_image(name, slices.source, "nothing says that it lies in the same space")
    normal = slices.grids[0].normal
    if any(np.linalg.norm(np.cross(grid.normal, normal)) > PARALLEL for grid in grids):
        raise not_on_image(name, slices.source, "its frames are at an angle to the slices")
    heights = np.array([grid.position @ normal for grid in grids])
    reach = _frame_spacing_mm(frames[0].plane, heights, slices) / 2 * (1 + 1e-3)
    distance = np.abs(slices.heights_mm[:, None] - heights[None, :])  # (S, F)
    distance[distance > reach] = np.inf
    if series_named or by_reference:
        for index, places in enumerate(referenced):
            if frames[index].keys:
                elsewhere = np.setdiff1d(np.arange(len(slices.grids)), places)
                distance[elsewhere, index] = np.inf
    matched: dict[int, list[int]] = {}
    segments = np.array([-1 if frame.segment is None else frame.segment for frame in frames])
    for segment in np.unique(segments):
        own = np.flatnonzero(segments == segment)
        for place, index in enumerate(own[np.argmin(distance[:, own], axis=1)]):
            if np.isfinite(distance[place, index]):
                matched.setdefault(int(index), []).append(place)
    return matched


def _by_reference(
    referenced: Sequence[list[int]], slices: LabelSlices, name: str
) -> dict[int, list[int]]:
    """Match where positions are unknown or all alike: only references tell the slice."""
    for index, places in enumerate(referenced):
        if len(places) > 1:
            why = f"frame {index + 1} refers to {len(places)} slices and has no place among them"
            raise not_on_image(name, slices.source, why)
    return {index: places for index, places in enumerate(referenced) if places}


def _frame_spacing_mm(first: FramePlane, heights: np.ndarray, slices: LabelSlices) -> float:
    """Return the distance between the planes of the segmentation, empty ones included."""
    gaps = np.diff(np.sort(heights))
    gaps = gaps[gaps > SAME_HEIGHT_MM]
    # With empty planes left out the smallest gap may be several steps; SpacingBetweenSlices may
    # be wrong. The smaller one never reaches beyond the neighbouring plane.
    known = [*([float(gaps.min())] if len(gaps) else []), *filter(None, [first.between_mm])]
    return min(known) if known else first.thickness_mm or slices.spacing_mm


def _segments(
    dataset: Dataset, frame: _SegFrame, stored: np.ndarray, wanted: Collection[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the wanted segments of a frame and where they are."""
    if frame.segment is None:
        for number in np.unique(stored):
            if int(number) in wanted:
                yield int(number), stored == number
        return
    fractional = str(dataset.get("SegmentationType") or "").upper() == "FRACTIONAL"
    most = int(dataset.get("MaximumFractionalValue") or 255)
    yield frame.segment, 2 * stored.astype(int) >= most if fractional else stored > 0


def _onto_slice(
    inside: np.ndarray, grid: PixelGrid | None, slices: LabelSlices, place: int, name: str
) -> np.ndarray:
    """Return a frame's pixels at the pixel centres of a slice, (H, W), by nearest neighbour."""
    height, width = shape = slices.shape[1], slices.shape[2]
    if grid is None or not slices.grids:
        if inside.shape != shape:
            sizes = f"{inside.shape[0]}×{inside.shape[1]} pixels, the image {height}×{width}"
            raise not_on_image(name, slices.source, f"it has {sizes}, and no position")
        return inside
    target = slices.grids[place]
    # An affine map is furthest from the identity at a corner.
    corners = np.array([[0, 0], [0, width - 1], [height - 1, 0], [height - 1, width - 1]])
    moved = grid.pixels_at(target.points_at(corners)) - corners
    if inside.shape == shape and np.abs(moved).max() < 0.5:
        return inside
    centres = np.moveaxis(np.indices(shape), 0, -1)
    row, column = np.moveaxis(np.rint(grid.pixels_at(target.points_at(centres))).astype(int), -1, 0)
    within = (row >= 0) & (row < inside.shape[0]) & (column >= 0) & (column < inside.shape[1])
    result = np.zeros(shape, dtype=bool)
    result[within] = inside[row[within], column[within]]
    return result
