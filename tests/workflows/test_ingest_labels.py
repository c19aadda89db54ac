"""DICOM segmentations and structure sets beside their images: which go where, and why not."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence

from factories import ultrasound_region, write_png
from factories_labels import write_labelled_series, write_plain_seg, write_rtstruct
from vismae.core.config import IngestConfig
from vismae.workflows.ingest import IngestResult, ingest
from vismae.workflows.intake.identity import private_folder

# Columns 2 to 6, rows 3 to 5 of the second slice, in mm.
SQUARE = np.array([[1.5, 2.5, 5], [6.5, 2.5, 5], [6.5, 5.5, 5], [1.5, 5.5, 5]])
VOLUME = np.random.default_rng(0).integers(0, 100, (4, 12, 10)).astype(np.int16)


def run(source: Path, store: Path) -> IngestResult:
    return ingest(IngestConfig(sources=(source,), store=store, executor="here"))


def rejected(store: Path) -> dict[str, str]:
    """Return file name -> reason."""
    with (private_folder(store) / "rejected.csv").open(newline="") as file:
        return {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}


def drawn(result: IngestResult) -> int:
    """Return how many pixels of all label maps belong to a class."""
    store = result.store
    found = (store.read(row).label_map for row in range(len(store)))
    return sum(int(np.count_nonzero(labels)) for labels in found if labels is not None)


@pytest.mark.parametrize("names_instances", [True, False])
def test_a_structure_set_that_names_no_series_finds_its_images(
    tmp_path: Path, names_instances: bool
) -> None:
    space, tags = Dataset(), {"FrameOfReferenceUID": "1.2.3.9"}
    space.FrameOfReferenceUID = tags["FrameOfReferenceUID"]
    series = write_labelled_series(tmp_path / "in" / "ct", VOLUME, **tags)
    # Another patient in a space of the same name, as careless programs give it.
    write_labelled_series(tmp_path / "in" / "other", VOLUME[::-1], PatientID="P2", **tags)
    write_rtstruct(
        tmp_path / "in" / "a.dcm",
        series,
        {"Gland": [SQUARE]},
        refer_to_images=names_instances,
        ReferencedFrameOfReferenceSequence=DicomSequence([space]),
    )

    result = run(tmp_path / "in", tmp_path / "s")

    assert (result.stored, result.reasons) == (8, {})
    assert drawn(result) == 15


def test_labels_that_fit_one_volume_of_their_series_are_not_left_out(tmp_path: Path) -> None:
    tags: dict[str, Any] = {"SeriesInstanceUID": "1.2.3.5", "StudyInstanceUID": "1.2.3.6"}
    axial = write_labelled_series(tmp_path / "in" / "axial", VOLUME, **tags)
    coronal = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0]
    write_labelled_series(tmp_path / "in" / "coronal", VOLUME[:1], orientation=coronal, **tags)
    write_rtstruct(tmp_path / "in" / "a.dcm", axial, {"Gland": [SQUARE]})

    for _ in range(2):
        result = run(tmp_path / "in", tmp_path / "s")

        assert (result.stored, result.files, result.reasons) == (5, 6, {})
        assert drawn(result) == 15


def test_labels_that_fit_no_volume_are_left_out_once_and_stay_left_out(tmp_path: Path) -> None:
    series = write_labelled_series(tmp_path / "in" / "ct", VOLUME)
    write_rtstruct(tmp_path / "in" / "far.dcm", series, {"Gland": [SQUARE + np.array([0, 0, 900])]})

    for _ in range(2):
        result = run(tmp_path / "in", tmp_path / "s")

        assert rejected(tmp_path / "s") == {"far.dcm": "label-geometry"}
        assert (result.stored, result.files) == (4, 5)


def test_a_structure_set_of_open_contours_alone_is_left_out_as_empty(tmp_path: Path) -> None:
    series = write_labelled_series(tmp_path / "in" / "ct", VOLUME)
    kinds = {"Line": "OPEN_PLANAR"}
    write_rtstruct(tmp_path / "in" / "open.dcm", series, {"Line": [SQUARE]}, kinds)

    result = run(tmp_path / "in", tmp_path / "s")

    assert rejected(tmp_path / "s") == {"open.dcm": "label-empty"}
    assert (result.stored, result.files) == (4, 5)


def test_labels_drawn_on_whole_frames_are_cut_like_their_ultrasound_images(tmp_path: Path) -> None:
    screen = np.random.default_rng(1).integers(1, 250, (48, 64)).astype(np.uint8)
    inside = np.zeros(screen.shape, bool)
    inside[10:14, 20:30] = True  # part of it lies beside the picture
    region = ultrasound_region((6, 40, 24, 60))
    tags: dict[str, Any] = {
        "Modality": "US",
        "SequenceOfUltrasoundRegions": DicomSequence([region]),
        "ImagePositionPatient": None,
        "ImageOrientationPatient": None,
        "PixelSpacing": None,
    }
    [scan] = write_labelled_series(tmp_path / "in" / "us", screen[None], **tags)
    write_plain_seg(tmp_path / "in" / "seg.dcm", inside, scan)

    result = run(tmp_path / "in", tmp_path / "s")

    assert (result.stored, result.reasons) == (1, {})
    item = result.store.read(0)
    assert item.label_map is not None
    np.testing.assert_array_equal(item.label_map, inside[6:41, 24:61])

    write_png(tmp_path / "drawn.png", inside.astype(np.uint8))
    table = tmp_path / "in.csv"
    table.write_text(f"path,mask\n{scan},{tmp_path / 'drawn.png'}\n")
    listed = run(table, tmp_path / "s2").store.read(0)
    np.testing.assert_array_equal(listed.label_map, item.label_map)
