"""For other programs: ``/v1/model``, ``/v1/predict``, ``/v1/embed`` and ``/v1/reconstruct``.

An upload is answered in the same request, when its turn has come; nothing of it stays on the disk.
"""

import shutil
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio.to_thread
from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.background import BackgroundTask

from vismae.web.answering import AnswerError, Answering, Modality
from vismae.web.studies import zip_of
from vismae.web.uploads import keep_upload, slot_of
from vismae.web.work import CANCELLED, Action, SliceWanted

UPLOADS = ("/v1/predict", "/v1/embed", "/v1/reconstruct")

Name = Annotated[
    str | None, Form(max_length=200, description="Model; the first that fits if not given.")
]
FileField = Annotated[
    UploadFile,
    File(description="PNG, JPEG, TIFF, BMP, DICOM or NIfTI, or a zip archive of a DICOM series."),
]
ModalityField = Annotated[
    Modality | None, Form(description="Modality of files that do not say theirs.")
]


class Problem(BaseModel):
    """Why there is no answer."""

    code: str
    message: str


class ProblemAnswer(BaseModel):
    """An error."""

    error: Problem


class ModelFacts(BaseModel):
    """A model on offer."""

    name: str
    kind: Literal["segmenter", "classifier", "mae"]
    classes: list[str]
    multi_label: bool
    modalities: list[str]
    image_size: list[int]
    mask_ratio: float | None
    licence: str
    calibration: str | None


class Limits(BaseModel):
    """How much is taken."""

    upload_bytes: int
    expanded_bytes: int
    keep_seconds: float


class ModelsAnswer(BaseModel):
    """What is on offer."""

    vismae: str
    models: list[ModelFacts]
    limits: Limits


class LeftOut(BaseModel):
    """A file of an upload that was not used."""

    file: str
    reason: str
    message: str


class ImageFacts(BaseModel):
    """An image of an upload. Shape and spacing are of the axes to head, back and left."""

    image: int
    title: str
    modality: str
    unit: str
    shape: list[int]
    spacing_mm: list[float | None]
    native_plane: str
    notes: list[str]


class ClassFound(BaseModel):
    """A class in an image: pixels and volume of a segmenter's, or a classifier's probability."""

    name: str
    pixels: int | None = None
    volume_ml: float | None = None
    probability: float | None = None


class ImagePrediction(ImageFacts):
    """What a model says of an image; ``slices`` holds it for each slice in the file's order."""

    classes: list[ClassFound] = []
    predicted: list[str] = []
    mean_error: float | None = None
    slices: list[Any] = []


class PredictionAnswer(BaseModel):
    """What a model says of an upload."""

    model: str
    kind: str
    images: list[ImagePrediction]
    files: list[str]
    notes: list[str]
    left_out: list[LeftOut]


class ImageEmbedding(ImageFacts):
    """The encoder's features of each slice, in the file's order."""

    features: list[list[float]]


class EmbeddingAnswer(BaseModel):
    """The encoder's features of an upload."""

    model: str
    images: list[ImageEmbedding]
    notes: list[str]
    left_out: list[LeftOut]


class Pictures(BaseModel):
    """8-bit grey PNG, base64: 255 is 1 on the contract's scale, or hidden."""

    image: str
    hidden: str
    filled: str
    error: str


class ReconstructionAnswer(BaseModel):
    """A slice with patches hidden and filled in. A pixel is so many mm high and wide, if known."""

    model: str
    image: int
    slice: int
    mask_ratio: float
    pattern: int
    height: int
    width: int
    pixel_mm: list[float | None]
    hidden_fraction: float
    mean_absolute_error: float
    pictures: Pictures


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemAnswer, "description": text}
    for status, text in {
        400: "The multipart form is malformed, or its boundary is missing.",
        401: "The access token is missing or wrong.",
        403: "The request comes from another site.",
        408: "The upload stood still, or nearly so.",
        413: "The upload is too large, packed or unpacked.",
        421: "The server is not known under that name.",
        422: "A field is wrong or missing, the file unreadable, or the model not made for it.",
        500: "A defect in vismae.",
        503: "Busy: the queue is full. Try again after Retry-After seconds.",
    }.items()
}


