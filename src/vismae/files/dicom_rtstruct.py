"""Contours of a DICOM structure set to pieces of structures on the slices of an image.

Standard: PS3.3 C.8.8.5 (structure set), C.8.8.6 (ROI contours). Contours are polygons in the
patient, in mm, LPS. Only closed planar ones enclose anything; points and open ones are skipped.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.dataelem import RawDataElement

from vismae.core.errors import UnreadableFileError
from vismae.files.contours import fill_even_odd
from vismae.files.label_slices import LabelSlices, Patch, image_keys, not_on_image
from vismae.files.reasons import Reason
from vismae.files.structure_names import structure_name

_CLOSED = {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}
# Contours whose heights differ by less lie on one plane.
_SAME_PLANE_MM = 0.05


@dataclass(frozen=True)
class _Contour:
    """Corners (N, 3) in mm, LPS, and the instances that it was drawn on."""

    points: np.ndarray
    keys: tuple[str, ...]


def structure_set_rois(dataset: Dataset) -> dict[int, str]:
    """Return ROI number -> class name, in the file's order, of ROIs with a closed contour."""
    closed = {
        int(item.get("ReferencedROINumber") or 0)
        for item in dataset.get("ROIContourSequence") or ()
        if any(_is_closed(contour) for contour in item.get("ContourSequence") or ())
    }
    regions = {
        int(item.get("ROINumber") or 0): item.get("ROIName")
        for item in dataset.get("StructureSetROISequence") or ()
    }
    return {
        number: structure_name(text, number, dataset)
        for number, text in regions.items()
        if number in closed
    }


def structure_set_patches(
    dataset: Dataset,
    slices: LabelSlices,
    wanted: Collection[int],
    name: str,
    same_space: bool,
) -> dict[int, list[Patch]]:
    """Return the pieces of the wanted ROIs on the slices of an image.

    A contour goes to the nearest slice within half a spacing, at half-way to the one it refers
    to. Of contours of one ROI on several planes near one slice, the nearest plane counts.

    Args:
        dataset: Of the structure set.
        slices: Of the image.
        wanted: ROI numbers.
        name: Of the file, for messages.
        same_space: Positions are known to count from the same point.

    Raises:
        UnreadableFileError: ``label-geometry``, or ``undecodable`` for damaged contours.
    """
    if not slices.grids:
        raise not_on_image(name, slices.source, "the slices have no position or pixel size")
    if not (same_space or any(slices.referenced(keys) for keys in contoured_images(dataset))):
        raise not_on_image(name, slices.source, "nothing says that it lies in the same space")
    found = near = 0
    patches: dict[int, list[Patch]] = {}
    for item in dataset.get("ROIContourSequence") or ():
        number = int(item.get("ReferencedROINumber") or 0)
        by_slice: defaultdict[int, list[tuple[float, np.ndarray]]] = defaultdict(list)
        for contour in _contours(item, name):
            found += 1
            place, height = _slice_of(contour, slices, name)
            if place is not None:
                by_slice[place].append((height, contour.points))
        near += len(by_slice)
        if number in wanted and by_slice:
            patches[number] = list(_fill(by_slice, slices))
    if found and not near:
        raise not_on_image(name, slices.source, "none of its contours lies on the slices")
    return patches


def _is_closed(contour: Dataset) -> bool:
    return str(contour.get("ContourGeometricType") or "").strip().upper() in _CLOSED


def _contours(item: Dataset, name: str) -> Iterator[_Contour]:
    for contour in item.get("ContourSequence") or ():
        if not _is_closed(contour):
            continue
        points = _points(contour, name)
        if len(points) < 3:
            continue
        yield _Contour(points, _keys(contour))


def _keys(contour: Dataset) -> tuple[str, ...]:
    images = contour.get("ContourImageSequence") or ()
    return tuple(key for image in images for key in image_keys(image))


def contoured_images(dataset: Dataset) -> Iterator[tuple[str, ...]]:
    """Yield what each contour says that it was drawn on, as ``image_keys`` writes it."""
    for item in dataset.get("ROIContourSequence") or ():
        for contour in item.get("ContourSequence") or ():
            yield _keys(contour)


def _points(contour: Dataset, name: str) -> np.ndarray:
    """Return corners, (N, 3)."""
    element = contour.get_item("ContourData")
    if element is None or not element.value:
        return np.zeros((0, 3))
    # Turning each number into an object of the library takes ten times as long as all the rest.
    raw = isinstance(element, RawDataElement) and isinstance(element.value, bytes)
    try:
        parts = element.value.strip(b" \0").split(b"\\") if raw else list(contour.ContourData)
        numbers = np.array(parts, dtype=np.float64)
    except (ValueError, TypeError):
        numbers = np.array([np.nan])
    if len(numbers) % 3 or not np.isfinite(numbers).all():
        raise UnreadableFileError(
            Reason.UNDECODABLE,
            f"{name}: a contour of {len(numbers)} numbers that are not points in space. Export "
            f"the structure set again.",
        )
    return numbers.reshape(-1, 3)


def _slice_of(contour: _Contour, slices: LabelSlices, name: str) -> tuple[int | None, float]:
    """Return a contour's slice, or None if there is none near, and its height."""
    referenced = slices.referenced(contour.keys)
    heights = contour.points @ slices.grids[0].normal
    height = float(heights.mean())
    reach = slices.spacing_mm / 2 * (1 + 1e-3)
    if float(heights.max() - heights.min()) > reach:
        raise not_on_image(name, slices.source, "its contours are at an angle to the slices")
    distance = np.abs(slices.heights_mm - height)
    if not slices.in_space:
        # Frames in time share one place: only the reference tells them apart.
        near = [place for place in referenced if distance[place] <= reach]
        return (near[0] if near else None), height
    nearest = float(distance.min())
    if nearest > reach:
        return None, height
    ties = np.flatnonzero(distance <= nearest + 1e-3)
    drawn_on = [int(place) for place in ties if place in referenced]
    return (drawn_on or [int(ties[0])])[0], height


def _fill(
    by_slice: Mapping[int, Sequence[tuple[float, np.ndarray]]], slices: LabelSlices
) -> Iterator[Patch]:
    """Yield the inside of one ROI on each slice, by the even-odd rule over its contours."""
    for place, contours in by_slice.items():
        own_height = slices.heights_mm[place]
        nearest = min((height for height, _ in contours), key=lambda h: abs(h - own_height))
        polygons = [points for height, points in contours if abs(height - nearest) < _SAME_PLANE_MM]
        corners = [slices.grids[place].pixels_at(points) for points in polygons]
        top, left, inside = fill_even_odd(corners, (slices.shape[1], slices.shape[2]))
        if inside.any():
            yield Patch(place, top, left, inside)
