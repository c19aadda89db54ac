"""What an exported model scores on labelled images, beside the model it was made from."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from vismae.core.errors import DataError, SettingError
from vismae.core.model_card import ModelCard, TaskCard
from vismae.core.types import Modality, PixelUnit
from vismae.data.labels import apply_mapping, encode_labels
from vismae.data.neighbours import Neighbours
from vismae.data.store import Store
from vismae.evaluation.classification import ALL, score_classification
from vismae.evaluation.segmentation import SliceCounts, dice_per_patient
from vismae.inference.deployed import UnitRangeModel
from vismae.workflows.exporting.trial import Trial, program_inputs
from vismae.workflows.ingest import open_or_ingest
from vismae.workflows.preparation import with_units
from vismae.workflows.scoring import label_values_of

_MOST_IMAGES = 1000


@dataclass(frozen=True)
class Quality:
    """A score of two forms of one model on the same images.

    Attributes:
        metric: ``dice`` (mean over patients of the mean over their classes) or ``auroc`` (mean
            over classes).
        scores: Form -> score.
        images, patients: How many were scored.
    """

    metric: str
    scores: dict[str, float]
    images: int
    patients: int

    @property
    def loss(self) -> float:
        """Score of the first form less that of the second."""
        first, second = self.scores.values()
        return first - second

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for ``export.json``."""
        return {**asdict(self), "loss": self.loss}

    def sentence(self) -> str:
        """Say both scores and the loss."""
        both = ", ".join(f"{name} {score:.4f}" for name, score in self.scores.items())
        return (
            f"Mean {self.metric} on {self.images} images of {self.patients} patients: {both}; "
            f"loss {self.loss:+.4f}."
        )


def quality_on(
    data: tuple[Path, ...], body: UnitRangeModel, sessions: Mapping[str, Any]
) -> Quality:
    """Score sessions on labelled images: those of the split test where there is one, else all.

    Args:
        data: A store, or sources as ``ingest`` takes them.
        body: The model the sessions were made from.
        sessions: Form -> onnxruntime session.

    Raises:
        SettingError: The model has no classes.
        DataError: No image has a label, or label maps are annotated in part.
        PreprocessingError: The images come in another unit than the model knows.
    """
    task = require_classes(body.network)
    kind = "segment" if body.kind == "segmenter" else "classify"
    with tempfile.TemporaryDirectory(prefix="vismae-export-") as temporary:
        store = open_or_ingest(data, Path(temporary) / "store", task=kind)
        rows = _labelled_rows(store, task, kind == "segment")
        with_units(body.preprocessing, store.columns(["modality", "unit"], rows), store.address)
        score = _dice if kind == "segment" else _auroc
        scores = {
            name: score(session, store, rows, body, task) for name, session in sessions.items()
        }
        patients = store.columns(["patient_id"], rows)["patient_id"].nunique()
    return Quality("dice" if kind == "segment" else "auroc", scores, len(rows), patients)


def require_classes(model: nn.Module) -> TaskCard:
    """Return a model's task.

    Raises:
        SettingError: It has none.
    """
    card = getattr(model, "card", None)
    if not isinstance(card, ModelCard) or card.task is None:
        raise SettingError("data is for models with classes; this one has none. Leave it out.")
    return card.task


def _labelled_rows(store: Store, task: TaskCard, segment: bool) -> np.ndarray:
    index = store.columns(["split", "label", "has_label_map"])
    labelled = index["has_label_map"].astype(bool) if segment else index["label"].notna()
    if task.multi_label and labelled.any():
        # An empty cell means that no class is true of the image.
        labelled |= True
    chosen = index[labelled & (index["split"] == "test")]
    rows = (chosen if len(chosen) else index[labelled]).index.to_numpy()
    if not len(rows):
        raise DataError(f"{store.address}: no image has a label to measure the quality with.")
    if len(rows) > _MOST_IMAGES:
        rows = np.sort(np.random.default_rng(0).choice(rows, _MOST_IMAGES, replace=False))
    return rows


class _Answers:
    """Runs rows of a store as stored pixels, with those beside them where the model sees them.

    Args:
        session: From onnxruntime.
        store: Where the rows are.
        body: The model.
    """

    def __init__(self, session: Any, store: Store, body: UnitRangeModel) -> None:
        self._session, self._store = session, store
        self._contract = body.preprocessing
        self._neighbours = Neighbours(store, self._contract.neighbours)

    def of(self, row: int) -> np.ndarray:
        """Return the answer to one row."""
        store, beside = self._store, self._neighbours.of(row)
        slope, intercept, low, high = (
            [float(store.compact(name)[other]) for other in beside]
            for name in ("slope", "intercept", "scale_low", "scale_high")
        )
        trial = Trial(
            np.stack([store.read(other).pixels for other in beside]),
            Modality(store.compact("modality")[row]),
            PixelUnit(store.compact("unit")[row]),
            slope[0],
            intercept[0],
        )
        given = program_inputs(trial, self._contract)
        given["scaling"][:, 0], given["scaling"][:, 1] = slope, intercept
        if self._contract.percentiles == type(self._contract)().percentiles:
            # Slices share the range of their volume, which the store knows.
            given["scaling"][:, 2], given["scaling"][:, 3] = low, high
        return np.asarray(self._session.run(None, given)[0])[len(beside) // 2]


def _dice(
    session: Any, store: Store, rows: np.ndarray, body: UnitRangeModel, task: TaskCard
) -> float:
    counts = SliceCounts(len(task.classes))
    patients, volumes = store.compact("patient_id"), store.compact("volume_id")
    values = label_values_of(task, store) or {k: k for k in range(len(task.classes))}
    answers = _Answers(session, store, body)
    for row in rows:
        label_map = store.read(int(row)).label_map
        if label_map is None:
            continue
        truth = apply_mapping(label_map, values, where=f"{store.address}, row {row}")
        found = answers.of(int(row)).argmax(axis=0)
        counts.add(str(patients[row]), str(volumes[row]), truth, found)
    means = [
        np.nanmean(dice)
        for dice in dice_per_patient(counts.volumes).values()
        if np.isfinite(dice).any()
    ]
    return float(np.mean(means)) if means else float("nan")


def _auroc(
    session: Any, store: Store, rows: np.ndarray, body: UnitRangeModel, task: TaskCard
) -> float:
    index = store.columns(["label", "patient_id"], rows)
    answers = _Answers(session, store, body)
    probabilities = np.stack([answers.of(int(row)) for row in rows])
    if not task.multi_label:
        probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    table = score_classification(
        probabilities,
        encode_labels(index["label"], task.classes, task.multi_label).astype(np.int64),
        index["patient_id"].astype(str).to_numpy(),
        task.classes,
        task.multi_label,
        task.thresholds,
    ).table
    found = table[(table["metric"] == "auroc") & (table["class_name"] != ALL)]["value"]
    return float(found.mean())
