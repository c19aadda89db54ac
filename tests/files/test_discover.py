import gzip
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

import vismae.files.archive as archive_module
from factories import (
    write_dicom_series,
    write_dicom_slice,
    write_jpeg,
    write_nifti,
    write_png,
    write_tiff,
    write_zip,
)
from vismae.core.errors import UnreadableFileError
from vismae.files.dicom_identifiers import group_series
from vismae.files.discover import (
    RejectedFile,
    SourceFile,
    discover,
    source_file,
)

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)


def names_and_kinds(source: Path) -> list[tuple[str, str]]:
    return [
        (Path(found.path).name, str(found.reason))
        if isinstance(found, RejectedFile)
        else (found.member or found.path.name, found.kind)
        for found in discover(source)
    ]


def test_a_folder_is_walked_in_order_and_kinds_come_from_content(tmp_path: Path) -> None:
    write_png(tmp_path / "b.png", GREY)
    write_jpeg(tmp_path / "sub" / "c.jpeg", GREY)
    write_tiff(tmp_path / "sub" / "d.tif", [GREY])
    write_png(tmp_path / "e.bmp", GREY)
    write_dicom_slice(tmp_path / "IM0001", GREY)
    write_nifti(tmp_path / "v.nii", GREY[..., None])
    write_nifti(tmp_path / "w.nii.gz", GREY[..., None])

    assert names_and_kinds(tmp_path) == [
        ("IM0001", "dicom"),
        ("b.png", "raster"),
        ("e.bmp", "raster"),
        ("c.jpeg", "raster"),
        ("d.tif", "raster"),
        ("v.nii", "nifti"),
        ("w.nii.gz", "nifti"),
    ]


def test_content_wins_over_a_wrong_suffix(tmp_path: Path) -> None:
    write_png(tmp_path / "x.png", GREY).rename(tmp_path / "x.dcm")
    write_nifti(tmp_path / "v.nii.gz", GREY[..., None]).rename(tmp_path / "v.dat")

    assert names_and_kinds(tmp_path) == [("v.dat", "nifti"), ("x.dcm", "raster")]


def test_a_damaged_image_goes_to_the_reader_of_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "broken.dcm").write_bytes(b"nothing a scanner would write, but a known suffix")

    assert names_and_kinds(tmp_path) == [("broken.dcm", "dicom")]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("explicit", [True, False])
def test_dicom_without_preamble_is_known_by_its_first_element(
    tmp_path: Path, order: str, explicit: bool
) -> None:
    tag = struct.pack(order + "HH", 0x0008, 0x0005)
    length = b"CS" + struct.pack(order + "H", 10) if explicit else struct.pack(order + "I", 10)
    (tmp_path / "old").write_bytes(tag + length + b"ISO_IR 100")

    assert names_and_kinds(tmp_path) == [("old", "dicom")]


def test_companions_are_silent_and_strangers_are_rejected(tmp_path: Path) -> None:
    for name in ("manifest.csv", "notes.txt", "a.json", "README", "DICOMDIR", ".DS_Store"):
        (tmp_path / name).write_bytes(b"words")
    (tmp_path / ".hidden").mkdir()
    write_png(tmp_path / ".hidden" / "x.png", GREY)
    (tmp_path / "table.dat").write_bytes(b"BM is how this text begins, yet it is no bitmap")
    (tmp_path / "empty.png").write_bytes(b"")

    assert names_and_kinds(tmp_path) == [("empty.png", "empty"), ("table.dat", "unknown-format")]


def test_a_stranger_given_by_name_is_rejected_with_a_cure(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(b"a,b\n")

    [rejected] = discover(path)

    assert isinstance(rejected, RejectedFile)
    assert "PNG" in rejected.message


def test_a_missing_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="no such file"):
        list(discover(tmp_path / "nowhere"))


