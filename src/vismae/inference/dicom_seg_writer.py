"""Label maps as DICOM segmentations through highdicom.

Standard: PS3.3 A.51 and C.8.20. Segmentations are BINARY: of the label map kind of 2024
SimpleITK reads nothing. Images without a frame of reference (ultrasound, radiographs, anonymised
series) have no place in the patient; their frames are told by the frames they refer to, as
C.7.6.16.2.6 allows.
"""

import copy
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.pixels.utils import pack_bits
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage, generate_uid

from vismae.core.collector import collector_paused
from vismae.files.dicom_geometry import SAME_POSITION_MM, frame_plane, functional_group
from vismae.files.dicom_quiet import quiet_pydicom
from vismae.files.discover import SourceFile
from vismae.inference.dicom_frame_groups import encode_frame_groups
from vismae.inference.dicom_source import (
    in_dicom,
    refused,
    require_highdicom,
    say_characters,
    series_number,
    source_header,
)
from vismae.inference.output_files import whole_or_none

_GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
# Nor is a pixel's size of any use without its place: GDCM refuses the one without the other.
_NOT_OF_ONE_UNPLACED = (
    *("NumberOfFrames", "FrameIncrementPointer", "FrameOfReferenceUID", "ImagePositionPatient"),
    *("ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *_GROUPS,
)

_MEASURES = "PixelMeasuresSequence"
_TOLD_IN_GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    _MEASURES: ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
}


@dataclass(frozen=True)
class SegmentationFacts:
    """What a segmentation says of itself beside its pixels.

    Attributes:
        classes: Names; class 0 is the background and no segment.
        identity: Text that decides the UIDs: the same request on the same instances gives the
            same object, so that nothing is ever stored twice.
        device: Names the weights, at most 64 characters.
    """

    classes: tuple[str, ...]
    identity: str
    device: str


def write_dicom_seg(
    path: Path, files: Sequence[SourceFile], labels: np.ndarray, facts: SegmentationFacts
) -> None:
    """Write one segmentation of the frames of one series.

    Args:
        path: Ends with ``.dcm``.
        files: One file for each slice, in the order of ``labels``; or one multi-frame file, whose
            frames ``labels`` are.
        labels: (S, H, W) class numbers in the full size of the frames.
        facts: What else to write.

    Raises:
        SettingError: highdicom is not installed.
        DataError: A header lacks what a segmentation must refer to.
    """
    require_highdicom()
    # Thousands of elements are made, and the collector took a quarter of the time.
    with quiet_pydicom(), collector_paused():
        headers = [source_header(file) for file in files]
        told_in_groups = len(headers) > 1 and all(_is_one_enhanced_frame(each) for each in headers)
        true_class = headers[0].SOPClassUID
        for header in headers if told_in_groups else []:
            _take_out_of_groups(header)
        make = _placed if _has_place(headers) else _unplaced
        made = make(headers, labels, facts, files[0].name)
        if told_in_groups:
            _refer_to_class(made, true_class)
        say_characters(made, facts.classes)
        encode_frame_groups(made)
        with whole_or_none(path) as place:
            made.save_as(place, enforce_file_format=True)


def _has_place(headers: list[Dataset]) -> bool:
    """Tell whether the frames lie behind one another, parallel, in one frame of reference.

    Anonymisers take the frame of reference out, repeated scans share positions, an enhanced image
    may hold several orientations, and a lone slice need not say how thick it is; what is known
    then is only which image a frame belongs to.
    """
    first = headers[0]
    alike = {header.get("FrameOfReferenceUID") for header in headers}
    if not first.get("FrameOfReferenceUID") or len(alike) > 1:
        return False
    count, plain = 1, ("ImagePositionPatient", "PixelSpacing")
    if enhanced := _is_enhanced(first):
        count = int(first.get("NumberOfFrames") or 1)
        groups = first.get("PerFrameFunctionalGroupsSequence") or ()
        positions = sum("PlanePositionSequence" in group for group in groups)
        if len(headers) > 1 or positions < count or not functional_group(first, 0, _MEASURES):
            return False
    elif not all(header.get(name) for header in headers for name in plain):
        return False
    planes = [frame_plane(header, frame) for header in headers for frame in range(count)]
    if not all(plane.located and plane.parallel_to(planes[0]) for plane in planes):
        return False
    heights = np.sort([plane.height_mm for plane in planes])
    if (np.diff(heights) <= SAME_POSITION_MM).any():
        return False
    thick = enhanced or first.get("SliceThickness") or first.get("SpacingBetweenSlices")
    return bool(thick) or len(planes) > 1


