"""How well labels can be told from frozen features: nearest neighbours and a linear probe.

The two usual measures of self-supervised learning (Caron et al. 2021, arXiv 2104.14294, sec. 4.1).
Both learn on some patients and are judged on others.
"""

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeClassifierCV
from sklearn.metrics import recall_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vismae.core.errors import DataError
from vismae.data.labels import classes_from_labels, encode_labels
from vismae.data.splits import split_patients
from vismae.data.store import Store

logger = logging.getLogger(__name__)

NEIGHBOURS = 20
"""Most neighbours that vote."""
_PENALTIES = 10.0 ** np.arange(-1, 6)


@dataclass(frozen=True)
class LabelledHalves:
    """Images with a class, divided by patient.

    Attributes:
        learn_rows, judge_rows: Row numbers of the store, (n,).
        learn_classes, judge_classes: Class index of each of them, (n,).
        classes: Class names.
    """

    learn_rows: np.ndarray
    learn_classes: np.ndarray
    judge_rows: np.ndarray
    judge_classes: np.ndarray
    classes: tuple[str, ...]

    @property
    def rows(self) -> np.ndarray:
        """All rows, those to learn from first."""
        return np.concatenate([self.learn_rows, self.judge_rows])


def labelled_halves(store: Store, most_images: int, seed: int = 0) -> LabelledHalves:
    """Choose images of a labelled store to learn from and to judge by.

    Where the store has the splits train and val these are the two parts, otherwise its patients
    are halved. Patients of split test are left out: what is watched while training goes on is
    no test any more. The choice follows from the seed alone.

    Args:
        store: Images with one class each in column ``label``; those without are left out.
        most_images: Images of both parts together.
        seed: Decides the halves and the images.

    Raises:
        DataError: Fewer than two classes with two patients each, several classes in one label,
            a patient in both splits, or classes that cannot be told apart by the halves.
    """
    index = store.columns(["patient_id", "split", "label", "modality"])
    index = index.astype({"patient_id": object, "split": object, "label": object})
    labelled = index["label"].notna() & (index["label"] != "") & (index["split"] != "test")
    rows = index[labelled]
    is_divided = {"train", "val"} <= set(rows["split"].dropna())
    if is_divided:
        rows = rows[rows["split"].isin(["train", "val"])]
    rows = _of_common_classes(rows, store.address)
    classes = classes_from_labels(rows["label"])
    learns = _in_train(rows) if is_divided else _in_first_half(rows, seed)
    rng = np.random.default_rng([seed, 3])
    parts = []
    for part in (rows[learns], rows[~learns]):
        count = min(len(part), most_images // 2)
        places = np.sort(rng.choice(len(part), count, replace=False))
        chosen = part.iloc[places]
        parts += [chosen.index.to_numpy(), encode_labels(chosen["label"], classes)]
    halves = LabelledHalves(*parts, classes=classes)
    _require_both(halves, store.address)
    return halves


def _require_both(halves: LabelledHalves, where: str) -> None:
    """Raise where nothing could be learnt or judged; the first look would fail, hours later."""
    learnt, judged = (len(np.unique(c)) for c in (halves.learn_classes, halves.judge_classes))
    if learnt < 2 or judged == 0:
        raise DataError(
            f"{where}: of its {len(halves.classes)} classes {learnt} are among the "
            f"{len(halves.learn_rows)} images to learn from and {judged} among the "
            f"{len(halves.judge_rows)} to judge by; at least 2 and 1 are needed. Put patients of "
            "each class into the splits train and val, raise monitor.images, or leave monitor.data "
            "out."
        )


def _of_common_classes(rows: pd.DataFrame, where: str) -> pd.DataFrame:
    """Leave out classes of a single patient, which cannot be in both halves."""
    patients = rows.groupby("label", observed=True)["patient_id"].nunique()
    common = patients.index[patients >= 2]
    if len(common) < 2:
        raise DataError(
            f"{where}: found {len(common)} classes with at least two patients each, beside split "
            "test; telling classes apart needs two. Give a store with a column label as "
            "monitor.data, or leave monitor.data out."
        )
    if len(common) < len(patients):
        logger.info("monitor.data: left out %d classes of one patient", len(patients) - len(common))
    return rows[rows["label"].isin(common)]


def _in_train(rows: pd.DataFrame) -> np.ndarray:
    """Tell which rows are of split train, (n,) bool; no patient may be in val too."""
    return (rows["patient_id"].map(split_patients(rows)) == "train").to_numpy()


def _in_first_half(rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Tell which rows are of the first half of the patients, (n,) bool."""
    halves = StratifiedGroupKFold(n_splits=2, shuffle=True, random_state=seed)
    learn, _ = next(halves.split(rows, rows["label"], rows["patient_id"]))
    chosen = np.zeros(len(rows), dtype=bool)
    chosen[learn] = True
    return chosen


def knn_accuracy(
    learn: np.ndarray, learn_classes: np.ndarray, judge: np.ndarray, judge_classes: np.ndarray
) -> float:
    """Return the balanced accuracy of the nearest neighbours' vote, nearer ones weighing more.

    Args:
        learn: Features, (n, C).
        learn_classes: Class index of each, (n,).
        judge: Features of other patients, (m, C).
        judge_classes: Class index of each, (m,).
    """
    count = min(NEIGHBOURS, len(learn))
    model = KNeighborsClassifier(count, metric="cosine", algorithm="brute", weights="distance")
    model.fit(learn, learn_classes)
    return balanced_accuracy(judge_classes, model.predict(judge))


def linear_accuracy(
    learn: np.ndarray, learn_classes: np.ndarray, judge: np.ndarray, judge_classes: np.ndarray
) -> float:
    """Return the balanced accuracy of a ridge classifier; arguments as for ``knn_accuracy``.

    The penalty is chosen on the images learnt from, leaving one out at a time. Ridge regression
    has a closed solution, so the probe takes the same short time at every step.
    """
    ridge = RidgeClassifierCV(alphas=_PENALTIES, class_weight="balanced")
    model = make_pipeline(StandardScaler(), ridge)
    model.fit(learn.astype(np.float64), learn_classes)
    return balanced_accuracy(judge_classes, model.predict(judge.astype(np.float64)))


def balanced_accuracy(classes: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean over the classes that occur of the share of their images found."""
    return float(recall_score(classes, predicted, labels=np.unique(classes), average="macro"))
