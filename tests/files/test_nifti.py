import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from factories import write_nifti
from vismae.core.errors import UnreadableFileError
from vismae.core.types import Modality, PixelUnit
from vismae.files.discover import SourceFile
from vismae.files.nifti import read_nifti, read_nifti_labels
from vismae.files.volume_customs import MAX_VOLUMES


def nifti(path: Path) -> SourceFile:
    return SourceFile(path, None, "nifti")


def reason(path: Path, labels: bool = False) -> tuple[str, str]:
    with pytest.raises(UnreadableFileError) as caught:
        read_nifti_labels(nifti(path)) if labels else read_nifti(nifti(path))
    assert str(path) in str(caught.value)
    return caught.value.reason, str(caught.value)


def volume(shape: tuple[int, ...] = (4, 5, 6), dtype: type = np.int16) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def test_axial_slices_show_front_at_the_top_and_right_on_the_left(tmp_path: Path) -> None:
    data = np.zeros((4, 5, 6), np.int16)  # canonical: right, anterior, superior
    data[3, 4, 5] = 7  # rightmost, foremost, topmost
    data[0, 0, 0] = 1

    [image] = read_nifti(nifti(write_nifti(tmp_path / "v.nii", data)))

    assert image.pixels.shape == (6, 5, 4)
    assert image.pixels[5, 0, 0] == 7
    assert image.pixels[0, 4, 3] == 1


def test_stored_integers_keep_the_files_slope_and_intercept(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "v_ct.nii.gz", volume(), slope=0.5, intercept=-1024.0)

    [image] = read_nifti(nifti(path))

    assert image.pixels.dtype == np.int16
    assert (image.slope, image.intercept) == (0.5, -1024.0)
    reference = np.asarray(nib.load(path).dataobj)  # pyright: ignore
    physical = image.pixels * image.slope + image.intercept
    np.testing.assert_allclose(physical[:, ::-1, ::-1].transpose(2, 1, 0), reference)
    assert (image.modality, image.unit) == (Modality.CT, PixelUnit.HU)


@pytest.mark.parametrize(
    ("name", "modality", "unit"),
    [
        ("sub-01_T1w.nii", Modality.MR, PixelUnit.ARBITRARY),
        ("sub-01_task-rest_bold.nii.gz", Modality.MR, PixelUnit.ARBITRARY),
        ("LUNG_CT.nii", Modality.CT, PixelUnit.HU),
        ("p1_PET_image.nii", Modality.PET, PixelUnit.SUV),
        ("case_044.nii", Modality.OTHER, PixelUnit.ARBITRARY),
        ("direct_petal.nii", Modality.OTHER, PixelUnit.ARBITRARY),
    ],
)
def test_the_name_hints_at_the_modality(
    tmp_path: Path, name: str, modality: Modality, unit: PixelUnit
) -> None:
    [image] = read_nifti(nifti(write_nifti(tmp_path / name, volume())))

    assert (image.modality, image.unit) == (modality, unit)


@pytest.mark.parametrize(
    ("name", "values", "unit"),
    [
        ("sub-01_pet.nii", [[0.0, 5e3, 2e4], [0.0, 10.0, 20.0]], PixelUnit.ARBITRARY),  # Bq/ml
        ("sub-01_pet.nii", [[0.0, 5.0, 20.0], [0.0, 10.0, 400.0]], PixelUnit.SUV),
        ("a_ct.nii", [[0.0, 0.4, 1.0]], PixelUnit.ARBITRARY),
        ("a_ct.nii", [[-1.0, 0.4, 1.0]], PixelUnit.ARBITRARY),
        ("a_ct.nii", [[-1000.0, 0.4, 1.0]], PixelUnit.HU),
        ("a_ct.nii", [[0.0, 0.0, 0.0]], PixelUnit.HU),
        ("a_ct.nii", [[-1.2, 0.4, 6.5]], PixelUnit.ARBITRARY),
    ],
)
def test_values_that_cannot_have_the_unit_of_the_custom_do_not_get_it(
    tmp_path: Path, name: str, values: list[list[float]], unit: PixelUnit
) -> None:
    """The PET of the Brain Imaging Data Structure is in Bq/ml; all volumes of a file are alike."""
    data = np.moveaxis(np.array(values, np.float32)[:, None, None, :], 0, -1)

    images = read_nifti(nifti(write_nifti(tmp_path / name, data)))

    assert {image.unit for image in images} == {unit}


def test_a_given_modality_goes_before_the_name(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "x_T1w.nii", volume())

    assert read_nifti(nifti(path), Modality.CT)[0].unit is PixelUnit.HU


def test_unscaled_8_bit_ct_cannot_be_hounsfield_units(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "x_ct.nii", volume(dtype=np.uint8))

    assert read_nifti(nifti(path))[0].unit is PixelUnit.ARBITRARY