def _is_enhanced(header: Dataset) -> bool:
    """Tell whether frames are told of in functional groups."""
    return bool(
        header.get("SharedFunctionalGroupsSequence")
        or header.get("PerFrameFunctionalGroupsSequence")
    )


def _is_one_enhanced_frame(header: Dataset) -> bool:
    return _is_enhanced(header) and int(header.get("NumberOfFrames") or 1) == 1


def _take_out_of_groups(header: Dataset) -> None:
    """Say at the top what an enhanced image of one frame says in its functional groups.

    highdicom takes several images of the classic classes only.
    """
    for name, words in _TOLD_IN_GROUPS.items():
        group = functional_group(header, 0, name) or Dataset()
        for word in words:
            if word in group:
                setattr(header, word, group[word].value)
    for name in _GROUPS:
        if name in header:
            del header[name]
    header.SOPClassUID = CTImageStorage


def _refer_to_class(made: Dataset, true_class: str) -> None:
    """Name the class that the source images are of, wherever they are referred to."""
    for frame in made.PerFrameFunctionalGroupsSequence:
        for derivation in frame.get("DerivationImageSequence", ()):
            for source in derivation.SourceImageSequence:
                source.ReferencedSOPClassUID = true_class
    for series in made.ReferencedSeriesSequence:
        for instance in series.ReferencedInstanceSequence:
            instance.ReferencedSOPClassUID = true_class


def _say_as_of_all(headers: list[Dataset]) -> None:
    """Say of all frames in one place what they share, whose equality highdicom takes literally.

    Some makers repeat orientation and pixel size in the groups of every frame, and some round the
    orientation of every slice by itself.
    """
    first = headers[0]
    if not _is_enhanced(first):
        for header in headers:
            header.ImageOrientationPatient = first.ImageOrientationPatient
        return
    shared = first.get("SharedFunctionalGroupsSequence") or DicomSequence([Dataset()])
    first.SharedFunctionalGroupsSequence = shared
    for name in ("PlaneOrientationSequence", _MEASURES):
        group = functional_group(first, 0, name)
        if name not in shared[0] and group is not None:
            setattr(shared[0], name, DicomSequence([group]))


def _placed(
    headers: list[Dataset], labels: np.ndarray, facts: SegmentationFacts, name: str
) -> Dataset:
    """Return a segmentation of frames whose place in the patient is known."""
    first = headers[0]
    _say_as_of_all(headers)
    # Enhanced images say it of each frame.
    if first.get("ImagePositionPatient") and not first.get("SliceThickness"):
        thickness = first.get("SpacingBetweenSlices")
        if not thickness:
            places = [np.array(header.ImagePositionPatient, dtype=float) for header in headers[:2]]
            thickness = np.linalg.norm(places[1] - places[0])
        for header in headers:
            header.SliceThickness = round(float(thickness), 6)
    try:
        made = _segmentation(headers, labels, facts)
    except Exception as error:  # highdicom raises anything on odd source headers
        raise refused(name, error) from error
    if len(headers) == 1 and not _is_enhanced(first):
        # highdicom says 1 mm of a lone slice, and readers reckon volumes with that.
        [measures] = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
        measures.SpacingBetweenSlices = first.get("SpacingBetweenSlices") or first.SliceThickness
    _say_one_place_once(made)
    return made


def _say_one_place_once(made: Dataset) -> None:
    """Put a place that all frames share into the shared groups, as C.7.6.16.1.1 allows.

    From the places of frames GDCM, and so SimpleITK, reckons the distance of slices; where several
    structures lie on one slice it finds 0 and refuses the file.
    """
    frames = made.PerFrameFunctionalGroupsSequence
    if len(frames) < 2 or any("PlanePositionSequence" not in frame for frame in frames):
        return
    places = {tuple(frame.PlanePositionSequence[0].ImagePositionPatient or ()) for frame in frames}
    if len(places) == 1:
        shared = made.SharedFunctionalGroupsSequence[0]
        shared.PlanePositionSequence = frames[0].PlanePositionSequence
        for frame in frames:
            del frame.PlanePositionSequence


