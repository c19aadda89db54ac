"""Images as the page shows them: one file of plain numbers, turned to the patient once.

Volumes that lie in the patient get axes that run from feet to head, from front to back and from the
patient's right to left, so that the page only has to cut: axial slices are seen from the feet,
coronal ones from the front, sagittal ones from the patient's left. Images without a place in the
patient stay as their file has them.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vismae.core.types import Flag, MedicalImage, Modality, PixelUnit, Spacing
from vismae.data.percentiles import scale_range
from vismae.files.orientation import PatientOrientation, patient_orientation
from vismae.workflows.prediction.reading import Volume

AS_IN_FILE = "image"
"""Name of the only plane of images without a place in the patient."""

_PLANES = ("axial", "coronal", "sagittal")
_OBLIQUE_DEG = 5.0
# Soft tissue, which shows something of every part of the body.
_USUAL_WINDOW_HU = (-160.0, 240.0)
_USUAL_WINDOW_SUV = (0.0, 7.0)
_FLAG_NOTES = {
    Flag.MISSING_SLICES: "Slices are missing; across them the picture is shorter than the patient.",
    Flag.IRREGULAR_SPACING: "Slices are at irregular distances and shown at the usual one.",
    Flag.GANTRY_TILT: "The gantry was tilted; the other two planes are sheared.",
    Flag.REGION_CROPPED: "Only the picture of tissue is shown, without the frame round it.",
    Flag.BURNED_IN: "The file says that text is burned into the pixels.",
    Flag.LOSSY: "The pixels were compressed with loss before they came here.",
}


@dataclass(frozen=True)
class ShownImage:
    """One image or volume, and how its file of pixels is to be read.

    Attributes:
        number: Counted from 0 over all images of an upload.
        title: In words, without anything typed into a header.
        modality, unit, slope, intercept: See ``MedicalImage``.
        scale: Physical values at the 0.5 and 99.5 percentile of the volume.
        shape: Of the file of pixels: planes, rows, columns in the order of its axes.
        colour: Whether each pixel is three numbers.
        dtype: Of the numbers, little endian.
        spacing_mm: Along each axis; None where unknown.
        planes: That can be cut.
        native_plane: In which the slices were taken; the only plane, ``image``, for images without
            a place in the patient.
        reverse: The first slice of the file is the last along its axis.
        sides: Whether the file says which side is left.
        window: Physical values shown black and white at first.
        notes: What a reader must know of the picture.
        orientation: How slices became this volume; None where they stayed as they were.
    """

    number: int
    title: str
    modality: Modality
    unit: PixelUnit
    slope: float
    intercept: float
    scale: tuple[float, float]
    shape: tuple[int, int, int]
    colour: bool
    dtype: str
    spacing_mm: tuple[float | None, float | None, float | None]
    planes: tuple[str, ...]
    native_plane: str
    reverse: bool
    sides: bool
    window: tuple[float, float]
    notes: tuple[str, ...]
    orientation: PatientOrientation | None

    @property
    def slice_axis(self) -> int:
        """Axis of the shape along which the slices of the file lie."""
        return 0 if self.native_plane == AS_IN_FILE else _PLANES.index(self.native_plane)

    @property
    def slices(self) -> int:
        """How many slices the file had."""
        return self.shape[self.slice_axis]

    @property
    def pixel_mm(self) -> tuple[float | None, float | None]:
        """Height and width of a pixel of the file's slices; None where unknown."""
        if self.orientation is None:
            return self.spacing_mm[1:]
        places = [self.orientation.axes.index(axis) for axis in (1, 2)]
        return self.spacing_mm[places[0]], self.spacing_mm[places[1]]

    def for_page(self) -> dict[str, Any]:
        """Return what the page needs, as plain data."""
        return {k: v for k, v in asdict(self).items() if k not in ("orientation", "scale")}

    def facts(self) -> MedicalImage:
        """Return what preparation needs to know."""
        return MedicalImage(
            pixels=np.empty((0, 1, 1)),
            modality=self.modality,
            unit=self.unit,
            source=self.title,
            slope=self.slope,
            intercept=self.intercept,
        )

    def turned(self, slices: np.ndarray) -> np.ndarray:
        """Turn slices (S, H, W, ...) as this image's pixels were turned; a view."""
        return slices if self.orientation is None else self.orientation.to_patient(slices)

    def stored_slices(self, folder: Path) -> np.ndarray:
        """Return the pixels as slices in the order of the file, (S, H, W, ...), from the disk."""
        shape = (*self.shape, 3) if self.colour else self.shape
        pixels = np.memmap(
            pixels_file(folder, self.number), dtype=self.dtype, shape=shape, mode="r"
        )
        return pixels if self.orientation is None else self.orientation.to_slices(pixels)


