"""Against a server that misbehaves, and against bytes cut anywhere."""

import json
import pickle
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.uid import generate_uid

from factories import write_dicom_slice
from orthanc import free_port
from vismae.core.errors import SettingError, UnreadableFileError
from vismae.files.dicomweb import DicomWebServer, RemoteSeries
from vismae.files.dicomweb_failures import DicomWebError, Failure
from vismae.files.dicomweb_parts import save_parts
from wayward import Answer, cut, silence, status, wayward_server, whole

STUDY, SERIES = generate_uid(), generate_uid()
REMOTE = RemoteSeries("SECRET-PATIENT", STUDY, SERIES, "CT", 2)
BOUNDARY = "cut-here"
MULTIPART = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


@pytest.fixture
def objects(tmp_path: Path) -> dict[str, bytes]:
    """Two DICOM objects by SOP instance UID."""
    found = {}
    for value in (1, 2):
        uid = generate_uid()
        pixels = np.full((300, 300), value, np.int16)
        found[uid] = write_dicom_slice(
            tmp_path / "made.dcm", pixels, SOPInstanceUID=uid
        ).read_bytes()
    return found


def multipart(*parts: bytes, first: bytes = b"") -> bytes:
    body = first
    for part in parts:
        body += f"\r\n--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + part
    return body + f"\r\n--{BOUNDARY}--\r\n".encode()


def results(*items: dict[str, str]) -> Answer:
    """Answer a search in the DICOM JSON model."""
    model = [
        {f"{tag_for_keyword(key):08X}": {"vr": "LO", "Value": [text]} for key, text in item.items()}
        for item in items
    ]
    return whole(json.dumps(model).encode())


def patient(url: str, **settings: Any) -> DicomWebServer:
    """Return a server that is asked again soon."""
    return DicomWebServer(url, **{"pause_seconds": 0.01, "timeout_seconds": 5.0, **settings})


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10**6])
@pytest.mark.parametrize("first", [b"", b"preamble to be skipped"])
def test_parts_are_found_however_the_stream_is_chopped(
    size: int, first: bytes, tmp_path: Path
) -> None:
    # Line breaks and beginnings of delimiters inside the parts must stay in them.
    parts = [b"", b"\r\n--cut-her", b"a\r\n\r\nb--cut-here\r\n", bytes(range(256)) * 3]
    body = multipart(*parts, first=first)
    for text in (body, body.removeprefix(b"\r\n")):
        chunks = (text[start : start + size] for start in range(0, len(text), size))
        saved = [path.read_bytes() for path in save_parts(MULTIPART, chunks, tmp_path)]
        assert saved == parts
    assert list(tmp_path.iterdir()) == []


def test_an_answer_cut_anywhere_gives_whole_parts_only_and_says_that_it_broke_off(
    tmp_path: Path,
) -> None:
    parts = [b"first" * 3, b"second" * 3]
    body = multipart(*parts)
    for end in range(len(body) - len("--\r\n")):
        saved: list[bytes] = []
        with pytest.raises(Failure, match="ended before") as caught:
            saved.extend(
                path.read_bytes() for path in save_parts(MULTIPART, [body[:end]], tmp_path)
            )
        assert caught.value.kind == "broken"
        assert saved == parts[: len(saved)]
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "kind", ["text/html", "multipart/related", "multipart/form-data; boundary=x"]
)
def test_an_answer_that_is_no_dicom_is_foreign(kind: str, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="not DICOM") as caught:
        list(save_parts(kind, [b"<html>"], tmp_path))
    assert caught.value.kind == "foreign"


def test_errors_of_the_server_that_pass_are_waited_for(
    objects: dict[str, bytes], tmp_path: Path
) -> None:
    (uid, data), *_ = objects.items()
    script = (status(500), status(503, Retry_After="1"), whole(multipart(data), MULTIPART))
    with wayward_server(*script) as server:
        begin = time.monotonic()
        path = patient(server.url).fetch_instance(REMOTE, uid, tmp_path / "into")
        assert time.monotonic() - begin >= 1.0
    assert path.read_bytes() == data
    assert len(server.requests) == 3


def test_a_body_cut_short_is_asked_for_again_and_leaves_nothing_behind(
    objects: dict[str, bytes], tmp_path: Path
) -> None:
    (uid, data), *_ = objects.items()
    body = multipart(data)
    script = (
        cut(body, 100, MULTIPART),
        cut(body, len(body) - 6, MULTIPART),
        whole(body, MULTIPART),
    )
    with wayward_server(*script) as server:
        path = patient(server.url).fetch_instance(REMOTE, uid, tmp_path / "into")
    assert path.read_bytes() == data
    assert list(path.parent.iterdir()) == [path]


