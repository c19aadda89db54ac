"""One DICOM file to frames: pixels with their scale, place and what is noted about them."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.tag import Tag

from vismae.core.errors import UnreadableFileError
from vismae.core.types import Flag, Modality, PixelUnit
from vismae.files.dicom_concatenation import Part, part_of
from vismae.files.dicom_decode import (
    NEEDED_NUMBERS,
    decode_pixels,
    require_frames,
    require_pixels,
)
from vismae.files.dicom_facts import header_facts
from vismae.files.dicom_geometry import (
    FramePlane,
    frame_plane,
    require_place,
)
from vismae.files.dicom_grey import GreyValues, grey_values
from vismae.files.dicom_header import Header, Known
from vismae.files.dicom_kinds import frame_dimensions, volume_kinds, written_value
from vismae.files.dicom_mosaic import mosaic_of
from vismae.files.dicom_numbers import number as number_of
from vismae.files.dicom_numbers import readable, require_numbers, whole_number
from vismae.files.dicom_objects import CROSS_SECTIONS, image_type_words, modality_of, require_image
from vismae.files.dicom_suv import BedTimes
from vismae.files.dicom_text import one_text, writable
from vismae.files.dicom_ultrasound import picture_region, shows_colour_flow
from vismae.files.dicom_units import FrameScale, frame_scales
from vismae.files.dicom_window import display_window
from vismae.files.dicom_zeros import read_whole
from vismae.files.discover import SourceFile
from vismae.files.pixels import grey_if_equal
from vismae.files.reasons import Reason

logger = logging.getLogger(__name__)

_TIMES = (Tag("AcquisitionTime"), Tag("ContentTime"))


@dataclass(frozen=True)
class Frame:
    """One decoded frame with what its own header says.

    Attributes:
        pixels: (H, W) or (H, W, 3).
        plane: Its place.
        scale: Its slope, intercept and unit.
        modality: How it was made.
        key: SOPInstanceUID, a colon and the frame's number from 1; of a mosaic the tile's.
        order: Sorts frames of one position, or all where positions are unknown.
        kinds: What may tell apart volumes at the same positions; see ``order_volumes``.
        source: The file it came from.
        flags: What was noticed.
        window: Physical values that its header's window maps to black and white, or None.
        identifiers: ``patient_id``, ``study_uid`` and ``series_uid``.
        facts: See ``header_facts``.
        crop: Where ``pixels`` lie in the whole frame (top, left, height, width); None if they are
            the whole.
        full_shape: Height and width of the whole frame.
        tiled: Whether it is a tile of a mosaic.
        part: That file's place in a concatenation, or None.
        nothing_valid: Whether it is padding alone.
    """

    pixels: np.ndarray
    plane: FramePlane
    scale: FrameScale
    modality: Modality
    key: str
    order: tuple[Any, ...]
    kinds: tuple[Any, ...]
    source: str
    flags: frozenset[Flag]
    window: tuple[float, float] | None
    identifiers: dict[str, str | None]
    facts: dict[str, str | None]
    crop: tuple[int, int, int, int] | None
    full_shape: tuple[int, int]
    tiled: bool = False
    part: Part | None = None
    nothing_valid: bool = False

    @property
    def whole(self) -> str:
        """Tells the object that the frame belongs to: its file, or what that is a part of."""
        return self.source if self.part is None else self.part.uid


def read_frames(
    file: SourceFile,
    modality: Modality | None,
    keep: frozenset[Flag],
    facts: dict[str, str | None] | None = None,
    known: Known | None = None,
    beds: BedTimes | None = None,
) -> list[Frame]:
    """Read all frames of one file.

    Args:
        file: The file.
        modality: Overrides what the header says.
        keep: Kinds of image that are not refused; see ``require_image``.
        facts: Of a file of the same series, which then are not looked up again.
        known: Converted values of the headers of the series.
        beds: Of a PET series.

    Raises:
        UnreadableFileError: The only exception.
    """
    try:
        with file.open() as stream:
            dataset = Header.of(read_whole(stream, file.name), {} if known is None else known)
        facts = facts or header_facts(dataset)
        return _frames_of(dataset, file.name, modality, keep, facts, beds)
    except UnreadableFileError:
        raise
    except EOFError as error:
        raise UnreadableFileError(
            Reason.TRUNCATED, f"{file.name}: ends too early. Copy the file again."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises anything on damaged elements
        # Its message may quote a header value, which may be a name.
        raise UnreadableFileError(
            Reason.UNDECODABLE,
            f"{file.name}: the DICOM header or pixels are damaged ({type(error).__name__}). "
            f"Fetch the file again from its source, or leave it out.",
        ) from error


def _frames_of(
    dataset: Dataset,
    name: str,
    wanted: Modality | None,
    keep: frozenset[Flag],
    facts: dict[str, str | None],
    beds: BedTimes | None,
) -> list[Frame]:
    flags = require_image(dataset, name, keep)
    require_pixels(dataset, name)
    require_numbers(dataset, NEEDED_NUMBERS, name)
    # Before anything is done for each of the frames that a header promises.
    require_frames(dataset, name)
    modality = wanted or modality_of(dataset)
    of_a_screen = wanted is None and Flag.SECONDARY_CAPTURE in flags
    # Units and regions first: a file without them need not be decoded.
    scales = frame_scales(dataset, modality, name, of_a_screen, beds)
    region = picture_region(dataset, name) if modality is Modality.US else None
    pixels = decode_pixels(dataset, name)
    values = GreyValues(pixels)
    if pixels.ndim == 3:
        values = grey_values(
            pixels,
            dataset,
            for_the_eye=scales[0].unit is PixelUnit.DISPLAY,
            slope=scales[0].slope,
            intercept=scales[0].intercept,
            lossy=Flag.LOSSY in flags,
        )
        pixels = values.pixels
    planes = [frame_plane(dataset, number) for number in range(len(scales))]
    for number, plane in enumerate(planes):
        if modality in CROSS_SECTIONS and not (plane.located and plane.row_mm):
            require_place(dataset, number, name)
    mosaic = mosaic_of(dataset, pixels.shape, name)
    if mosaic is not None:
        planes = mosaic.planes(planes[0], pixels.shape[1:])
        pixels = mosaic.tiles(pixels[0])
        scales = [scales[0]] * mosaic.count
    full_shape = (int(pixels.shape[1]), int(pixels.shape[2]))
    crop = None
    if region is not None:
        size = (region.bottom - region.top, region.right - region.left)
        crop = (region.top, region.left, *size)
        pixels = pixels[:, region.top : region.bottom, region.left : region.right]
        flags |= {Flag.REGION_CROPPED}
    if pixels.ndim == 4:
        pixels = grey_if_equal(pixels)
    if modality is Modality.US and shows_colour_flow(dataset, pixels):
        flags |= {Flag.COLOUR_DOPPLER}
    identifiers = _identifiers(dataset)
    uid = writable(str(dataset.get("SOPInstanceUID") or "")) or name
    part = part_of(dataset)
    frames: list[Frame] = []
    for number, (scale, plane) in enumerate(zip(scales, planes, strict=True)):
        applied = FrameScale(1.0, 0.0, scale.unit) if values.rescaled else scale
        frames.append(
            Frame(
                pixels=pixels[number],
                plane=plane,
                scale=applied,
                modality=modality,
                key=f"{uid}:{number + 1}",
                order=_acquisition_order(dataset, number, name, plane.located, part),
                kinds=volume_kinds(dataset, number),
                source=name,
                flags=flags,
                window=_window(dataset, number, scale, values) if pixels.ndim == 3 else None,
                identifiers=identifiers,
                facts=facts,
                crop=crop,
                full_shape=full_shape,
                tiled=mosaic is not None,
                part=part,
                nothing_valid=values.nothing_valid,
            )
        )
    return frames


def _window(
    dataset: Dataset, frame: int, scale: FrameScale, values: GreyValues
) -> tuple[float, float] | None:
    """Return a frame's window in the physical values that the image is handed on in."""
    window = None if values.tabled else display_window(dataset, frame)
    if window is None:
        return None
    low, high = (end * scale.factor for end in window)
    if values.turned_about is not None:
        # stored -> turned_about - stored, seen through slope and intercept
        about = values.turned_about * scale.slope + 2.0 * scale.intercept
        low, high = about - high, about - low
    return low, high


