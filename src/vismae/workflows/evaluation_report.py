"""The report of an evaluation: tables with intervals, pictures of cases, curves, settings."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from vismae.core.config import EvaluateConfig
from vismae.core.model_card import ModelCard
from vismae.core.settings import to_yaml
from vismae.data.labels import apply_mapping, encode_labels
from vismae.data.loaders import SliceReader
from vismae.data.store import Store
from vismae.evaluation.classification import ClassificationScores
from vismae.evaluation.figures import (
    confusion_figure,
    patients_figure,
    reliability_figure,
    roc_figure,
    training_curves,
)
from vismae.evaluation.overlay import contact_sheet, draw_overlay, save_png
from vismae.evaluation.report import Report
from vismae.inference.predictor import Predictor
from vismae.workflows.scoring import SegmentationResult

if TYPE_CHECKING:
    from vismae.workflows.evaluate import Cases

CASES_PICTURE = Path("figures") / "cases.png"
"""Best, median and worst cases of a segmentation, beside the report."""

_CASE_PX = 256


def write_report(
    config: EvaluateConfig,
    folder: Path,
    card: ModelCard,
    predictor: Predictor,
    store: Store,
    cases: "Cases",
    scores: SegmentationResult | ClassificationScores,
    table: pd.DataFrame,
) -> None:
    """Write ``report/index.html``, one file that needs nothing else.

    Args:
        config: Settings of the evaluation.
        folder: Output folder of the evaluation.
        card: The model's.
        predictor: To draw cases.
        store: Where the images are.
        cases: Which rows were scored.
        scores: Scores of each patient.
        table: Scores with intervals.
    """
    kind = "segmentation" if isinstance(scores, SegmentationResult) else "classification"
    report = Report(f"Evaluation of a {kind} model", f"{config.model}")
    for warning in cases.warnings:
        report.warn(warning)
    report.section("Scores")
    how = "Scores are of all of them together"
    if isinstance(scores, SegmentationResult):
        how = f"A score is computed for each {cases.unit} and class, then averaged over "
        how += f"{cases.unit}s"
    report.text(
        f"{' '.join(cases.notes)} {how}; intervals are 95 % bootstrap intervals over {cases.unit}s."
    )
    if isinstance(scores, SegmentationResult):
        _segmentation(report, config, folder, predictor, store, cases, scores, table)
    else:
        _classification(report, predictor, store, cases, scores, table)
    _training(report, config.model.parent)
    _settings(report, config, card)
    report.write(folder / "report" / "index.html")


def _segmentation(
    report: Report,
    config: EvaluateConfig,
    folder: Path,
    predictor: Predictor,
    store: Store,
    cases: "Cases",
    scores: SegmentationResult,
    table: pd.DataFrame,
) -> None:
    report.table(
        table.drop(columns=["n_absent", "n_missed", "n_false_positive"]).assign(
            n=[interval.n for interval in table["interval"]]
        ),
        f"Mean over {cases.unit}s [95 % interval]; n is the number of {cases.unit}s with a value. "
        "Dice and IoU pool the pixels of all slices of a volume. Distances are in mm where pixel "
        "spacing is known, else in pixels; nsd is surface Dice, the share of both outlines within "
        f"{config.nsd_tolerance:g} of these.",
    )
    dice = table[(table["metric"] == "dice") & (table["class_name"] != "mean")]
    report.table(
        dice[["class_name", "n_missed", "n_false_positive", "n_absent"]],
        f"Number of {cases.unit}s where a class that is there was missed altogether (Dice 0), was "
        "predicted where it is not, or is absent from truth and prediction (no score).",
    )
    per_patient = scores.patients[scores.patients["metric"] == "dice"]
    report.figure(
        patients_figure(
            {str(name): part["value"].tolist() for name, part in per_patient.groupby("class_name")},
            "Dice",
        ),
        f"Dice of each {cases.unit}.",
    )
    report.section("Cases")
    pictures, captions = _case_pictures(predictor, store, cases.rows, scores)
    if not pictures:
        report.text("No case is shown: none has a class in its annotation or its prediction.")
        return
    report.text("Left the annotation, right the prediction, of the slice with most annotation.")
    sheet = contact_sheet(pictures, captions, columns=2, cell_px=2 * _CASE_PX)
    save_png(folder / CASES_PICTURE, sheet)
    report.figure(sheet, "Best, median and worst volumes by mean Dice.")


def _case_pictures(
    predictor: Predictor, store: Store, rows: np.ndarray, scores: SegmentationResult
) -> tuple[list[np.ndarray], list[str]]:
    means = (
        scores.volumes.groupby(["patient_id", "volume_id"])["dice"].mean().dropna().sort_values()
    )
    wanted = _best_median_worst(len(means))
    index = store.index.iloc[rows].assign(row=rows)
    reader = SliceReader(store, predictor.preprocessing)
    pictures, captions = [], []
    for word, place in wanted:
        patient, volume = means.index[place]
        members = index[
            (index["patient_id"].astype(str) == patient)
            & (index["volume_id"].astype(str) == volume)
        ]
        row, truth = _fullest(store, members["row"].to_numpy(), scores.label_values)
        image = reader.read(row)[0].mean(dim=0).numpy()
        _, prediction = next(predictor.label_maps(store, np.array([row])))
        pictures.append(
            np.concatenate([draw_overlay(image, truth), draw_overlay(image, prediction)], axis=1)
        )
        captions.append(f"{word}: {patient}, Dice {means.iloc[place]:.3f}")
    return pictures, captions


def _fullest(
    store: Store, rows: np.ndarray, label_values: dict[int, int]
) -> tuple[int, np.ndarray]:
    """Return the row whose label map has most foreground, and that label map."""
    best_row, best_truth, most = int(rows[0]), None, -1
    for row in rows:
        label_map = store.read(int(row)).label_map
        if label_map is None:
            continue
        # Values that stand for the background are no annotation.
        truth = apply_mapping(label_map, label_values)
        if (area := int(np.count_nonzero(truth))) > most:
            best_row, best_truth, most = int(row), truth, area
    if best_truth is None:
        raise ValueError("none of the rows has a label map")
    return best_row, best_truth


def _best_median_worst(count: int) -> list[tuple[str, int]]:
    """Return words and places in rising order: two of the best, two round the median, two worst."""
    middle = count // 2
    wanted = [
        ("best", count - 1),
        ("second best", count - 2),
        ("median", middle),
        ("median", middle - 1),
        ("second worst", 1),
        ("worst", 0),
    ]
    seen: dict[int, str] = {}
    for word, place in wanted:
        if 0 <= place < count:
            seen.setdefault(place, word)
    return [(word, place) for place, word in seen.items()]


def _classification(
    report: Report,
    predictor: Predictor,
    store: Store,
    cases: "Cases",
    scores: ClassificationScores,
    table: pd.DataFrame,
) -> None:
    unit = cases.unit if scores.unit == "patient" else "image"
    if scores.n_mixed_groups:
        report.text(
            f"{scores.n_mixed_groups} of {scores.n_groups} {cases.unit}s hold images of different "
            f"classes, so images are scored one by one; intervals still resample {cases.unit}s."
        )
    averaged = ", probabilities averaged over the images of each" if unit != "image" else ""
    report.table(
        table.drop(columns="value"),
        f"{scores.n_cases} {unit}s{averaged}. 95 % intervals. Sensitivity and "
        "specificity at the thresholds chosen on validation"
        + (
            f" ({', '.join(f'{t:.2f}' for t in scores.thresholds)})."
            if scores.thresholds
            else ": none were chosen, so the most probable class decides."
        ),
    )
    ranking = table[table["metric"] == "auroc"]
    areas = dict(zip(ranking["class_name"], ranking["value"], strict=True))
    report.figure(roc_figure(scores.roc, areas), "ROC curve of each class against the rest.")
    report.figure(
        reliability_figure(scores.reliability),
        "Reliability: how often a predicted probability came true. Larger dots, more cases.",
    )
    if not scores.multi_label:
        report.figure(
            confusion_figure(scores.confusion, scores.class_names),
            "Confusion matrix: rows are the truth, columns the most probable class.",
        )
    if not scores.multi_label:
        report.section("Cases")
        pictures, captions = _hardest_images(predictor, store, cases.rows, scores)
        report.figure(
            contact_sheet(pictures, captions, columns=4),
            "Images with the least probability for their true class.",
        )


def _hardest_images(
    predictor: Predictor,
    store: Store,
    rows: np.ndarray,
    scores: ClassificationScores,
    most: int = 8,
) -> tuple[list[np.ndarray], list[str]]:
    """Return the images with the least probability for their class, of the hardest cases."""
    hardest = np.argsort((scores.probabilities * scores.truth).sum(axis=1), kind="stable")[:most]
    if scores.unit == "patient":
        patients = store.index["patient_id"].astype(str).to_numpy()[rows]
        rows = rows[np.isin(patients, scores.groups[hardest])]
    else:
        rows = rows[hardest]
    classes = scores.class_names
    probabilities = predictor.probabilities(store, rows)
    truth = encode_labels(store.index["label"].iloc[rows], classes)
    own = probabilities[np.arange(len(rows)), truth]
    reader = SliceReader(store, predictor.preprocessing)
    pictures, captions = [], []
    for place in np.argsort(own, kind="stable")[:most]:
        pictures.append(reader.read(int(rows[place]))[0].mean(dim=0).numpy())
        called = classes[int(probabilities[place].argmax())]
        captions.append(f"{classes[truth[place]]} ({own[place]:.2f}), called {called}")
    return pictures, captions


def _training(report: Report, run: Path) -> None:
    """Add what the model's run folder still shows of its training."""
    curves = _read_curves(run / "metrics.csv")
    sheet = run / "figures" / "pretraining_fill_in.png"
    if not curves and not sheet.is_file():
        return
    report.section("Training")
    for name, (steps, values) in curves.items():
        report.figure(training_curves({name: (steps, values)}, name), f"{name} during fine-tuning.")
    if sheet.is_file():
        report.figure(
            sheet.read_bytes(),
            "What pre-training learnt: image, hidden patches in grey, and the fill-in. Where the "
            "network predicts patches scaled to mean 0 and variance 1, brightness and contrast of "
            "each filled-in patch are the true ones.",
        )


def _read_curves(path: Path) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shown = [name for name in (rows[0] if rows else {}) if name == "loss" or "validation" in name]
    curves = {}
    for name in shown:
        points = [(float(row["step"]), float(row[name])) for row in rows if row[name]]
        points = [(step, value) for step, value in points if np.isfinite(value)]
        if points:
            curves[name] = ([step for step, _ in points], [value for _, value in points])
    return curves


def _settings(report: Report, config: EvaluateConfig, card: ModelCard) -> None:
    report.section("Settings")
    report.code(to_yaml(config), "Settings of this evaluation")
    run_config = config.model.parent / "config.yaml"
    if run_config.is_file():
        report.code(run_config.read_text(encoding="utf-8"), "Settings of the model's training")
    facts = card.model_dump(mode="json", exclude={"training"})
    report.code(json.dumps(facts, indent=2), "Model card")
