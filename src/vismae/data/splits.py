"""Who learns and who is tested: splits by patient, folds, and nested fractions of the labels.

Patients are never divided. Every choice follows from hashes of (seed, patient), so that neither
the order of rows nor other patients' presence in memory matters, and the same command gives the
same split on every machine.
"""

import csv
import io
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import pandas as pd

from vismae.core.errors import DataError
from vismae.core.rundir import write_text
from vismae.data.labels import label_names
from vismae.data.strata import hash_rank, interleave, ranked_strata, spread_quota
from vismae.data.table_text import read_table

SPLITS: tuple[str, ...] = ("train", "val", "test")
_LEARNING = {"train", "pretrain"}


def split_patients(
    index: pd.DataFrame,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
) -> dict[str, str]:
    """Return patient -> ``train``, ``val`` or ``test``.

    Where the index has splits they are honoured: patients keep theirs, those without one are
    divided by the fractions, and a missing val is taken out of train (never out of test). A
    missing test stays missing. Without any split all patients are divided. Strata are the
    patients' labels and modalities; a patient whose combination is rare has the same chances as
    any other (``data.strata``).

    Args:
        index: Rows of a store's index (``patient_id``, ``split``, ``label``, ``modality``).
        fractions: Shares of train, val, test among patients.
        seed: Another seed is another division.

    Returns:
        Sorted by patient; ``pretrain`` for patients whose rows say so.

    Raises:
        DataError: A patient has rows in two splits, there is nobody to learn from, or fewer
            than three patients have to be divided.
    """
    given = _given_splits(index)
    strata = patient_strata(index)
    if not given:
        return dict(
            sorted(
                _divide(strata, dict(zip(SPLITS, fractions, strict=True)), f"split {seed}").items()
            )
        )
    splits = dict(given)
    present = set(given.values())
    undecided = {patient: strata[patient] for patient in strata if patient not in given}
    if undecided:
        shares = dict(zip(SPLITS, fractions, strict=True))
        if "test" not in present:
            shares.pop("test")
        splits |= _divide(undecided, shares, f"split {seed}", at_least_one=False)
    if "train" not in splits.values():
        raise DataError(
            f"No image is in split train, found {_counted(splits.values())}. Mark training images "
            "in column split, or leave the column out to divide by patient."
        )
    if "val" not in splits.values():
        splits |= _take_val(splits, strata, fractions, seed)
    return dict(sorted(splits.items()))


def fold_split(
    index: pd.DataFrame,
    fold: int,
    folds: int = 5,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
) -> dict[str, str]:
    """Return patient -> split for one fold of a cross-validation.

    The test patients (given, or divided off as by ``split_patients``) are the same in every
    fold. All others are divided into ``folds`` parts: part number ``fold`` is val, the rest train.

    Args:
        index: Rows of a store's index.
        fold: 1 to ``folds``.
        folds: Number of parts.
        fractions, seed: As for ``split_patients``.

    Raises:
        DataError: No such fold, fewer patients than folds, or as for ``split_patients``.
    """
    if not 1 <= fold <= folds:
        raise DataError(f"--fold {fold} does not exist; choose 1 to {folds}.")
    splits = split_patients(index, fractions, seed)
    strata = patient_strata(index)
    divided = {
        patient: strata[patient] for patient in splits if splits[patient] in ("train", "val")
    }
    if len(divided) < folds:
        raise DataError(
            f"{len(divided)} patients cannot be divided into {folds} folds. Leave out --fold."
        )
    part = _divide(divided, {str(k): 1.0 / folds for k in range(1, folds + 1)}, f"folds {seed}")
    for patient, number in part.items():
        splits[patient] = "val" if number == str(fold) else "train"
    return splits


def label_fraction_patients(
    index: pd.DataFrame, patients: Iterable[str], fraction: float, seed: int = 0
) -> list[str]:
    """Return the training patients whose labels may be used at a fraction of the labels.

    Smaller fractions are subsets of larger ones with the same seed. Every class (and modality)
    is among the first patients, as far as the number reaches; after that shares follow the whole.
    Where that takes a good part of the subset, rare classes are more common in it than in all.

    Args:
        index: Rows of a store's index.
        patients: The training patients.
        fraction: In (0, 1]; at least one patient is returned.
        seed: Another seed is another subset.

    Returns:
        Sorted patients.

    Raises:
        DataError: The fraction is outside (0, 1], or there are no patients.
    """
    if not 0.0 < fraction <= 1.0:
        raise DataError(f"--label-fraction {fraction} is outside (0, 1], such as 0.1 for a tenth.")
    wanted = set(patients)
    if not wanted:
        raise DataError("There are no training patients to take a fraction of.")
    order = _nested_order(index[index["patient_id"].isin(wanted)], seed)
    return sorted(order[: patients_at(fraction, len(order))])


def patients_at(fraction: float, patients: int) -> int:
    """Return the number of patients that a fraction of them is; at least one."""
    return max(1, math.floor(fraction * patients + 0.5))


def rank_patients(patients: Iterable[str], seed: int = 0) -> list[str]:
    """Return patients in the order that chance gives; the same for the same ids and seed."""
    return sorted(set(patients), key=lambda patient: hash_rank(f"rank {seed}", patient))


