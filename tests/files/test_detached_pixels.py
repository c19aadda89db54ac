"""Headers of MetaImage and NRRD change with the file beside them that holds their pixels."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from factories import write_png
from vismae.core.config import IngestConfig
from vismae.core.errors import DataError
from vismae.files.detached_pixels import pixels_beside
from vismae.files.discover import find_file, walk
from vismae.workflows.ingest import ingest
from vismae.workflows.intake.ledger import Ledger

sitk = pytest.importorskip("SimpleITK")

DETACHED = [("v.mhd", "v.raw"), ("v.nhdr", "v.raw")]


def write_volume(path: Path, seed: int = 0) -> Path:
    values = np.random.default_rng(seed).integers(0, 900, (3, 12, 10)).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(path))
    return path


@pytest.mark.parametrize(("name", "pixels"), DETACHED)
def test_a_change_of_the_pixels_is_a_change_of_the_header(
    name: str, pixels: str, tmp_path: Path
) -> None:
    path = write_volume(tmp_path / "in" / name)
    assert pixels_beside(path, None) == (path.with_name(pixels), None)
    before = find_file(path)
    assert list(walk(tmp_path / "in")) == [before]
    beside = path.with_name(pixels)
    assert before.size == path.stat().st_size + beside.stat().st_size
    content = bytearray(beside.read_bytes())
    content[7] ^= 1
    beside.write_bytes(content)
    os.utime(beside, ns=(1, 1))
    after = find_file(path)
    assert (after.size, after.earlier) == (before.size, before.earlier)
    assert after.change_mark != before.change_mark


def test_a_member_of_an_archive_changes_with_the_member_beside_it(tmp_path: Path) -> None:
    header = write_volume(tmp_path / "v.mhd")
    marks = []
    for number in range(2):
        content = write_volume(tmp_path / "v.mhd", number).with_suffix(".raw").read_bytes()
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
            archive.write(header, "a/v.mhd")
            archive.writestr("a/v.raw", content)
        assert pixels_beside(tmp_path / f"{number}.zip", "a/v.mhd") is not None
        marks.append(find_file(tmp_path / f"{number}.zip", "a/v.mhd").change_mark)
    assert marks[0] != marks[1]


def test_whole_files_and_files_that_are_none_have_nothing_beside_them(tmp_path: Path) -> None:
    assert pixels_beside(write_volume(tmp_path / "v.mha"), None) is None
    assert pixels_beside(write_volume(tmp_path / "v.nrrd"), None) is None
    for content in (b"", b"NDims = 3\n", b"ObjectType = Image\nElementDataFile = ../x.raw\n"):
        (tmp_path / "odd.mhd").write_bytes(content)
        assert pixels_beside(tmp_path / "odd.mhd", None) is None
    assert pixels_beside(tmp_path / "gone.mhd", None) is None


def _config(folder: Path) -> IngestConfig:
    return IngestConfig(
        sources=(folder / "in",), store=folder / "store", workers=1, executor="here"
    )


@pytest.mark.parametrize(("name", "pixels"), DETACHED)
def test_ingest_again_tells_that_pixels_beside_a_header_have_changed(
    name: str, pixels: str, tmp_path: Path
) -> None:
    path = write_volume(tmp_path / "in" / name)
    assert ingest(_config(tmp_path)).changed_files == 0
    assert ingest(_config(tmp_path)).changed_files == 0
    content = write_volume(tmp_path / "other" / name, seed=1).with_name(pixels).read_bytes()
    path.with_name(pixels).write_bytes(content)
    assert ingest(_config(tmp_path)).changed_files == 1


def test_pixels_that_were_missing_come_in_with_the_next_ingest(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "in" / "v.mhd")
    content = path.with_suffix(".raw").read_bytes()
    path.with_suffix(".raw").write_bytes(content[:100])
    with pytest.raises(DataError, match="truncated"):
        ingest(_config(tmp_path))
    path.with_suffix(".raw").write_bytes(content)
    assert ingest(_config(tmp_path)).stored == 3


def test_a_ledger_that_knows_the_header_alone_takes_it_for_unchanged(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "in" / "v.mhd")
    write_png(tmp_path / "in" / "a.png", np.arange(64, dtype=np.uint8).reshape(8, 8))
    ingest(_config(tmp_path))
    status = path.stat()
    with Ledger(tmp_path / "store.private" / "ledger.sqlite") as ledger:
        ledger.db.execute(
            "UPDATE entry SET size = ?, changed_ns = ? WHERE kind = 'itk'",
            (status.st_size, status.st_mtime_ns),
        )
    assert ingest(_config(tmp_path)).changed_files == 0
    os.utime(path.with_suffix(".raw"), ns=(1, 1))
    assert ingest(_config(tmp_path)).changed_files == 1