def _unplaced(
    headers: list[Dataset], labels: np.ndarray, facts: SegmentationFacts, name: str
) -> Dataset:
    """Return a segmentation of frames without a place; highdicom makes one of one frame only.

    Its object for the first frame is lengthened: one frame for each segment of each source frame.
    """
    single = copy.deepcopy(headers[0])
    several_frames = int(single.get("NumberOfFrames") or 1) > 1
    # highdicom asks more of other classes than these frames have; references name the true one.
    single.SOPClassUID = SecondaryCaptureImageStorage
    for word in _NOT_OF_ONE_UNPLACED:
        if word in single:
            del single[word]
    found = [
        (number, segment)
        for number, frame in enumerate(labels)
        for segment in np.unique(frame)
        if segment != 0
    ] or [(0, 1)]
    try:
        made = _segmentation([single], np.ones((1, *labels.shape[1:]), np.uint8), facts)
    except Exception as error:  # as above
        raise refused(name, error) from error
    template = made.PerFrameFunctionalGroupsSequence[0]
    frames, pixels = [], []
    for number, segment in found:
        frame = copy.deepcopy(template)
        if "SegmentIdentificationSequence" in frame:  # a lone segment is named once for all
            frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = int(segment)
        _refer_to(frame, headers[0 if several_frames else number], number, several_frames)
        # The only dimension that highdicom gives frames without a place is the segment.
        frame.FrameContentSequence[0].DimensionIndexValues = int(segment)
        frames.append(frame)
        pixels.append(labels[number] == segment)
    made.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    made.NumberOfFrames = len(frames)
    made.PixelData = pack_bits(np.stack(pixels).astype(np.uint8).ravel())
    made["PixelData"].VR = "OB"
    instances = made.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    instances[0].ReferencedSOPClassUID = headers[0].SOPClassUID
    for header in [] if several_frames else headers[1:]:
        item = copy.deepcopy(instances[0])
        item.ReferencedSOPInstanceUID = header.SOPInstanceUID
        instances.append(item)
    return made


def _refer_to(frame: Dataset, header: Dataset, number: int, several_frames: bool) -> None:
    for derivation in frame.DerivationImageSequence:
        for source in derivation.SourceImageSequence:
            source.ReferencedSOPClassUID = header.SOPClassUID
            source.ReferencedSOPInstanceUID = header.SOPInstanceUID
            if several_frames:
                source.ReferencedFrameNumber = number + 1


def _segmentation(headers: list[Dataset], labels: np.ndarray, facts: SegmentationFacts) -> Any:
    highdicom = require_highdicom()
    seg = importlib.import_module("highdicom.seg")
    codes = importlib.import_module("pydicom.sr.codedict").codes
    version = metadata.version("vismae")
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="vismae", version=version, family=codes.DCM.ArtificialIntelligence
    )
    segments = [
        seg.SegmentDescription(
            segment_number=number,
            segment_label=in_dicom(label),
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type=seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, label in enumerate(facts.classes)
        if number > 0
    ]
    instances = [str(header.SOPInstanceUID) for header in headers]
    return seg.Segmentation(
        source_images=headers,
        pixel_array=labels,
        segmentation_type=seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        # Of labels without any structure all frames are empty; highdicom would remark on each.
        omit_empty_frames=bool(np.any(labels)),
        series_instance_uid=generate_uid(
            entropy_srcs=["series", facts.identity, headers[0].SeriesInstanceUID]
        ),
        series_number=series_number(headers[0], 1000),
        sop_instance_uid=generate_uid(entropy_srcs=["instance", facts.identity, *instances]),
        instance_number=1,
        manufacturer="vismae",
        manufacturer_model_name="vismae",
        software_versions=version,
        device_serial_number=facts.device,
        series_description="vismae segmentation",
    )
