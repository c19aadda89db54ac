"""Prediction of what a PACS holds, with results stored back; a real Orthanc answers on loopback."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest

import vismae
from factories import ultrasound_region, write_dicom_series, write_dicom_slice
from models_on_disk import write_classifier, write_mae, write_segmenter
from orthanc import Orthanc, running_orthanc
from vismae.core.errors import DataError, SettingError
from vismae.core.types import Modality
from vismae.files.dicomweb import DicomWebServer, RemoteSeries
from vismae.workflows.predict import PredictResult
from vismae.workflows.prediction.inputs import Failure
from vismae.workflows.prediction.tables import write_failed
from wayward import forwarded, status, wayward_server

STUDY, OTHER_STUDY = "1.2.826.0.1.3680043.8.498.71", "1.2.826.0.1.3680043.8.498.72"
ACCOUNT = ("reader", "s3cret-of-the-test")


def fill(folder: Path) -> list[Path]:
    """A study of a CT series, an ultrasound clip and a report; and another patient's CT."""
    rng = np.random.default_rng(0)
    for number, study in enumerate((STUDY, OTHER_STUDY)):
        write_dicom_series(
            folder / f"ct{number}",
            rng.integers(0, 2000, (4, 40, 30)).astype(np.uint16),
            Modality="CT",
            PatientID=f"HIDDEN{number}",
            PatientName="Müller^Änne",
            SpecificCharacterSet="ISO_IR 100",
            StudyInstanceUID=study,
            SeriesInstanceUID=f"{study}.1",
            FrameOfReferenceUID=f"{study}.9",
        )
    clip = rng.integers(0, 255, (3, 48, 38)).astype(np.uint8)
    of_study: dict[str, Any] = {"StudyInstanceUID": STUDY, "PatientID": "HIDDEN0"}
    write_dicom_slice(
        folder / "clip.dcm",
        clip,
        Modality="US",
        SeriesInstanceUID=f"{STUDY}.2",
        SequenceOfUltrasoundRegions=[ultrasound_region((5, 40, 8, 34))],
        **of_study,
    )
    write_dicom_slice(
        folder / "report.dcm",
        np.ones((4, 4), np.uint8),
        Modality="SR",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11",
        SeriesInstanceUID=f"{STUDY}.3",
        **of_study,
    )
    return sorted(path for path in folder.rglob("*.dcm") if path.is_file())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    fill(folder)
    return folder


@pytest.fixture
def pacs(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path / "orthanc", ACCOUNT) as server:
        for path in sorted(files.rglob("*.dcm")):
            assert server.put(path), path
        monkeypatch.setenv("VISMAE_DICOMWEB_USER", ACCOUNT[0])
        monkeypatch.setenv("VISMAE_DICOMWEB_PASSWORD", ACCOUNT[1])
        yield server


def predict(model: Path, url: str, out: Path, **settings: Any) -> PredictResult:
    query = settings.pop("query", {"StudyInstanceUID": STUDY})
    return vismae.predict(
        model=model, inputs=f"dicomweb+{url}", query=query, out=out, device="cpu", **settings
    )


def fetched(pacs: Orthanc, modality: str, into: Path) -> list[pydicom.Dataset]:
    """Return what the server holds of a modality in the study, with the series they are in."""
    server = DicomWebServer(pacs.url)
    query = {"StudyInstanceUID": STUDY, "Modality": modality}
    return [
        pydicom.dcmread(path)
        for series in server.find_series(query)
        for path in server.fetch_series(series, into)
    ]


def pixels_by_reference(seg: pydicom.Dataset) -> dict[tuple[int, str, int], np.ndarray]:
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    found = {}
    for frame, pixels in zip(seg.PerFrameFunctionalGroupsSequence, frames, strict=True):
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        segment = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        number = int(source.get("ReferencedFrameNumber") or 0)
        found[int(segment), str(source.ReferencedSOPInstanceUID), number] = pixels
    return found


def test_a_study_gets_the_segmentations_its_files_would_get(
    pacs: Orthanc, files: Path, tmp_path: Path
) -> None:
    model = write_segmenter(tmp_path / "model")
    before = pacs.count()
    result = predict(model, pacs.url, tmp_path / "out", send=True)

    assert result.failed == ()
    assert [failure.reason for failure in result.failures] == ["not-an-image"]
    assert pacs.count() == before + 2
    stored = fetched(pacs, "SEG", tmp_path / "back")
    assert {item.StudyInstanceUID for item in stored} == {STUDY}
    assert {item.PatientID for item in stored} == {"HIDDEN0"}
    assert "Müller^Änne" in {str(item.PatientName) for item in stored}
    on_disk = vismae.predict(
        model=model, inputs=[files / "ct0", files / "clip.dcm"], out=tmp_path / "d", device="cpu"
    )
    expected = {}
    for [path] in on_disk.outputs.values():
        expected |= pixels_by_reference(pydicom.dcmread(path))
    found = {}
    for item in stored:
        found |= pixels_by_reference(item)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], expected[key]) for key in found)
    volumes = pd.read_csv(tmp_path / "out" / "volumes.csv")
    assert volumes["pixels"].sum() == pd.read_csv(tmp_path / "d" / "volumes.csv")["pixels"].sum()


def test_a_study_is_never_stored_twice_by_whatever_run(pacs: Orthanc, tmp_path: Path) -> None:
    model = write_segmenter(tmp_path / "model")
    predict(model, pacs.url, tmp_path / "out")
    before = pacs.count()
    with wayward_server(forwarded(pacs.root)) as between:
        for out, settings in (("out", {"resume": True}), ("out", {"resume": True}), ("new", {})):
            result = predict(model, between.url, tmp_path / out, send=True, **settings)
            assert result.failed == ()
    # The address is part of what an input is: another one is predicted anew, to the same objects.
    assert [kind for kind, _ in between.requests].count("POST") == 2
    assert pacs.count() == before + 2


