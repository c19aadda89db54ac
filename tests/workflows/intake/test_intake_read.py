from pathlib import Path

import numpy as np

from factories import write_dicom_series, write_nifti
from factories_labels import write_labelled_series, write_rtstruct
from vismae.core.config import IngestConfig
from vismae.workflows.ingest import IngestResult, ingest


def run(source: Path, store: Path) -> IngestResult:
    return ingest(IngestConfig(sources=(source,), store=store, executor="here"))


def holds(folder: Path, word: bytes) -> bool:
    return any(word in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_an_image_stays_without_the_label_map_that_lies_beside_it(tmp_path: Path) -> None:
    data = np.arange(4 * 5 * 3, dtype=np.int16).reshape(4, 5, 3)
    affine = np.diag([-1.0, -1.0, 3.0, 1.0])
    for name, of_labels in (("good", affine), ("mirrored", np.eye(4))):
        write_nifti(tmp_path / "in" / "imagesTr" / f"{name}_ct.nii.gz", data, affine)
        labels = (data > 30).astype(np.uint8)
        write_nifti(tmp_path / "in" / "labelsTr" / f"{name}_ct.nii.gz", labels, of_labels)

    result = run(tmp_path / "in", tmp_path / "s")

    assert result.reasons == {"label-geometry": 1}
    assert result.stored == 6
    labelled = result.store.index["has_label_map"]
    assert labelled.sum() == 3
    for position in np.flatnonzero(labelled):
        part = result.store.read(position)
        np.testing.assert_array_equal(part.label_map, part.pixels > 30)


def test_series_of_one_study_stay_together_without_a_patient(tmp_path: Path) -> None:
    volume = np.arange(3 * 6 * 5, dtype=np.int16).reshape(3, 6, 5)
    unnamed = {"PatientID": "", "PatientName": None}
    for number, modality in enumerate(("CT", "MR")):
        write_dicom_series(
            tmp_path / "in" / modality,
            volume + number,
            Modality=modality,
            StudyInstanceUID="1.2.3",
            SeriesInstanceUID=f"1.2.3.{number}",
            **unnamed,
        )
    write_dicom_series(
        tmp_path / "in" / "none",
        volume + 2,
        StudyInstanceUID=None,
        SeriesInstanceUID="1.2.4.1",
        **unnamed,
    )

    rows = run(tmp_path / "in", tmp_path / "s").store.index

    in_study = rows[rows["group_kind"] == "group"]
    assert len(in_study) == 6
    assert set(in_study["modality"]) == {"ct", "mr"}
    assert in_study["patient_id"].nunique() == 1
    assert set(in_study["patient_id"]) == set(in_study["study_id"])
    alone = rows[rows["group_kind"] == "image"]
    assert len(alone) == 3
    assert alone["patient_id"].nunique() == 1


def test_a_patient_whom_only_the_images_name_is_not_in_a_class(tmp_path: Path) -> None:
    volume = np.arange(4 * 12 * 10, dtype=np.int16).reshape(4, 12, 10)
    square = np.array([[1.5, 2.5, 5], [6.5, 2.5, 5], [6.5, 5.5, 5], [1.5, 5.5, 5]])
    for number, (name, target) in enumerate(
        (("Kowalski^Zofia", "GTV Kowalski"), ("Nowak^Jan", "GTV 1"))
    ):
        folder = tmp_path / "in" / str(number)
        series = write_labelled_series(
            folder / "ct", volume + number, PatientName=name, PatientID=f"P{number}"
        )
        contours = {target: [square], "Lung": [square + np.array([0, 4, 0])]}
        write_rtstruct(folder / "s.dcm", series, contours, PatientName="", PatientID=f"P{number}")

    result = run(tmp_path / "in", tmp_path / "s")

    hidden = next(name for name in result.store.classes.values() if "structure-" in name)
    assert result.store.classes == {1: "GTV 1", 2: "Lung", 3: hidden}
    assert not holds(tmp_path / "s", b"Kowalski")
    painted = [np.unique(np.asarray(result.store.read(row).label_map)) for row in (1, 5)]
    assert sorted(map(list, painted), key=max) == [[0, 1, 2], [0, 2, 3]]


def test_a_class_of_a_rejected_structure_set_is_not_in_the_store(tmp_path: Path) -> None:
    volume = np.arange(4 * 12 * 10, dtype=np.int16).reshape(4, 12, 10)
    square = np.array([[1.5, 2.5, 5], [6.5, 2.5, 5], [6.5, 5.5, 5], [1.5, 5.5, 5]])
    series = write_labelled_series(tmp_path / "elsewhere", volume, PatientName="Kowalski^Zofia")
    labels = {"GTV Kowalski": [square]}
    write_rtstruct(tmp_path / "in" / "s.dcm", series, labels, PatientName="")
    write_dicom_series(tmp_path / "in" / "ct", volume)

    store = run(tmp_path / "in", tmp_path / "s").store

    assert store.classes == {}
    assert not holds(tmp_path / "s", b"Kowalski")
