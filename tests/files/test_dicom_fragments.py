"""Compressed frames are found whatever the table of their offsets says."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import JPEGBaseline8Bit

from factories import write_encapsulated
from vismae.core.errors import UnreadableFileError
from vismae.files.dicom import read_dicom
from vismae.files.dicom_fragments import fragment_count
from vismae.files.discover import SourceFile
from vismae.files.reasons import Reason

LEVELS = (40, 120, 200)


def codestreams() -> list[bytes]:
    found = []
    for level in LEVELS:
        stream = io.BytesIO()
        Image.fromarray(np.full((32, 32), level, np.uint8)).save(stream, "JPEG", quality=95)
        found.append(stream.getvalue() + b"\0" * (len(stream.getvalue()) % 2))
    return found


def offsets() -> list[int]:
    lengths = [8 + len(frame) for frame in codestreams()]
    return [0, lengths[0], lengths[0] + lengths[1]]


def with_table(table: Sequence[int]) -> bytes:
    content = b"".join(offset.to_bytes(4, "little") for offset in table)
    behind = encapsulate(codestreams(), has_bot=False)[8:]
    return b"\xfe\xff\x00\xe0" + len(content).to_bytes(4, "little") + content + behind


def write(path: Path, pixel_data: bytes, count: int = len(LEVELS), **tags: Any) -> Path:
    write_encapsulated(
        path,
        codestreams(),
        JPEGBaseline8Bit,
        Modality="US",
        NumberOfFrames=count,
        **dict.fromkeys(("Rows", "Columns"), 32),
        **dict.fromkeys(("BitsAllocated", "BitsStored"), 8),
        HighBit=7,
    )
    dataset = dcmread(path)
    dataset.PixelData = pixel_data
    dataset["PixelData"].is_undefined_length = True
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path


def levels(path: Path) -> list[int]:
    [image] = read_dicom([SourceFile(path, None, "dicom")])
    return image.pixels[:, 0, 0].tolist()


@pytest.mark.parametrize(
    "table",
    [offsets(), [0, 0, 0], [offset + 20 for offset in offsets()], offsets()[:1]],
    ids=["true", "all 0", "from the start of the element", "of one frame"],
)
def test_one_fragment_each_is_read_whatever_the_table_says(
    tmp_path: Path, table: list[int]
) -> None:
    assert levels(write(tmp_path / "u.dcm", with_table(table))) == pytest.approx(LEVELS, abs=1)


def test_an_extended_table_that_leads_nowhere_is_passed_over(tmp_path: Path) -> None:
    pixel_data, _, lengths = encapsulate_extended(codestreams())
    path = write(
        tmp_path / "u.dcm",
        pixel_data,
        ExtendedOffsetTable=b"\xf0" * 24,
        ExtendedOffsetTableLengths=lengths,
    )

    assert levels(path) == pytest.approx(LEVELS, abs=1)


def test_frames_that_are_missing_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "u.dcm", encapsulate(codestreams()), count=5)

    with pytest.raises(UnreadableFileError, match="holds 3 of 5 compressed frames") as caught:
        levels(path)

    assert caught.value.reason == Reason.TRUNCATED


def test_a_file_that_ends_within_compressed_pixels_is_truncated(tmp_path: Path) -> None:
    path = write(tmp_path / "u.dcm", encapsulate(codestreams()))
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(UnreadableFileError, match="within compressed pixel data") as caught:
        levels(path)

    assert caught.value.reason == Reason.TRUNCATED


def test_damaged_items_are_not_counted() -> None:
    assert fragment_count(encapsulate(codestreams())) == 3
    assert fragment_count(encapsulate([b"ab", b"cd"], fragments_per_frame=1)) == 2
    assert fragment_count(b"\xfe\xff\x00\xe0\0\0\0\0nonsense") is None
    assert fragment_count(b"nonsense") is None