def rest_routes(answering: Answering) -> APIRouter:
    """Return the routes for programs."""
    router = APIRouter(prefix="/v1", tags=["v1"])

    @router.get("/model", responses={key: _PROBLEMS[key] for key in (401, 403, 421, 500)})
    async def model() -> ModelsAnswer:
        """Say which models are on offer, and how much is taken."""
        return ModelsAnswer(
            vismae=metadata.version("vismae"),
            models=[ModelFacts(**found) for found in answering.described],
            limits=Limits(
                upload_bytes=answering.most_upload_bytes,
                expanded_bytes=answering.most_expanded_bytes,
                keep_seconds=answering.keep_seconds,
            ),
        )

    @router.post(
        "/predict",
        response_model=PredictionAnswer,
        responses={
            200: {
                "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
                "description": "Numbers, or with answer=files what predict writes.",
            },
            **_PROBLEMS,
        },
    )
    async def predict(
        request: Request,
        file: FileField,
        model: Name = None,
        modality: ModalityField = None,
        answer: Annotated[
            Literal["numbers", "files"],
            Form(description="numbers: JSON; files: a zip archive of label maps, maps and tables."),
        ] = "numbers",
    ) -> Any:
        """Predict every image of a file with one model."""
        wanted = answering.number_of(model)
        folder, found = await _answer(answering, request, "predict", file, modality, wanted)
        if answer == "numbers":
            shutil.rmtree(folder, ignore_errors=True)
            return found
        results = folder / "results" / str(wanted)
        try:
            made = await anyio.to_thread.run_sync(
                zip_of, results, found["files"], folder / "results.zip"
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        removal = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
        return FileResponse(made, media_type="application/zip", background=removal)

    @router.post("/embed", responses=_PROBLEMS)
    async def embed(
        request: Request,
        file: FileField,
        model: Name = None,
        modality: ModalityField = None,
    ) -> EmbeddingAnswer:
        """Return the encoder's features of every slice of a file."""
        wanted = answering.number_of(model)
        folder, found = await _answer(answering, request, "embed", file, modality, wanted)
        shutil.rmtree(folder, ignore_errors=True)
        return EmbeddingAnswer(**found)

    @router.post("/reconstruct", responses=_PROBLEMS)
    async def reconstruct(
        request: Request,
        file: FileField,
        model: Name = None,
        modality: ModalityField = None,
        mask_ratio: Annotated[
            float, Form(gt=0, lt=1, description="Share of mask units to hide.")
        ] = 0.75,
        image: Annotated[int, Form(ge=0, le=10_000, description="Image, from 0.")] = 0,
        slice: Annotated[int, Form(ge=0, le=1_000_000, description="Slice, from 0.")] = 0,
        pattern: Annotated[
            int, Form(ge=0, lt=2**31, description="Decides which units are hidden.")
        ] = 0,
    ) -> ReconstructionAnswer:
        """Hide part of one slice and have a masked autoencoder draw it."""
        wanted = answering.number_of(model, ("mae",))
        part = SliceWanted(image, slice, mask_ratio, pattern)
        folder, found = await _answer(
            answering, request, "reconstruct", file, modality, wanted, part
        )
        shutil.rmtree(folder, ignore_errors=True)
        return ReconstructionAnswer(**found)

    return router


async def _answer(
    answering: Answering,
    request: Request,
    action: Action,
    file: UploadFile,
    modality: str | None,
    wanted: int,
    part: SliceWanted | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Have a model answer about an upload; its folder stays only if it could."""
    await _require_known_fields(request)
    folder, name = await keep_upload(file, answering.home)
    task = answering.task(action, folder, name, modality, (wanted,), part)
    job = slot_of(request).start(task)
    try:
        return folder, await answering.result_of(job, request)
    except BaseException:
        # A job under way is asked to end, and may write into the folder until it has.
        (folder / CANCELLED).touch()
        job.outcome.add_done_callback(lambda _: shutil.rmtree(folder, ignore_errors=True))
        raise


async def _require_known_fields(request: Request) -> None:
    """Refuse what the framework would leave out without a word.

    Raises:
        AnswerError: A field is unknown or comes twice, or stands in the address.
    """
    known = [field.alias for field in request.scope["route"].dependant.body_params]
    given = Counter(name for name, _ in (await request.form()).multi_items())
    for name in request.query_params:
        raise AnswerError(422, "field", f"{name}: send it as a field of the form (curl -F).")
    for name, times in given.items():
        if name not in known:
            there = ", ".join(known)
            raise AnswerError(422, "field", f"{name}: no field of this route. There are: {there}.")
        if times > 1:
            raise AnswerError(422, "field", f"{name}: comes {times} times. Send it once.")