def test_a_series_stream_that_breaks_off_goes_on_with_the_missing_images_alone(
    objects: dict[str, bytes], tmp_path: Path
) -> None:
    first, second = objects.values()
    body = multipart(first, second)
    script = (
        results(*({"SOPInstanceUID": uid} for uid in objects)),
        results(),
        status(502),
        cut(body, len(multipart(first)) + 100_000, MULTIPART),
        whole(multipart(second), MULTIPART),
    )
    with wayward_server(*script) as server:
        paths = patient(server.url).fetch_series(REMOTE, tmp_path / "into")
    assert [path.read_bytes() for path in paths] == [first, second]
    series = f"/dicom-web/studies/{STUDY}/series/{SERIES}"
    asked = [path for _, path in server.requests[2:]]
    assert asked == [series, series, f"{series}/instances/{list(objects)[1]}"]


def test_a_silent_server_is_given_up_after_the_retries(tmp_path: Path) -> None:
    with wayward_server(silence(0.6)) as server:
        begin = time.monotonic()
        with pytest.raises(UnreadableFileError, match="no answer in time") as caught:
            patient(server.url, timeout_seconds=0.2, retries=2).fetch_instance(
                REMOTE, "1.2.3", tmp_path
            )
        assert time.monotonic() - begin < 3.0
    assert caught.value.reason == "unreadable"
    assert len(server.requests) == 3


def test_a_body_that_stops_flowing_is_not_waited_for_without_end(tmp_path: Path) -> None:
    def stall(handler: Any, _: bytes) -> None:
        cut(bytes(1000), 500, MULTIPART)(handler, b"")
        handler.wfile.flush()
        time.sleep(0.6)

    with wayward_server(stall) as server, pytest.raises(UnreadableFileError, match="in time"):
        patient(server.url, timeout_seconds=0.2, retries=0).fetch_instance(
            REMOTE, "1.2.3", tmp_path
        )


@pytest.mark.parametrize(
    ("code", "error", "cure", "asked"),
    [
        (401, DicomWebError, "VISMAE_DICOMWEB_USER", 1),
        (403, DicomWebError, "VISMAE_DICOMWEB_TOKEN", 1),
        (404, UnreadableFileError, "path of the address", 1),
        (406, UnreadableFileError, "log", 1),
        (501, UnreadableFileError, "log", 1),
        (500, UnreadableFileError, "Try again later", 3),
        (429, UnreadableFileError, "Try again later", 3),
    ],
)
def test_only_what_may_pass_is_tried_again_and_the_message_says_what_to_do(
    code: int, error: type[Exception], cure: str, asked: int, tmp_path: Path
) -> None:
    with wayward_server(status(code)) as server:
        with pytest.raises(error) as caught:
            patient(server.url, retries=2).fetch_instance(REMOTE, "1.2.3", tmp_path)
        message = str(caught.value)
    assert len(server.requests) == asked
    assert server.url in message
    assert str(code) in message
    assert cure in message