def test_floats_become_float32_and_not_a_number_the_smallest_value(tmp_path: Path) -> None:
    data = volume(dtype=np.float64) + 5.0
    data[0, 0, 0], data[0, 0, 1] = np.nan, np.inf

    [image] = read_nifti(nifti(write_nifti(tmp_path / "v.nii", data)))

    assert image.pixels.dtype == np.float32
    assert image.pixels.min() == 7.0
    assert image.pixels.max() == 5.0 + 4 * 5 * 6 - 1


def test_four_dimensional_files_give_each_volume(tmp_path: Path) -> None:
    data = volume((3, 4, 2, 5))

    images = read_nifti(nifti(write_nifti(tmp_path / "v.nii.gz", data)))

    assert [image.details["volume_index"] for image in images] == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(images[3].pixels[:, ::-1, ::-1].transpose(2, 1, 0), data[..., 3])


def test_long_runs_are_thinned_evenly(tmp_path: Path) -> None:
    images = read_nifti(nifti(write_nifti(tmp_path / "v.nii", volume((2, 2, 2, 100)))))

    indices = [image.details["volume_index"] for image in images]
    assert len(indices) == MAX_VOLUMES
    assert (indices[0], indices[-1]) == (0, 99)
    assert images[0].details["volumes_in_file"] == 100


def test_flat_files_are_one_slice(tmp_path: Path) -> None:
    [image] = read_nifti(nifti(write_nifti(tmp_path / "v.nii", volume((4, 5)))))

    assert image.pixels.shape == (1, 5, 4)


def test_nifti_2_and_rgb_are_read(tmp_path: Path) -> None:
    second = tmp_path / "v2.nii"
    nib.save(nib.Nifti2Image(volume(), np.eye(4), dtype=np.int16), second)
    [image] = read_nifti(nifti(second))
    assert image.pixels.shape == (6, 5, 4)

    rgb = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["G"] = 9
    [colour] = read_nifti(nifti(write_nifti(tmp_path / "rgb.nii", rgb)))
    assert colour.pixels.shape == (6, 5, 4, 3)
    np.testing.assert_array_equal(colour.pixels[0, 0, 0], [0, 9, 0])


