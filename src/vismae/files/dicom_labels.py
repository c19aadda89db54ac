"""DICOM segmentations (SEG) and structure sets (RTSTRUCT): what they describe, and as a label map.

Standard: PS3.3 A.51 and C.8.20 (segmentation), A.19 and C.8.8.5 to C.8.8.6 (structure set).
Reading of pixels and contours is in ``dicom_seg`` and ``dicom_rtstruct``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.uid import UID, RTStructureSetStorage, SegmentationStorage

from vismae.core.errors import UnreadableFileError
from vismae.core.types import MedicalImage
from vismae.files.dicom_quiet import quiet_pydicom
from vismae.files.dicom_rtstruct import (
    contoured_images,
    structure_set_patches,
    structure_set_rois,
)
from vismae.files.dicom_seg import segment_names, segmentation_patches, segmented_images
from vismae.files.dicom_zeros import until_zeros
from vismae.files.discover import SourceFile
from vismae.files.label_slices import LabelSlices, cut_like_image, not_on_image, paint
from vismae.files.reasons import Reason

LabelKind = Literal["seg", "rtstruct"]

LABEL_CLASSES: dict[str, LabelKind] = {
    SegmentationStorage: "seg",
    UID("1.2.840.10008.5.1.4.1.1.66.7"): "seg",  # label map segmentation
    RTStructureSetStorage: "rtstruct",
}
"""SOP classes that ``describe_labels`` understands."""

_KIND_OF_MODALITY: dict[str, LabelKind] = {"SEG": "seg", "RTSTRUCT": "rtstruct"}


@dataclass(frozen=True)
class LabelObject:
    """What a segmentation or structure set says about itself.

    Attributes:
        kind: ``seg`` or ``rtstruct``.
        series: SeriesInstanceUIDs of the images that it was drawn on, as far as it names them.
        frame_of_reference: FrameOfReferenceUID, or None.
        structures: Class names in the file's order, each once.
        instances: SOPInstanceUIDs of the images that it was drawn on, where it names no series.
    """

    kind: LabelKind
    series: tuple[str, ...]
    frame_of_reference: str | None
    structures: tuple[str, ...]
    instances: tuple[str, ...] = ()


def describe_labels(dataset: Dataset, name: str) -> LabelObject:
    """Return what a label object describes; pixels are not needed.

    Structures are segments (``SegmentLabel``) and ROIs with at least one closed contour
    (``ROIName``). These are typed by hand and may hold a patient's name: see ``structure_name``
    for how they become class names.

    Args:
        dataset: Whole header, as read with ``stop_before_pixels``.
        name: Of the file, for messages.

    Raises:
        UnreadableFileError: ``label-format`` for any other DICOM object; ``label-empty`` without
            a structure.
    """
    kind = _kind(dataset, name)
    with quiet_pydicom():
        names = segment_names(dataset) if kind == "seg" else structure_set_rois(dataset)
        if not names:
            what = "segment" if kind == "seg" else "ROI with a closed contour"
            raise UnreadableFileError(
                Reason.LABEL_EMPTY, f"{name}: describes no {what}. Leave the file out."
            )
        series = tuple(dict.fromkeys(_series(dataset)))
        drawn_on = segmented_images if kind == "seg" else contoured_images
        keys = () if series else (key for keys in drawn_on(dataset) for key in keys)
        return LabelObject(
            kind,
            series,
            _frame_of_reference(dataset),
            tuple(dict.fromkeys(names.values())),
            tuple(dict.fromkeys(key.partition(":")[0] for key in keys)),
        )


def read_dicom_labels(
    file: SourceFile, image: MedicalImage, values: Mapping[str, int]
) -> tuple[np.ndarray, bool]:
    """Draw a label object on an image.

    Frames and contours find their slices by the instances they refer to and by position; a
    segmentation on another grid parallel to the slices is resampled by nearest neighbour. Larger
    structures are painted first. Fractional segmentations count from half of their maximum.

    Args:
        file: The segmentation or structure set.
        image: As ``read_dicom`` gives it. Its frame of reference is looked up in
            ``details["frame_of_reference"]``; where that is not known, the label object must
            name the image's series or one of its instances.
        values: Class name -> class number, from 1. Structures not named are left out.

    Returns:
        Class numbers, int32 (S, H, W) as the image's slices, and whether structures of
        different classes overlap.

    Raises:
        UnreadableFileError: ``label-geometry`` if it lies in another space, at an angle, or
            wholly beside the image; ``label-format`` and ``label-empty`` as ``describe_labels``;
            ``truncated``, ``no-pixels`` or ``undecodable``.
    """
    try:
        with file.open() as stream, quiet_pydicom():
            dataset = pydicom.dcmread(until_zeros(stream), force=True)
            return _draw(dataset, file.name, image, values)
    except UnreadableFileError:
        raise
    except EOFError as error:
        raise UnreadableFileError(
            Reason.TRUNCATED, f"{file.name}: ends too early ({error}). Copy the file again."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises anything on damaged elements
        raise UnreadableFileError(
            Reason.UNDECODABLE,
            f"{file.name}: the segmentation or structure set is damaged ({type(error).__name__}). "
            f"Fetch the file again from its source, or leave it out.",
        ) from error


def _draw(
    dataset: Dataset, name: str, image: MedicalImage, values: Mapping[str, int]
) -> tuple[np.ndarray, bool]:
    described = describe_labels(dataset, name)
    slices = LabelSlices(image, name)
    known = image.details.get("frame_of_reference")
    named = image.details.get("series_uid") in described.series
    # Programs are known to make up a frame of reference, so a series named by its UID wins.
    space = described.frame_of_reference
    if not named and known and space and known != space:
        raise not_on_image(name, image.source, "it has another frame of reference")
    same_space = named or bool(known and known == described.frame_of_reference)
    if described.kind == "seg":
        names = segment_names(dataset)
        wanted = {number: values[text] for number, text in names.items() if text in values}
        patches = segmentation_patches(dataset, slices, wanted, name, named, same_space)
    else:
        names = structure_set_rois(dataset)
        wanted = {number: values[text] for number, text in names.items() if text in values}
        patches = structure_set_patches(dataset, slices, wanted, name, same_space)
    drawn = [(value, patches.get(number, [])) for number, value in wanted.items()]
    label_map, overlapping = paint(drawn, slices.shape)
    return cut_like_image(label_map, image), overlapping


def _kind(dataset: Dataset, name: str) -> LabelKind:
    storage, modality = dataset.get("SOPClassUID"), str(dataset.get("Modality") or "").upper()
    kind = LABEL_CLASSES.get(storage) if storage else _KIND_OF_MODALITY.get(modality)
    if kind is None:
        raise UnreadableFileError(
            Reason.LABEL_FORMAT,
            f"{name}: a DICOM object of Modality '{modality}' where a segmentation (SEG) or "
            f"structure set (RTSTRUCT) was expected.",
        )
    return kind


def _series(dataset: Dataset) -> Iterator[str]:
    """Yield the UIDs of all series that are referred to."""
    holders = [dataset, *(dataset.get("StudiesContainingOtherReferencedInstancesSequence") or ())]
    for space in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        holders.extend(space.get("RTReferencedStudySequence") or ())
    for holder in holders:
        for tag in ("ReferencedSeriesSequence", "RTReferencedSeriesSequence"):
            for series in holder.get(tag) or ():
                if series.get("SeriesInstanceUID"):
                    yield str(series.SeriesInstanceUID)


def _frame_of_reference(dataset: Dataset) -> str | None:
    holders = (
        dataset,
        *(dataset.get("ReferencedFrameOfReferenceSequence") or ()),
    )
    for holder in holders:
        if holder.get("FrameOfReferenceUID"):
            return str(holder.FrameOfReferenceUID)
    for region in dataset.get("StructureSetROISequence") or ():
        if region.get("ReferencedFrameOfReferenceUID"):
            return str(region.ReferencedFrameOfReferenceUID)
    return None