def _acquisition_order(
    dataset: Dataset, frame: int, name: str, located: bool, part: Part | None
) -> tuple[Any, ...]:
    """Return what sorts frames at one position, or all frames where positions are unknown."""
    # Some scanners count the slices of each phase from 1 again.
    times = (written_value(dataset, tag) for tag in _TIMES)
    number = whole_number(dataset, "InstanceNumber")
    offset = 0 if part is None else part.offset
    instance = (offset, number, *times, number_of(dataset, "TriggerTime") or 0.0, name, frame)
    if not located:
        return instance
    return (
        "/".join(image_type_words(dataset)),
        frame_dimensions(dataset, frame),
        whole_number(dataset, "TemporalPositionIdentifier"),
        str(readable(dataset, "EchoNumbers") or ""),
        number_of(dataset, "DiffusionBValue") or 0.0,
        whole_number(dataset, "AcquisitionNumber"),
        *instance,
    )


def _identifiers(dataset: Dataset) -> dict[str, str | None]:
    tags = {
        "patient_id": "PatientID",
        "study_uid": "StudyInstanceUID",
        "series_uid": "SeriesInstanceUID",
        "frame_of_reference": "FrameOfReferenceUID",
    }
    texts = {key: writable(one_text(dataset.get(tag))) for key, tag in tags.items()}
    return {key: text.strip() or None for key, text in texts.items()}
