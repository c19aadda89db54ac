"""What a model must beat before it has learnt anything: guesses that need no network.

Classes: a random forest on thumbnails, which sees brightness, size and rough layout alone; data
sets whose classes come from different sources give themselves away there. Label maps: the mean
label map of the labelled images, the same for every image. Both learn from the labelled images of a
run and are scored on its test images, by the same lines as a network.

Shapes: N images, h×w pixels of an image, S×S those of a thumbnail or of the mean, K classes.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor
from torch.nn import functional

from vismae.core.config import EvaluateConfig, FinetuneConfig
from vismae.core.preprocessing import Preprocessing
from vismae.data.geometry import resize_image
from vismae.data.labels import apply_mapping
from vismae.data.loaders import SliceReader
from vismae.data.splits import read_patients_csv
from vismae.data.store import Store
from vismae.workflows.evaluate import probability_rows, unit_of_cases
from vismae.workflows.scoring import score_classes, score_label_maps
from vismae.workflows.task_data import TaskData, open_task_data

_THUMBNAIL = (16, 16)
_TREES = 300
_MEAN = (64, 64)
_MOST_LABEL_MAPS = 500
_THRESHOLDS = tuple(step / 20 for step in range(1, 20))


class ThumbnailForest:
    """Class probabilities from thumbnails, mean, spread and size of images.

    Args:
        store: Where the images are.
        rows: That it learns from.
        labels: Class index of every row of the store.
        n_classes: K.
        seed: Of the forest.
        sequences: That are seen together, as channels.
    """

    def __init__(
        self,
        store: Store,
        rows: np.ndarray,
        labels: np.ndarray,
        n_classes: int,
        seed: int,
        sequences: tuple[str, ...] = (),
    ) -> None:
        self._n_classes, self._sequences = n_classes, sequences
        self._forest = RandomForestClassifier(
            _TREES, class_weight="balanced", random_state=seed, n_jobs=1
        )
        self._forest.fit(_thumbnails(store, rows, sequences), labels[rows])

    def probabilities(
        self, store: Store, rows: np.ndarray, multi_label: bool = False
    ) -> np.ndarray:
        """Return (N, K); of one class per image, whatever ``multi_label`` says."""
        known = self._forest.predict_proba(_thumbnails(store, rows, self._sequences))
        found = np.zeros((len(rows), self._n_classes))
        found[:, self._forest.classes_] = known
        return found


def _thumbnails(store: Store, rows: np.ndarray, sequences: tuple[str, ...]) -> np.ndarray:
    """Return one vector per image: brightness on the 0..1 scale, and the size in pixels."""
    reader = SliceReader(store, Preprocessing(in_channels=1, sequences=sequences))
    seen: list[np.ndarray] = []
    for row in rows:
        image, _ = reader.read_input(int(row))
        means, spreads = image.mean(dim=(1, 2)), image.std(dim=(1, 2), correction=0)
        facts = [*means.tolist(), *spreads.tolist(), *image.shape[1:]]
        seen.append(np.append(resize_image(image, _THUMBNAIL).numpy().ravel(), facts))
    return np.stack(seen)


class MeanLabelMap:
    """One label map for all images: where a class is common enough in the labelled ones.

    Images are laid on one another by stretching. How common is enough is chosen for the best Dice
    on the label maps it is made of.

    Args:
        label_maps: Class indices, each (h, w).
        n_classes: K, with the background.
    """

    def __init__(self, label_maps: Iterable[np.ndarray], n_classes: int) -> None:
        stretched = torch.stack([_stretched(found, n_classes) for found in label_maps])
        self._shares = stretched.mean(dim=0)  # (K, S, S)
        truth = stretched.argmax(dim=1)
        self._enough = max(
            _THRESHOLDS, key=lambda enough: _mean_dice(_decided(self._shares, enough), truth)
        )

    def label_maps(self, store: Store, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield row number and classes, (h, w) int64 in the image's own size."""
        sizes = store.columns(["height", "width"]).to_numpy()
        for row in rows:
            size = (int(sizes[row][0]), int(sizes[row][1]))
            shares = functional.interpolate(
                self._shares[None], size=size, mode="bilinear", align_corners=False
            )
            yield int(row), _decided(shares[0], self._enough).numpy()


def _stretched(label_map: np.ndarray, n_classes: int) -> Tensor:
    classes = functional.one_hot(torch.from_numpy(label_map.astype(np.int64)), n_classes)
    return resize_image(classes.permute(2, 0, 1).float(), _MEAN)


def _decided(shares: Tensor, enough: float) -> Tensor:
    """Return the commonest class beside the background where it is common enough, else 0."""
    best = shares[1:].max(dim=0)
    return torch.where(best.values > enough, best.indices + 1, 0)


def _mean_dice(guess: Tensor, truth: Tensor) -> float:
    found: list[float] = []
    for number in truth.unique().tolist():
        if number > 0:
            guessed, true = guess == number, truth == number
            shared = float((true & guessed).sum())
            found.append(2 * shared / float(true.sum() + guessed.sum() * len(truth)))
    return float(np.mean(found)) if found else 0.0


def guess(
    finetuning: FinetuneConfig, leave_out: Path | None
) -> tuple[pd.DataFrame, str, MeanLabelMap | None]:
    """Learn from a run's labelled images and score its test images.

    Writes ``splits.csv`` and ``training_patients.csv`` to ``out``, as fine-tuning does.

    Args:
        finetuning: Of the run; its data, labels and seed count, nothing of its network.
        leave_out: Table of test patients that are not scored.

    Returns:
        A row per test case, class and metric, as ``vismae evaluate`` writes; what one case is; and
        what was guessed of label maps.
    """
    data = open_task_data(finetuning, finetuning.out)
    rows = data.test
    if leave_out is not None:
        patients = data.store.columns(["patient_id"], rows)["patient_id"].astype(str)
        rows = rows[~patients.isin(read_patients_csv(leave_out)).to_numpy()]
    unit = unit_of_cases(data.store.columns(["group_kind"], rows)["group_kind"])
    classes = data.card.classes
    if data.labels is not None:
        forest = ThumbnailForest(
            data.store, data.train, data.labels, len(classes), finetuning.seed, data.sequences
        )
        scores = score_classes(forest, data.store, rows, classes, False, None)
        return probability_rows(scores), unit, None
    values = data.card.label_values or {}
    mean = MeanLabelMap(_label_maps(data, values), len(classes))
    tolerance = EvaluateConfig.model_fields["nsd_tolerance"].default
    result = score_label_maps(mean, data.store, rows, values, classes, tolerance)
    return result.patients, unit, mean


def _label_maps(data: TaskData, values: dict[int, int]) -> Iterator[np.ndarray]:
    for row in data.train[:: max(1, len(data.train) // _MOST_LABEL_MAPS)]:
        label_map = data.store.read(int(row)).label_map
        if label_map is not None:
            yield apply_mapping(label_map, values)
