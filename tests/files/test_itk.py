import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from factories import write_nifti, write_zip
from vismae.core.errors import UnreadableFileError
from vismae.core.types import Modality, PixelUnit
from vismae.files.discover import SourceFile, discover, source_file
from vismae.files.itk import read_itk, read_itk_labels
from vismae.files.nifti import read_nifti, read_nifti_labels
from vismae.files.read import read_image, read_label_map
from vismae.files.volume_customs import MAX_VOLUMES

sitk = pytest.importorskip("SimpleITK")

SUFFIXES = [".mha", ".mhd", ".nrrd", ".nhdr"]


def itk(path: Path) -> SourceFile:
    return SourceFile(path, None, "itk")


def volume(shape: tuple[int, ...] = (4, 5, 6), dtype: type = np.int16) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def write(path: Path, data: np.ndarray, compress: bool = False, **options: Any) -> Path:
    """Write (K, J, I) data, or (K, J, I, C) as components."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(data, **options), str(path), compress)
    return path


def oblique_affine() -> np.ndarray:
    """RAS; axes permuted, one flipped, all turned by 20 degrees."""
    turn = np.deg2rad(20.0)
    rotation = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    directions = np.array([[0, 0, -1.0], [1, 0, 0], [0, 1, 0]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ directions @ np.diag([1.0, 1.5, 3.0])
    affine[:3, 3] = [11.0, -7.0, 5.0]
    return affine


def reason(path: Path, labels: bool = False) -> tuple[str, str]:
    with pytest.raises(UnreadableFileError) as caught:
        read_itk_labels(itk(path)) if labels else read_itk(itk(path))
    assert str(path) in str(caught.value)
    return caught.value.reason, str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "affine",
    [np.diag([-2.0, -1.0, 4.0, 1.0]), np.diag([2.0, 2.0, 5.0, 1.0]), oblique_affine()],
    ids=["LPS", "RAS", "oblique"],
)
def test_a_volume_is_the_same_as_its_nifti_copy(
    tmp_path: Path, suffix: str, affine: np.ndarray
) -> None:
    nifti = write_nifti(tmp_path / "v.nii", volume(), affine)
    copy = tmp_path / f"v{suffix}"
    sitk.WriteImage(sitk.ReadImage(str(nifti)), str(copy))

    [expected] = read_nifti(SourceFile(nifti, None, "nifti"))
    [found] = read_itk(itk(copy))

    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert found.pixels.dtype == np.int16
    assert found.affine is not None
    assert expected.affine is not None
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-4)
    for size in ("slice_mm", "row_mm", "column_mm"):
        assert getattr(found.spacing, size) == pytest.approx(getattr(expected.spacing, size))
    assert found.details["orientation_known"]
    labels, _ = read_itk_labels(itk(copy))
    np.testing.assert_array_equal(labels, read_nifti_labels(SourceFile(nifti, None, "nifti"))[0])


def test_an_nrrd_that_counts_to_the_right_is_turned(tmp_path: Path) -> None:
    path = write(tmp_path / "v.nrrd", volume((2, 3, 4)))
    [as_left] = read_itk(itk(path))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"left-posterior-superior", b"right-anterior-superior"))

    [as_right] = read_itk(itk(path))

    np.testing.assert_array_equal(as_right.pixels, as_left.pixels[:, ::-1, ::-1])


def test_files_without_directions_are_shown_as_stored(tmp_path: Path) -> None:
    path = tmp_path / "plain.mha"
    data = volume((2, 3, 4))
    header = "NDims = 3\nDimSize = 4 3 2\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    path.write_bytes(header.encode() + data.tobytes())

    [image] = read_itk(itk(path))

    assert not image.details["orientation_known"]
    np.testing.assert_array_equal(image.pixels, data)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_two_and_four_axes_and_colours_are_read(tmp_path: Path, suffix: str) -> None:
    flat = volume((5, 6))
    times = volume((3, 2, 5, 6))
    colour = volume((2, 5, 6, 3), np.uint8)

    [image] = read_itk(itk(write(tmp_path / f"flat{suffix}", flat)))
    np.testing.assert_array_equal(image.pixels, flat[None])
    images = read_itk(itk(write(tmp_path / f"time{suffix}", times, isVector=False)))
    np.testing.assert_array_equal([image.pixels for image in images], times)
    assert [image.details["volume_index"] for image in images] == [0, 1, 2]
    [image] = read_itk(itk(write(tmp_path / f"rgb{suffix}", colour, isVector=True)))
    np.testing.assert_array_equal(image.pixels, colour)


def test_an_nrrd_list_of_volumes_is_thinned_evenly(tmp_path: Path) -> None:
    data = volume((2, 3, 4, 100))
    path = write(tmp_path / "dwi.nrrd", data, isVector=True)
    assert reason(path)[0] == "unsupported-pixels"
    path.write_bytes(path.read_bytes().replace(b"kinds: vector", b"kinds: list"))

    images = read_itk(itk(path))

    assert len(images) == MAX_VOLUMES
    assert images[-1].details["volume_index"] == 99
    np.testing.assert_array_equal(images[-1].pixels, data[..., 99])


@pytest.mark.parametrize(
    ("name", "modality", "unit"),
    [
        ("p1_ct.mha", Modality.CT, PixelUnit.HU),
        ("p1_pet.nrrd", Modality.PET, PixelUnit.SUV),
        ("p1_t1w.mha", Modality.MR, PixelUnit.ARBITRARY),
        ("p1.mha", Modality.OTHER, PixelUnit.ARBITRARY),
    ],
)
def test_the_name_hints_at_the_modality(
    tmp_path: Path, name: str, modality: Modality, unit: PixelUnit
) -> None:
    path = write(tmp_path / name, volume())

    [image] = read_itk(itk(path))

    assert (image.modality, image.unit) == (modality, unit)
    assert read_itk(itk(path), Modality.CT)[0].unit is PixelUnit.HU


def test_the_header_says_the_modality_before_the_name(tmp_path: Path) -> None:
    path = write(tmp_path / "v_mr.mha", volume())
    path.write_bytes(path.read_bytes().replace(b"NDims", b"Modality = MET_MOD_CT\nNDims", 1))

    assert read_itk(itk(path))[0].modality is Modality.CT


def test_detached_and_packed_pixels_are_read_from_archives(tmp_path: Path) -> None:
    header = write(tmp_path / "v.mhd", volume())
    packed = write(tmp_path / "p.mha", volume(), compress=True)
    members = {"a/v.mhd": header, "a/v.raw": header.with_suffix(".raw"), "a/p.mha": packed}
    archive = write_zip(tmp_path / "zip" / "all.zip", members)

    found = list(discover(archive))

    assert [file.member for file in found if isinstance(file, SourceFile)] == ["a/p.mha", "a/v.mhd"]
    assert len(found) == 2
    for file in found:
        assert isinstance(file, SourceFile)
        assert file.kind == "itk"
        [image] = read_image(file)
        np.testing.assert_array_equal(image.pixels, volume())
        np.testing.assert_array_equal(read_label_map(file)[0], volume())


def test_a_pixel_file_may_be_named_as_teem_does(tmp_path: Path) -> None:
    write(tmp_path / "v.nhdr", volume())
    header = (tmp_path / "v.nhdr").read_bytes()
    assert b"data file: v.raw" in header
    (tmp_path / "v.nhdr").write_bytes(header.replace(b": v.raw", b": ./v.raw"))
    packed = write_zip(tmp_path / "v.zip", {name: tmp_path / name for name in ("v.nhdr", "v.raw")})

    for file in (itk(tmp_path / "v.nhdr"), SourceFile(packed, "v.nhdr", "itk")):
        [image] = read_itk(file)
        assert sorted(image.pixels.ravel()) == list(range(120))


def test_a_metaimage_may_begin_with_a_comment(tmp_path: Path) -> None:
    """As the library writes it that the format comes from."""
    path = write(tmp_path / "v.mha", volume())
    path.write_bytes(b"Comment = made for a test\n" + path.read_bytes())

    [image] = read_image(source_file(path.rename(tmp_path / "v")))

    assert sorted(image.pixels.ravel()) == list(range(120))


def test_a_missing_pixel_file_is_named(tmp_path: Path) -> None:
    for suffix in (".mhd", ".nhdr"):
        path = write(tmp_path / f"v{suffix}", volume())
        path.with_suffix(".raw").unlink()
        code, message = reason(path)
        assert code == "not-found"
        assert "'v.raw'" in message
    archive = write_zip(tmp_path / "all.zip", {"v.mhd": tmp_path / "v.mhd"})
    with pytest.raises(UnreadableFileError, match=r"'v\.raw'") as caught:
        read_itk(source_file(archive, "v.mhd"))
    assert caught.value.reason == "not-found"


@pytest.mark.parametrize(
    "place", ["../v.raw", "/etc/passwd", r"C:\data\v.raw", "LIST", "v%03d.raw 1 4 1"]
)
def test_a_header_cannot_lead_to_other_places(tmp_path: Path, place: str) -> None:
    path = write(tmp_path / "sub" / "v.mhd", volume())
    (path.parent / "v.raw").rename(tmp_path / "v.raw")
    path.write_text(path.read_text().replace("v.raw", place))

    code, message = reason(path)

    assert code == "undecodable"
    assert "same folder" in message


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_damaged_and_boastful_files_have_their_own_reasons(tmp_path: Path, suffix: str) -> None:
    content = write(tmp_path / f"v{suffix}", volume((6, 5, 4))).read_bytes()
    cut, huge, headless = (tmp_path / f"{name}{suffix}" for name in ("cut", "huge", "headless"))
    cut.write_bytes(content[:-20])
    huge.write_bytes(content.replace(b"4 5 6", b"40000 50000 60000"))
    headless.write_bytes(content[:60])
    garbage = tmp_path / f"garbage{suffix}"
    garbage.write_bytes(b"garbage" * 100)

    assert reason(cut)[0] == "truncated"
    assert reason(huge)[0] == "too-large"
    assert reason(headless)[0] == "truncated"
    assert reason(garbage)[0] == "undecodable"


def test_complex_pixels_and_vectors_are_refused(tmp_path: Path) -> None:
    field = write(tmp_path / "f.mha", volume((2, 3, 4, 3), np.float32), isVector=True)
    complex_ = write(tmp_path / "c.nrrd", volume((3, 4, 5), np.complex64))

    assert reason(field)[0] == "unsupported-pixels"
    assert reason(complex_)[0] in ("unsupported-pixels", "undecodable")


def test_label_maps_must_hold_one_volume_of_whole_numbers(tmp_path: Path) -> None:
    soft = write(tmp_path / "soft.mha", np.full((2, 3, 4), 0.25, np.float32))
    several = write(tmp_path / "several.mha", np.zeros((2, 3, 4, 5), np.uint8), isVector=False)
    rgb = write(tmp_path / "rgb.mha", volume((2, 5, 6, 3), np.uint8), isVector=True)

    assert reason(soft, labels=True)[0] == "label-not-integer"
    assert reason(several, labels=True)[0] == "label-format"
    assert reason(rgb, labels=True)[0] == "label-format"


def test_without_the_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "v.mha", volume())
    monkeypatch.setitem(sys.modules, "SimpleITK", None)

    code, message = reason(path)

    assert code == "needs-extra"
    assert "pip install 'vismae[itk]'" in message


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_never_raises_anything_else(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for suffix in (".mha", ".nrrd"):
        for compress in (False, True):
            path = write(tmp_path / f"v{suffix}", volume((9, 8, 7)), compress)
            content = bytearray(path.read_bytes())
            for place in rng.integers(0, 300, 3):
                content[place] = rng.integers(256)
            path.write_bytes(content[: rng.integers(len(content) // 2, len(content) + 1)])
            for read in (read_image, read_label_map):
                try:
                    read(itk(path))
                except UnreadableFileError:
                    continue


def test_nibabel_finds_the_same_value_at_the_same_place(tmp_path: Path) -> None:
    nifti = write_nifti(tmp_path / "v.nii", volume((6, 7, 8)), oblique_affine())
    copy = tmp_path / "v.mha"
    sitk.WriteImage(sitk.ReadImage(str(nifti)), str(copy))
    reference: Any = nib.load(nifti)
    data = np.asarray(reference.dataobj)

    [image] = read_itk(itk(copy))

    assert image.affine is not None
    for slice_, row, column in [(0, 0, 0), (1, 3, 2), tuple(np.array(image.pixels.shape) - 1)]:
        place = np.linalg.inv(reference.affine) @ image.affine @ [column, row, slice_, 1]
        index = tuple(np.rint(place[:3]).astype(int))
        np.testing.assert_allclose(place[:3], index, atol=1e-4)
        assert image.pixels[slice_, row, column] == data[index]
