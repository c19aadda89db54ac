"""``scan.hdr`` with ``scan.img``: one image, read as nibabel reads it."""

import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from factories import write_nifti, write_zip
from vismae.core.errors import UnreadableFileError
from vismae.core.types import Modality
from vismae.files.discover import RejectedFile, SourceFile, discover, find_file, source_file, walk
from vismae.files.read import read_image, read_label_map

AFFINE = np.array([[0.0, 2.0, 0, -3], [-1.5, 0, 0, 7], [0, 0, 4.0, 1], [0, 0, 0, 1]])


def volume(*more: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-900, 900, (5, 4, 3, *more)).astype(np.int16)


def write_pair(path: Path, data: np.ndarray, kind: type = nib.Nifti1Pair, order: str = "<") -> Path:
    """Write a pair in a byte order, with sform and qform."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = kind.header_class(endianness=order)  # type: ignore[attr-defined]
    header.set_data_dtype(data.dtype.newbyteorder(order))
    made = kind(data, AFFINE, header)
    made.set_qform(AFFINE, 1)
    nib.save(made, path)
    return path


@pytest.mark.parametrize("suffix", [".hdr", ".hdr.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("more", [(), (2,)])
def test_a_pair_is_the_image_that_a_single_file_would_be(
    suffix: str, kind: type, order: str, more: tuple[int, ...], tmp_path: Path
) -> None:
    path = write_pair(tmp_path / f"head_T1w{suffix}", volume(*more), kind, order)
    single = tmp_path / "single_T1w.nii"
    opened = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(opened.dataobj), opened.affine), single)

    images = read_image(source_file(path))

    assert len(images) == len(read_image(source_file(single)))
    for image, expected in zip(images, read_image(source_file(single)), strict=True):
        np.testing.assert_array_equal(image.pixels, expected.pixels)
        np.testing.assert_allclose(image.affine, expected.affine, atol=1e-5)
        assert image.spacing.slice_mm == pytest.approx(expected.spacing.slice_mm)
        assert image.modality is Modality.MR


def test_voxels_may_begin_behind_something_else_and_have_a_scale(tmp_path: Path) -> None:
    path = write_pair(tmp_path / "a.hdr", volume())
    [expected] = read_image(source_file(path))
    voxels, header = tmp_path / "a.img", bytearray(path.read_bytes())
    voxels.write_bytes(b"x" * 16 + voxels.read_bytes())
    header[108:120] = np.array([16.0, 2.0, -10.0], "<f4").tobytes()  # offset, slope, intercept
    path.write_bytes(header)
    [image] = read_image(source_file(path))
    np.testing.assert_array_equal(image.pixels, expected.pixels)
    assert (image.slope, image.intercept) == (2.0, -10.0)


def test_a_pair_is_found_once_in_folders_and_archives(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_pair(folder / "a.hdr", volume())
    write_pair(folder / "B.hdr.gz", volume())
    for path in (folder / "a.hdr", folder / "a.img"):
        shutil.copy(path, folder / path.name.upper().replace("A.", "C."))
    write_zip(folder / "z.zip", {f"below/{name}": folder / name for name in ("a.hdr", "a.img")})

    found = [file for file in discover(folder) if isinstance(file, SourceFile)]

    assert len(found) == len(list(discover(folder)))
    names = [Path(file.member or file.path).name for file in found]
    assert names == ["B.hdr.gz", "C.HDR", "a.hdr", "a.hdr"]
    [expected] = read_image(source_file(folder / "a.hdr"))
    for file in found:
        [image] = read_image(file)
        np.testing.assert_array_equal(image.pixels, expected.pixels)


def test_voxels_named_by_themselves_lead_to_their_header(tmp_path: Path) -> None:
    header = write_pair(tmp_path / "a.hdr", volume())
    [found] = discover(tmp_path / "a.img")
    assert isinstance(found, RejectedFile)
    assert f"the voxels of {header}" in found.message


def test_other_files_of_these_names_are_what_they_were(tmp_path: Path) -> None:
    """Analyze 7.5 says no direction, and ENVI is of satellites."""
    nib.save(nib.AnalyzeImage(volume(), np.eye(4)), tmp_path / "analyze.img")
    (tmp_path / "envi.hdr").write_text("ENVI\nsamples = 3\n")
    (tmp_path / "envi.img").write_bytes(bytes(range(1, 40)))
    found = [file for file in discover(tmp_path) if isinstance(file, RejectedFile)]
    names = ["analyze.hdr", "analyze.img", "envi.hdr", "envi.img"]
    assert [Path(file.path).name for file in found] == names


def test_a_header_without_its_voxels_says_so(tmp_path: Path) -> None:
    path = write_pair(tmp_path / "a.hdr", volume())
    (tmp_path / "a.img").unlink()
    with pytest.raises(UnreadableFileError, match=r"a\.hdr.*ends with \.img") as caught:
        read_image(source_file(path))
    assert caught.value.reason == "not-found"


def test_voxels_that_end_early_are_truncated(tmp_path: Path) -> None:
    path = write_pair(tmp_path / "a.hdr", volume())
    voxels = tmp_path / "a.img"
    voxels.write_bytes(voxels.read_bytes()[:50])
    with pytest.raises(UnreadableFileError) as caught:
        read_image(source_file(path))
    assert caught.value.reason == "truncated"


def test_compressed_voxels_of_a_pair_are_checked_to_their_end(tmp_path: Path) -> None:
    path = write_pair(tmp_path / "a.hdr.gz", volume())
    voxels = tmp_path / "a.img.gz"
    whole = voxels.read_bytes()
    for wrong in (whole[:-1], whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:]):
        voxels.write_bytes(wrong)
        with pytest.raises(UnreadableFileError) as caught:
            read_image(source_file(path))
        assert caught.value.reason == "truncated"


def test_a_change_of_the_voxels_is_a_change_of_the_pair(tmp_path: Path) -> None:
    path = write_pair(tmp_path / "in" / "a.hdr", volume())
    voxels = tmp_path / "in" / "a.img"
    before = find_file(path)
    assert list(walk(tmp_path / "in")) == [before]
    assert before.size == path.stat().st_size + voxels.stat().st_size
    content = bytearray(voxels.read_bytes())
    content[7] ^= 1
    voxels.write_bytes(content)
    os.utime(voxels, ns=(1, 1))  # restored from a copy: older than before
    after = find_file(path)
    assert after.size == before.size
    assert after.change_mark != before.change_mark


def test_a_changed_member_is_a_change_of_the_pair_in_an_archive(tmp_path: Path) -> None:
    header = write_pair(tmp_path / "a.hdr", volume())
    voxels = (tmp_path / "a.img").read_bytes()
    marks = []
    for number, content in enumerate((voxels, voxels[:-1] + b"!")):
        archive = write_zip(tmp_path / f"{number}.zip", {"a.hdr": header, "a.img": content})
        marks.append(find_file(archive, "a.hdr").change_mark)
    assert marks[0] != marks[1]


def test_a_pair_may_be_a_label_map(tmp_path: Path) -> None:
    data = (volume() > 0).astype(np.uint8)
    write_nifti(tmp_path / "single.nii", data, AFFINE)
    nib.save(nib.Nifti1Pair(data, AFFINE), tmp_path / "pair.hdr")
    expected, _ = read_label_map(source_file(tmp_path / "single.nii"))
    found, _ = read_label_map(source_file(tmp_path / "pair.hdr"))
    np.testing.assert_array_equal(found, expected)
