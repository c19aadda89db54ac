"""Writers of real DICOM segmentations (through highdicom) and structure sets, for any test."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
    SegmentationStorage,
    generate_uid,
)

from factories import write_dicom_series

# What a segmentation must copy from its images beside what the image factory writes.
PATIENT_TAGS: dict[str, Any] = {
    "PatientName": "Doe^Jane",
    "PatientBirthDate": "19500607",
    "PatientSex": "F",
    "StudyDate": "20240101",
    "StudyTime": "100000",
    "AccessionNumber": "",
    "StudyID": "",
    "ReferringPhysicianName": "",
    "Manufacturer": "",
    "SeriesNumber": 1,
    "FrameOfReferenceUID": "1.2.3.4",
    "PositionReferenceIndicator": "",
    "SliceThickness": 5.0,
}


def write_labelled_series(folder: Path, volume: np.ndarray, **options: Any) -> list[Path]:
    """Write a series with all that a segmentation or structure set refers to."""
    return write_dicom_series(folder, volume, **{**PATIENT_TAGS, **options})


def write_seg(
    path: Path,
    series: Sequence[Path],
    segments: Mapping[str, np.ndarray],
    kind: str = "BINARY",
    **options: Any,
) -> Path:
    """Write a segmentation.

    Args:
        path: Where to.
        series: Files of the images, in the order of the arrays' slices.
        segments: Label -> (S, H, W); bool, for FRACTIONAL also float from 0 to 1.
        kind: ``BINARY``, ``FRACTIONAL`` or ``LABELMAP``.
        **options: Of ``highdicom.seg.Segmentation``, such as ``plane_positions``.
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes

    stacked = np.stack(list(segments.values()), axis=-1)
    if stacked.dtype == bool:
        stacked = stacked.astype(np.uint8)
    described = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in enumerate(segments, start=1)
    ]
    written = hd.seg.Segmentation(
        source_images=[pydicom.dcmread(image) for image in series],
        pixel_array=stacked,
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    written.save_as(path)
    return path


def write_rtstruct(
    path: Path,
    series: Sequence[Path],
    contours: Mapping[str, Sequence[np.ndarray]],
    kinds: Mapping[str, str] | None = None,
    refer_to_images: bool = True,
    **tags: Any,
) -> Path:
    """Write a structure set.

    Args:
        path: Where to.
        series: Files of the images.
        contours: ROI name -> contours, each (N, 3) in mm, LPS.
        kinds: ROI name -> contour type; CLOSED_PLANAR where not given.
        refer_to_images: Give each contour the image whose plane is nearest to it.
        **tags: Further elements; None takes one away.
    """
    images = [pydicom.dcmread(image, stop_before_pixels=True) for image in series]
    first = images[0]
    dataset = Dataset()
    for tag in ("PatientID", "StudyInstanceUID", *PATIENT_TAGS):
        if tag in first and tag not in ("PositionReferenceIndicator", "SliceThickness"):
            dataset[tag] = first[tag]
    dataset.SOPClassUID = RTStructureSetStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.Modality = "RTSTRUCT"
    dataset.StructureSetLabel = "test"
    dataset.ReferencedFrameOfReferenceSequence = DicomSequence([_referenced_frame(images)])
    regions, drawn = [], []
    for number, (name, polygons) in enumerate(contours.items(), start=1):
        region, outline = Dataset(), Dataset()
        region.ROINumber, region.ROIName = number, name
        region.ReferencedFrameOfReferenceUID = first.FrameOfReferenceUID
        outline.ReferencedROINumber = number
        kind = (kinds or {}).get(name, "CLOSED_PLANAR")
        outline.ContourSequence = DicomSequence(
            [_contour(points, kind, images if refer_to_images else []) for points in polygons]
        )
        regions.append(region)
        drawn.append(outline)
    dataset.StructureSetROISequence = DicomSequence(regions)
    dataset.ROIContourSequence = DicomSequence(drawn)
    for tag, value in tags.items():
        if value is None:
            delattr(dataset, tag)
        else:
            setattr(dataset, tag, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _referenced_frame(images: Sequence[Dataset]) -> Dataset:
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    series.ContourImageSequence = DicomSequence([_reference(image) for image in images])
    study.ReferencedSOPInstanceUID = images[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = DicomSequence([series])
    frame.FrameOfReferenceUID = images[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = DicomSequence([study])
    return frame


def _contour(points: np.ndarray, kind: str, images: Sequence[Dataset]) -> Dataset:
    contour = Dataset()
    contour.ContourGeometricType = kind
    contour.NumberOfContourPoints = len(points)
    contour.ContourData = [f"{value:.6f}"[:16] for value in np.asarray(points).ravel()]
    if images:
        orientation = np.array(images[0].ImageOrientationPatient, dtype=float)
        normal = np.cross(orientation[:3], orientation[3:])
        height = float(np.mean(points @ normal))
        nearest = min(
            images, key=lambda i: abs(np.array(i.ImagePositionPatient, float) @ normal - height)
        )
        contour.ContourImageSequence = DicomSequence([_reference(nearest)])
    return contour


def _reference(image: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = image.SOPClassUID
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return reference


def write_plain_seg(path: Path, inside: np.ndarray, film: Path) -> Path:
    """Write one binary frame without any position, as for radiographs."""
    image = pydicom.dcmread(film, stop_before_pixels=True)
    reference, derivation, segment, identified = Dataset(), Dataset(), Dataset(), Dataset()
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    derivation.SourceImageSequence = [reference]
    segment.SegmentNumber, segment.SegmentLabel = 1, "Lung"
    identified.ReferencedSegmentNumber = 1
    frame = Dataset()
    frame.DerivationImageSequence = [derivation]
    frame.SegmentIdentificationSequence = [identified]
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = SegmentationStorage, generate_uid()
    dataset.Modality, dataset.SegmentationType = "SEG", "BINARY"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = image.StudyInstanceUID, generate_uid()
    dataset.SegmentSequence = [segment]
    dataset.PerFrameFunctionalGroupsSequence = [frame]
    dataset.NumberOfFrames, dataset.SamplesPerPixel = 1, 1
    dataset.Rows, dataset.Columns = inside.shape
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = dataset.PixelRepresentation = 0
    dataset.PixelData = np.packbits(inside.ravel(), bitorder="little").tobytes()
    dataset["PixelData"].VR = "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    return path