def pixels_file(folder: Path, number: int) -> Path:
    """Return where the pixels of an image lie."""
    return folder / f"{number}.pixels"


def show_volume(volume: Volume, folder: Path, number: int) -> ShownImage:
    """Write the pixels of a volume, turned to the patient, and say how to read them.

    The volume's own pixels are let go; ``ShownImage.stored_slices`` gives them back from the disk.
    """
    image, details = volume.image, volume.image.details
    slices = np.stack(volume.stored)
    scale = scale_range(volume.stored, image.slope, image.intercept)
    volume.stored = []
    orientation = None
    if image.affine is not None and volume.in_space:
        orientation = patient_orientation(image.affine)
    turned = slices if orientation is None else orientation.to_patient(slices)
    write_numbers(pixels_file(folder, number), turned)
    plane = AS_IN_FILE if orientation is None else orientation.native_plane
    planes = _PLANES if orientation is not None and min(turned.shape[:3]) > 1 else (plane,)
    reverse = orientation is not None and orientation.flips[orientation.axes.index(0)]
    return ShownImage(
        number=number,
        title=_title(volume),
        modality=image.modality,
        unit=image.unit,
        slope=image.slope,
        intercept=image.intercept,
        scale=scale,
        shape=(turned.shape[0], turned.shape[1], turned.shape[2]),
        colour=turned.ndim == 4,
        dtype=turned.dtype.newbyteorder("<").str,
        spacing_mm=_spacing(image.spacing, orientation),
        planes=planes,
        native_plane=plane,
        reverse=reverse,
        sides=orientation is not None and bool(details.get("orientation_known", True)),
        window=_first_window(image, slices, scale),
        notes=_notes(volume, orientation),
        orientation=orientation,
    )


def write_numbers(path: Path, numbers: np.ndarray) -> None:
    """Write an array as plain little-endian numbers, first axis slowest; one plane at a time."""
    dtype = numbers.dtype.newbyteorder("<")
    with path.open("wb") as file:
        for plane in numbers:
            file.write(np.ascontiguousarray(plane, dtype=dtype).tobytes())


def _title(volume: Volume) -> str:
    slices, height, width = volume.shape
    modality = volume.image.modality
    word = "Image" if modality is Modality.OTHER else modality.upper()
    kind = "slices" if volume.in_space else "frames"
    count = "" if slices == 1 else f", {slices} {kind}"
    return f"{word} {width} × {height}{count}"


def _spacing(
    spacing: Spacing, orientation: PatientOrientation | None
) -> tuple[float | None, float | None, float | None]:
    own = (spacing.slice_mm, spacing.row_mm, spacing.column_mm)
    if orientation is None:
        return own
    first, second, third = (own[axis] for axis in orientation.axes)
    return first, second, third


def _first_window(
    image: MedicalImage, slices: np.ndarray, scale: tuple[float, float]
) -> tuple[float, float]:
    """Return the window of the file, else the usual one of the unit, else what the image holds."""
    window = image.details.get("window")
    if window is not None and np.isfinite(window).all() and window[1] > window[0]:
        return float(window[0]), float(window[1])
    if image.unit is PixelUnit.HU:
        return _USUAL_WINDOW_HU
    if image.unit is PixelUnit.SUV:
        return _USUAL_WINDOW_SUV
    if image.unit is PixelUnit.DISPLAY and slices.dtype == np.uint8:
        return 0.0, 255.0
    low, high = scale
    return (low, high) if high > low else (low, low + 1.0)


def _notes(volume: Volume, orientation: PatientOrientation | None) -> tuple[str, ...]:
    notes = [_FLAG_NOTES[flag] for flag in volume.flags if flag in _FLAG_NOTES]
    if orientation is None:
        notes.append("Shown as in the file, which does not say how it lies in the patient.")
    elif not volume.image.details.get("orientation_known", True):
        notes.append("The file does not say which side is left.")
    elif orientation.angle_deg > _OBLIQUE_DEG:
        notes.append(
            f"The slices are oblique by {orientation.angle_deg:.0f} degrees; planes are named "
            "after the nearest."
        )
    return tuple(notes)
