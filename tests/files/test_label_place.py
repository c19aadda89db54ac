from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from factories import write_dicom_series, write_nifti
from vismae.core.errors import UnreadableFileError
from vismae.core.types import MedicalImage
from vismae.files.discover import SourceFile, source_file
from vismae.files.label_place import ImageBlock
from vismae.files.read import read_image, read_label_map

LPS = np.diag([-1.0, -1.0, 3.0, 1.0])
RAS = np.diag([1.0, 1.0, 3.0, 1.0])
Writer = Callable[[Path, np.ndarray, np.ndarray], Path]


def box() -> np.ndarray:
    """A box that is nowhere its own mirror image, (I, J, K)."""
    data = np.zeros((20, 24, 8), np.int16)
    data[2:6, 3:9, 1:3] = 1
    return data


def without_orientation(path: Path, data: np.ndarray) -> Path:
    image = nib.Nifti1Image(data, None)
    image.header.set_zooms((1, 1, 3))
    nib.save(image, path)
    return path


def read_pair(image: Path, labels: Path) -> tuple[MedicalImage, np.ndarray]:
    [found] = read_image(source_file(image))
    block = ImageBlock(found, 0, len(found.pixels))
    return found, read_label_map(source_file(labels), block)[0]


def refusal(image: Path, labels: Path) -> str:
    with pytest.raises(UnreadableFileError) as caught:
        read_pair(image, labels)
    assert caught.value.reason == "label-geometry"
    assert str(labels) in str(caught.value)
    assert str(image) in str(caught.value)
    return str(caught.value)


def write_meta(path: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(data.transpose(2, 1, 0))
    image.SetSpacing(np.abs(np.diag(affine)[:3]).tolist())
    image.SetDirection(np.diag(np.sign(np.diag(affine)[:3]) * [-1, -1, 1]).ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize(
    ("write", "suffix"), [(write_nifti, ".nii.gz"), (write_meta, ".mha")], ids=["nifti", "itk"]
)
def test_a_label_map_with_an_affine_of_its_own_is_refused(
    tmp_path: Path, write: Writer, suffix: str
) -> None:
    image = write(tmp_path / f"a{suffix}", box(), LPS)
    mirrored = write(tmp_path / f"b{suffix}", box().astype(np.uint8), np.eye(4))

    message = refusal(image, mirrored)

    assert "23.0 voxels" in message
    assert "affine of the image" in message


@pytest.mark.parametrize("affine", [LPS, RAS], ids=["LPS", "RAS"])
def test_a_label_map_without_orientation_lies_as_its_image(
    tmp_path: Path, affine: np.ndarray
) -> None:
    image = write_nifti(tmp_path / "a.nii", box(), affine)
    open_to_all = without_orientation(tmp_path / "b.nii", box())

    found, labels = read_pair(image, open_to_all)

    np.testing.assert_array_equal(labels, found.pixels)


def test_an_image_without_orientation_has_a_label_map_stored_alike(tmp_path: Path) -> None:
    image = without_orientation(tmp_path / "a.nii", box())

    found, labels = read_pair(image, write_nifti(tmp_path / "b.nii", box(), LPS))

    np.testing.assert_array_equal(labels, found.pixels)


def test_a_label_map_in_another_order_with_a_true_affine_lies_on_its_image(tmp_path: Path) -> None:
    image = write_nifti(tmp_path / "a.nii", box(), LPS)
    turned = np.diag([1.0, 1.0, 3.0, 1.0])
    turned[:3, 3] = [-19.0, -23.0, 0.0]

    found, labels = read_pair(image, write_nifti(tmp_path / "b.nii", box()[::-1, ::-1], turned))

    np.testing.assert_array_equal(labels, found.pixels)


def test_half_a_voxel_is_rounding_and_more_is_another_place(tmp_path: Path) -> None:
    image = write_nifti(tmp_path / "a.nii", box(), LPS)
    near, far = LPS.copy(), LPS.copy()
    near[2, 3], far[2, 3] = 1.4, 1.6  # of 3 mm

    read_pair(image, write_nifti(tmp_path / "near.nii", box(), near))

    assert "0.5 voxels" in refusal(image, write_nifti(tmp_path / "far.nii", box(), far))


def test_a_label_map_lies_on_the_slices_that_its_file_holds(tmp_path: Path) -> None:
    pixels = np.arange(5 * 6 * 4, dtype=np.int16).reshape(5, 6, 4)
    files = [
        SourceFile(path, None, "dicom") for path in write_dicom_series(tmp_path / "ct", pixels)
    ]
    [image] = read_image(files)
    assert image.affine is not None
    place = image.affine.copy()
    place[:3, 3] = (image.affine @ [0, 0, 2, 1])[:3]
    labels = np.zeros((4, 6, 1), np.uint8)
    third = source_file(write_nifti(tmp_path / "l.nii", labels, place))
    nowhere = source_file(without_orientation(tmp_path / "n.nii", labels))

    assert read_label_map(third, ImageBlock(image, 2, 1))[0].shape == (1, 6, 4)
    with pytest.raises(UnreadableFileError, match=r"1\.0 voxels"):
        read_label_map(third, ImageBlock(image, 3, 1))
    with pytest.raises(UnreadableFileError, match="sform_code and qform_code"):
        read_label_map(nowhere, ImageBlock(image, 2, 1))
