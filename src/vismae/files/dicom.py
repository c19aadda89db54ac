"""DICOM files to images: one ``MedicalImage`` for each geometrically consistent stack.

Geometry is in ``dicom_geometry``, pixel decoding in ``dicom_decode``, units in ``dicom_units``.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import get_nr_frames

from vismae.core.errors import UnreadableFileError
from vismae.core.types import Flag, MedicalImage, Modality, PixelUnit
from vismae.files.dicom_decode import clean_stored_values, decode_pixels
from vismae.files.dicom_geometry import (
    FramePlane,
    frame_plane,
    functional_group,
    order_volumes,
    volume_geometry,
)
from vismae.files.dicom_units import (
    Rescale,
    find_rescale,
    no_rescale,
    no_suv,
    suv_factor,
    unit_of,
)
from vismae.files.discover import RejectedFile, SourceFile
from vismae.files.pixels import grey_if_equal
from vismae.files.reasons import Reason

logger = logging.getLogger(__name__)

_NOT_IMAGES = {
    "SR": "a structured report",
    "PR": "a presentation state",
    "KO": "a key object selection",
    "SEG": "a segmentation",
    "RTSTRUCT": "a structure set",
    "RTDOSE": "a dose distribution",
    "RTPLAN": "a treatment plan",
    "RTRECORD": "a treatment record",
    "REG": "a registration",
    "FID": "a set of fiducials",
    "RWV": "a real-world value map",
    "SMR": "a stereometric relation",
    "M3D": "a 3D model",
    "DOC": "a document",
    "PLAN": "a plan",
    "ANN": "a set of annotations",
    "ECG": "a waveform",
    "EPS": "a waveform",
    "HD": "a waveform",
    "RESP": "a waveform",
    "AU": "a sound",
}
# Cross-sections without positions may still be stacked by number; two radiographs may not.
_CROSS_SECTIONS = {Modality.CT, Modality.MR, Modality.PET}


@dataclass(frozen=True)
class _Frame:
    """One decoded frame with what its own header says."""

    pixels: np.ndarray
    plane: FramePlane
    slope: float
    intercept: float
    unit: PixelUnit
    modality: Modality
    key: str
    order: tuple[Any, ...]
    file_index: int
    source: str
    facts: dict[str, str | None]


def read_dicom(
    files: Sequence[SourceFile],
    modality: Modality | None = None,
    keep: frozenset[Flag] = frozenset(),
) -> list[MedicalImage]:
    """Read the files of one series, or one file.

    CT comes in Hounsfield units, PET in SUV by body weight. Slices are ordered by position along
    the slice normal; frames of another shape, orientation or pixel size, and positions that
    occur again, become images of their own. Radiographs and ultrasound without positions are one
    image for each file, with the frames of a cine as slices. Where slices differ in slope or
    intercept the pixels are float32 physical values.

    ``details`` holds ``series_uid``, ``series_description``, ``body_part`` and
    ``burned_in_annotation`` (as the header says, or None), ``slice_keys`` and ``slice_sources``
    and ``planes`` (one per slice), ``slices_in_space``, ``regular_spacing``; on the first image
    ``rejected_files``, a tuple of ``RejectedFile`` for the files that could not be used.

    Args:
        files: One series as ``group_series`` gives it, in any order.
        modality: Overrides what the header says, and with it the unit.

    Raises:
        UnreadableFileError: No file could be used; carries the first file's reason.
    """
    frames: list[_Frame] = []
    rejected: list[RejectedFile] = []
    first_error: UnreadableFileError | None = None
    with disable_value_validation():
        for index, file in enumerate(files):
            try:
                frames.extend(_read_frames(file, index, modality))
            except UnreadableFileError as error:
                first_error = first_error or error
                rejected.append(RejectedFile(file.name, Reason(error.reason), str(error)))
        if not frames:
            raise first_error or UnreadableFileError(
                Reason.NO_PIXELS, "no DICOM file was given. Give at least one."
            )
        frames = _without_copies(frames)
        images = [
            _assemble([stack[index] for index in volume])
            for stack in _stacks(frames)
            for volume in order_volumes(
                [frame.plane for frame in stack], [frame.order for frame in stack]
            )
        ]
    images[0].details["rejected_files"] = tuple(rejected)
    return images


def _read_frames(file: SourceFile, index: int, modality: Modality | None) -> list[_Frame]:
    try:
        with file.open() as stream:
            dataset = pydicom.dcmread(stream, force=True)
        return _frames_of(dataset, file.name, index, modality)
    except UnreadableFileError:
        raise
    except EOFError as error:
        raise UnreadableFileError(
            Reason.TRUNCATED, f"{file.name}: ends too early ({error}). Copy the file again."
        ) from error
    except Exception as error:  # pydicom raises anything on damaged elements
        raise UnreadableFileError(
            Reason.UNDECODABLE,
            f"{file.name}: the DICOM header or pixels are damaged ({type(error).__name__}: "
            f"{error}). Fetch the file again from its source, or leave it out.",
        ) from error


def _frames_of(
    dataset: Dataset, name: str, file_index: int, wanted: Modality | None
) -> list[_Frame]:
    _require_image(dataset, name)
    modality = wanted or Modality.parse(str(dataset.get("Modality") or ""))
    # Units first: a file without a unit need not be decoded.
    rescales = _rescales(dataset, modality, name)
    pixels = decode_pixels(dataset, name)
    if pixels.ndim == 3:
        physical = rescales[0][2] in (PixelUnit.HU, PixelUnit.SUV)
        pixels = clean_stored_values(pixels, dataset, show_bright_as_bright=not physical)
        if dataset.get("ModalityLUTSequence"):
            pixels = apply_modality_lut(pixels, dataset)
    uid = str(dataset.get("SOPInstanceUID") or name)
    planes = [frame_plane(dataset, frame) for frame in range(len(pixels))]
    return [
        _Frame(
            pixels=pixels[frame],
            plane=planes[frame],
            slope=slope,
            intercept=intercept,
            unit=unit,
            modality=modality,
            key=f"{uid}:{frame + 1}",
            order=_acquisition_order(dataset, frame, name, planes[frame].located),
            file_index=file_index,
            source=name,
            facts=_facts(dataset),
        )
        for frame, (slope, intercept, unit) in enumerate(rescales)
    ]


def _require_image(dataset: Dataset, name: str) -> None:
    if len(dataset) == 0:
        raise UnreadableFileError(
            Reason.TRUNCATED, f"{name}: ends before the first DICOM element. Copy the file again."
        )
    code = str(dataset.get("Modality") or "").strip().upper()
    if code in _NOT_IMAGES:
        raise UnreadableFileError(
            Reason.NOT_AN_IMAGE,
            f"{name}: {_NOT_IMAGES[code]} (Modality {code}), not an image. Leave it out.",
        )
    image_type = dataset.get("ImageType") or ()
    words = [image_type] if isinstance(image_type, str) else list(image_type)
    if any(str(word).strip().upper() == "LOCALIZER" for word in words):
        raise UnreadableFileError(
            Reason.LOCALIZER,
            f"{name}: a localizer (ImageType {'/'.join(map(str, words))}), made to plan the scan. "
            f"Leave it out.",
        )


def _rescales(
    dataset: Dataset, modality: Modality, name: str
) -> list[tuple[float, float, PixelUnit]]:
    """Return slope, intercept and unit of every frame."""
    if modality is Modality.CT and int(dataset.get("SamplesPerPixel") or 1) > 1:
        raise no_rescale(name, "It is a colour picture")
    factor = suv_factor(dataset, name) if modality is Modality.PET else 1.0
    table = dataset.get("ModalityLUTSequence")
    table_kind = str(table[0].get("ModalityLUTType") or "").upper() if table else ""
    if table and modality is Modality.CT and table_kind != "HU":
        raise no_rescale(name, f"Its ModalityLUTType is '{table_kind}'")
    result = []
    for frame in range(get_nr_frames(dataset, warn=False)):
        group = functional_group(dataset, frame, "PixelValueTransformationSequence")
        found = Rescale(1.0, 0.0, table_kind) if table else find_rescale(dataset, group)
        if found is None and modality is Modality.CT:
            raise no_rescale(name, "RescaleSlope and RescaleIntercept are missing")
        if found is None and modality is Modality.PET:
            raise no_suv(name, "RescaleSlope is missing")
        found = found or Rescale(1.0, 0.0, "")
        unit = unit_of(modality, found.kind)
        result.append((found.slope * factor, found.intercept * factor, unit))
    return result


def _acquisition_order(dataset: Dataset, frame: int, name: str, located: bool) -> tuple[Any, ...]:
    """Return what sorts frames at one position, or all frames where positions are unknown."""
    instance = (_integer(dataset.get("InstanceNumber")), name, frame)
    if not located:
        return instance
    content = functional_group(dataset, frame, "FrameContentSequence") or Dataset()
    dimensions = content.get("DimensionIndexValues") or ()
    image_type = dataset.get("ImageType") or ""
    return (
        image_type if isinstance(image_type, str) else "/".join(map(str, image_type)),
        tuple(map(int, dimensions if not isinstance(dimensions, int) else (dimensions,))),
        _integer(dataset.get("TemporalPositionIdentifier")),
        str(dataset.get("EchoNumbers") or ""),
        float(dataset.get("DiffusionBValue") or 0.0),
        _integer(dataset.get("AcquisitionNumber")),
        *instance,
    )


def _integer(value: Any) -> int:
    return 0 if value in (None, "") else int(value)


def _facts(dataset: Dataset) -> dict[str, str | None]:
    """Return the header's own words that are handed on."""
    tags = {
        "series_uid": "SeriesInstanceUID",
        "series_description": "SeriesDescription",
        "body_part": "BodyPartExamined",
        "burned_in_annotation": "BurnedInAnnotation",
        "patient_id": "PatientID",
    }
    return {key: str(dataset.get(tag) or "").strip() or None for key, tag in tags.items()}


