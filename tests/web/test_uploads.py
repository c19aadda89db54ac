"""What an upload leaves behind where something goes wrong on the server's side."""

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.datastructures import UploadFile

from vismae.core.config import WebConfig
from vismae.core.guarded_process import GuardedProcess, Limits
from vismae.web import uploads
from vismae.web.answering import Answering
from vismae.web.folders import Clock, PrivateFolder
from vismae.web.gate import Gate
from vismae.web.jobs import JobQueue
from vismae.web.server import build_app
from vismae.web.studies import Studies, zip_of
from vismae.web.uploads import keep_upload
from vismae.web.work import Served


class FullDisk(io.BytesIO):
    """A file that breaks off in the middle."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(28, "No space left on device")


def test_an_upload_that_cannot_be_kept_leaves_nothing(tmp_path: Path) -> None:
    home = PrivateFolder(tmp_path)
    before = sorted(home.path.iterdir())
    with pytest.raises(OSError, match="No space"):
        asyncio.run(keep_upload(UploadFile(FullDisk(), filename="head_ct.nii"), home))
    assert sorted(home.path.iterdir()) == before
    folder, name = asyncio.run(keep_upload(UploadFile(io.BytesIO(b"x"), filename="../a.png"), home))
    assert (folder / "upload" / name).read_bytes() == b"x"
    home.remove()


def test_results_that_are_asked_for_twice_at_once_are_whole_twice(tmp_path: Path) -> None:
    content = {f"{number}.txt": bytes(200_000) + bytes([number]) for number in range(20)}
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    target = tmp_path / "results.zip"
    with ThreadPoolExecutor(8) as pool:
        made = [pool.submit(zip_of, tmp_path, list(content), target) for _ in range(8)]
    assert {future.result() for future in made} == {target}
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == content
    assert [path for path in tmp_path.iterdir() if path.name not in content] == [target]


@pytest.fixture
def broken_app(tmp_path: Path) -> Iterator[Gate]:
    """An application that does not know what its own model is."""
    home = PrivateFolder(tmp_path)
    queue = JobQueue(GuardedProcess(Limits(60, 4)), 1)
    served = Served((), "cpu", 1, 1, False, ())
    answering = Answering(
        served, ({"name": "Mueller"},), queue, home, Studies(60.0, 2**30), 2**20, 2**20, 60.0
    )
    yield build_app(answering, WebConfig(model=(tmp_path,)), None, Clock())
    queue.stop()
    home.remove()


def post(app: Gate, path: str, **content: Any) -> httpx.Response:
    """Send a request to an application without a server."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post(path, **content)

    return asyncio.run(send())


FILE = ("file", ("a.png", b"x"))


@pytest.mark.parametrize(
    ("path", "files", "fields", "said"),
    [
        ("/v1/embed", [FILE, FILE], {}, "file: comes 2 times"),
        ("/v1/embed", [FILE], {"modalty": "ct"}, "modalty: no field of this route"),
        ("/v1/embed", [FILE], {"model": ["Mueller", "Mueller"]}, "model: comes 2 times"),
        ("/v1/embed?model=other", [FILE], {}, "model: send it as a field of the form"),
        ("/v1/embed", [("file", ("", b"x"))], {}, "a file with its name is needed"),
        ("/v1/embed", [("image", ("a.png", b"x"))], {}, "a file with its name is needed"),
    ],
)
def test_what_would_be_left_out_in_silence_is_refused(
    broken_app: Gate, path: str, files: list[Any], fields: dict[str, Any], said: str
) -> None:
    for _ in range(2):  # the only place of the queue is given back
        answer = post(broken_app, path, files=files, data=fields)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (422, "field"), answer.text
        assert said in error["message"]


def test_an_address_that_takes_no_files_says_so(broken_app: Gate) -> None:
    answer = post(broken_app, "/v1/embed/", files=[FILE])
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not-found")
    answer = post(broken_app, "/v1/embed/", files=[("file", ("a.png", bytes(100_000)))])
    assert answer.status_code == 413
    assert "They go to /v1/embed, /v1/predict" in answer.json()["error"]["message"]


def test_a_sender_that_only_trickles_loses_its_place(
    broken_app: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_SILENCE_SECONDS", 0.3)

    async def trickle() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        for _ in range(40):
            await asyncio.sleep(0.05)
            yield b"x"

    headers = {"content-type": "multipart/form-data; boundary=x"}
    for _ in range(2):
        answer = post(broken_app, "/v1/embed", content=trickle(), headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (408, "slow")


def test_a_defect_is_answered_like_every_other_error(
    broken_app: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(broken_app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get("/v1/model")

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "defect")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "rest.py" in caplog.text
    assert "Mueller" not in answer.text + caplog.text
