"""The images of a study's tasks: a store for each task or fold, with the columns to show apart."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from vismae.core.errors import SettingError
from vismae.core.study_config import StudyConfig, StudyTask
from vismae.data.manifest import PATH_COLUMNS, SEQUENCE_COLUMN, is_table
from vismae.data.sources import fold_tables
from vismae.data.table_text import read_table
from vismae.workflows.label_study.plan import SCORES, folds_of
from vismae.workflows.same_images import store_as_begun

SUBGROUPS = ("scanner", "manufacturer", "site", "hospital", "centre", "center", "sex", "age_band")
"""Columns that are shown apart wherever the data have them."""
IN_EVERY_STORE = ("manufacturer", "sex", "age_band")
MODALITY = "modality"


def open_stores(
    config: StudyConfig, name: str, folder: Path, sequences: Sequence[str] = ()
) -> dict[int | None, Path]:
    """Return the store of each fold; folds of the reference's layout are stores of their own.

    Args:
        config: The study.
        name: Of the task.
        folder: Of the study.
        sequences: That are seen together; the stores say which an image is.

    Raises:
        DataError: The data are others than those that finished runs of the task learnt from.
    """
    task = config.tasks[name]
    columns = _subgroup_columns(name, task)
    if sequences:
        columns = tuple(dict.fromkeys((*columns, SEQUENCE_COLUMN)))
    stores: dict[int | None, Path] = {}
    shared: Path | None = None
    for fold in folds_of(config):
        if shared is None:
            at = name if fold is None else f"{name}, fold {fold}"
            store = store_as_begun(
                task.sources,
                folder / "stores" / at,
                folder / "tasks" / name / f"images{'' if fold is None else f'_{fold}'}.parquet",
                goes_on=any((folder / "runs" / name).rglob(SCORES)),
                cure=(
                    f"remove {folder / 'runs' / name}, so that --resume computes the runs of this "
                    "task anew (those of other tasks stay), or use another --out"
                ),
                task=task.kind,
                fold=fold,
                keep_column=columns,
            )
            stores[fold] = store.folder
            # What does not hold the division of this very fold serves all folds.
            shared = None if store.manifest.get("fold") == fold and fold else store.folder
        else:
            stores[fold] = shared
    return stores


def _subgroup_columns(task_name: str, task: StudyTask) -> tuple[str, ...]:
    """Return the columns of the task's csv tables that are to be shown apart.

    Raises:
        SettingError: The tables lack a column that was asked for.
    """
    tables = [table for source in task.sources for table in _tables(source)]
    headers = [list(read_table(table, PATH_COLUMNS).columns) for table in tables]
    if not headers:
        return ()
    shared = [name for name in headers[0] if all(name in other for other in headers)]
    require_subgroups(task_name, task, shared)
    return tuple(name for name in shared if name in shown_apart(task))


def shown_apart(task: StudyTask) -> tuple[str, ...]:
    """Return the names of columns to look for; the modality is shown apart without being asked."""
    named = (name.lower() for name in task.subgroups)
    return tuple(dict.fromkeys((*SUBGROUPS, *(name for name in named if name != MODALITY))))


def require_subgroups(task_name: str, task: StudyTask, columns: Sequence[str]) -> None:
    """Refuse subgroups that the data say nothing of, before hours of training.

    Raises:
        SettingError: A column is missing; names those there are and the most similar one.
    """
    known = list(dict.fromkeys((*columns, *IN_EVERY_STORE, MODALITY)))
    for name in task.subgroups:
        if name.lower() not in known:
            close = get_close_matches(name.lower(), known, n=1)
            hint = f"Did you mean {close[0]}?" if close else "Take one of these, or leave it out."
            raise SettingError(
                f"Task '{task_name}': subgroups has '{name}', but its data have no such column "
                f"(known: {', '.join(known)}; of several tables, what all have). {hint}"
            )


def _tables(source: Path) -> Iterable[Path]:
    if is_table(source):
        return [source]
    manifest = source / "manifest.csv"
    if manifest.is_file():
        return [manifest]
    return [path for splits in fold_tables(source).values() for path in splits.values()]
