"""The same command again gives the same account, and what was mended or added comes in."""

import csv
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from factories import write_png, write_zip
from vismae.core.config import IngestConfig
from vismae.workflows.ingest import IngestResult, ingest
from vismae.workflows.intake.identity import private_folder
from vismae.workflows.intake.ledger import Ledger


def run(store: Path, source: Path, **settings: object) -> IngestResult:
    """Ingest in this process."""
    config = IngestConfig(sources=(source,), store=store, executor="here", **settings)  # type: ignore[arg-type]
    return ingest(config)


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (12, 10)).astype(np.uint8)


def pictures(folder: Path, count: int) -> dict[str, Path | bytes]:
    return {f"{n}.png": write_png(folder / f"{n}.png", picture(n)) for n in range(count)}


def rejected(store: Path) -> dict[str, str]:
    """Return file name -> reason."""
    with (private_folder(store) / "rejected.csv").open(newline="") as file:
        return {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}


def test_a_damaged_archive_is_left_out_each_time_until_it_is_mended(tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "whole.zip", pictures(tmp_path / "p", 4))
    write_png(tmp_path / "in" / "a.png", picture(9))
    archive = tmp_path / "in" / "z.zip"
    archive.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    store = tmp_path / "s"

    accounts = []
    for _ in range(2):
        result = run(store, tmp_path / "in")
        accounts.append((result.stored, result.files, result.reasons, rejected(store)))
    archive.write_bytes(whole.read_bytes())
    mended = run(store, tmp_path / "in")

    assert accounts[0] == accounts[1]
    assert accounts[0] == (1, 2, {"unreadable": 1}, {"z.zip": "unreadable"})
    assert (mended.stored, mended.rejected, mended.changed_files) == (5, 0, 0)
    assert run(store, tmp_path / "in").new_files == 0


def test_members_added_to_an_archive_come_in_and_changed_ones_are_counted(tmp_path: Path) -> None:
    members = pictures(tmp_path / "p", 3)
    archive = write_zip(tmp_path / "in" / "z.zip", members)
    store = tmp_path / "s"
    first = run(store, tmp_path / "in")
    ids = first.store.index["image_id"].tolist()

    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("new.png", write_png(tmp_path / "p" / "n.png", picture(7)).read_bytes())
    added = run(store, tmp_path / "in")
    write_png(tmp_path / "p" / "0.png", picture(8))
    write_zip(archive, {**members, "new.png": tmp_path / "p" / "n.png"})
    changed = run(store, tmp_path / "in")

    assert (first.stored, added.stored, changed.stored) == (3, 4, 4)
    # The archive itself is no file that gives images.
    assert (first.files, first.new_files) == (3, 3)
    assert (added.new_files, added.changed_files) == (1, 0)
    assert (changed.new_files, changed.changed_files) == (0, 1)
    assert added.store.index["image_id"].tolist()[:3] == ids
    assert run(store, tmp_path / "in").changed_files == 1


@pytest.mark.parametrize("elsewhere", [True, False])
def test_an_ingests_own_files_are_no_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    folder = tmp_path / "data"
    pictures(folder, 2)
    monkeypatch.chdir(folder)
    salt = {"salt": Path("keys/secret")} if elsewhere else {}

    results = [run(Path("store"), Path("."), **salt) for _ in range(2)]
    trial = run(Path("store"), Path("."), dry_run=True, **salt)

    for result in (*results, trial):
        assert (result.stored, result.files, result.rejected) == (2, 2, 0)


def test_an_ingests_own_files_are_none_of_the_pairs_beside_them(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    pictures(folder / "images", 2)
    for number in range(2):
        write_png(folder / "labels" / f"{number}.png", (picture(number) > 99).astype(np.uint8))

    results = [run(folder / "store", folder, salt=folder / "salt") for _ in range(2)]

    for result in results:
        assert (result.stored, result.files, result.rejected) == (2, 2, 0)


def test_an_image_changes_with_its_label_map(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.arange(64, dtype=np.uint8).reshape(8, 8))
    labels = write_png(tmp_path / "labels" / "a.png", np.eye(8, dtype=np.uint8))
    table = tmp_path / "m.csv"
    table.write_text("image,label_map\na.png,labels/a.png\n")
    config = IngestConfig(sources=(table,), store=tmp_path / "s", workers=1, executor="here")

    first, again = ingest(config), ingest(config)
    write_png(labels, np.ones((8, 8), np.uint8))
    os.utime(labels, ns=(1, 1))
    after = ingest(config)

    assert (first.changed_files, again.changed_files, after.changed_files) == (0, 0, 1)


def test_a_ledger_that_does_not_count_label_maps_goes_on(tmp_path: Path) -> None:
    image = write_png(tmp_path / "a.png", np.arange(64, dtype=np.uint8).reshape(8, 8))
    write_png(tmp_path / "labels" / "a.png", np.eye(8, dtype=np.uint8))
    table = tmp_path / "m.csv"
    table.write_text("image,label_map\na.png,labels/a.png\n")
    config = IngestConfig(sources=(table,), store=tmp_path / "s", workers=1, executor="here")
    ingest(config)
    with Ledger(tmp_path / "s.private" / "ledger.sqlite") as ledger:
        ledger.db.execute("UPDATE entry SET changed_ns = ?", (image.stat().st_mtime_ns,))

    assert ingest(config).changed_files == 0


def test_a_text_in_the_column_of_paths_costs_its_own_row_only(tmp_path: Path) -> None:
    """No disk takes a name of 800 characters, which is another fault than that it is not there."""
    write_png(tmp_path / "a.png", picture(0))
    report = "no finding " * 72
    table = tmp_path / "m.csv"
    table.write_text(f"path,label\n{report},x\na.png,y\n")

    result = run(tmp_path / "s", table)

    assert (result.stored, result.reasons) == (1, {"unreadable": 1})
    assert rejected(tmp_path / "s") == {report.strip(): "unreadable"}
