"""One DICOM object in several files: in one ingest, in several sources, or added later."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pydicom

from factories import write_dicom_series
from vismae.core.config import IngestConfig
from vismae.workflows.ingest import IngestResult, ingest
from vismae.workflows.intake.identity import private_folder

VOLUME = np.random.default_rng(0).integers(0, 900, (6, 16, 16)).astype(np.uint16)


def run(store: Path, *sources: Path) -> IngestResult:
    """Ingest in this process."""
    salt = store.parent / "salt"
    config = IngestConfig(sources=sources, store=store, salt=salt, executor="here")
    return ingest(config)


def rejected(store: Path) -> dict[str, str]:
    """Return file -> reason, with the last two parts of its path."""
    with (private_folder(store) / "rejected.csv").open(newline="") as file:
        return {
            "/".join(row["path"].split("/")[-2:]): row["reason"] for row in csv.DictReader(file)
        }


def with_other_pixels(path: Path, to: Path) -> None:
    dataset = pydicom.dcmread(path)
    dataset.PixelData = dataset.pixel_array[::-1].tobytes()
    dataset.save_as(to)


def test_a_series_divided_between_two_sources_is_one_volume(tmp_path: Path) -> None:
    for number, path in enumerate(write_dicom_series(tmp_path / "all", VOLUME)):
        part = tmp_path / "ab"[number % 2] / path.name
        part.parent.mkdir(exist_ok=True)
        shutil.copy(path, part)

    whole = run(tmp_path / "s", tmp_path / "all").store.index
    divided = run(tmp_path / "t", tmp_path / "b", tmp_path / "a").store.index

    assert set(divided["spacing_slice_mm"]) == {5.0}
    assert divided[["image_id", "volume_id"]].equals(whole[["image_id", "volume_id"]])


def test_copies_in_two_sources_are_left_out_as_copies(tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "a", VOLUME)
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    result = run(tmp_path / "s", tmp_path / "a", tmp_path / "b")

    assert (result.stored, result.files, result.reasons) == (6, 12, {"copy": 6})
    assert {name.split("/")[0] for name in rejected(tmp_path / "s")} == {"b"}


def test_a_copy_added_later_is_left_out_and_other_pixels_get_an_id_of_their_own(
    tmp_path: Path,
) -> None:
    paths = write_dicom_series(tmp_path / "in", VOLUME)
    store = tmp_path / "s"
    run(store, tmp_path / "in")
    shutil.copy(paths[1], tmp_path / "in" / "Copy of slice_001.dcm")
    with_other_pixels(paths[2], tmp_path / "in" / "Edited slice_002.dcm")

    later = run(store, tmp_path / "in")
    again = run(store, tmp_path / "in")

    assert (later.stored, again.stored) == (7, 7)
    assert later.store.index["image_id"].is_unique
    assert rejected(store) == {"in/Copy of slice_001.dcm": "copy"}
    assert later.reasons == again.reasons == {"copy": 1}


def test_a_copy_whose_original_is_gone_is_marked_as_a_duplicate(tmp_path: Path) -> None:
    paths = write_dicom_series(tmp_path / "a", VOLUME)
    store = tmp_path / "s"
    run(store, tmp_path / "a")
    (tmp_path / "b").mkdir()
    paths[1].rename(tmp_path / "b" / "IM7")

    result = run(store, tmp_path / "b")

    assert result.store.index["image_id"].is_unique
    assert result.store.columns(["duplicate_of"])["duplicate_of"].tolist() == [-1] * 6 + [1]


def test_one_object_with_two_contents_in_one_ingest_has_two_ids(tmp_path: Path) -> None:
    paths = write_dicom_series(tmp_path / "in", VOLUME)
    with_other_pixels(paths[2], tmp_path / "in" / "z.dcm")

    index = run(tmp_path / "s", tmp_path / "in").store.index

    assert len(index) == 7
    assert index["image_id"].is_unique