def test_complex_damaged_and_cut_files_have_their_own_reasons(tmp_path: Path) -> None:
    strange = write_nifti(tmp_path / "c.nii", volume(dtype=np.complex64))
    cut = write_nifti(tmp_path / "cut.nii", volume())
    cut.write_bytes(cut.read_bytes()[:-20])
    whole = gzip.compress(write_nifti(tmp_path / "w.nii", volume((20, 20, 20))).read_bytes())
    cut_gz = tmp_path / "cut.nii.gz"
    cut_gz.write_bytes(whole[: len(whole) // 2])
    garbage = tmp_path / "g.nii"
    garbage.write_bytes(b"garbage" * 100)

    assert reason(strange)[0] == "unsupported-pixels"
    assert reason(cut)[0] == "truncated"
    assert reason(cut_gz)[0] == "truncated"
    assert reason(garbage)[0] == "undecodable"


def test_an_image_without_a_finite_voxel_is_refused(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "n.nii", np.full((2, 2, 2), np.nan, np.float32))

    assert reason(path)[0] == "not-finite"


def oblique_affine() -> np.ndarray:
    """Axes permuted, one flipped, all turned by 20 degrees."""
    turn = np.deg2rad(20.0)
    rotation = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    directions = np.array([[0, 0, -1.0], [1, 0, 0], [0, 1, 0]])  # columns: A, S, left
    affine = np.eye(4)
    affine[:3, :3] = rotation @ directions @ np.diag([1.0, 1.0, 3.0])
    affine[:3, 3] = [11.0, -7.0, 5.0]
    return affine


@pytest.mark.parametrize(
    "affine",
    [np.diag([-1.0, -1.0, 1.0, 1.0]), np.diag([2.0, 2.0, -5.0, 1.0]), oblique_affine()],
    ids=["LPS", "feet-down", "oblique"],
)
def test_image_and_label_map_stay_aligned_in_any_orientation(
    tmp_path: Path, affine: np.ndarray
) -> None:
    data = volume()
    labels = (data > 60).astype(np.uint8) + (data > 100)

    [image] = read_nifti(nifti(write_nifti(tmp_path / "i.nii", data, affine)))
    label_map, spacing = read_nifti_labels(
        nifti(write_nifti(tmp_path / "l.nii.gz", labels, affine))
    )

    assert label_map.dtype == np.int32
    np.testing.assert_array_equal(label_map, (image.pixels > 60) + (image.pixels > 100) * 1)
    assert spacing == image.spacing


def test_simpleitk_finds_the_same_value_at_the_same_place(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    path = write_nifti(tmp_path / "i.nii", volume((6, 7, 8)), oblique_affine())
    reference = sitk.ReadImage(str(path))

    [image] = read_nifti(nifti(path))

    assert image.affine is not None
    last = np.array(image.pixels.shape) - 1
    for slice_, row, column in [(0, 0, 0), (1, 3, 2), last]:
        ras = image.affine @ [column, row, slice_, 1]
        lps = [-ras[0], -ras[1], ras[2]]
        index = reference.TransformPhysicalPointToIndex([float(value) for value in lps])
        assert reference[index] == image.pixels[slice_, row, column]


def test_label_maps_must_hold_whole_numbers(tmp_path: Path) -> None:
    whole = write_nifti(tmp_path / "w.nii", np.array([[[0.0, 3.0]]], np.float32))
    scaled = write_nifti(tmp_path / "s.nii", np.array([[[0, 4]]], np.int16), slope=0.5)
    soft = write_nifti(tmp_path / "p.nii", np.array([[[0.25, 0.75, 1.0]]], np.float32))
    several = write_nifti(tmp_path / "t.nii", np.zeros((2, 2, 2, 2), np.uint8))

    assert sorted(np.unique(read_nifti_labels(nifti(whole))[0])) == [0, 3]
    assert sorted(np.unique(read_nifti_labels(nifti(scaled))[0])) == [0, 2]
    code, message = reason(soft, labels=True)
    assert code == "label-not-integer"
    assert "0.25, 0.75" in message
    assert reason(several, labels=True)[0] == "label-format"


def with_sform_of_zeros(path: Path, data: np.ndarray, qform: np.ndarray | None) -> Path:
    image = nib.Nifti1Image(data, None)
    image.header.set_zooms((0.7, 0.7, 5.0))
    if qform is not None:
        image.header.set_qform(qform, 1)
    image.header["sform_code"] = 1
    header = image.header.copy()
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path.write_bytes(header.binaryblock + bytes(4) + data.tobytes("F"))
    return path


def test_voxel_sizes_that_are_no_numbers_count_as_one(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), None)
    image.header["pixdim"][1:4] = [np.nan, 2.0, np.inf]
    image.header["qform_code"] = image.header["sform_code"] = 0
    path = tmp_path / "odd.nii"
    image.to_filename(path)

    [found] = read_nifti(nifti(path))

    sizes = (found.spacing.slice_mm, found.spacing.row_mm, found.spacing.column_mm)
    assert sorted(size or 0.0 for size in sizes) == [1.0, 1.0, 2.0]


def test_an_sform_of_zeros_gives_way_to_the_qform_and_then_to_voxel_sizes(tmp_path: Path) -> None:
    turned = np.diag([-0.7, -0.7, 5.0, 1.0])

    [by_qform] = read_nifti(nifti(with_sform_of_zeros(tmp_path / "q.nii", volume(), turned)))
    [by_sizes] = read_nifti(nifti(with_sform_of_zeros(tmp_path / "s.nii", volume(), None)))

    for image, known in ((by_qform, True), (by_sizes, False)):
        assert image.details["orientation_known"] is known
        sizes = (image.spacing.slice_mm, image.spacing.row_mm, image.spacing.column_mm)
        assert sizes == pytest.approx((5.0, 0.7, 0.7))
    np.testing.assert_array_equal(by_qform.pixels, volume().transpose(2, 1, 0))


def test_a_vox_offset_of_zero_does_not_make_voxels_of_the_header(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "v.nii", volume())
    [expected] = read_nifti(nifti(path))
    content = bytearray(path.read_bytes())
    content[108:112] = np.float32(0.0).tobytes()
    path.write_bytes(content)

    [image] = read_nifti(nifti(path))

    np.testing.assert_array_equal(image.pixels, expected.pixels)


def changed(path: Path, change: Callable[[bytearray], bytes | bytearray]) -> Path:
    path.write_bytes(bytes(change(bytearray(path.read_bytes()))))
    return path


def flipped(at: int) -> Callable[[bytearray], bytearray]:
    def change(content: bytearray) -> bytearray:
        content[at] ^= 1
        return content

    return change


@pytest.mark.parametrize("labels", [False, True])
def test_voxels_that_changed_on_the_way_are_told_by_the_checksum(
    labels: bool, tmp_path: Path
) -> None:
    # Compressed as it is, so that a wrong bit is a wrong voxel and nothing else.
    plain = write_nifti(tmp_path / "a.nii", volume((8, 8, 8)))
    packed = tmp_path / "a.nii.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes(), compresslevel=0))
    assert np.asarray(nib.load(packed).dataobj).shape == (8, 8, 8)
    wrong = changed(packed, flipped(-200))
    assert not np.array_equal(np.asarray(nib.load(wrong).dataobj), volume((8, 8, 8)))
    assert "CRC check failed" in reason(wrong, labels)[1]


@pytest.mark.parametrize("lost", [1, 8])
def test_a_compressed_file_without_its_end_is_cut(lost: int, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", volume())
    assert reason(changed(path, lambda content: content[:-lost]))[0] == "truncated"


@pytest.mark.parametrize("behind", [bytes(700), b"written by another program"])
def test_what_stands_behind_a_sound_file_does_no_harm(behind: bytes, tmp_path: Path) -> None:
    for name in ("a.nii.gz", "a.nii"):
        path = write_nifti(tmp_path / name, volume())
        [image] = read_nifti(nifti(changed(path, lambda content: content + behind)))
        assert image.pixels.size == volume().size
