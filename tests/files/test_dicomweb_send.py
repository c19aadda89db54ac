"""Sending files, to a real PACS (Orthanc) and to a server that loses answers."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from factories import write_dicom_series
from orthanc import Orthanc, free_port, running_orthanc
from vismae.core.errors import DataError
from vismae.files.dicomweb import DicomWebServer
from vismae.files.dicomweb_failures import DicomWebError
from vismae.files.dicomweb_send import SendReport, send_files
from wayward import forwarded, silence, status, wayward_server, whole


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture
def made(tmp_path: Path) -> list[Path]:
    return write_dicom_series(tmp_path / "made", np.ones((3, 64, 64), np.int16), PatientID="HIDDEN")


def patient(url: str, retries: int = 2, timeout_seconds: float = 20.0) -> DicomWebServer:
    return DicomWebServer(url, timeout_seconds, retries, pause_seconds=0.01)


def failed_with(reason: int) -> bytes:
    item = {"00081197": {"vr": "US", "Value": [reason]}}
    return json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()


def test_files_arrive_byte_for_byte_and_a_second_run_sends_nothing(
    pacs: Orthanc, made: list[Path], tmp_path: Path
) -> None:
    ledger = tmp_path / "private" / "sent.jsonl"
    before = pacs.count()
    with wayward_server(forwarded(pacs.root)) as between:
        server = patient(between.url)
        assert send_files(server, made, ledger) == SendReport(tuple(made), (), ())
        assert [kind for kind, _ in between.requests] == ["POST"] * len(made)
        assert send_files(server, made, ledger) == SendReport((), tuple(made), ())
        assert len(between.requests) == len(made)
    assert pacs.count() == before + len(made)

    server = patient(pacs.url)
    series = next(found for found in server.find_series({}) if found.instances == len(made))
    fetched = server.fetch_series(series, tmp_path / "back")
    assert sorted(p.read_bytes() for p in fetched) == sorted(p.read_bytes() for p in made)


def test_the_ledger_is_private_and_holds_nothing_but_uids_and_states(
    pacs: Orthanc, made: list[Path], tmp_path: Path
) -> None:
    ledger = tmp_path / "sent.jsonl"
    send_files(patient(pacs.url), made, ledger)
    entries = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert {tuple(entry) for entry in entries} == {("sop_instance_uid", "state")}
    assert [entry["state"] for entry in entries] == ["begun", "stored"] * len(made)
    assert ledger.stat().st_mode & 0o777 == 0o600


def test_an_answer_that_got_lost_is_followed_by_a_question_not_by_a_second_upload(
    pacs: Orthanc, made: list[Path], tmp_path: Path
) -> None:
    through = forwarded(pacs.root)
    with wayward_server(forwarded(pacs.root, lose_answer=True), through) as between:
        report = send_files(patient(between.url), made[:1], tmp_path / "sent.jsonl")
    assert report == SendReport((made[0],), (), ())
    assert [kind for kind, _ in between.requests] == ["POST", "GET", "GET", "GET"]


def test_an_upload_that_never_arrived_is_sent_again(
    pacs: Orthanc, made: list[Path], tmp_path: Path
) -> None:
    for trouble in (status(500), silence(0.5), whole(b"<xml/>", "application/dicom+xml")):
        before = pacs.count()
        path, made = made[0], made[1:]
        with wayward_server(trouble, forwarded(pacs.root)) as between:
            server = patient(between.url, timeout_seconds=0.3)
            report = send_files(server, [path], tmp_path / "sent.jsonl")
        assert report == SendReport((path,), (), ())
        assert [kind for kind, _ in between.requests].count("POST") == 2
        assert pacs.count() == before + 1


def test_what_an_interrupted_run_had_begun_is_asked_for_first(
    pacs: Orthanc, made: list[Path], tmp_path: Path
) -> None:
    ledger = tmp_path / "sent.jsonl"
    send_files(patient(pacs.url), made[:2], ledger)
    begun, _, second = ledger.read_text().splitlines()[:3]
    # Killed while it wrote that the second file had been stored.
    ledger.write_text(f'{begun}\n{second}\n{{"sop_instance_uid": "1.2')
    with wayward_server(forwarded(pacs.root)) as between:
        report = send_files(patient(between.url), made, ledger)
    assert report == SendReport((made[2],), (made[0], made[1]), ())
    assert [kind for kind, _ in between.requests].count("POST") == 1
    assert {json.loads(line)["state"] for line in ledger.read_text().splitlines()} == {
        "begun",
        "stored",
    }


def test_one_bad_file_does_not_keep_the_others_back(
    pacs: Orthanc, made: list[Path], tmp_path: Path
) -> None:
    text, gone = tmp_path / "notes.dcm", tmp_path / "gone.dcm"
    text.write_text("no DICOM at all")
    report = send_files(patient(pacs.url), [text, made[0], gone], tmp_path / "sent.jsonl")
    assert report.stored == (made[0],)
    assert [path for path, _ in report.failed] == [text, gone]
    assert all("cannot be read as DICOM" in reason for _, reason in report.failed)


def test_the_reason_of_a_server_that_will_not_store_is_handed_on(
    made: list[Path], tmp_path: Path
) -> None:
    answers = {"conflict": status(409, failed_with(0xA700)), "ok": whole(failed_with(0xA700))}
    for name, answer in answers.items():
        with wayward_server(answer) as server:
            report = send_files(patient(server.url), made[:1], tmp_path / f"{name}.jsonl")
        assert len(server.requests) == 1
        ((path, reason),) = report.failed
        assert path == made[0]
        assert "0xA700" in reason


def test_a_server_that_calls_it_a_duplicate_has_it_already(
    made: list[Path], tmp_path: Path
) -> None:
    with wayward_server(status(409, failed_with(0x0111))) as server:
        report = send_files(patient(server.url), made[:1], tmp_path / "sent.jsonl")
    assert report == SendReport((), (made[0],), ())


def test_too_large_a_file_is_reported_and_a_refused_account_ends_the_run(
    made: list[Path], tmp_path: Path
) -> None:
    with wayward_server(status(413)) as server:
        report = send_files(patient(server.url), made[:1], tmp_path / "a.jsonl")
        assert "413" in report.failed[0][1]
    with wayward_server(status(401)) as server, pytest.raises(DicomWebError, match="USER"):
        send_files(patient(server.url), made, tmp_path / "b.jsonl")
    assert len(server.requests) == 1
    nowhere = patient(f"http://127.0.0.1:{free_port()}/dicom-web")
    with pytest.raises(DicomWebError, match="no connection"):
        send_files(nowhere, made, tmp_path / "c.jsonl")


def test_another_file_in_place_of_the_ledger_is_left_alone(
    made: list[Path], tmp_path: Path
) -> None:
    for text in ("a,b\n1,2\n", "no line break", '{"sop": 1}\n'):
        other = tmp_path / "other.csv"
        other.write_text(text)
        with pytest.raises(DataError, match=r"other\.csv, line 1"):
            send_files(patient("http://not-asked"), made, other)
        assert other.read_text() == text
    with pytest.raises(DataError, match="cannot be written"):
        send_files(patient("http://not-asked"), made, tmp_path)


def test_no_report_or_log_line_names_a_patient_or_an_identifier(
    made: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    ledger = tmp_path / "sent.jsonl"
    with wayward_server(status(503)) as server:
        report = send_files(patient(server.url, retries=1), made[:1], ledger)
    uid = json.loads(ledger.read_text())["sop_instance_uid"]
    text = caplog.text + repr(report)
    assert "503" in text
    assert uid not in text
    assert "HIDDEN" not in text