def patient_strata(index: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Return patient -> all labels and modalities of its images, sorted."""
    strata: defaultdict[str, set[str]] = defaultdict(set)
    rows = index[["patient_id", "modality", "label"]].drop_duplicates()
    for patient, modality, label in rows.itertuples(index=False, name=None):
        strata[patient].add(f"modality {modality}")
        strata[patient].update(f"label {name}" for name in label_names(label, multi_label=True))
    return {patient: tuple(sorted(names)) for patient, names in strata.items()}


def patients_of(splits: Mapping[str, str], wanted: Collection[str]) -> list[str]:
    """Return the sorted patients whose split is one of those wanted."""
    return sorted(patient for patient, split in splits.items() if split in wanted)


def write_splits_csv(path: Path, splits: Mapping[str, str]) -> None:
    """Write patient and split as a table, sorted by patient."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["patient_id", "split"])
    writer.writerows(sorted(splits.items()))
    write_text(path, text.getvalue())


def read_patients_csv(path: Path) -> set[str]:
    """Return the ids in column ``patient_id`` of a table.

    Raises:
        DataError: The file is missing, no table, or without that column.
    """
    table = read_table(path, ("patient_id",))
    if "patient_id" not in table.columns:
        raise DataError(
            f"{path}: no column patient_id, found {', '.join(table.columns) or 'nothing'}. Name "
            "the column of ids patient_id."
        )
    place = table.columns.index("patient_id")
    return {cells[place] for _, cells in table.rows() if cells[place]}


def read_splits_csv(path: Path) -> dict[str, str]:
    """Read what ``write_splits_csv`` wrote.

    Raises:
        DataError: The file is missing or has other columns.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise DataError(f"{path} cannot be opened ({error.strerror}). Check the path.") from error
    if not rows or not {"patient_id", "split"} <= set(rows[0]):
        raise DataError(f"{path}: expected the columns patient_id and split, and at least one row.")
    return {row["patient_id"]: row["split"] for row in rows}


def _given_splits(index: pd.DataFrame) -> dict[str, str]:
    """Return patient -> split as the rows say; images for learning only never clash."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    # Counted per patient and split: an archive has millions of rows.
    counted = index.groupby(["patient_id", "split"], observed=True).size().reset_index()
    for patient, split, count in counted.itertuples(index=False, name=None):
        found[patient][split] = count
    divided = {
        patient: counts
        for patient, counts in found.items()
        if len(counts) > 1 and not set(counts) <= _LEARNING
    }
    if divided:
        listed = "; ".join(
            f"patient '{patient}' is in "
            + " and ".join(f"{split} ({count} images)" for split, count in sorted(counts.items()))
            for patient, counts in sorted(divided.items())[:5]
        )
        more = f"; and {len(divided) - 5} more" if len(divided) > 5 else ""
        raise DataError(
            f"{listed}{more}. Splits must not share patients. Leave out column split to divide by "
            "patient, or correct column patient_id (or group_id) of the manifest."
        )
    return {
        patient: "train" if "train" in counts else next(iter(counts))
        for patient, counts in found.items()
    }


def _take_val(
    splits: Mapping[str, str],
    strata: Mapping[str, tuple[str, ...]],
    fractions: tuple[float, float, float],
    seed: int,
) -> dict[str, str]:
    train = {patient: strata[patient] for patient, split in splits.items() if split == "train"}
    if len(train) < 2:
        raise DataError(
            "Split train has one patient and there is no val, so none can be set aside to choose "
            "the best model by. Add images of another patient, or rows with split val."
        )
    learning = fractions[0] + fractions[1]
    shares = {"train": fractions[0] / learning, "val": fractions[1] / learning}
    return _divide(train, shares, f"val {seed}")


def _divide(
    strata: Mapping[str, tuple[str, ...]],
    shares: Mapping[str, float],
    seed: str,
    at_least_one: bool = True,
) -> dict[str, str]:
    """Return patient -> part, with exact totals and the same chances for every patient."""
    quotas = _quotas(len(strata), shares, at_least_one)
    waiting = ranked_strata(strata, seed)
    result: dict[str, str] = {}
    # The largest part first: what rounding does to it is the least that the others inherit.
    for part in sorted(shares, key=lambda name: -quotas[name]):
        counts = spread_quota(waiting, quotas[part], f"{part} {seed}")
        for group, count in zip(waiting, counts, strict=True):
            result.update(dict.fromkeys(group[:count], part))
        waiting = [group[count:] for group, count in zip(waiting, counts, strict=True)]
        waiting = [group for group in waiting if group]
    return result


def _quotas(count: int, shares: Mapping[str, float], at_least_one: bool) -> dict[str, int]:
    """Return how many of ``count`` go to each part (largest remainder)."""
    if at_least_one and count < len(shares):
        raise DataError(
            f"{count} patients cannot be divided into {', '.join(shares)}: each needs at least "
            "one. Add images of other patients, or give a column split."
        )
    total = sum(shares.values())
    exact = {name: share / total * count for name, share in shares.items()}
    quotas = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(shares, key=lambda name: quotas[name] - exact[name])
    for name in by_remainder[: count - sum(quotas.values())]:
        quotas[name] += 1
    for name in shares:
        if at_least_one and quotas[name] == 0:
            largest = max(quotas, key=lambda other: quotas[other])
            quotas[largest] -= 1
            quotas[name] = 1
    return quotas


def _nested_order(index: pd.DataFrame, seed: int) -> list[str]:
    """Return patients so that every prefix is as representative as its length allows."""
    strata = patient_strata(index)
    order = interleave(ranked_strata(strata, f"labels {seed}"), f"labels {seed}")
    first: list[str] = []
    covered: set[str] = set()
    for patient in order:
        if not set(strata[patient]) <= covered:
            first.append(patient)
            covered.update(strata[patient])
    rest = set(order) - set(first)
    return [*first, *(patient for patient in order if patient in rest)]


def _counted(splits: Iterable[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(Counter(splits).items()))
