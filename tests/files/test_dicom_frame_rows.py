"""Many frames in the classic classes of CT and MR, which give one position for all."""

from pathlib import Path

import numpy as np
import pytest

from factories import write_dicom_slice
from vismae.files.dicom import read_dicom
from vismae.files.discover import SourceFile

VOLUME = np.arange(5 * 4 * 4, dtype=np.int16).reshape(5, 4, 4)


@pytest.mark.parametrize(
    ("tags", "slice_mm", "in_space"),
    [
        ({"SpacingBetweenSlices": 2.5, "SliceThickness": 3}, 2.5, True),
        ({"Modality": "MR", "SpacingBetweenSlices": 2.5}, 2.5, True),
        ({"SliceThickness": 3}, None, True),
        ({"SliceLocationVector": [0, -1.5, -3, -4.5, -6], "FrameTime": 40}, 1.5, True),
        ({"SliceLocationVector": [0, 1, 2, 3, 9], "SpacingBetweenSlices": 1}, None, True),
        ({"Modality": "MR", "SpacingBetweenSlices": 8, "FrameTime": 40}, None, False),
        ({"Modality": "MR", "SpacingBetweenSlices": 8, "CardiacNumberOfImages": 5}, None, False),
    ],
)
def test_frames_are_slices_unless_they_are_times(
    tmp_path: Path, tags: dict[str, object], slice_mm: float | None, in_space: bool
) -> None:
    path = write_dicom_slice(tmp_path / "a.dcm", VOLUME, **tags)

    [image] = read_dicom([SourceFile(path, None, "dicom")])

    np.testing.assert_array_equal(image.pixels, VOLUME)
    assert image.spacing.slice_mm == slice_mm
    assert image.details["slices_in_space"] is in_space
    assert image.affine is None  # on which side of the first the others lie is not told


def test_volumes_of_one_series_in_a_file_each_stay_apart(tmp_path: Path) -> None:
    files = [
        SourceFile(
            write_dicom_slice(
                tmp_path / f"{number}.dcm",
                VOLUME + number,
                SeriesInstanceUID="1.2.3",
                SpacingBetweenSlices=2.0,
                InstanceNumber=number,
            ),
            None,
            "dicom",
        )
        for number in (1, 2)
    ]

    images = read_dicom(files)

    assert [image.pixels.shape for image in images] == [(5, 4, 4)] * 2
    for number, image in zip((1, 2), images, strict=True):
        np.testing.assert_array_equal(image.pixels, VOLUME + number)
