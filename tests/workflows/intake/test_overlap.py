"""Sources that lie within one another: each file comes once, with what a table says of it."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from factories import write_nifti, write_png, write_zip
from vismae.core.config import IngestConfig
from vismae.workflows.ingest import IngestResult, ingest

PICTURE = np.arange(30, dtype=np.uint8).reshape(5, 6)
VOLUME = np.arange(6 * 7 * 4, dtype=np.int16).reshape(6, 7, 4)


def run(store: Path, *sources: Path) -> IngestResult:
    return ingest(IngestConfig(sources=sources, store=store, executor="here"))


def labelled(folder: Path, name: str) -> Path:
    """Write three pictures, one label map and a table of two of them; returns the table."""
    for number in range(3):
        write_png(folder / f"{number}.png", PICTURE + number)
    write_png(folder / "drawn" / "0.png", (PICTURE > 9).astype(np.uint8))
    table = folder / name
    table.write_text("path,label_map,label\n0.png,drawn/0.png,a\n1.png,,b\n", encoding="utf-8")
    return table


@pytest.mark.parametrize("table_first", [True, False])
def test_a_folder_adds_what_its_table_does_not_name(tmp_path: Path, table_first: bool) -> None:
    folder = tmp_path / "in"
    table = labelled(folder, "list.csv")
    sources = (table, folder) if table_first else (folder, table)

    result = run(tmp_path / "s", *sources)

    rows = result.store.index
    assert (result.stored, result.files, result.reasons) == (3, 3, {})
    assert sorted(rows["label"].dropna()) == ["a", "b"]
    found = [result.store.read(row).label_map for row in range(3)]
    assert sum(labels is not None for labels in found) == 1
    assert run(tmp_path / "s", *sources).new_files == 0


def test_a_folder_and_the_manifest_that_it_stands_for_are_one_source(tmp_path: Path) -> None:
    table = labelled(tmp_path / "in", "manifest.csv")

    assert run(tmp_path / "s", table.parent, table, table.parent).files == 2


def test_a_folder_of_pairs_leaves_to_a_table_what_that_names(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("a", "b"):
        write_nifti(folder / f"{name}.nii.gz", VOLUME)
        write_nifti(folder / f"{name}_seg.nii.gz", (VOLUME > 50).astype(np.uint8))
    table = folder / "list.csv"
    table.write_text("path,label_map,label\na.nii.gz,a_seg.nii.gz,x\n", encoding="utf-8")

    result = run(tmp_path / "s", folder, table)

    assert (result.files, result.stored, result.reasons) == (2, 8, {})
    assert list(result.store.index["label"].dropna()) == ["x"] * 4


def test_members_that_a_table_names_do_not_come_with_their_archive(tmp_path: Path) -> None:
    pictures = {
        f"p/{number}.png": write_png(tmp_path / f"{number}.png", PICTURE + number)
        for number in range(3)
    }
    archive = write_zip(tmp_path / "in" / "all.zip", pictures)
    table = tmp_path / "list.csv"
    table.write_text("path,label\nin/all.zip!p/1.png,a\n", encoding="utf-8")

    result = run(tmp_path / "s", archive, table)

    assert (result.files, result.stored) == (3, 3)


def test_header_and_voxels_of_a_pair_may_both_be_named(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    nib.save(nib.Nifti1Pair(VOLUME, np.eye(4)), folder / "scan.img")

    together = run(tmp_path / "s", folder / "scan.hdr", folder / "scan.img")
    voxels = run(tmp_path / "t", folder / "scan.img")
    table = folder / "list.csv"
    table.write_text("path\nscan.img\n", encoding="utf-8")
    listed = run(tmp_path / "u", table)

    for result in (together, voxels, listed):
        assert (result.files, result.stored, result.reasons) == (1, 4, {})


def test_a_pair_may_be_written_in_capitals_by_half(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    nib.save(nib.Nifti1Pair(VOLUME, np.eye(4)), folder / "scan.img")
    (folder / "scan.hdr").rename(folder / "scan.HDR")

    assert run(tmp_path / "s", folder).stored == 4
