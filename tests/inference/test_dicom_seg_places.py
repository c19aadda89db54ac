"""Places of segmented frames, as makers of enhanced and of single-frame images write them."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence

from factories import AXIAL, SAGITTAL, write_dicom_series, write_enhanced_ct
from vismae.files.dicom_labels import read_dicom_labels
from vismae.files.discover import source_file
from vismae.files.read import read_image
from vismae.inference.dicom_seg_writer import SegmentationFacts, write_dicom_seg

highdicom_seg = pytest.importorskip("highdicom.seg")

FACTS = SegmentationFacts(("background", "liver", "spleen"), "request", "0123456789abcdef")
PLACED: dict[str, Any] = {"FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.1"}


def two_boxes() -> np.ndarray:
    """Class 1 on the second of four slices, class 2 on the second and the fourth."""
    labels = np.zeros((4, 20, 30), np.uint8)
    labels[1, 2:6, 3:9] = 1
    labels[1, 12:14, 1:4] = 2
    labels[3, 10:15, 20:29] = 2
    return labels


def enhanced(
    path: Path,
    heights_mm: Sequence[float],
    orientations: Sequence[Sequence[float]] = (AXIAL,) * 4,
    shared: bool = False,
) -> Path:
    """Four frames; orientation and pixel size stand in the groups of each frame, or are shared."""
    pixels = np.random.default_rng(0).integers(0, 2000, (4, 20, 30)).astype(np.uint16)
    positions = [(0.0, 0.0, height) for height in heights_mm]
    write_enhanced_ct(path, pixels, positions, [(1.0, -1024.0)] * 4, **PLACED)
    if not shared:
        dataset = pydicom.dcmread(path)
        [common] = dataset.SharedFunctionalGroupsSequence
        groups = dataset.PerFrameFunctionalGroupsSequence
        for group, orientation in zip(groups, orientations, strict=True):
            turned = Dataset()
            turned.ImageOrientationPatient = list(orientation)
            group.PlaneOrientationSequence = DicomSequence([turned])
            group.PixelMeasuresSequence = copy.deepcopy(common.PixelMeasuresSequence)
        dataset.SharedFunctionalGroupsSequence = DicomSequence([Dataset()])
        dataset.save_as(path)
    return path


def segmented(path: Path, target: Path) -> Dataset:
    write_dicom_seg(target, [source_file(path)], two_boxes(), FACTS)
    sitk = pytest.importorskip("SimpleITK")
    voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(target)))
    assert np.count_nonzero(voxels) == np.count_nonzero(two_boxes())
    highdicom_seg.segread(target)
    return pydicom.dcmread(target)


def test_what_makers_repeat_for_every_frame_is_said_once(tmp_path: Path) -> None:
    path = enhanced(tmp_path / "ct.dcm", (0.0, 3.0, 6.0, 9.0))
    made = segmented(path, tmp_path / "seg.dcm")
    [shared] = made.SharedFunctionalGroupsSequence
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == AXIAL
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.5, 0.5]
    [image] = read_image(source_file(path))
    back, _ = read_dicom_labels(source_file(tmp_path / "seg.dcm"), image, {"liver": 1, "spleen": 2})
    assert np.array_equal(back, two_boxes())


@pytest.mark.parametrize(
    "told",
    [
        {"heights_mm": (0.0, 3.0, 6.0, 9.0), "orientations": (AXIAL, AXIAL, SAGITTAL, SAGITTAL)},
        {"heights_mm": (0.0, 3.0, 0.0, 3.0)},
        {"heights_mm": (0.0, 3.0, 0.0, 3.0), "shared": True},
    ],
    ids=["two orientations", "two times", "two times, shared"],
)
def test_frames_that_form_no_volume_are_told_by_their_number(
    told: dict[str, Any], tmp_path: Path
) -> None:
    made = segmented(enhanced(tmp_path / "ct.dcm", **told), tmp_path / "seg.dcm")
    found = [
        (
            int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber),
            int(frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber),
        )
        for frame in made.PerFrameFunctionalGroupsSequence
    ]
    assert found == [(1, 2), (2, 2), (2, 4)]
    assert "FrameOfReferenceUID" not in made


def test_orientations_that_differ_by_rounding_are_one(tmp_path: Path) -> None:
    turned = [[1.0, 0.0, 0.0, 0.0, 1.0, 0.0], [1.0, 1e-6, 0.0, -1e-6, 1.0, 0.0]] * 2
    pixels = np.random.default_rng(0).integers(0, 2000, (4, 20, 30)).astype(np.uint16)
    paths = write_dicom_series(
        tmp_path / "ct", pixels, ImageOrientationPatient_each=turned, **PLACED
    )
    files = [source_file(path) for path in paths]
    write_dicom_seg(tmp_path / "seg.dcm", files, two_boxes(), FACTS)
    [image] = read_image(files)
    back, _ = read_dicom_labels(source_file(tmp_path / "seg.dcm"), image, {"liver": 1, "spleen": 2})
    assert np.array_equal(back, two_boxes())
