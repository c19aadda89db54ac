"""What a model says of an upload: layers for the page, numbers, and the files that predict writes.

Label maps and probabilities are those of ``vismae predict``: the same code prepares the slices,
asks the network and writes the results.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from vismae.core.config import PredictConfig
from vismae.core.errors import DataError, PreprocessingError, SettingError, UnreadableFileError
from vismae.core.model_card import TaskCard
from vismae.evaluation.overlay import colour_of
from vismae.inference.class_slices import SliceClasses, classify_slices, gives_evidence
from vismae.inference.ensemble import Ensemble
from vismae.inference.error_slices import error_slices
from vismae.inference.slices import FULL_SCALE, Slice, SliceLabels, segment_slices
from vismae.inference.unanswered import require_answers
from vismae.workflows.prediction.reading import (
    ReadInput,
    Volume,
    prepared_slices,
    require_known,
)
from vismae.workflows.prediction.records import RECORDS, Record, Records, request_of
from vismae.workflows.prediction.results import (
    Results,
    add_classes,
    add_errors,
    add_label_maps,
)
from vismae.workflows.prediction.tables import write_tables
from vismae.workflows.viewing.images import ShownImage, write_numbers
from vismae.workflows.viewing.upload import Upload, UploadInput

Key = tuple[ReadInput, Volume, int]


@dataclass(frozen=True)
class ModelRun:
    """How a model is asked.

    Attributes:
        name: Of the model, as people chose it.
        number: Among the models offered; names its files.
        folder: Of the model.
        ensemble: The model.
        batch_size: Slices at a time.
        uncertainty: Give a segmenter's uncertainty too.
    """

    name: str
    number: int
    folder: Path
    ensemble: Ensemble
    batch_size: int
    uncertainty: bool = False

    @property
    def task(self) -> TaskCard | None:
        """What its outputs mean; None for a masked autoencoder."""
        return None if self.ensemble.kind == "mae" else self.ensemble.task


@dataclass
class Answer:
    """What a model said, as plain data.

    Attributes:
        model: Its name.
        kind: ``segmenter``, ``classifier`` or ``mae``.
        images: For each image that it took: ``image`` (number) and its numbers.
        layers: Files of numbers to lay over images.
        files: Results as ``vismae predict`` writes them, relative to ``results``.
        results: Folder of those files.
        notes: Why something is missing.
    """

    model: str
    kind: str
    results: Path
    images: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    layers: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    files: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])


def ask(upload: Upload, run: ModelRun, on_slice: Callable[[], None]) -> Answer:
    """Have a model answer for every image that it was made for.

    Args:
        upload: The images.
        run: The model.
        on_slice: Called after each slice.
    """
    folder = upload.folder / "results" / str(run.number)
    folder.mkdir(parents=True)
    answer = Answer(run.name, run.ensemble.kind, folder)
    records = Records(folder)
    config = PredictConfig(model=(run.folder,), inputs=(Path("upload"),), out=folder)
    request = request_of(config, run.ensemble.digest, metadata.version("vismae"))
    for item in upload.inputs:
        try:
            for volume in item.read.volumes:
                for card in run.ensemble.cards:
                    require_known(volume.image, card)
        except PreprocessingError as error:
            answer.notes.append(str(error))
            continue
        read = item.with_pixels(upload.folder)
        slices = prepared_slices(read, run.ensemble.preprocessing)
        for (_, volume, _), found in require_answers(_answers(run, slices)):
            volume.answers.append(found)
            on_slice()
        for volume, shown in zip(read.volumes, item.shown, strict=True):
            answer.layers.extend(_layers(upload.folder, run, volume, shown))
        results = Results(read, item.name, records, request)
        _write_results(answer, results, run, config)
        answer.images.extend(_numbers(results, item, run))
    if records.all():
        write_tables(folder, records.all(), run.task, run.ensemble.digest)
    answer.files = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] != RECORDS
    )
    return answer


def _answers(run: ModelRun, slices: Iterator[Slice[Key]]) -> Iterator[tuple[Key, object]]:
    ensemble = run.ensemble
    if ensemble.kind == "segmenter":
        return segment_slices(ensemble, slices, run.batch_size, None, run.uncertainty)
    if ensemble.kind == "classifier":
        return classify_slices(ensemble, slices, run.batch_size, gives_evidence(ensemble))
    return error_slices(ensemble, slices, run.batch_size)


def _layers(
    folder: Path, run: ModelRun, volume: Volume, shown: ShownImage
) -> Iterator[dict[str, Any]]:
    """Write what lies over an image, turned as the image is, and say how to read it."""

    def layer(kind: str, title: str, slices: np.ndarray, legend: list[Any]) -> dict[str, Any]:
        name = f"{shown.number}.{kind}-{run.number}"
        write_numbers(folder / name, shown.turned(slices))
        dtype = slices.dtype.newbyteorder("<").str
        known = {"file": name, "image": shown.number, "kind": kind, "title": title}
        return {**known, "dtype": dtype, "legend": legend}

    labels = [found for found in volume.answers if isinstance(found, SliceLabels)]
    if labels:
        stack = np.stack([found.labels for found in labels])
        yield layer("labels", "Segmentation", stack, _legend(run.ensemble.task))
        unsure = [found.uncertainty for found in labels if found.uncertainty is not None]
        if unsure:
            yield layer("uncertainty", "Uncertainty", _eight_bit(unsure), [])
    classes = [found for found in volume.answers if isinstance(found, SliceClasses)]
    evidence = [found.evidence for found in classes if found.evidence is not None]
    if evidence:
        yield layer("evidence", "Evidence", _eight_bit(evidence), [])
    if run.ensemble.kind == "mae":
        errors = [np.asarray(found) for found in volume.answers]
        yield layer("error", "Reconstruction error", _eight_bit(errors), [])


def _legend(task: TaskCard) -> list[dict[str, Any]]:
    return [
        {"value": number, "name": name, "colour": "#{:02x}{:02x}{:02x}".format(*colour_of(number))}
        for number, name in enumerate(task.classes)
        if number > 0
    ]


def _eight_bit(slices: list[np.ndarray]) -> np.ndarray:
    """Return 16-bit values as 8-bit ones, enough for a scale of colours."""
    return np.stack([(values >> 8).astype(np.uint8) for values in slices])


def _write_results(answer: Answer, results: Results, run: ModelRun, config: PredictConfig) -> None:
    """Write what predict writes, and the record from which its tables are made."""
    task, device = run.task, run.ensemble.digest[:16]
    try:
        if task is None:
            add_errors(results)
        elif run.ensemble.kind == "segmenter":
            add_label_maps(results, config, task, device)
        else:
            add_classes(results, config, task, device)
    except (DataError, SettingError, UnreadableFileError) as error:
        answer.notes.append(str(error))
    folder = results.records.folder
    results.records.write(
        Record(
            source=results.read.item.source,
            identity=results.read.item.identity,
            fingerprint="",
            request=results.request,
            weights=run.ensemble.digest,
            name=results.name,
            outputs=[path.relative_to(folder).as_posix() for path in results.outputs],
            images=results.images,
            volumes=results.volumes,
        )
    )


def _numbers(results: Results, item: UploadInput, run: ModelRun) -> Iterator[dict[str, Any]]:
    """Yield for each image what the tables say of it."""
    for place, (volume, shown) in enumerate(
        zip(results.read.volumes, item.shown, strict=True), start=1
    ):
        known: dict[str, Any] = {"image": shown.number}
        if run.ensemble.kind == "segmenter":
            rows = [row for row in results.volumes if row["volume"] == place]
            known["classes"] = [
                {
                    "name": row["class"],
                    "pixels": row["pixels"],
                    "volume_ml": None if row["volume_ml"] == "" else row["volume_ml"],
                }
                for row in rows
            ]
        elif run.ensemble.kind == "classifier":
            rows = [row for row in results.images if row["volume"] == place]
            names = run.ensemble.task.classes
            found = [[row[f"probability_{name}"] for name in names] for row in rows]
            # The row of the whole volume is the last; a single slice has its own only.
            known["classes"] = [
                {"name": name, "probability": value}
                for name, value in zip(names, found[-1], strict=True)
            ]
            known["predicted"] = [name for name in rows[-1]["predicted"].split("|") if name]
            known["slices"] = found[: volume.shape[0]]
        else:
            means = [float(np.mean(answer)) / FULL_SCALE for answer in _arrays(volume)]
            known["mean_error"] = round(float(np.mean(means)), 6)
            known["slices"] = [round(mean, 6) for mean in means]
        yield known


def _arrays(volume: Volume) -> list[np.ndarray]:
    return [np.asarray(answer) for answer in volume.answers]