def _without_copies(frames: list[_Frame]) -> list[_Frame]:
    """Drop frames that came twice, as when a folder holds a copy of a file."""
    kept: dict[str, _Frame] = {}
    result = []
    for frame in frames:
        known = kept.setdefault(frame.key, frame)
        if known is not frame and np.array_equal(known.pixels, frame.pixels):
            logger.info("%s: left out, the same image as %s", frame.source, known.source)
            continue
        result.append(frame)
    return result


def _stacks(frames: list[_Frame]) -> list[list[_Frame]]:
    """Divide frames into sets of one shape, unit, orientation and pixel size."""
    stacks: list[list[_Frame]] = []
    for frame in frames:
        home = next((stack for stack in stacks if _belongs(frame, stack[0])), None)
        if home is None:
            stacks.append([frame])
        else:
            home.append(frame)
    return stacks


def _belongs(frame: _Frame, first: _Frame) -> bool:
    if frame.pixels.shape != first.pixels.shape or frame.unit is not first.unit:
        return False
    if not frame.plane.parallel_to(first.plane):
        return False
    return (
        frame.plane.located
        or frame.modality in _CROSS_SECTIONS
        or frame.file_index == first.file_index
    )


def _assemble(frames: list[_Frame]) -> MedicalImage:
    first = frames[0]
    pixels, slope, intercept = _one_scale(frames)
    if pixels.ndim == 4:
        pixels = grey_if_equal(pixels)
    geometry = volume_geometry([frame.plane for frame in frames])
    facts = dict(first.facts)
    return MedicalImage(
        pixels=pixels,
        modality=first.modality,
        unit=first.unit,
        source=first.source,
        slope=slope,
        intercept=intercept,
        spacing=geometry.spacing,
        patient_id=facts.pop("patient_id"),
        affine=geometry.affine,
        details={
            **facts,
            "slice_keys": [frame.key for frame in frames],
            "slice_sources": [frame.source for frame in frames],
            "planes": tuple(frame.plane for frame in frames),
            "slices_in_space": geometry.in_space,
            "regular_spacing": geometry.regular,
        },
    )


def _one_scale(frames: list[_Frame]) -> tuple[np.ndarray, float, float]:
    """Return stacked pixels with one slope and intercept; lossless where all slices agree."""
    first = frames[0]
    if all((f.slope, f.intercept) == (first.slope, first.intercept) for f in frames):
        return np.stack([frame.pixels for frame in frames]), first.slope, first.intercept
    physical = np.empty((len(frames), *first.pixels.shape), dtype=np.float32)
    for index, frame in enumerate(frames):
        physical[index] = frame.pixels.astype(np.float64) * frame.slope + frame.intercept
    return physical, 1.0, 0.0