def test_broken_links_are_rejected_and_link_loops_end(tmp_path: Path) -> None:
    write_png(tmp_path / "sub" / "a.png", GREY)
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")

    assert names_and_kinds(tmp_path) == [("gone.png", "not-found"), ("a.png", "raster")]


def test_archive_members_are_found_and_read_without_unpacking(tmp_path: Path) -> None:
    image = write_png(tmp_path / "elsewhere" / "a.png", GREY)
    inner = write_zip(tmp_path / "elsewhere" / "inner.zip", {"x.png": image})
    folder = tmp_path / "data"
    archive = write_zip(
        folder / "images.zip",
        {
            "images/b.png": image,
            "images/a.png": image,
            "inner.zip": inner,
            "notes.txt": b"words",
            "__MACOSX/._a.png": image,
        },
    )

    assert names_and_kinds(folder) == [
        ("images/a.png", "raster"),
        ("images/b.png", "raster"),
        ("images.zip!inner.zip", "nested-archive"),
    ]
    first = next(iter(discover(archive)))
    assert isinstance(first, SourceFile)
    assert first.name == f"{archive}!images/a.png"
    assert first.read_bytes() == image.read_bytes()
    with first.open() as stream:
        stream.seek(1)
        assert stream.read(3) == b"PNG"
    assert sorted(path.name for path in folder.iterdir()) == ["images.zip"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_archive_members_of_one_name_the_last_is_read_and_the_others_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    early = write_png(tmp_path / "early.png", GREY)
    late = write_png(tmp_path / "late.png", GREY[:-1])
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("folder/", b"")
        archive.writestr("folder/", b"")
        for path in (early, early, late):
            archive.writestr("a.png", path.read_bytes())

    (found,) = discover(tmp_path / "x.zip")

    assert isinstance(found, SourceFile)
    assert found.read_bytes() == late.read_bytes()
    assert "the last of each is read, 2 are not" in caplog.text


def test_dots_in_the_names_of_members_hide_nothing(tmp_path: Path) -> None:
    image = write_png(tmp_path / "elsewhere" / "a.png", GREY)
    names = ["../up.png", "./here.png", "a/./b.png", "a/.hidden/c.png", "__MACOSX/d.png"]
    archive = write_zip(tmp_path / "dots.zip", dict.fromkeys(names, image))

    found = [file.member for file in discover(archive) if isinstance(file, SourceFile)]

    assert found == names[:3]
    assert not (tmp_path.parent / "up.png").exists()


def test_folders_named_like_companions_are_entered(tmp_path: Path) -> None:
    image = write_png(tmp_path / "elsewhere" / "a.png", GREY)
    names = ["scans.raw/1.png", "version/2.png", "x.log/3.png"]
    folder = tmp_path / "data"
    for name in names:
        write_png(folder / name, GREY)
    archive = write_zip(tmp_path / "same.zip", dict.fromkeys(names, image))

    for source in (folder, archive):
        kinds = [kind for _, kind in names_and_kinds(source)]
        assert kinds == ["raster"] * 3


def test_a_changed_archive_is_opened_anew(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": b"\x89PNG\r\n\x1a\nold"})
    assert source_file(path, "a.png").read_bytes().endswith(b"old")

    write_zip(path, {"a.png": b"\x89PNG\r\n\x1a\nnewer"})

    assert source_file(path, "a.png").read_bytes().endswith(b"newer")


def test_damaged_and_oversized_members_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = write_zip(tmp_path / "damaged.zip", {"a.png": b"\x89PNG\r\n\x1a\n" + bytes(50)})
    damaged.write_bytes(damaged.read_bytes().replace(b"PNG", b"GNP"))
    cut = tmp_path / "cut.zip"
    cut.write_bytes(damaged.read_bytes()[:30])
    assert names_and_kinds(damaged) == [("damaged.zip!a.png", "unreadable")]
    assert names_and_kinds(cut) == [("cut.zip", "unreadable")]

    big = tmp_path / "big.zip"
    with zipfile.ZipFile(big, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(2000))
    monkeypatch.setattr(archive_module, "MAX_MEMBER_BYTES", 1000)
    assert names_and_kinds(big) == [("big.zip!bomb.png", "too-large")]


def test_a_source_file_survives_pickling(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": write_png(tmp_path / "a.png", GREY)})
    file = source_file(path, "a.png")

    assert pickle.loads(pickle.dumps(file)) == file


def test_a_named_file_that_is_missing_or_foreign_is_an_error(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", {"a.txt": b"words"})

    with pytest.raises(UnreadableFileError) as missing:
        source_file(archive, "b.png")
    with pytest.raises(UnreadableFileError) as foreign:
        source_file(archive, "a.txt")

    assert missing.value.reason == "not-found"
    assert foreign.value.reason == "unknown-format"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_locked_file_is_rejected(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", GREY).chmod(0)

    assert names_and_kinds(tmp_path) == [("a.png", "unreadable")]


def test_series_are_grouped_and_multiframe_and_other_files_stand_alone(tmp_path: Path) -> None:
    volume = np.zeros((3, 4, 4), np.int16)
    one = write_dicom_series(tmp_path / "one", volume, SeriesInstanceUID="1.2.1")
    two = write_dicom_series(tmp_path / "two", volume[:2], SeriesInstanceUID="1.2.2")
    cine = write_dicom_slice(
        tmp_path / "cine.dcm", volume.astype(np.uint8), Modality="US", SeriesInstanceUID="1.2.1"
    )
    nameless = write_dicom_slice(tmp_path / "nameless.dcm", volume[0], SeriesInstanceUID=None)
    png = write_png(tmp_path / "p.png", GREY)
    paths = [one[0], two[0], cine, png, one[1], two[1], nameless, one[2]]

    groups = list(group_series(source_file(path) for path in paths))

    found = [[file.path for file in group.files] for group in groups]
    assert found == [[cine], [png], [nameless], one, two]
    assert [group.kind for group in groups] == ["dicom", "raster", "dicom", "dicom", "dicom"]


def test_one_series_uid_for_two_patients_does_not_join_them(tmp_path: Path) -> None:
    volume = np.zeros((2, 4, 4), np.int16)
    paths = write_dicom_series(tmp_path / "a", volume, PatientID="A", SeriesInstanceUID="1.2.1")
    paths += write_dicom_series(tmp_path / "b", volume, PatientID="B", SeriesInstanceUID="1.2.1")

    assert len(list(group_series(source_file(path) for path in paths))) == 2


@pytest.mark.parametrize(
    ("name", "start", "how"),
    [
        ("a.tar", b"a.dcm" + bytes(252) + b"ustar\x0000" + bytes(600), "tar"),
        (
            "a.tgz",
            gzip.compress(b"a.dcm" + bytes(252) + b"ustar\x0000" + bytes(600), mtime=0),
            "gzip",
        ),
        ("a.png.gz", gzip.compress(b"\x89PNG\r\n\x1a\n" + bytes(99), mtime=0), "gzip"),
        ("a.nii.bz2", b"BZh91AY&SY" + bytes(99), "bzip2"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(99), "7z"),
    ],
)
def test_what_is_packed_otherwise_than_by_zip_is_to_be_unpacked(
    tmp_path: Path, name: str, start: bytes, how: str
) -> None:
    (tmp_path / name).write_bytes(start)

    [found] = discover(tmp_path)

    assert isinstance(found, RejectedFile)
    assert found.reason == "unknown-format"
    assert f"packed with {how}" in found.message
    assert "unpack it first" in found.message


def test_a_format_that_is_gzip_itself_is_not_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "brain.mgz").write_bytes(gzip.compress(b"\0\0\0\1" + bytes(range(200))))

    [found] = discover(tmp_path)

    assert isinstance(found, RejectedFile)
    assert "not a known image format" in found.message
