"""What an upload leaves behind where something goes wrong on the server's side."""

import asyncio
import io
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from starlette.datastructures import UploadFile

from vismae.core.config import WebConfig
from vismae.core.guarded_process import GuardedProcess, Limits
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
        served, ({"name": "Mueller"},), queue, home, Studies(60.0), 2**20, 2**20, 60.0
    )
    yield build_app(answering, WebConfig(model=(tmp_path,)), None, Clock())
    queue.stop()
    home.remove()


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