def test_a_result_that_was_not_stored_is_told_and_sent_with_resume(
    pacs: Orthanc, tmp_path: Path
) -> None:
    model, out = write_segmenter(tmp_path / "model"), tmp_path / "out"
    query = {"SeriesInstanceUID": f"{STUDY}.1"}
    through = forwarded(pacs.root)
    full = True

    def refusing(handler: Any, body: bytes) -> None:
        (status(413) if full and handler.command == "POST" else through)(handler, body)

    before = pacs.count()
    with wayward_server(refusing) as between:
        result = predict(model, between.url, out, send=True, query=query)
        assert [failure.reason for failure in result.failed] == ["not-sent"]
        assert "413" in result.failed[0].message
        assert pacs.count() == before
        full = False
        again = predict(model, between.url, out, send=True, query=query, resume=True)
    assert (again.predicted, again.skipped, again.failed) == (0, 1, ())
    assert pacs.count() == before + 1


def test_a_classifier_stores_a_report_beside_its_images(pacs: Orthanc, tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    predict(write_classifier(tmp_path / "model"), pacs.url, tmp_path / "out", send=True)
    server = DicomWebServer(pacs.url)
    query = {"StudyInstanceUID": STUDY, "Modality": "SR"}
    reports = [
        path
        for series in server.find_series(query)
        if series.series_uid != f"{STUDY}.3"
        for path in server.fetch_series(series, tmp_path / "back")
    ]
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    expected = sorted(table[table["level"] == "volume"]["probability_bright"].round(6))
    found = [
        group.get_measurements()[0].value
        for path in reports
        for group in highdicom.sr.srread(path).content.get_image_measurement_groups()
    ]
    assert sorted(found) == pytest.approx(expected, abs=1e-6)


def test_neither_account_nor_patient_is_in_the_log_or_the_settings(
    pacs: Orthanc, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["predict", "--model", write_segmenter(tmp_path / "model"), f"dicomweb+{pacs.url}"]
    words += ["--query", f"StudyInstanceUID={STUDY}", "--send", "--verbose", "--out", out]
    code = "from vismae.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True
    )
    assert "2 inputs predicted" in done.stdout
    kept = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    everything = b"".join([*kept, done.stdout.encode(), done.stderr.encode()])
    assert ACCOUNT[1].encode() not in everything
    assert "Authorization" not in done.stderr
    log = (out / "log.txt").read_text()
    assert "HIDDEN" not in log + done.stderr
    assert STUDY not in log
    ledger = out / "records" / "sent.jsonl"
    assert ledger.stat().st_mode & 0o777 == 0o600
    assert {json.loads(line)["state"] for line in ledger.read_text().splitlines()} == {
        *("begun", "stored"),
    }


def test_a_refused_account_ends_the_run(
    pacs: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = write_segmenter(tmp_path / "model"), tmp_path / "out"
    monkeypatch.setenv("VISMAE_DICOMWEB_PASSWORD", "wrong")
    with pytest.raises(DataError, match="USER"):
        predict(model, pacs.url, out, send=True)
    monkeypatch.setenv("VISMAE_DICOMWEB_PASSWORD", ACCOUNT[1])
    assert predict(model, pacs.url, out, send=True, overwrite=True).predicted == 2


def test_fetched_files_are_gone_afterwards(
    pacs: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    predict(write_segmenter(tmp_path / "model"), pacs.url, tmp_path / "out")
    assert list(scratch.iterdir()) == []


def test_files_of_a_series_that_is_refused_are_gone_before_the_end(
    pacs: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    left: list[Path] = []

    def at_the_end(folder: Path, failures: list[Failure]) -> None:
        left.extend(path for path in scratch.rglob("*") if path.is_file())
        write_failed(folder, failures)

    monkeypatch.setattr("vismae.workflows.predict.write_failed", at_the_end)
    model = write_segmenter(tmp_path / "model", modalities=(Modality.MR,))
    result = predict(model, pacs.url, tmp_path / "out")
    assert len(result.failed) == 2
    assert left == []


def test_a_series_that_is_found_twice_is_one_input(
    pacs: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_series = DicomWebServer.find_series

    def twice(server: DicomWebServer, query: dict[str, str]) -> Iterator[RemoteSeries]:
        for series in find_series(server, query):
            yield from (series, series)

    monkeypatch.setattr(DicomWebServer, "find_series", twice)
    result = predict(write_segmenter(tmp_path / "model"), pacs.url, tmp_path / "out")
    assert (result.predicted, result.skipped) == (2, 0)


@pytest.mark.parametrize(
    ("inputs", "settings", "part"),
    [
        ("dicomweb+http://127.0.0.1:9/d", {}, "query is empty"),
        ("a.png", {"query": {"Modality": "CT"}}, "query is for a DICOMweb server"),
        ("a.png", {"send": True}, "came from no server"),
        (
            "dicomweb+http://127.0.0.1:9/d",
            {"send": True, "format": "nifti", "query": {"Modality": "CT"}},
            "send stores DICOM objects",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    inputs: str, settings: dict[str, Any], part: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=part):
        vismae.predict(
            model=write_segmenter(tmp_path / "model"), inputs=inputs, out=tmp_path / "o", **settings
        )
    if "send" in settings:
        with pytest.raises(SettingError, match="send is for segmenters"):
            vismae.predict(
                model=write_mae(tmp_path / "mae"), inputs=inputs, out=tmp_path / "o", send=True,
                query=settings.get("query"),
            )  # fmt: skip
    assert not (tmp_path / "o").exists()
