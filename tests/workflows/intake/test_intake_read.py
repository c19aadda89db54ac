from pathlib import Path

import numpy as np

from factories import write_dicom_series, write_nifti
from vismae.core.config import IngestConfig
from vismae.workflows.ingest import IngestResult, ingest


def run(source: Path, store: Path) -> IngestResult:
    return ingest(IngestConfig(sources=(source,), store=store, executor="here"))


def test_a_pair_whose_headers_disagree_is_left_out_and_the_others_stay(tmp_path: Path) -> None:
    data = np.arange(4 * 5 * 3, dtype=np.int16).reshape(4, 5, 3)
    affine = np.diag([-1.0, -1.0, 3.0, 1.0])
    for name, of_labels in (("good", affine), ("mirrored", np.eye(4))):
        write_nifti(tmp_path / "in" / "imagesTr" / f"{name}_ct.nii.gz", data, affine)
        labels = (data > 30).astype(np.uint8)
        write_nifti(tmp_path / "in" / "labelsTr" / f"{name}_ct.nii.gz", labels, of_labels)

    result = run(tmp_path / "in", tmp_path / "s")

    assert result.reasons == {"label-geometry": 1}
    assert result.stored == 3
    for position in range(3):
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
