"""``vismae evaluate``: scores per patient and class, with intervals, and a report."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from vismae.core.config import EvaluateConfig
from vismae.core.errors import DataError, ModelError
from vismae.core.model_card import ModelCard, TaskCard
from vismae.core.rundir import open_run, write_bytes, write_text
from vismae.data.fingerprint import FINGERPRINT_COLUMNS, WITHHELD, Overlap, overlap
from vismae.data.manifest import SEQUENCE_COLUMN
from vismae.data.sources import Task
from vismae.data.splits import read_patients_csv
from vismae.data.store import Store
from vismae.evaluation.classification import ClassificationScores
from vismae.evaluation.patient_scores import summarise_patients
from vismae.evaluation.statistics import Interval
from vismae.inference.predictor import Predictor, choose_device
from vismae.models.weights import load_model
from vismae.workflows.case_selection import (
    CASES_LEFT_OUT,
    fitting_rows,
    one_row_each,
    seen_rows,
)
from vismae.workflows.evaluation_report import write_report
from vismae.workflows.ingest import open_or_ingest
from vismae.workflows.preparation import of_modality, resolve_preprocessing, with_units
from vismae.workflows.scoring import (
    SegmentationResult,
    label_values_of,
    score_classes,
    score_label_maps,
)

logger = logging.getLogger(__name__)

_UNIT_WORDS = {"patient": "patient", "group": "image group", "image": "image"}
_PRIMARY = {"segmenter": ("mean", "dice"), "classifier": ("mean", "auroc")}
_SCORED_KINDS: dict[str, Task] = {"segmenter": "segment", "classifier": "classify"}


@dataclass(frozen=True)
class EvaluateResult:
    """Where an evaluation ended.

    Attributes:
        folder: Holds ``scores.parquet``, ``scores.csv``, ``summary.csv``, ``report/index.html``.
        summary_table: One row per class and metric, with column ``interval``.
        primary: Mean Dice over classes, or mean AUROC, with its interval.
        primary_name: Which of the two.
        unit: What one case is: patient, image group or image.
    """

    folder: Path
    summary_table: pd.DataFrame
    primary: Interval
    primary_name: str
    unit: str

    def summary(self) -> str:
        """Say the primary score and where the report lies."""
        return (
            f"{self.primary_name} {self.primary.text()} (mean over {self.primary.n} "
            f"{self.unit}s, 95 % interval). Report: {self.folder / 'report' / 'index.html'}"
        )


@dataclass(frozen=True)
class Cases:
    """Which rows are scored, and what a reader must know of the choice.

    Attributes:
        rows: Row numbers of the store.
        unit: What one case is.
        notes: Sentences for the report.
        warnings: Sentences for the top of the report.
    """

    rows: np.ndarray
    unit: str
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def evaluate(config: EvaluateConfig) -> EvaluateResult:
    """Score a model folder on labelled images and write scores and report.

    Raises:
        DataError: There is nothing to score, or the model has learnt from it.
        ModelError: The folder holds a model that gives neither label maps nor classes.
        PreprocessingError: The images come in another unit than the model knows.
    """
    model, card, task = _load(config.model)
    with open_run(config.out, "evaluate", config, overwrite=config.overwrite) as folder:
        sequences = card.preprocessing.sequences
        store = open_or_ingest(
            config.data.sources,
            folder / "store",
            task=_SCORED_KINDS[card.kind],
            fold=config.fold,
            keep_column=(SEQUENCE_COLUMN,) if sequences else (),
        )
        fits = fitting_rows(store, sequences, folder)
        cases = choose_cases(config, store, card, fits)
        preprocessing = resolve_preprocessing(
            config.preprocessing, config.data.image_size, None, card.preprocessing
        )
        seen = seen_rows(store, sequences, cases.rows)
        with_units(preprocessing, store.index.iloc[seen], str(store.folder))
        model.to(choose_device(config.device))
        predictor = Predictor(model, preprocessing, config.data.batch_size)
        if card.kind == "segmenter":
            scores, table = _score_segmenter(config, predictor, store, cases, task)
        else:
            scores, table = _score_classifier(config, predictor, store, cases, task)
        _write_tables(folder, scores, table)
        if config.report:
            write_report(config, folder, card, predictor, store, cases, scores, table)
    primary, name = _primary(card.kind, table)
    return EvaluateResult(folder, table, primary, name, cases.unit)


def _load(folder: Path) -> tuple[nn.Module, ModelCard, TaskCard]:
    model = load_model(folder)
    card = model.card
    if not isinstance(card, ModelCard) or card.kind not in _SCORED_KINDS or card.task is None:
        raise ModelError(
            f"{folder} holds a model that was only pre-trained and has no classes to score. "
            "Fine-tune it first (vismae finetune segment|classify --init) and evaluate the model "
            "of that run."
        )
    return model, card, card.task


def choose_cases(
    config: EvaluateConfig, store: Store, card: ModelCard, usable: np.ndarray | None = None
) -> Cases:
    """Return the rows to score: the wanted split, never training rows in silence.

    Args:
        config: The settings.
        store: Where the images are.
        card: Of the model.
        usable: Which rows can be used, (N,) bool; all when None.

    Raises:
        DataError: No row is left, or the model has learnt from one.
    """
    index = store.index.reset_index(drop=True)
    notes: list[str] = []
    if usable is not None and not usable.all():
        notes.append(
            f"{int((~usable).sum())} images were left out, of other sequences than the model's or "
            f"of cases without all of them on the same voxels ({CASES_LEFT_OUT})."
        )
        index = index[usable]
    index = of_modality(index, config.data.modality, str(store.folder))
    labelled = index["has_label_map"] if card.kind == "segmenter" else index["label"].notna()
    if card.task is not None and card.task.multi_label and labelled.any():
        # An empty cell means that no class is true of the image.
        labelled = pd.Series(True, index=index.index)
    sequences = card.preprocessing.sequences
    found = one_row_each(store, sequences, index[labelled])
    without = len(one_row_each(store, sequences, index)) - len(found)
    if without:
        notes.append(f"{without} images without a label were left out.")
    rows = _of_split(found, config, store)
    rows = _without_named(rows, config.leave_out, notes)
    warnings: list[str] = []
    if config.split is None and rows["split"].isna().all():
        rows = _without_known(rows, card, config, notes)
    seen = seen_rows(store, sequences, rows.index.to_numpy())
    _require_unseen(store.columns(list(FINGERPRINT_COLUMNS), seen), card, config, warnings)
    unit = unit_of_cases(rows["group_kind"])
    count = rows["patient_id"].nunique()
    notes.append(f"Scored are {len(rows)} images of {count} {unit}s.")
    for line in (*notes, *warnings):
        logger.info("%s", line)
    return Cases(rows.index.to_numpy(), unit, notes, warnings)


def unit_of_cases(group_kinds: pd.Series) -> str:
    """Return what one case is, by the column ``group_kind`` of its rows."""
    kinds = group_kinds.unique()
    return _UNIT_WORDS[str(kinds[0])] if len(kinds) == 1 else "image group"


def _of_split(rows: pd.DataFrame, config: EvaluateConfig, store: Store) -> pd.DataFrame:
    if rows.empty:
        raise DataError(
            f"{store.folder}: no image has a label to score against. Give a manifest with the "
            "column label_map (segmentation) or label (classification)."
        )
    found = rows["split"].fillna("(none)").value_counts()
    known = ", ".join(f"{name} ({count} images)" for name, count in found.items())
    if config.split is not None:
        chosen = rows[rows["split"] == config.split]
    elif rows["split"].notna().any():
        chosen = rows[rows["split"] == "test"]
    else:
        chosen = rows
    if chosen.empty:
        raise DataError(
            f"{store.folder}: no labelled image is in split {config.split or 'test'}; found "
            f"{known}. Choose another with --split."
        )
    return chosen


def _without_named(rows: pd.DataFrame, table: Path | None, notes: list[str]) -> pd.DataFrame:
    """Leave out the patients of a table."""
    if table is None:
        return rows
    named = rows["patient_id"].astype(str).isin(read_patients_csv(table))
    if named.all():
        raise DataError(f"{table} names every patient that is to be scored; none is left.")
    left_out = rows[named]["patient_id"].nunique()
    notes.append(f"{left_out} patients or groups named in {table.name} were left out.")
    return rows[~named]


def _without_known(
    rows: pd.DataFrame, card: ModelCard, config: EvaluateConfig, notes: list[str]
) -> pd.DataFrame:
    """Where the data has no splits, leave out the patients of fine-tuning's train and val.

    Also those whose labels were set aside: else the test patients would depend on the fraction.
    """
    if config.allow_training_rows:
        return rows
    known = [
        overlap(card.training[stage], rows)
        for stage in ("finetune", WITHHELD)
        if stage in card.training
    ]
    names = {name for found in known for name in (*found.same_pixels, *found.same_id)}
    left_out = rows["patient_id"].astype(str).isin(names)
    if not left_out.any():
        return rows
    notes.append(
        f"The data has no splits; {int(left_out.sum())} images of "
        f"{rows[left_out]['patient_id'].nunique()} patients or groups that fine-tuning had for "
        "training and validation were left out."
    )
    if left_out.all():
        raise DataError(
            "The model was trained or validated on every patient of these images, so none is left "
            "to score. Give images of other patients, or set allow_training_rows to true."
        )
    return rows[~left_out]


def _require_unseen(
    rows: pd.DataFrame, card: ModelCard, config: EvaluateConfig, warnings: list[str]
) -> None:
    """Refuse patients the model has learnt from; warn where only likeness says so."""
    for stage, learnt in card.training.items():
        if stage.endswith(WITHHELD):
            continue
        found = overlap(learnt, rows)
        # An id such as 001 is shared by chance between data sets; only the task's own counts.
        certain = {*found.same_pixels, *(found.same_id if stage == "finetune" else ())}
        words = stage.replace("pretrain", "pre-training").replace("finetune", "fine-tuning")
        if certain:
            sentence = (
                f"{len(certain)} of {rows['patient_id'].nunique()} patients or groups to be scored "
                f"({_some(sorted(certain))}) were in the {words} data of the model"
            )
            if not config.allow_training_rows:
                raise DataError(
                    f"{sentence}. Scores on them would be too good. Score other patients (--split "
                    "test), or set allow_training_rows to true to see them all the same."
                )
            warnings.append(f"{sentence}: these scores are no estimate for new patients.")
        suspects = _suspects(found, certain, stage)
        if suspects:
            warnings.append(
                f"{len(suspects)} patients or groups ({_some(suspects)}) share an id or a look "
                f"with the {words} data. They may be the same; compare them before trusting "
                "these scores."
            )


def _suspects(found: Overlap, certain: set[str], stage: str) -> list[str]:
    by_id = found.same_id if stage != "finetune" else ()
    return sorted({*found.alike, *by_id} - certain)


def _some(names: list[str], most: int = 5) -> str:
    text = ", ".join(names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"


def _score_segmenter(
    config: EvaluateConfig, predictor: Predictor, store: Store, cases: Cases, task: TaskCard
) -> tuple[SegmentationResult, pd.DataFrame]:
    label_values = label_values_of(task, store)
    scores = score_label_maps(
        predictor, store, cases.rows, label_values, task.classes, config.nsd_tolerance
    )
    return scores, summarise_patients(scores.patients, n=config.bootstrap, seed=config.seed)


def _score_classifier(
    config: EvaluateConfig, predictor: Predictor, store: Store, cases: Cases, task: TaskCard
) -> tuple[ClassificationScores, pd.DataFrame]:
    scores = score_classes(
        predictor, store, cases.rows, task.classes, task.multi_label, task.thresholds
    )
    return scores, scores.intervals(n=config.bootstrap, seed=config.seed)


def _write_tables(
    folder: Path, scores: SegmentationResult | ClassificationScores, table: pd.DataFrame
) -> None:
    if isinstance(scores, SegmentationResult):
        patients = scores.patients
    else:
        patients = probability_rows(scores)
    write_bytes(folder / "scores.parquet", patients.to_parquet(index=False))
    write_text(folder / "scores.csv", patients.to_csv(index=False))
    intervals = table["interval"]
    flat = table.drop(columns="interval").assign(
        estimate=[interval.estimate for interval in intervals],
        low=[interval.low for interval in intervals],
        high=[interval.high for interval in intervals],
        n=[interval.n for interval in intervals],
    )
    write_text(folder / "summary.csv", flat.to_csv(index=False))


def probability_rows(scores: ClassificationScores) -> pd.DataFrame:
    """Return one row per case and class: the probability, and whether it is true."""
    return pd.concat(
        pd.DataFrame(
            {
                "patient_id": scores.groups,
                "class_name": name,
                "metric": "probability",
                "value": scores.probabilities[:, number],
                "truth": scores.truth[:, number],
            }
        )
        for number, name in enumerate(scores.class_names)
    )


def _primary(kind: str, table: pd.DataFrame) -> tuple[Interval, str]:
    class_name, metric = _PRIMARY[kind]
    chosen = table[(table["class_name"] == class_name) & (table["metric"] == metric)]
    return chosen["interval"].iloc[0], {"dice": "Mean Dice", "auroc": "Mean AUROC"}[metric]
