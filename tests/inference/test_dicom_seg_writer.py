"""Segmentations read back by highdicom, pydicom, SimpleITK and our own reader."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import UID, generate_uid

from factories import (
    SAGITTAL,
    ultrasound_region,
    write_dicom_series,
    write_dicom_slice,
    write_enhanced_ct,
)
from vismae.core.errors import DataError
from vismae.files.dicom_labels import read_dicom_labels
from vismae.files.discover import SourceFile, source_file
from vismae.files.read import read_image
from vismae.inference.dicom_seg_writer import SegmentationFacts, write_dicom_seg

highdicom_seg = pytest.importorskip("highdicom.seg")

FACTS = SegmentationFacts(("background", "liver", "spleen"), "request", "0123456789abcdef")
PLACED: dict[str, Any] = {"FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.1", "SeriesNumber": 3}


def volume(slices: int = 5) -> np.ndarray:
    """Stored values without any symmetry."""
    return np.random.default_rng(0).integers(0, 2000, (slices, 20, 30)).astype(np.uint16)


def two_boxes(slices: int = 5) -> np.ndarray:
    """Class 1 on the second slice, class 2 on the second and the fourth; others hold nothing."""
    labels = np.zeros((slices, 20, 30), np.uint8)
    labels[1, 2:6, 3:9] = 1
    labels[1, 12:14, 1:4] = 2
    labels[3, 10:15, 20:29] = 2
    return labels


def files_of(paths: list[Path]) -> list[SourceFile]:
    return [source_file(path) for path in paths]


def references(dataset: Dataset) -> list[tuple[int, str, int | None]]:
    """Return segment, instance and frame that each frame refers to."""
    found = []
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        [derivation] = frame.DerivationImageSequence
        [source] = derivation.SourceImageSequence
        segment = int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        uid = str(source.ReferencedSOPInstanceUID)
        found.append((segment, uid, source.get("ReferencedFrameNumber")))
    return found


def require_conforming(path: Path, count: int) -> Dataset:
    """Read with three libraries; all must see the same pixels."""
    sitk = pytest.importorskip("SimpleITK")
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    assert np.count_nonzero(pixels) == count
    assert np.count_nonzero(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))) == count
    opened = highdicom_seg.segread(path)
    assert [item.segment_label for item in opened.SegmentSequence] == ["liver", "spleen"]
    assert str(dataset.file_meta.MediaStorageSOPClassUID) == "1.2.840.10008.5.1.4.1.1.66.4"
    return dataset


@pytest.mark.parametrize("orientation", [None, SAGITTAL])
def test_a_series_is_referred_to_slice_by_slice(
    orientation: list[float] | None, tmp_path: Path
) -> None:
    turned = {} if orientation is None else {"orientation": orientation}
    # Numbered against their positions, so that order by file name or number would be wrong.
    paths = write_dicom_series(
        tmp_path / "ct", volume(), instance_numbers=[5, 4, 3, 2, 1], **turned, **PLACED
    )
    files = files_of(paths)
    [image] = read_image(files[::-1])
    in_order = [source_file(Path(name)) for name in image.details["slice_sources"]]
    labels = two_boxes()
    write_dicom_seg(tmp_path / "seg.dcm", in_order, labels, FACTS)
    dataset = require_conforming(tmp_path / "seg.dcm", int(np.count_nonzero(labels)))
    uids = [str(pydicom.dcmread(file.path).SOPInstanceUID) for file in in_order]
    assert sorted(references(dataset)) == sorted(
        [(1, uids[1], None), (2, uids[1], None), (2, uids[3], None)]
    )
    back, overlapping = read_dicom_labels(
        source_file(tmp_path / "seg.dcm"), image, {"liver": 1, "spleen": 2}
    )
    assert np.array_equal(back, labels)
    assert not overlapping
    opened = highdicom_seg.segread(tmp_path / "seg.dcm")
    assert np.array_equal(
        opened.get_pixels_by_source_instance(
            uids, combine_segments=True, ignore_spatial_locations=True,
            assert_missing_frames_are_empty=True,
        ),
        labels,
    )  # fmt: skip


def test_elements_that_hold_no_number_are_left_out_of_a_segmentation(tmp_path: Path) -> None:
    odd = {**PLACED, "SeriesNumber": 770125, "SliceThickness": 77.125}
    paths = write_dicom_series(tmp_path / "ct", volume(), **odd)
    for path in paths:
        content = path.read_bytes().replace(b"770125", b"77O125")
        path.write_bytes(content.replace(b"77.125", b"77,125"))
    labels = two_boxes()
    write_dicom_seg(tmp_path / "seg.dcm", files_of(paths), labels, FACTS)
    require_conforming(tmp_path / "seg.dcm", int(np.count_nonzero(labels)))


def test_the_frames_of_an_enhanced_image_are_referred_to(tmp_path: Path) -> None:
    positions = [(0.0, 0.0, 3.0 * (4 - number)) for number in range(5)]
    path = write_enhanced_ct(
        tmp_path / "ct.dcm", volume(), positions, [(1.0, -1024.0)] * 5, **PLACED
    )
    labels = two_boxes()
    write_dicom_seg(tmp_path / "seg.dcm", files_of([path]), labels, FACTS)
    dataset = require_conforming(tmp_path / "seg.dcm", int(np.count_nonzero(labels)))
    assert sorted((segment, frame) for segment, _, frame in references(dataset)) == [
        (1, 2), (2, 2), (2, 4),
    ]  # fmt: skip
    [image] = read_image(source_file(path))
    back, _ = read_dicom_labels(source_file(tmp_path / "seg.dcm"), image, {"liver": 1, "spleen": 2})
    assert np.array_equal(back, labels[::-1])  # positions run against the frames


def test_enhanced_images_of_one_frame_each_are_a_series_with_its_place(tmp_path: Path) -> None:
    pixels, labels = volume(), two_boxes()
    paths = [
        write_enhanced_ct(
            tmp_path / f"{number}.dcm", pixels[number : number + 1],
            [(0.0, 0.0, 3.0 * number)], [(1.0, -1024.0)], InstanceNumber=number + 1,
            SOPInstanceUID=generate_uid(), StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.4",
            **PLACED,
        )
        for number in range(5)
    ]  # fmt: skip
    write_dicom_seg(tmp_path / "seg.dcm", files_of(paths), labels, FACTS)
    dataset = require_conforming(tmp_path / "seg.dcm", int(np.count_nonzero(labels)))
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in paths]
    assert sorted(references(dataset)) == sorted(
        [(1, uids[1], None), (2, uids[1], None), (2, uids[3], None)]
    )
    [reference] = {
        item.ReferencedSOPClassUID
        for item in dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert reference == pydicom.dcmread(paths[0]).SOPClassUID
    [measures] = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert (measures.SliceThickness, list(measures.PixelSpacing)) == (3.0, [0.5, 0.5])
    heights = {
        float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
        for frame in dataset.PerFrameFunctionalGroupsSequence
    }
    assert heights == {3.0, 9.0}


def test_frames_without_a_place_are_told_by_their_number(tmp_path: Path) -> None:
    pixels = volume().astype(np.uint8)
    regions = [ultrasound_region((0, 19, 0, 29))]
    path = write_dicom_slice(
        tmp_path / "us.dcm", pixels, Modality="US", SequenceOfUltrasoundRegions=regions
    )
    labels = two_boxes()
    write_dicom_seg(tmp_path / "seg.dcm", files_of([path]), labels, FACTS)
    dataset = require_conforming(tmp_path / "seg.dcm", int(np.count_nonzero(labels)))
    uid = str(pydicom.dcmread(path).SOPInstanceUID)
    assert references(dataset) == [(1, uid, 2), (2, uid, 2), (2, uid, 4)]
    opened = highdicom_seg.segread(tmp_path / "seg.dcm")
    assert np.array_equal(
        opened.get_pixels_by_source_frame(
            uid, [1, 2, 3, 4, 5], combine_segments=True, ignore_spatial_locations=True,
            assert_missing_frames_are_empty=True,
        ),
        labels,
    )  # fmt: skip


def test_multi_frame_classes_without_functional_groups_are_referred_to(tmp_path: Path) -> None:
    path = write_dicom_slice(
        tmp_path / "us.dcm", volume().astype(np.uint8), Modality="US",
        SOPClassUID=UID("1.2.840.10008.5.1.4.1.1.3.1"), StudyTime="14:04:38",
        StudyDate="1997.04.24",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, about the marks in date and time
        write_dicom_seg(tmp_path / "seg.dcm", files_of([path]), two_boxes(), FACTS)
    dataset = require_conforming(tmp_path / "seg.dcm", int(np.count_nonzero(two_boxes())))
    [series] = dataset.ReferencedSeriesSequence
    [instance] = series.ReferencedInstanceSequence
    assert instance.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.3.1"
    assert [(segment, frame) for segment, _, frame in references(dataset)] == [
        (1, 2), (2, 2), (2, 4),
    ]  # fmt: skip
    assert (dataset.StudyDate, dataset.StudyTime) == ("19970424", "140438")


@pytest.mark.parametrize("placed", [True, False])
def test_a_model_of_one_structure_has_one_segment(placed: bool, tmp_path: Path) -> None:
    facts = SegmentationFacts(("background", "liver"), "request", "0")
    if placed:
        files = files_of(write_dicom_series(tmp_path / "ct", volume(), **PLACED))
    else:
        frames = volume().astype(np.uint8)
        files = files_of([write_dicom_slice(tmp_path / "us.dcm", frames, Modality="US")])
    labels = (two_boxes() > 0).astype(np.uint8)
    write_dicom_seg(tmp_path / "seg.dcm", files, labels, facts)
    opened = highdicom_seg.segread(tmp_path / "seg.dcm")
    options: dict[str, Any] = {
        "combine_segments": True,
        "ignore_spatial_locations": True,
        "assert_missing_frames_are_empty": True,
    }
    uids = [str(pydicom.dcmread(file.path).SOPInstanceUID) for file in files]
    if placed:
        found = opened.get_pixels_by_source_instance(uids, **options)
    else:
        found = opened.get_pixels_by_source_frame(uids[0], [1, 2, 3, 4, 5], **options)
    assert np.array_equal(found, labels)


def test_a_single_radiograph_has_its_segmentation(tmp_path: Path) -> None:
    path = write_dicom_slice(
        tmp_path / "x.dcm", volume(1)[0], Modality="DX", ImageType=["ORIGINAL"]
    )
    labels = two_boxes()[1:2]
    write_dicom_seg(tmp_path / "seg.dcm", files_of([path]), labels, FACTS)
    dataset = require_conforming(tmp_path / "seg.dcm", int(np.count_nonzero(labels)))
    uid = str(pydicom.dcmread(path).SOPInstanceUID)
    assert [(segment, found) for segment, found, _ in references(dataset)] == [(1, uid), (2, uid)]


@pytest.mark.parametrize("placed", [True, False])
def test_frames_need_not_fill_whole_bytes(placed: bool, tmp_path: Path) -> None:
    """Bits of a BINARY segmentation run on from frame to frame (PS3.5 section 8.1.1)."""
    labels = (np.random.default_rng(1).random((4, 17, 23)) < 0.3).astype(np.uint8)
    labels[:, 0, 0] = 2
    stored = np.zeros((4, 17, 23), np.uint8)
    if placed:
        files = files_of(write_dicom_series(tmp_path / "ct", stored.astype(np.uint16), **PLACED))
    else:
        files = files_of([write_dicom_slice(tmp_path / "us.dcm", stored, Modality="US")])
    write_dicom_seg(tmp_path / "seg.dcm", files, labels, FACTS)
    dataset = require_conforming(tmp_path / "seg.dcm", int(np.count_nonzero(labels)))
    uids = [str(pydicom.dcmread(file.path).SOPInstanceUID) for file in files]
    found = np.zeros_like(labels)
    for (segment, uid, frame), pixels in zip(references(dataset), dataset.pixel_array, strict=True):
        found[uids.index(uid) if frame is None else frame - 1] += segment * pixels
    assert np.array_equal(found, labels)


def test_an_image_without_any_structure_has_an_empty_segmentation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    series = write_dicom_series(tmp_path / "ct", volume(), **PLACED)
    write_dicom_seg(tmp_path / "a.dcm", files_of(series), two_boxes() * 0, FACTS)
    require_conforming(tmp_path / "a.dcm", 0)
    path = write_dicom_slice(tmp_path / "us.dcm", volume().astype(np.uint8), Modality="US")
    write_dicom_seg(tmp_path / "b.dcm", files_of([path]), two_boxes() * 0, FACTS)
    require_conforming(tmp_path / "b.dcm", 0)
    assert caplog.messages == []


def test_it_belongs_to_the_study_and_names_what_made_it(tmp_path: Path) -> None:
    study = generate_uid()
    paths = write_dicom_series(
        tmp_path / "ct", volume(), StudyInstanceUID=study, PatientName="Doe^Jane", **PLACED
    )
    write_dicom_seg(tmp_path / "seg.dcm", files_of(paths), two_boxes(), FACTS)
    made, source = pydicom.dcmread(tmp_path / "seg.dcm"), pydicom.dcmread(paths[0])
    assert made.StudyInstanceUID == study
    assert made.PatientID == source.PatientID
    assert made.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert made.SeriesInstanceUID != source.SeriesInstanceUID
    assert made.DeviceSerialNumber == FACTS.device
    algorithm = made.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "vismae"


def test_the_same_request_gives_the_same_object(tmp_path: Path) -> None:
    files = files_of(write_dicom_series(tmp_path / "ct", volume(), **PLACED))
    other = SegmentationFacts(FACTS.classes, "another request", FACTS.device)
    for name, facts in (("a", FACTS), ("b", FACTS), ("c", other)):
        write_dicom_seg(tmp_path / f"{name}.dcm", files, two_boxes(), facts)
    first, second, third = (pydicom.dcmread(tmp_path / f"{name}.dcm") for name in "abc")
    assert first.SOPInstanceUID == second.SOPInstanceUID != third.SOPInstanceUID
    assert first.SeriesInstanceUID == second.SeriesInstanceUID != third.SeriesInstanceUID


@pytest.mark.parametrize(
    "header",
    [
        {"FrameOfReferenceUID": None},
        {"ImagePositionPatient": [0.0, 0.0, 5.0], **PLACED},
    ],
    ids=["anonymised", "one place"],
)
def test_slices_without_places_of_their_own_are_told_by_their_image(
    header: dict[str, Any], tmp_path: Path
) -> None:
    paths = [
        write_dicom_slice(
            tmp_path / f"{number}.dcm", pixels, Modality="CT", SOPInstanceUID=f"1.2.3.{number}",
            **header,
        )
        for number, pixels in enumerate(volume())
    ]  # fmt: skip
    write_dicom_seg(tmp_path / "seg.dcm", files_of(paths), two_boxes(), FACTS)
    dataset = require_conforming(tmp_path / "seg.dcm", int(np.count_nonzero(two_boxes())))
    assert references(dataset) == [
        (1, "1.2.3.1", None), (2, "1.2.3.1", None), (2, "1.2.3.3", None),
    ]  # fmt: skip
    [series] = dataset.ReferencedSeriesSequence
    assert len(series.ReferencedInstanceSequence) == len(paths)


@pytest.mark.parametrize("slices", [1, 5])
def test_several_structures_on_one_slice_are_read_with_their_place(
    slices: int, tmp_path: Path
) -> None:
    paths = write_dicom_series(tmp_path / "ct", volume(slices), SliceThickness=5.0, **PLACED)
    labels = np.zeros((slices, 20, 30), np.uint8)
    labels[-1, 2:6, 3:9], labels[-1, 10:15, 20:29] = 1, 2
    write_dicom_seg(tmp_path / "seg.dcm", files_of(paths), labels, FACTS)
    require_conforming(tmp_path / "seg.dcm", int(np.count_nonzero(labels)))
    opened = highdicom_seg.segread(tmp_path / "seg.dcm")
    # First voxel, in mm to the left, to the back and upwards.
    corner = opened.get_volume(combine_segments=True).affine[:3, 3]
    assert corner == pytest.approx(pydicom.dcmread(paths[-1]).ImagePositionPatient)
    [image] = read_image(files_of(paths))
    back, _ = read_dicom_labels(source_file(tmp_path / "seg.dcm"), image, {"liver": 1, "spleen": 2})
    assert np.array_equal(back, labels)


@pytest.mark.parametrize(("told", "apart_mm"), [({}, 5.0), ({"SpacingBetweenSlices": 6.0}, 6.0)])
def test_a_voxel_of_a_lone_slice_is_as_thick_as_the_slice(
    told: dict[str, float], apart_mm: float, tmp_path: Path
) -> None:
    path = write_dicom_slice(
        tmp_path / "ct.dcm", volume(1)[0], Modality="CT", SliceThickness=5.0, **told, **PLACED
    )
    labels = np.minimum(two_boxes()[1:2], 1)
    write_dicom_seg(tmp_path / "seg.dcm", files_of([path]), labels, FACTS)
    sitk = pytest.importorskip("SimpleITK")
    assert sitk.ReadImage(str(tmp_path / "seg.dcm")).GetSpacing()[2] == apart_mm


def test_a_lone_slice_of_unknown_thickness_has_its_segmentation(tmp_path: Path) -> None:
    path = write_dicom_slice(
        tmp_path / "ct.dcm", volume(1)[0], Modality="CT", SliceThickness=None, **PLACED
    )
    labels = two_boxes()[1:2]
    write_dicom_seg(tmp_path / "seg.dcm", files_of([path]), labels, FACTS)
    require_conforming(tmp_path / "seg.dcm", int(np.count_nonzero(labels)))


def test_headers_that_name_no_study_are_refused(tmp_path: Path) -> None:
    bare = write_dicom_slice(tmp_path / "x.dcm", volume(1)[0], Modality="DX", StudyInstanceUID=None)
    with pytest.raises(DataError, match="StudyInstanceUID"):
        write_dicom_seg(tmp_path / "seg.dcm", files_of([bare]), two_boxes()[:1], FACTS)
    assert not (tmp_path / "seg.dcm").exists()


@pytest.mark.parametrize(
    ("characters", "patient"),
    [
        (None, "Doe^Jane"),
        ("ISO_IR 100", "Müller^Jörg"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("ISO IR 100", "Doe^Jane"),
    ],
)
def test_names_in_every_script_are_carried(characters: Any, patient: str, tmp_path: Path) -> None:
    paths = write_dicom_series(
        tmp_path / "ct", volume(), SpecificCharacterSet=characters, PatientName=patient, **PLACED
    )
    classes = ("background", "肝臓", "left\\lung\n", "Läsion " + 60 * "x")
    labels = two_boxes()
    labels[2, 3:5, 3:5] = 3
    write_dicom_seg(
        tmp_path / "seg.dcm", files_of(paths), labels, SegmentationFacts(classes, "a", "b")
    )
    made = pydicom.dcmread(tmp_path / "seg.dcm")
    assert made.PatientName == pydicom.dcmread(paths[0]).PatientName
    found = [item.SegmentLabel for item in made.SegmentSequence]
    assert found == ["肝臓", "left/lung", classes[3][:64]]


def test_the_largest_series_number_has_a_segmentation(tmp_path: Path) -> None:
    facts = {**PLACED, "SeriesNumber": 2**31 - 1}
    files = files_of(write_dicom_series(tmp_path / "ct", volume(), **facts))
    write_dicom_seg(tmp_path / "seg.dcm", files, two_boxes(), FACTS)
    assert pydicom.dcmread(tmp_path / "seg.dcm").SeriesNumber == 2**31 - 1
