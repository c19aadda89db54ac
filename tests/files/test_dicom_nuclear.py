"""Reconstructed nuclear medicine images lie where SimpleITK puts them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from factories import write_dicom_slice
from vismae.core.types import MedicalImage
from vismae.files.dicom import read_dicom
from vismae.files.discover import SourceFile

AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
OBLIQUE = [0.8, 0.6, 0.0, 0.0, 0.0, -1.0]
VOLUME = np.arange(5 * 6 * 4, dtype=np.uint16).reshape(5, 6, 4)


def write_nuclear(
    path: Path,
    frames: np.ndarray = VOLUME,
    step_mm: Any = 4.0,
    axes: list[float] = AXIAL,
    **tags: Any,
) -> Path:
    """A SPECT of five slices, the first at (-10, 20, 30)."""
    detector = Dataset()
    detector.ImagePositionPatient = [-10.0, 20.0, 30.0]
    detector.ImageOrientationPatient = axes
    told = {
        "Modality": "NM",
        "SOPClassUID": UID("1.2.840.10008.5.1.4.1.1.20"),
        "ImageType": ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"],
        "DetectorInformationSequence": Sequence([detector]),
        "PixelSpacing": [3.0, 2.0],
        "SliceThickness": 4.0,
        "SpacingBetweenSlices": step_mm,
        "FrameIncrementPointer": 0x00540080,
        "SliceVector": [1, 2, 3, 4, 5],
        "NumberOfSlices": 5,
    }
    return write_dicom_slice(path, frames.astype(np.uint16), **{**told, **tags})


def read(path: Path) -> MedicalImage:
    [image] = read_dicom([SourceFile(path, None, "dicom")])
    return image


@pytest.mark.parametrize("axes", [AXIAL, OBLIQUE])
def test_slices_lie_where_another_reader_puts_them(axes: list[float], tmp_path: Path) -> None:
    path = write_nuclear(tmp_path / "a.dcm", axes=axes)
    image = read(path)
    other = SimpleITK.ReadImage(str(path))
    assert other.GetSpacing() == (2.0, 3.0, 4.0)
    spacing = image.spacing
    assert (spacing.column_mm, spacing.row_mm, spacing.slice_mm) == (2.0, 3.0, 4.0)
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    for voxel in ((0, 0, 0), (3, 1, 4), (0, 5, 2)):
        assert image.affine is not None
        ours = (to_lps @ image.affine @ [*voxel, 1.0])[:3]
        assert np.allclose(ours, other.TransformIndexToPhysicalPoint(voxel), atol=1e-4)
    assert np.array_equal(image.pixels, VOLUME)


def test_slices_stacked_against_the_normal_are_put_in_order(tmp_path: Path) -> None:
    image = read(write_nuclear(tmp_path / "a.dcm", step_mm=-4.0))
    assert image.spacing.slice_mm == 4.0
    assert np.array_equal(image.pixels, VOLUME[::-1])
    assert image.affine is not None
    assert np.allclose(image.affine[:3, 3], [10.0, -20.0, 30.0 - 16.0])


def test_frames_are_placed_by_the_slices_that_they_show(tmp_path: Path) -> None:
    image = read(write_nuclear(tmp_path / "a.dcm", SliceVector=[3, 1, 2, 5, 4]))
    assert np.array_equal(image.pixels, VOLUME[[1, 2, 0, 4, 3]])


@pytest.mark.parametrize("by_turns", [False, True])
def test_each_time_slot_of_a_gated_heart_is_a_volume(tmp_path: Path, by_turns: bool) -> None:
    slots, slices = np.repeat([1, 2], 5), np.tile([1, 2, 3, 4, 5], 2)
    order = np.lexsort((slots, slices)) if by_turns else np.arange(10)
    path = write_nuclear(
        tmp_path / "a.dcm",
        VOLUME[slices - 1][order] + 1000 * slots[order, None, None],
        ImageType=["ORIGINAL", "PRIMARY", "RECON GATED TOMO", "EMISSION"],
        SliceVector=slices[order].tolist(),
        TimeSlotVector=slots[order].tolist(),
    )

    images = read_dicom([SourceFile(path, None, "dicom")])

    for number, image in enumerate(images, 1):
        np.testing.assert_array_equal(image.pixels, VOLUME + 1000 * number)
        assert image.spacing.slice_mm == 4.0
    assert len(images) == 2


@pytest.mark.parametrize(
    "tags",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"]},
        {"ImageType": ["ORIGINAL", "PRIMARY"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "RECON GATED TOMO"], "SliceVector": None},
        {"DetectorInformationSequence": None},
        {"SpacingBetweenSlices": None},
        {"SliceVector": [1, 2, 3]},
    ],
)
def test_nothing_is_made_up_where_the_header_does_not_say(
    tags: dict[str, Any], tmp_path: Path
) -> None:
    image = read(write_nuclear(tmp_path / "a.dcm", **tags))
    assert image.affine is None
    assert np.array_equal(image.pixels, VOLUME)
