"""Label maps that lie voxel for voxel on the image they came from."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from factories import write_nifti
from vismae.core.errors import DataError
from vismae.core.types import Modality
from vismae.files.discover import source_file
from vismae.files.read import read_image
from vismae.inference.nifti_writer import write_nifti_like, write_nifti_of

LANDMARK = (3, 7, 2)


def asymmetric(shape: tuple[int, ...] = (11, 13, 6)) -> np.ndarray:
    """A volume without any symmetry, with one brightest voxel at ``LANDMARK``."""
    data = np.random.default_rng(0).integers(0, 500, shape).astype(np.int16)
    data[LANDMARK] = 900
    return data


def turned(degrees: tuple[float, float, float], sizes: tuple[float, float, float]) -> np.ndarray:
    """Return an oblique affine."""
    x, y, z = np.deg2rad(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_y @ about_z @ np.diag(sizes)
    affine[:3, 3] = (-31.5, 12.25, 7.0)
    return affine


AFFINES = {
    "ras": np.diag([1.0, 1.0, 1.0, 1.0]),
    "lps": np.diag([-0.7, -0.7, 3.0, 1.0]),
    "oblique": turned((12.0, -8.0, 25.0), (0.8, 0.9, 2.5)),
    "sagittal storage": np.array(
        [[0, 0, 3.0, -20], [1.0, 0, 0, 5], [0, -1.0, 0, 9], [0, 0, 0, 1.0]]
    ),
    "coronal storage": np.array(
        [[-1.0, 0, 0, 30], [0, 0, 2.5, -7], [0, 1.0, 0, 0], [0, 0, 0, 1.0]]
    ),
}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("name", AFFINES)
def test_a_label_map_overlays_its_image_exactly(name: str, suffix: str, tmp_path: Path) -> None:
    data, affine = asymmetric(), AFFINES[name]
    file = source_file(write_nifti(tmp_path / f"image{suffix}", data, affine))
    [image] = read_image(file, Modality.MR)
    labels = (image.pixels > 250).astype(np.uint8) + (image.pixels == 900)
    out = tmp_path / "out.nii.gz"
    write_nifti_like(out, file, [labels], slope=1.0)
    found, source = nib.load(out), nib.load(file.path)
    assert np.array_equal(found.affine, source.affine)
    assert found.get_sform(coded=True)[1] == source.get_sform(coded=True)[1]
    assert np.array_equal(np.asarray(found.dataobj), (data > 250).astype(np.uint8) + (data == 900))
    assert np.argwhere(np.asarray(found.dataobj) == 2).tolist() == [list(LANDMARK)]
    assert found.get_data_dtype() == np.uint8
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_every_order_and_direction_of_axes_comes_back(tmp_path: Path) -> None:
    data = asymmetric()
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((-1.0, 1.0), repeat=3):
            affine = np.zeros((4, 4))
            affine[3, 3] = 1.0
            for axis, patient in enumerate(order):
                affine[patient, axis] = signs[axis] * (1.0, 1.1, 2.0)[axis]
            file = source_file(write_nifti(tmp_path / "image.nii", data, affine))
            [image] = read_image(file, Modality.MR)
            out = tmp_path / "out.nii.gz"
            write_nifti_like(out, file, [image.pixels.astype(np.uint16)], slope=1.0)
            assert np.array_equal(np.asarray(nib.load(out).dataobj), data)
            # The same place in the patient, by the slices' own affine.
            where = np.argwhere(image.pixels == 900)[0]
            in_patient = image.affine @ [where[2], where[1], where[0], 1]
            assert np.allclose(in_patient, affine @ [*LANDMARK, 1])


def test_two_and_four_dimensions_keep_their_shape(tmp_path: Path) -> None:
    flat = asymmetric()[:, :, 2]
    file = source_file(write_nifti(tmp_path / "flat.nii.gz", flat))
    [image] = read_image(file, Modality.MR)
    write_nifti_like(tmp_path / "a.nii.gz", file, [image.pixels.astype(np.uint16)], 1.0)
    assert np.array_equal(np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj), flat)
    run = np.stack([asymmetric(), asymmetric()[::-1]], axis=-1)
    file = source_file(write_nifti(tmp_path / "run.nii.gz", run, AFFINES["oblique"]))
    volumes = [image.pixels.astype(np.uint16) for image in read_image(file, Modality.MR)]
    write_nifti_like(tmp_path / "b.nii.gz", file, volumes, 1.0)
    assert np.array_equal(np.asarray(nib.load(tmp_path / "b.nii.gz").dataobj), run)


def test_nifti_2_stays_nifti_2(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(asymmetric(), AFFINES["oblique"]), tmp_path / "image.nii.gz")
    file = source_file(tmp_path / "image.nii.gz")
    [image] = read_image(file, Modality.MR)
    write_nifti_like(tmp_path / "out.nii.gz", file, [image.pixels.astype(np.uint16)], 1.0)
    found = nib.load(tmp_path / "out.nii.gz")
    assert isinstance(found, nib.Nifti2Image)
    assert np.array_equal(np.asarray(found.dataobj), asymmetric())


def test_nothing_typed_into_the_header_comes_along(tmp_path: Path) -> None:
    made = nib.Nifti1Image(asymmetric(), AFFINES["lps"])
    made.header["descrip"], made.header["db_name"] = b"Jane Doe", b"Doe"
    made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    nib.save(made, tmp_path / "image.nii")
    file = source_file(tmp_path / "image.nii")
    [image] = read_image(file, Modality.MR)
    write_nifti_like(tmp_path / "out.nii.gz", file, [image.pixels.astype(np.uint8)], 1.0)
    header = nib.load(tmp_path / "out.nii.gz").header
    assert b"Doe" not in header.binaryblock
    assert not header.extensions


def test_values_are_kept_as_numbers_with_a_slope(tmp_path: Path) -> None:
    file = source_file(write_nifti(tmp_path / "image.nii", asymmetric(), slope=2.0, intercept=7.0))
    [image] = read_image(file, Modality.MR)
    stored = np.full(image.pixels.shape, 65535, np.uint16)
    write_nifti_like(tmp_path / "out.nii.gz", file, [stored], 1 / 65535)
    assert np.allclose(nib.load(tmp_path / "out.nii.gz").get_fdata(), 1.0, atol=1e-6)


def test_a_file_that_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    file = source_file(write_nifti(tmp_path / "image.nii", asymmetric()))
    with pytest.raises(DataError, match="changed"):
        write_nifti_like(tmp_path / "out.nii.gz", file, [np.zeros((6, 5, 5), np.uint8)], 1.0)


def test_images_of_other_formats_lie_in_the_same_place(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    data = asymmetric()
    made = sitk.GetImageFromArray(data.transpose(2, 1, 0))
    made.SetSpacing((0.8, 0.9, 2.5))
    made.SetOrigin((4.0, -7.0, 12.0))
    made.SetDirection((0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
    sitk.WriteImage(made, str(tmp_path / "image.mha"))
    [image] = read_image(source_file(tmp_path / "image.mha"), Modality.MR)
    write_nifti_of(tmp_path / "out.nii.gz", image, (image.pixels == 900).astype(np.uint8), 1.0)
    found = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    where = np.argwhere(sitk.GetArrayFromImage(found) == 1)[0][::-1]
    place = found.TransformIndexToPhysicalPoint([int(part) for part in where])
    assert np.allclose(place, made.TransformIndexToPhysicalPoint(LANDMARK), atol=1e-4)
