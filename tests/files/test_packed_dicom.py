import bz2
import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vismae.files.packed_dicom as packed_dicom
from factories import write_dicom_slice, write_zip
from vismae.core.errors import UnreadableFileError
from vismae.files.dicom_identifiers import read_identifiers
from vismae.files.discover import RejectedFile, SourceFile, discover, source_file
from vismae.files.read import read_image

PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress}
# Larger than a block of bzip2, and without any order.
PIXELS = np.random.default_rng(0).integers(-1000, 1000, (900, 800)).astype(np.int16)


@pytest.fixture(params=sorted(PACKERS))
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A DICOM file that was packed; the plain one lies in another folder."""
    plain = write_dicom_slice(tmp_path / "plain" / "a.dcm", PIXELS, PatientID="P7")
    path = tmp_path / "packed" / f"a.dcm{request.param}"
    path.parent.mkdir()
    path.write_bytes(PACKERS[request.param](plain.read_bytes()))
    return path


def only(found: Path) -> SourceFile:
    (file,) = discover(found)
    assert isinstance(file, SourceFile)
    return file


def test_a_packed_file_reads_as_the_plain_one(packed: Path, tmp_path: Path) -> None:
    file = only(packed.parent)
    plain = only(tmp_path / "plain")

    assert file.kind == "dicom"
    assert read_identifiers(file) == read_identifiers(plain)
    assert file.head(300) == plain.head(300)
    assert file.read_bytes() == plain.read_bytes()
    (image,), (expected,) = read_image(file), read_image(plain)
    np.testing.assert_array_equal(image.pixels, expected.pixels)


def test_so_it_does_in_an_archive_and_without_its_suffix(packed: Path, tmp_path: Path) -> None:
    write_zip(tmp_path / "z" / "a.zip", {"IM001": packed.read_bytes()})

    (image,) = read_image(only(tmp_path / "z"))

    np.testing.assert_array_equal(image.pixels[0], PIXELS)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[:-2000] + bytes(1000) + data[-1000:], "unreadable"),
    ],
)
def test_damage_has_a_reason(packed: Path, damage: Callable[[bytes], bytes], reason: str) -> None:
    packed.write_bytes(damage(packed.read_bytes()))

    with pytest.raises(UnreadableFileError) as caught:
        read_image(source_file(packed))

    assert caught.value.reason == reason


def test_what_unfolds_beyond_the_limit_is_refused_before_it_is_held(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_dicom, "MAX_MEMBER_BYTES", 1_000_000)
    file = source_file(packed)
    assert read_identifiers(file).patient == "P7"

    with pytest.raises(UnreadableFileError) as caught:
        read_image(file)

    assert caught.value.reason == "too-large"


def test_other_packed_files_and_preambles_are_what_they_were(tmp_path: Path) -> None:
    (tmp_path / "a.txt.bz2").write_bytes(bz2.compress(b"a text" * 99))
    (tmp_path / "b.dcm").write_bytes(b"BZh9" + bytes(124) + b"DICM" + bytes(40))

    text, dicom = discover(tmp_path)

    assert isinstance(text, RejectedFile)
    assert (text.reason, dicom.kind) == ("unknown-format", "dicom")  # type: ignore[union-attr]
    assert dicom.head(4) == b"BZh9"  # type: ignore[union-attr]
