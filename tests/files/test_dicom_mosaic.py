"""Mosaics: tiles become slices. nibabel's own example is the reference."""

import gzip
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence as DicomSequence

from factories import write_dicom_slice
from vismae.core.errors import UnreadableFileError
from vismae.core.types import MedicalImage
from vismae.files.dicom import read_dicom
from vismae.files.discover import SourceFile

TILE = (4, 6)
TAGS = {
    "Modality": "MR",
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"],
    "PixelSpacing": [2.0, 3.0],
    "SpacingBetweenSlices": 5.0,
    "ImagePositionPatient": [-10.0, -20.0, 30.0],
}


def write_mosaic(path: Path, count: int | None, first_value: int = 0, **tags: Any) -> Path:
    """Write 3×3 tiles; the pixels of each have its number, from ``first_value``."""
    tiles = np.arange(9).reshape(3, 1, 3, 1) + first_value
    sheet = np.broadcast_to(tiles, (3, TILE[0], 3, TILE[1])).reshape(3 * TILE[0], 3 * TILE[1])
    write_dicom_slice(path, sheet.astype(np.uint16), **{**TAGS, **tags})
    if count is not None:
        dataset = dcmread(path)
        dataset.private_block(0x0019, "OTHER", create=True).add_new(0x0A, "US", 2)
        block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
        block.add_new(0x0A, "US", count)
        dataset.save_as(path)
    return path


def read(*paths: Path) -> list[MedicalImage]:
    return read_dicom([SourceFile(path, None, "dicom") for path in paths])


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableFileError) as caught:
        read(path)
    assert caught.value.reason == "mosaic"
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_tiles_become_slices_at_their_places(tmp_path: Path) -> None:
    [image] = read(write_mosaic(tmp_path / "m.dcm", 7))

    assert image.pixels.shape == (7, *TILE)
    assert image.pixels[:, 0, 0].tolist() == list(range(7))
    assert (image.pixels == image.pixels[:, :1, :1]).all()
    assert (image.spacing.slice_mm, image.spacing.row_mm) == (5.0, 2.0)
    assert image.affine is not None
    # The sheet's corner is where a slice of the sheet's size about the same centre would begin.
    first = np.array([-10.0 + (18 - 6) / 2 * 3.0, -20.0 + (12 - 4) / 2 * 2.0, 30.0])
    np.testing.assert_allclose(image.affine[:3, 3], first * [-1, -1, 1])
    assert image.details["tiled"]


def test_a_series_of_mosaics_is_a_volume_for_each_time(tmp_path: Path) -> None:
    paths = [
        write_mosaic(
            tmp_path / f"{time}.dcm",
            7,
            100 * time,
            AcquisitionNumber=time + 1,
            InstanceNumber=time + 1,
            SeriesInstanceUID="1.2.3",
        )
        for time in range(3)
    ]

    images = read(*paths)

    assert [image.pixels[:, 0, 0].tolist() for image in images] == [
        [100 * time + tile for tile in range(7)] for time in range(3)
    ]


@pytest.mark.parametrize(
    ("count", "tags", "named"),
    [
        (None, {}, "number of its slices"),
        (0, {}, "number of its slices"),
        (17, {}, "5×5 tiles"),
        (7, {"SpacingBetweenSlices": None}, "SpacingBetweenSlices"),
    ],
)
def test_a_mosaic_that_cannot_be_cut_is_refused(
    tmp_path: Path, count: int | None, tags: dict[str, Any], named: str
) -> None:
    assert named in refusal(write_mosaic(tmp_path / "m.dcm", count, **tags))


def test_nibabels_mosaic_has_the_same_voxels_at_the_same_places(tmp_path: Path) -> None:
    example = Path(nib.__file__).parent / "nicom" / "tests" / "data" / "siemens_dwi_1000.dcm.gz"
    if not example.is_file():
        pytest.skip("nibabel is installed without its examples")
    path = tmp_path / "siemens.dcm"
    path.write_bytes(gzip.decompress(example.read_bytes()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom import dicomwrappers

        reference = dicomwrappers.wrapper_from_file(path)
        data = np.asarray(reference.get_data())  # (row, column, slice), in LPS
        to_lps = np.asarray(reference.affine)

    [image] = read(path)

    assert image.affine is not None
    slices, height, width = image.pixels.shape
    assert data.shape == (height, width, slices)
    values = image.pixels * image.slope + image.intercept
    ends = [(0, 0, 0), (slices - 1, height - 1, width - 1), (slices // 2, 5, 7)]
    for place, row, column in ends:
        lps = (np.diag([-1, -1, 1, 1]) @ image.affine @ [column, row, place, 1])[:3]
        voxel = np.linalg.solve(to_lps, [*lps, 1])[:3]
        np.testing.assert_allclose(voxel, np.rint(voxel), atol=1e-2)
        at = tuple(np.rint(voxel).astype(int))
        assert at[:2] == (row, column)
        np.testing.assert_array_equal(values[place], data[:, :, at[2]])


def write_grid(path: Path, count: int | None, positions: int = 7, **tags: Any) -> Path:
    """Write 3 rows of tiles, as many as 7 slices need, as United Imaging does."""
    write_mosaic(path, None, **{"ImageType": ["ORIGINAL", "PRIMARY", "M", "VFRAME"], **tags})
    dataset = dcmread(path)
    block = dataset.private_block(0x0065, "Image Private Header", create=True)
    if count is not None:
        block.add_new(0x50, "DS", str(count))
    items = []
    for number in range(positions):
        item = Dataset()
        item.ImagePositionPatient = [1.0, 2.0, 40.0 - 4.0 * number]
        items.append(item)
    block.add_new(0x51, "SQ", DicomSequence(items))
    dataset.save_as(path)
    return path


def test_tiles_of_united_imaging_have_places_of_their_own(tmp_path: Path) -> None:
    [image] = read(write_grid(tmp_path / "u.dcm", 7, SpacingBetweenSlices=None))

    assert image.pixels.shape == (7, *TILE)
    # The first slice lies highest; slices are handed on along their normal.
    assert image.pixels[:, 0, 0].tolist() == list(range(6, -1, -1))
    assert image.affine is not None
    np.testing.assert_allclose(image.affine[:3, 3], [-1.0, -2.0, 16.0])
    assert image.spacing.slice_mm == 4.0
    assert image.details["tiled"]


def test_united_imaging_leaves_out_rows_without_a_slice(tmp_path: Path) -> None:
    """Six slices in three columns need two rows, where Siemens writes three."""
    sheet = np.arange(6, dtype=np.uint16).reshape(2, 1, 3, 1)
    pixels = np.broadcast_to(sheet, (2, TILE[0], 3, TILE[1])).reshape(2 * TILE[0], 3 * TILE[1])
    path = write_grid(tmp_path / "u.dcm", 6, 6, Rows=2 * TILE[0], PixelData=pixels.tobytes())

    [image] = read(path)

    assert image.pixels.shape == (6, *TILE)
    assert (image.pixels == np.arange(5, -1, -1)[:, None, None]).all()


@pytest.mark.parametrize(
    ("count", "positions", "named"), [(None, 7, "(0065,xx50)"), (7, 0, "(0065,xx51)")]
)
def test_a_grid_without_its_private_elements_is_refused(
    tmp_path: Path, count: int | None, positions: int, named: str
) -> None:
    assert named in refusal(write_grid(tmp_path / "u.dcm", count, positions))
