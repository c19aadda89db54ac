"""One multi-frame image in several files."""

from pathlib import Path

import numpy as np
import pytest

from factories import write_concatenation, write_dicom_slice, write_enhanced_ct
from vismae.core.types import Flag
from vismae.files.dicom import read_dicom
from vismae.files.dicom_concatenation import Part, lacking_parts
from vismae.files.dicom_identifiers import group_series, read_identifiers
from vismae.files.discover import SourceFile, source_file

# The frames of a part do not lie behind one another, and run against the slice axis.
HEIGHTS = [12.0, 6.0, 0.0, 15.0, 9.0, 3.0]
POSITIONS = [(0.0, 0.0, height) for height in HEIGHTS]


def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2000, (6, 5, 4)).astype(np.uint16)


def files_of(paths: list[Path]) -> list[SourceFile]:
    return [source_file(path) for path in paths]


def test_parts_are_one_volume_equal_to_that_of_the_whole_file(tmp_path: Path) -> None:
    whole = write_enhanced_ct(tmp_path / "w.dcm", volume(), POSITIONS, [(1.0, 0.0)] * 6)
    [expected] = read_dicom(files_of([whole]))
    parts = write_concatenation(tmp_path / "parts", volume(), POSITIONS, [3, 2, 1])

    [group] = group_series(files_of(sorted(parts)))
    [image] = read_dicom(group.files)

    np.testing.assert_array_equal(image.pixels, expected.pixels)
    np.testing.assert_allclose(image.affine, expected.affine)
    assert image.spacing == expected.spacing
    assert Flag.MISSING_SLICES not in image.details["flags"]
    assert image.details["concatenated"]
    assert not expected.details["concatenated"]
    order = np.argsort(HEIGHTS)
    sources = [parts[0]] * 3 + [parts[1]] * 2 + [parts[2]]
    assert image.details["slice_sources"] == [str(sources[frame]) for frame in order]
    numbers = [1, 2, 3, 1, 2, 1]
    found = [int(key.rsplit(":")[-1]) for key in image.details["slice_keys"]]
    assert found == [numbers[frame] for frame in order]


def test_two_divided_images_of_one_series_stay_apart(tmp_path: Path) -> None:
    series = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2"}
    paths = [
        *write_concatenation(tmp_path / "a", volume(), POSITIONS, [4, 2], **series),
        *write_concatenation(tmp_path / "b", volume(), POSITIONS, [4, 2], **series),
        write_dicom_slice(tmp_path / "slice.dcm", volume()[0], **series),
    ]
    assert [len(group.files) for group in group_series(files_of(paths))] == [2, 2, 1]


def test_a_part_of_one_frame_belongs_to_the_others(tmp_path: Path) -> None:
    paths = write_concatenation(tmp_path, volume()[:2], POSITIONS[:2], [1, 1])
    keys = {read_identifiers(file).series_key for file in files_of(paths)}
    assert len(keys) == 1
    [(patient, _, uid)] = [key for key in keys if key is not None]
    assert patient == "P001"
    assert uid


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_missing_part_is_told_as_missing_slices(lost: int, tmp_path: Path) -> None:
    heights = [(0.0, 0.0, 3.0 * number) for number in range(6)]
    parts = write_concatenation(tmp_path, volume(), heights, [2, 2, 2])
    del parts[lost]
    [image] = read_dicom(files_of(parts))
    assert len(image.pixels) == 4
    assert Flag.MISSING_SLICES in image.details["flags"]


def test_frames_without_a_place_follow_in_the_order_of_the_parts(tmp_path: Path) -> None:
    pixels = volume().astype(np.uint8)
    shared = {"Modality": "XA", "SeriesInstanceUID": "1.2.3", "ConcatenationUID": "1.2.3.4"}
    files = []
    for name, start, number in (("z", 0, 1), ("y", 2, 2), ("x", 4, 3)):
        tags = {"InConcatenationNumber": number, "ConcatenationFrameOffsetNumber": start}
        path = tmp_path / f"{name}.dcm"
        files.append(write_dicom_slice(path, pixels[start : start + 2], **shared, **tags))
    [image] = read_dicom(files_of(sorted(files)))
    np.testing.assert_array_equal(image.pixels, pixels)


def test_without_their_number_parts_at_the_end_are_not_missed() -> None:
    first, second = Part("u", 1, 0, 0, 3), Part("u", 2, 0, 3, 2)
    assert lacking_parts([first, second, Part("v", 1, 0, 0, 9)]) == frozenset()
    assert lacking_parts([second]) == {"u"}
    assert lacking_parts([Part("u", 1, 2, 0, 3)]) == {"u"}
