"""What the page itself asks for: its own files, uploads and how far they are, numbers, results.

These routes belong to the page and change with it; programs use those of ``rest``.
"""

import re
from pathlib import Path
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from vismae.web.answering import Answering, Modality
from vismae.web.studies import Study, zip_of
from vismae.web.uploads import keep_upload, slot_of
from vismae.web.work import SliceWanted

STUDIES = "/page/studies"

_PAGE = Path(__file__).parent / "page"
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_NUMBERS = re.compile(r"\d{1,4}\.(pixels|(labels|uncertainty|evidence|error)-\d{1,3})")


class _NumbersResponse(FileResponse):
    chunk_size = 1024 * 1024


class WantedSlice(BaseModel):
    """What the page asks to be reconstructed; see ``work.SliceWanted``."""

    model_config = ConfigDict(extra="forbid")

    model: int = Field(ge=0)
    image: int = Field(ge=0)
    slice: int = Field(ge=0)
    mask_ratio: float = Field(gt=0, lt=1)
    pattern: int = Field(ge=0, lt=2**31)


def page_routes(answering: Answering) -> APIRouter:
    """Return the routes of the page."""
    router = APIRouter(include_in_schema=False)

    def study_of(key: str) -> Study:
        study = answering.studies.get(key)
        if study is None:
            raise HTTPException(404, "This result was deleted. Open the file again.")
        return study

    @router.get("/")
    async def index() -> Response:
        return _page_file("index.html")

    @router.get("/docs")
    async def documentation() -> Response:
        return _page_file("docs.html")

    @router.get("/page/files/{name}")
    async def page_file(name: str) -> Response:
        return _page_file(name)

    @router.post(STUDIES, status_code=202)
    async def open_file(
        request: Request,
        file: Annotated[UploadFile, File()],
        modality: Annotated[Modality | None, Form()] = None,
        models: Annotated[str, Form(max_length=8000)] = "",
    ) -> dict[str, str]:
        wanted = answering.models_named(models)
        folder, name = await keep_upload(file, answering.home)
        job = slot_of(request).start(answering.task("view", folder, name, modality, wanted))
        return {"key": answering.studies.add(folder, job).key}

    @router.get(f"{STUDIES}/{{key}}")
    async def state(key: str) -> JSONResponse:
        return JSONResponse(study_of(key).state())

    @router.delete(f"{STUDIES}/{{key}}", status_code=204)
    async def close(key: str) -> None:
        await anyio.to_thread.run_sync(answering.studies.remove, key)

    @router.get(f"{STUDIES}/{{key}}/numbers/{{name}}")
    async def numbers(key: str, name: str) -> Response:
        path = study_of(key).folder / name
        if not _NUMBERS.fullmatch(name) or not path.is_file():
            raise HTTPException(404, "There are no such numbers.")
        return _NumbersResponse(path, media_type="application/octet-stream")

    @router.get(f"{STUDIES}/{{key}}/results/{{number}}")
    async def all_results(key: str, number: int) -> Response:
        study = study_of(key)
        folder, names = _results(study, number)
        target = study.folder / f"results-{number}.zip"
        made = await anyio.to_thread.run_sync(zip_of, folder, names, target)
        return FileResponse(made, filename="vismae-results.zip", media_type="application/zip")

    @router.get(f"{STUDIES}/{{key}}/results/{{number}}/{{name:path}}")
    async def result(key: str, number: int, name: str) -> Response:
        folder, names = _results(study_of(key), number)
        if name not in names:
            raise HTTPException(404, "There is no such result.")
        return FileResponse(
            folder / name, filename=Path(name).name, media_type="application/octet-stream"
        )

    @router.post(f"{STUDIES}/{{key}}/reconstruction")
    async def reconstruction(key: str, wanted: WantedSlice, request: Request) -> JSONResponse:
        study = study_of(key)
        if wanted.model >= len(answering.served.models):
            raise HTTPException(404, "There is no such model.")
        slot = answering.queue.reserve()
        if slot is None:
            raise HTTPException(503, "The queue is full. Try again in a while.")
        part = SliceWanted(wanted.image, wanted.slice, wanted.mask_ratio, wanted.pattern)
        task = answering.task("reconstruct-shown", study.folder, "", None, (wanted.model,), part)
        job = slot.start(task)
        study.others.append(job)
        return JSONResponse(await answering.result_of(job, request))

    return router


def _page_file(name: str) -> Response:
    known = {path.name: path for path in _PAGE.iterdir() if path.suffix in _MEDIA_TYPES}
    if name not in known:
        raise HTTPException(404, "There is no such file.")
    return FileResponse(known[name], media_type=_MEDIA_TYPES[known[name].suffix])


def _results(study: Study, number: int) -> tuple[Path, list[str]]:
    state = study.state()
    for answer in state.get("answers", ()):
        if answer["number"] == number and answer["files"]:
            folder = study.folder / "results" / str(number)
            return folder, [file["name"] for file in answer["files"]]
    raise HTTPException(404, "There is no such result.")
