import itertools

import numpy as np
import pytest

from vismae.files.orientation import slice_orientation

SHAPE = (3, 4, 5)


def every_axis_order() -> list[np.ndarray]:
    affines = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = np.eye(3)[:, list(order)] * signs
            affine[:3, 3] = [3.0, -4.0, 5.0]
            affines.append(affine)
    return affines


@pytest.mark.parametrize("affine", every_axis_order())
def test_any_axis_order_gives_the_same_slices_and_the_right_places(affine: np.ndarray) -> None:
    data = np.arange(60).reshape(SHAPE)
    orientation = slice_orientation(SHAPE, affine)

    slices = orientation.to_slices(data)

    np.testing.assert_array_equal(orientation.to_volume(slices), data)
    # Columns run to the left, rows to the back, slices to the head.
    np.testing.assert_array_equal(orientation.affine[:3, :3], np.diag([-1.0, -1.0, 1.0]))
    for voxel in itertools.product(*(range(length) for length in SHAPE)):
        place = affine @ [*voxel, 1.0]
        column, row, slice_, _ = np.linalg.inv(orientation.affine) @ place
        assert slices[round(slice_), round(row), round(column)] == data[voxel]


def test_clearly_thicker_voxels_make_the_slice_axis() -> None:
    sagittal = slice_orientation(SHAPE, np.diag([4.0, 1.0, 1.0, 1.0]))
    coronal = slice_orientation(SHAPE, np.diag([1.0, 4.0, 1.0, 1.0]))
    nearly_equal = slice_orientation(SHAPE, np.diag([1.1, 1.0, 1.0, 1.0]))

    assert [o.axes for o in (sagittal, coronal, nearly_equal)] == [(0, 2, 1), (1, 2, 0), (2, 1, 0)]
    assert (sagittal.spacing.slice_mm, sagittal.spacing.row_mm) == (4.0, 1.0)


def test_sagittal_and_coronal_slices_stand_upright_like_dicom() -> None:
    sagittal = slice_orientation(SHAPE, np.diag([4.0, 1.0, 1.0, 1.0])).affine[:3, :3]
    coronal = slice_orientation(SHAPE, np.diag([1.0, 4.0, 1.0, 1.0])).affine[:3, :3]

    # Directions of columns, rows and slices in RAS.
    np.testing.assert_array_equal(sagittal.T, [[0, -1, 0], [0, 0, -1], [4, 0, 0]])
    np.testing.assert_array_equal(coronal.T, [[-1, 0, 0], [0, 0, -1], [0, -4, 0]])
    # DICOM: slices rise along the cross product of row and column direction; as LPS and RAS differ
    # by a half turn, the handedness is the same.
    for axes in (sagittal, coronal):
        assert np.linalg.det(axes) > 0


def test_a_lone_slice_is_the_slice_axis_whatever_its_thickness() -> None:
    flat = slice_orientation((5, 1, 6), np.diag([3.0, 1.0, 1.0, 1.0]))

    assert flat.axes[0] == 1


def test_extra_axes_such_as_colour_stay_last() -> None:
    orientation = slice_orientation(SHAPE, np.diag([-1.0, 1.0, 1.0, 1.0]))
    data = np.arange(180).reshape(*SHAPE, 3)

    assert orientation.to_slices(data).shape == (5, 4, 3, 3)
    np.testing.assert_array_equal(orientation.to_volume(orientation.to_slices(data)), data)
