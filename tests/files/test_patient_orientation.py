"""Slices turned to the patient: the three directions, from every way a file can lie."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest

from vismae.files.orientation import patient_orientation, slice_orientation

WAYS = [
    "".join(letters)
    for order in permutations(("LR", "PA", "IS"))
    for letters in product(*order)
]  # fmt: skip


def in_ras(shape: tuple[int, int, int] = (4, 5, 6)) -> np.ndarray:
    """A volume whose value tells how far right, front and up a voxel is: 1, 10 and 100 a step."""
    right, front, up = np.indices(shape)
    return right + 10 * front + 100 * up


@pytest.mark.parametrize("way", WAYS)
def test_every_file_gives_the_same_volume_to_head_back_and_left(way: str) -> None:
    plain = nib.Nifti1Image(in_ras().astype(np.int16), np.diag([1.0, 1.1, 1.15, 1.0]))
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(plain.affine), nib.orientations.axcodes2ornt(way)
    )
    file = plain.as_reoriented(turn)
    data = np.asarray(file.dataobj)
    oriented = slice_orientation((data.shape[0], data.shape[1], data.shape[2]), file.affine)
    slices = oriented.to_slices(data)
    found = patient_orientation(oriented.affine)
    assert found is not None
    volume = found.to_patient(slices)
    expected = in_ras().transpose(2, 1, 0)[:, ::-1, ::-1]
    assert np.array_equal(volume, expected)
    assert np.array_equal(found.to_slices(volume), slices)
    assert found.angle_deg == pytest.approx(0.0, abs=1e-5)


def test_slices_keep_the_plane_they_were_taken_in() -> None:
    for axis, plane in enumerate(("sagittal", "coronal", "axial")):
        sizes = [1.0, 1.0, 1.0]
        sizes[axis] = 4.0
        oriented = slice_orientation((6, 6, 6), np.diag([*sizes, 1.0]))
        found = patient_orientation(oriented.affine)
        assert found is not None
        assert found.native_plane == plane


def test_oblique_slices_go_to_the_nearest_axes() -> None:
    angle = np.radians(20.0)
    turned = np.eye(4)
    turned[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    found = patient_orientation(turned)
    assert found is not None
    assert found.angle_deg == pytest.approx(20.0)
    assert found.axes == (0, 1, 2)


def test_axes_without_a_direction_have_no_place_in_the_patient() -> None:
    assert patient_orientation(np.diag([1.0, 0.0, 1.0, 1.0])) is None
