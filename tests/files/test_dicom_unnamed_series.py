from pathlib import Path
from typing import Any

import numpy as np
import pytest

from factories import write_dicom_series, write_dicom_slice
from vismae.files.dicom_identifiers import group_series
from vismae.files.discover import source_file
from vismae.files.read import read_image

VOLUME = np.random.default_rng(0).integers(0, 900, (8, 6, 5)).astype(np.int16)
UNNAMED = {
    "SeriesInstanceUID": None,
    "StudyInstanceUID": "1.2.3",
    "FrameOfReferenceUID": "1.2.3.9",
    "SeriesNumber": 2,
}


def shapes(*folders: Path) -> list[int]:
    """Return the slices of every image of the folders."""
    files = [source_file(path) for folder in folders for path in sorted(folder.rglob("*.dcm"))]
    images = [image for group in group_series(files) for image in read_image(group)]
    return sorted(len(image.pixels) for image in images)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"StudyInstanceUID": None},
        {"FrameOfReferenceUID": None},
        {"SeriesNumber": None},
    ],
)
def test_slices_of_one_scan_are_a_volume_without_a_series(
    tmp_path: Path, facts: dict[str, Any]
) -> None:
    write_dicom_series(tmp_path / "a", VOLUME, **(UNNAMED | facts))

    assert shapes(tmp_path / "a") == [8]


@pytest.mark.parametrize(
    "facts",
    [
        {"StudyInstanceUID": None, "FrameOfReferenceUID": None},
        {"SeriesNumber": None, "FrameOfReferenceUID": None},
        {"StudyInstanceUID": None, "PatientID": None},
    ],
)
def test_what_nothing_safe_holds_together_stands_alone(
    tmp_path: Path, facts: dict[str, Any]
) -> None:
    write_dicom_series(tmp_path / "a", VOLUME, **(UNNAMED | facts))

    assert shapes(tmp_path / "a") == [1] * 8


@pytest.mark.parametrize(
    "other",
    [
        {"PatientID": "P2"},
        {"StudyInstanceUID": "1.2.4"},
        {"SeriesNumber": 3},
        {"FrameOfReferenceUID": "1.2.4.9"},
        {"SeriesDescription": "venous"},
        {"ConvolutionKernel": "B70f"},
        {"Modality": "PT"},
    ],
)
def test_two_scans_of_one_folder_are_never_mixed(tmp_path: Path, other: dict[str, Any]) -> None:
    facts = UNNAMED | ({"Modality": "MR"} if "Modality" in other else {})
    write_dicom_series(tmp_path / "a" / "x", VOLUME, **facts)
    write_dicom_series(tmp_path / "b" / "x", VOLUME + 1, **(facts | other))
    files = [source_file(path) for path in sorted(tmp_path.rglob("*.dcm"))]

    assert sorted(len(group.files) for group in group_series(files)) == [8, 8]


def test_slices_that_are_no_even_stack_stand_alone(tmp_path: Path) -> None:
    """Two scans that nothing tells apart: at the same places, and at others between them."""
    for name, shift in (("same", 0.0), ("between", 1.7)):
        for half, start in (("one", 0.0), ("two", shift)):
            for number in range(8):
                write_dicom_slice(
                    tmp_path / name / half / "x" / f"{number}.dcm",
                    VOLUME[number] + len(half),
                    ImagePositionPatient=[0.0, 0.0, 5.0 * number + start],
                    InstanceNumber=number,
                    **UNNAMED,
                )

        assert shapes(tmp_path / name) == [1] * 16


def test_a_missing_slice_leaves_the_others_a_volume(tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "a", VOLUME, **UNNAMED)[2].unlink()

    assert shapes(tmp_path / "a") == [7]
