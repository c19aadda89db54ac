"""Sources of one name, and sources that were moved between two ingests into one store."""

import csv
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from factories import write_dicom_series, write_png, write_zip
from vismae.core.config import IngestConfig
from vismae.workflows.ingest import IngestResult, ingest
from vismae.workflows.intake.identity import private_folder


def run(store: Path, *sources: Path, **settings: object) -> IngestResult:
    """Ingest in this process."""
    return ingest(IngestConfig(sources=sources, store=store, executor="here", **settings))  # type: ignore[arg-type]


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (12, 10)).astype(np.uint8)


def write_disc(folder: Path, patient: str) -> Path:
    """Write three slices of a patient, and a viewer that is the same on every disc."""
    volume = np.random.default_rng(ord(patient)).integers(0, 900, (3, 16, 16)).astype(np.uint16)
    write_dicom_series(folder / "DICOM", volume, PatientID=patient)
    for number in range(5):
        icon = write_png(folder / "DICOM" / "viewer" / f"{number}.png", picture(number))
        os.utime(icon, (0, 0))
    return folder / "DICOM"


def paths(store: Path) -> list[Path]:
    """Return the file of every image."""
    with (private_folder(store) / "sources.csv").open(newline="") as file:
        return [Path(row["source"].partition("!")[0]) for row in csv.DictReader(file)]


def test_folders_of_one_name_are_different_sources_in_later_ingests_too(tmp_path: Path) -> None:
    discs = [write_disc(tmp_path / name, patient) for name, patient in (("cd1", "A"), ("cd2", "B"))]
    store = tmp_path / "s"
    run(store, discs[0])

    second = run(store, discs[1])
    again = [run(store, disc) for disc in (discs[1], discs[0])]

    index = second.store.index
    assert index[index["group_kind"] == "patient"]["patient_id"].nunique() == 2
    assert (second.stored, second.new_files, second.changed_files) == (16, 8, 0)
    assert index["image_id"].is_unique
    assert [(each.new_files, each.changed_files) for each in again] == [(0, 0), (0, 0)]


def test_another_disc_at_a_second_place_is_new_though_the_first_is_gone(tmp_path: Path) -> None:
    store = tmp_path / "s"
    first = write_disc(tmp_path / "cd1", "A")
    run(store, first)
    shutil.rmtree(first)

    second = run(store, write_disc(tmp_path / "cd2", "B"))

    assert second.changed_files == 0
    assert (second.store.index["modality"] == "ct").sum() == 6


def test_a_moved_source_is_recognised_and_its_paths_follow(tmp_path: Path) -> None:
    store = tmp_path / "s"
    archive = tmp_path / "m1" / "arc"
    write_disc(archive, "A")
    write_zip(archive / "z.zip", {"1.png": archive / "DICOM" / "viewer" / "0.png", "2.dat": b"x"})
    (archive / "odd.dat").write_bytes(b"no image")
    before = run(store, archive)
    (tmp_path / "m1").rename(tmp_path / "m2")

    after = run(store, tmp_path / "m2" / "arc")

    assert (after.stored, after.new_files, after.changed_files) == (before.stored, 0, 0)
    assert all(path.is_file() for path in paths(store))
    rejected = (private_folder(store) / "rejected.csv").read_text()
    assert "m1" not in rejected
    assert rejected.count(f"{tmp_path}/m2/arc") == 4


def test_label_maps_of_a_moved_folder_follow_their_images(tmp_path: Path) -> None:
    for number in range(2):
        write_png(tmp_path / "m1" / "task" / "images" / f"{number}.png", picture(number))
        labels = (picture(number) > 99).astype(np.uint8)
        write_png(tmp_path / "m1" / "task" / "labels" / f"{number}.png", labels)
    store = tmp_path / "s"
    run(store, tmp_path / "m1" / "task")
    (tmp_path / "m1").rename(tmp_path / "m2")

    after = run(store, tmp_path / "m2" / "task")

    assert (after.stored, after.new_files, after.changed_files) == (2, 0, 0)


def test_an_interrupted_ingest_goes_on_where_its_source_lies_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "s"
    write_disc(tmp_path / "m1", "A")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("vismae.workflows.ingest.read_portions", stop)
        with pytest.raises(KeyboardInterrupt):
            run(store, tmp_path / "m1" / "DICOM")
    (tmp_path / "m1").rename(tmp_path / "m2")

    after = run(store, tmp_path / "m2" / "DICOM")

    assert (after.stored, after.rejected) == (8, 0)


def test_a_source_named_from_another_working_directory_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_png(tmp_path / "in" / "a.png", picture(0))
    store = tmp_path / "s"
    monkeypatch.chdir(tmp_path)
    run(store, Path("in"))
    monkeypatch.chdir(tmp_path / "in")

    again = run(store, Path("."))

    assert (again.stored, again.new_files) == (1, 0)
    assert paths(store) == [tmp_path / "in" / "a.png"]


def test_tables_of_one_folder_keep_their_names(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        write_png(tmp_path / "in" / f"{name}.png", picture(number))
        (tmp_path / "in" / f"{name}.csv").write_text(f"path,label\n{name}.png,{name}\n")
    store = tmp_path / "s"
    tables: Sequence[Path] = [tmp_path / "in" / f"{name}.csv" for name in "ab"]
    first = run(store, *tables)

    second = run(store, tables[1])
    third = run(store, *reversed(tables))

    assert first.stored == 2
    assert [(each.stored, each.new_files) for each in (second, third)] == [(2, 0), (2, 0)]
