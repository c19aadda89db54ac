"""The slices of a DICOM image as a canvas for label objects, and how structures share it.

Segmentations and structure sets come as pieces on planes in the patient; here each piece finds
its slice, and all pieces become one label map.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from vismae.core.errors import UnreadableFileError
from vismae.core.types import MedicalImage
from vismae.files.dicom_geometry import FramePlane
from vismae.files.reasons import Reason

PARALLEL = 2e-3
"""Largest sine of the angle between planes that count as parallel: 1 mm over half a metre."""

SAME_HEIGHT_MM = 1e-3
"""Planes whose heights differ by less are one plane."""


@dataclass(frozen=True)
class Patch:
    """A piece of a structure on one slice.

    Attributes:
        place: Number of the slice.
        top, left: Where its first pixel lies.
        inside: True where the structure is, (h, w).
    """

    place: int
    top: int
    left: int
    inside: np.ndarray

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.inside))


def crop(place: int, inside: np.ndarray) -> Patch | None:
    """Return the part of a slice, (H, W), that holds anything; None if there is none."""
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    window = inside[top : rows[-1] + 1, left : columns[-1] + 1]
    return Patch(place, top, left, window.copy())


def paint(
    structures: Iterable[tuple[int, Sequence[Patch]]], shape: tuple[int, int, int]
) -> tuple[np.ndarray, bool]:
    """Return class numbers, int32 (S, H, W), and whether different classes met on a pixel.

    Larger structures are painted first, so that a small one inside a large one stays visible.

    Args:
        structures: Class number and pieces of each.
        shape: Slices, rows, columns.
    """
    label_map = np.zeros(shape, dtype=np.int32)
    overlapping = False
    by_size = sorted(structures, key=lambda pair: -sum(patch.area for patch in pair[1]))
    for value, patches in by_size:
        for patch in patches:
            height, width = patch.inside.shape
            window = label_map[
                patch.place, patch.top : patch.top + height, patch.left : patch.left + width
            ]
            below = window[patch.inside]
            overlapping = overlapping or bool(((below != 0) & (below != value)).any())
            window[patch.inside] = value
    return label_map, overlapping


@dataclass(frozen=True)
class PixelGrid:
    """Where the pixels of one slice or frame lie in the patient.

    Attributes:
        position: Centre of the first pixel, LPS mm, (3,).
        rows, columns: Unit vectors along a row and along a column, LPS, (3,) each.
        row_mm, column_mm: Distance between rows and between columns.
    """

    position: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    row_mm: float
    column_mm: float

    @classmethod
    def of(cls, plane: FramePlane) -> "PixelGrid | None":
        """Return the grid of a plane; None if its place or pixel size is not known."""
        position, rows, columns = plane.position, plane.rows, plane.columns
        row_mm, column_mm = plane.row_mm, plane.column_mm
        if position is None or rows is None or columns is None or not row_mm or not column_mm:
            return None
        return cls(position, rows, columns, row_mm, column_mm)

    @property
    def normal(self) -> np.ndarray:
        """Direction of the slice axis."""
        return np.cross(self.rows, self.columns)

    def pixels_at(self, points: np.ndarray) -> np.ndarray:
        """Return row and column, (..., 2), of points in the patient, (..., 3)."""
        offsets = points - self.position
        row = offsets @ self.columns / self.row_mm
        return np.stack([row, offsets @ self.rows / self.column_mm], axis=-1)

    def points_at(self, pixels: np.ndarray) -> np.ndarray:
        """Return the places in the patient, (..., 3), of rows and columns, (..., 2)."""
        down, along = self.columns * self.row_mm, self.rows * self.column_mm
        return self.position + pixels[..., :1] * down + pixels[..., 1:] * along


class LabelSlices:
    """Slices of an image as ``read_dicom`` gives it.

    Attributes:
        shape: Slices, rows, columns; of the whole frames where the image was cut out of them.
        source: Name of the image, for messages.
        grids: One per slice; empty unless all are known.
        heights_mm: Of the slices along their normal; empty without grids.
        in_space: Whether heights tell the slices apart; False for frames in time.
        spacing_mm: Between slices, or the thickness of a lone one.

    Raises:
        UnreadableFileError: ``label-geometry`` for images that are no DICOM series.
    """

    def __init__(self, image: MedicalImage, name: str) -> None:
        if "planes" not in image.details or "slice_keys" not in image.details:
            raise UnreadableFileError(
                Reason.LABEL_GEOMETRY,
                f"{name}: belongs to DICOM images, but {image.source} is none. Convert it to a "
                f"label map in the format of the image.",
            )
        height, width = whole_frame(image)
        self.shape = (len(image.pixels), height, width)
        self.source = image.source
        planes: tuple[FramePlane, ...] = image.details["planes"]
        grids = [grid for plane in planes if (grid := PixelGrid.of(plane)) is not None]
        self.grids: tuple[PixelGrid, ...] = tuple(grids) if len(grids) == len(planes) else ()
        self.heights_mm = np.array([grid.position @ grids[0].normal for grid in self.grids])
        gaps = np.diff(np.sort(self.heights_mm))
        gaps = gaps[gaps > SAME_HEIGHT_MM]
        self.in_space = bool(self.grids) and len(gaps) == len(planes) - 1
        alone = planes[0].between_mm or planes[0].thickness_mm or 1.0
        self.spacing_mm = float(np.median(gaps)) if len(gaps) else alone
        self._places: defaultdict[str, list[int]] = defaultdict(list)
        for place, key in enumerate(image.details["slice_keys"]):
            self._places[key].append(place)
            self._places[key.rpartition(":")[0]].append(place)

    def referenced(self, keys: Iterable[str]) -> list[int]:
        """Return the slices that instances ("uid") or frames ("uid:number") refer to."""
        return sorted({place for key in keys for place in self._places.get(key, ())})


def whole_frame(image: MedicalImage) -> tuple[int, int]:
    """Return rows and columns of the frames that an image's slices are, or were cut out of."""
    if image.details.get("crop") is not None:
        return image.details["full_shape"]
    return int(image.pixels.shape[1]), int(image.pixels.shape[2])


def cut_like_image(label_map: np.ndarray, image: MedicalImage) -> np.ndarray:
    """Return of a label map of whole frames, (S, H, W), what lies on the image."""
    if image.details.get("crop") is None:
        return label_map
    top, left, height, width = image.details["crop"]
    return label_map[:, top : top + height, left : left + width]


def image_keys(reference: Dataset) -> Iterator[str]:
    """Yield what an item of a reference to images names: "uid", or "uid:number" per frame."""
    uid, frames = reference.get("ReferencedSOPInstanceUID"), reference.get("ReferencedFrameNumber")
    if uid and frames not in (None, ""):
        for number in [frames] if isinstance(frames, (int, str)) else frames:
            yield f"{uid}:{int(number)}"
    elif uid:
        yield str(uid)


def not_on_image(name: str, source: str, why: str) -> UnreadableFileError:
    """Return the error for a label object that does not lie on an image."""
    return UnreadableFileError(
        Reason.LABEL_GEOMETRY,
        f"{name}: {why}, so it cannot be laid on {source}. Give the images that it was drawn on, "
        f"or resample it to them.",
    )