def test_no_message_or_log_line_holds_an_identifier(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    errors: list[BaseException] = []
    for answer in (
        status(500),
        status(404),
        cut(b"x" * 99, 5, MULTIPART),
        whole(b"<html>", "text/html"),
    ):
        with wayward_server(answer) as server:
            remote = patient(server.url, retries=1)
            with pytest.raises((DicomWebError, UnreadableFileError)) as fetched:
                remote.fetch_instance(REMOTE, generate_uid(), tmp_path)
            with pytest.raises(DicomWebError) as found:
                list(remote.find_series({"PatientID": REMOTE.patient_id}))
            errors += [fetched.value, found.value]
    text = caplog.text + repr(REMOTE)
    for error in errors:
        text += "".join(traceback.format_exception(error))
        assert pickle.loads(pickle.dumps(error)).args == error.args
    assert "trying again" in text
    for secret in (REMOTE.patient_id, STUDY, SERIES):
        assert secret not in text


def test_a_server_that_is_not_there_is_named() -> None:
    server = patient(f"http://127.0.0.1:{free_port()}/dicom-web", retries=1)
    with pytest.raises(DicomWebError, match=r"127\.0\.0\.1:\d+/dicom-web.*no connection.*Check"):
        list(server.find_series({}))


def test_a_login_page_is_not_taken_for_an_empty_answer() -> None:
    page = whole(b"<html>Log in</html>", "text/html")
    with wayward_server(page) as server, pytest.raises(DicomWebError, match="root of a DICOMweb"):
        list(patient(server.url).find_series({}))


def test_an_account_is_not_taken_along_to_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISMAE_DICOMWEB_TOKEN", "very-secret")
    with wayward_server(results()) as other:
        elsewhere = other.url.replace("127.0.0.1", "localhost")
        with wayward_server(status(302, Location=f"{elsewhere}/studies")) as server:
            assert list(patient(server.url).find_series({})) == []
    assert server.headers[0]["Authorization"] == "Bearer very-secret"
    assert "Authorization" not in other.headers[0]


@pytest.mark.parametrize(
    "variables",
    [
        {"USER": "u"},
        {"PASSWORD": "p"},
        {"USER": "u", "PASSWORD": "p", "TOKEN": "t"},
        {"TOKEN": "é"},
    ],
)
def test_half_an_account_or_two_are_refused_before_anything_is_sent(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"VISMAE_DICOMWEB_{name}", value)
    with wayward_server(results()) as server:
        with pytest.raises(SettingError, match="VISMAE_DICOMWEB"):
            list(patient(server.url).find_series({}))
        assert server.requests == []


def test_a_netrc_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login stray password stray\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with wayward_server(results()) as server:
        assert list(patient(server.url).find_series({})) == []
    assert "Authorization" not in server.headers[0]


def pages(items: list[dict[str, str]], most: int, obey_offset: bool) -> Answer:
    """Answer searches by page, with a limit of the server's own."""

    def answer(handler: Any, body: bytes) -> None:
        _, _, query = handler.path.partition("?")
        asked = dict(pair.split("=") for pair in query.split("&"))
        start = int(asked["offset"]) if obey_offset else 0
        size = min(most, int(asked["limit"]))
        results(*items[start : start + size])(handler, body)

    return answer


def test_a_server_that_returns_fewer_than_asked_for_is_asked_on() -> None:
    items = [{"SOPInstanceUID": f"1.2.{number}"} for number in range(50)]
    with wayward_server(pages(items, most=7, obey_offset=True)) as server:
        found = patient(server.url).find_instances(REMOTE)
    assert [instance.sop_uid for instance in found] == [item["SOPInstanceUID"] for item in items]


def test_a_server_that_does_not_page_is_no_endless_loop() -> None:
    items = [{"SOPInstanceUID": f"1.2.{number}"} for number in range(500)]
    with wayward_server(pages(items[:9], most=500, obey_offset=False)) as server:
        assert len(patient(server.url).find_instances(REMOTE)) == 9
    stuck = pages(items, most=500, obey_offset=False)
    with wayward_server(stuck) as server, pytest.raises(DicomWebError, match="Narrow the query"):
        patient(server.url).find_instances(REMOTE)


def test_series_that_the_server_should_not_have_returned_are_dropped() -> None:
    """Servers may overlook keys they do not know, and list a study under two patients."""
    script = (
        results({"StudyInstanceUID": STUDY, "PatientID": "A"}),
        results(
            {"SeriesInstanceUID": "1.1", "BodyPartExamined": "Chest", "PatientID": "A"},
            {"SeriesInstanceUID": "1.2", "BodyPartExamined": "HEAD", "PatientID": "A"},
            {"SeriesInstanceUID": "1.3", "BodyPartExamined": "CHEST", "PatientID": "B"},
            {"SeriesInstanceUID": "1.4"},
        ),
        results(),
    )
    with wayward_server(*script) as server:
        found = list(patient(server.url).find_series({"BodyPartExamined": "CHE*"}))
    assert [(series.series_uid, series.patient_id) for series in found] == [
        ("1.1", "A"),
        ("1.4", "A"),
    ]


def test_identifiers_cannot_lead_a_request_elsewhere(tmp_path: Path) -> None:
    with wayward_server(status(404)) as server, pytest.raises(UnreadableFileError):
        patient(server.url).fetch_instance(REMOTE, "../../other?x=1#y", tmp_path)
    assert server.requests[0][1].endswith("/instances/..%2F..%2Fother%3Fx%3D1%23y")


def test_a_bare_object_is_taken_as_it_is(objects: dict[str, bytes], tmp_path: Path) -> None:
    (uid, data), *_ = objects.items()
    with wayward_server(whole(data, "application/dicom")) as server:
        assert patient(server.url).fetch_instance(REMOTE, uid, tmp_path).read_bytes() == data


def test_another_object_than_asked_for_is_not_taken(
    objects: dict[str, bytes], tmp_path: Path
) -> None:
    first, second = objects
    other = whole(multipart(objects[second]), MULTIPART)
    with wayward_server(other) as server, pytest.raises(UnreadableFileError, match="not hold"):
        patient(server.url, retries=0).fetch_instance(REMOTE, first, tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(
    objects: dict[str, bytes], tmp_path: Path
) -> None:
    (uid, data), *_ = objects.items()
    (tmp_path / "file").touch()
    good = whole(multipart(data), MULTIPART)
    with wayward_server(good) as server, pytest.raises(DicomWebError, match="file: fetching an"):
        patient(server.url).fetch_instance(REMOTE, uid, tmp_path / "file")
