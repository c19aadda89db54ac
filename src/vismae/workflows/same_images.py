"""What goes on must see what it began with: the same images, labels and division.

Runs of a study, or the steps of a fine-tuning, that learnt from other labels than the next ones
would be compared and joined as if they were alike.
"""

import hashlib
import logging
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd

from vismae.core.errors import DataError
from vismae.core.rundir import write_bytes
from vismae.data.manifest import CASE_COLUMN, SEQUENCE_COLUMN
from vismae.data.sources import Task, resolve_data
from vismae.data.store import Store
from vismae.data.store_format import MANIFEST_NAME
from vismae.workflows.ingest import LEDGER_NAME, SALT_NAME, open_or_ingest
from vismae.workflows.intake.identity import make_private_folder, private_folder
from vismae.workflows.intake.ledger import Ledger
from vismae.workflows.intake.listing import has_changed

_LABEL_MAP = "label_map"
_DECIDING = {
    "label": "label",
    "split": "split",
    "patient_id": "patient",
    "modality": "modality",
    "pixel_sha256": "pixels",
    f"extra_{SEQUENCE_COLUMN}": "sequence",
    f"extra_{CASE_COLUMN}": "case",
    _LABEL_MAP: "label map",
}
"""Column -> what a message calls it."""
_MANIFEST = "store manifest"
_EXAMPLES = 3

logger = logging.getLogger(__name__)


def store_as_begun(
    sources: Sequence[Path],
    into: Path,
    begun: Path | None,
    *,
    goes_on: bool,
    cure: str,
    task: Task,
    fold: int | None = None,
    keep_column: Sequence[str] = (),
) -> Store:
    """Return the store that sources are, or one made from them, as it was at the beginning.

    Files that are gone or only bear another time change nothing; what is in them counts.

    Args:
        sources: One store, or what a store is made from.
        into: Folder for a store made on the way.
        begun: Table of what was there at the beginning, written where it is missing. None: a
            store made on the way is compared, one that was there is not looked at.
        goes_on: Something was computed already. Otherwise changed data are taken as they are now.
        cure: What to do to compute with the changed data, for the message.
        task, fold, keep_column: As for ``open_or_ingest``.

    Raises:
        DataError: Labels, splits, patients or pixels are others than at the beginning; says which.
    """
    ingested = partial(open_or_ingest, task=task, fold=fold, keep_column=keep_column)
    was_there = (into / MANIFEST_NAME).is_file()
    store = ingested(sources, into)
    if begun is None and store.folder != into:
        return store
    before = pd.read_parquet(begun) if begun is not None and begun.is_file() else None
    with _room_beside(into) as room:
        now = store
        if was_there and _may_have_changed(sources, into, task, fold, keep_column):
            logger.info("files of %s have changed; they are compared with the store", into.name)
            now = _made_again(partial(ingested, sources), into, room / into.name)
        if before is None and (begun is not None or now is not store):
            before = _images_of(store)
        if before is None:
            return store
        said = "" if before.attrs.get(_MANIFEST) == _mark(now) else _difference(before, now)
        if said and goes_on:
            raise DataError(
                f"{', '.join(map(str, sources))} have changed since: {said}. What is computed "
                f"already knows them as they were. Put them back to go on; or, to have them as "
                f"they are now, {cure}."
            )
        if said and now is not store:
            shutil.rmtree(into)
    if said:
        logger.info("%s is taken as it is now: %s", into.name, said)
        store = ingested(sources, into)
        before = _images_of(store)
    if begun is not None and (said or not begun.is_file()):
        content = BytesIO()
        before.to_parquet(content, index=False)
        write_bytes(begun, content.getvalue())
    return store


def _may_have_changed(
    sources: Sequence[Path],
    into: Path,
    task: Task,
    fold: int | None,
    keep_column: Sequence[str],
) -> bool:
    """Tell whether a store's files or tables look otherwise than when it was made."""
    if any((path / MANIFEST_NAME).is_file() for path in sources):
        return False
    gone = [str(path) for path in sources if not path.exists()]
    if gone:
        logger.warning(
            "%s: not there; going on with the images that were taken from there before",
            ", ".join(gone),
        )
        return False
    private = private_folder(into)
    with Ledger(private / LEDGER_NAME) as ledger:
        return has_changed(
            ledger, resolve_data(sources, task, fold, keep_column), own=(into, private)
        )


@contextmanager
def _room_beside(into: Path) -> Generator[Path]:
    """Yield where a store as large may be made: where temporary files go there may be no room."""
    room = into.with_name(f".{into.name}.compared")
    shutil.rmtree(room, ignore_errors=True)  # of a process that was killed
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _made_again(ingested: "partial[Store]", into: Path, at: Path) -> Store:
    """Return a store of the data as they are now, with the ids of the one that is there."""
    salt = private_folder(into) / SALT_NAME
    shutil.copy(salt, make_private_folder(private_folder(at)) / SALT_NAME)
    return ingested(at)


def _images_of(store: Store) -> pd.DataFrame:
    """Return what decides a result, one row for each image."""
    there = set(store.column_names)
    columns = [name for name in ("image_id", *_DECIDING) if name in there]
    images = store.columns([*columns, "has_label_map"]).astype(object)
    drawn = images.pop("has_label_map").to_numpy(bool)
    images[_LABEL_MAP] = [_hash(store, row) if drawn[row] else None for row in range(len(store))]
    images.attrs[_MANIFEST] = _mark(store)
    return images


def _hash(store: Store, row: int) -> str:
    label_map = store.read(row).label_map
    values = np.empty(0) if label_map is None else label_map
    return hashlib.sha256(np.ascontiguousarray(values, dtype=np.int64).data).hexdigest()


def _mark(store: Store) -> str:
    """Return a text that is another one when the store was written anew."""
    return hashlib.sha256((store.folder / MANIFEST_NAME).read_bytes()).hexdigest()


def _difference(before: pd.DataFrame, store: Store) -> str:
    """Say in which images two tables differ; empty where in none."""
    now = _images_of(store)
    both = before.merge(now, on="image_id", how="outer", suffixes=("", "_now"), indicator=True)
    found: list[str] = []
    for side, what in (("left_only", "gone"), ("right_only", "new")):
        chosen = both[both["_merge"] == side]
        patients = chosen["patient_id"].fillna(chosen["patient_id_now"])
        if len(chosen):
            found.append(f"{_images(len(chosen))} {what} ({_some(patients)})")
    kept = both[both["_merge"] == "both"]
    for column, name in _DECIDING.items():
        if column not in kept or f"{column}_now" not in kept:
            continue  # of a store that does not say which sequence an image is
        was, now_is = kept[column].fillna("").astype(str), kept[f"{column}_now"].fillna("")
        other = kept[was != now_is.astype(str)]
        if other.empty:
            continue
        example = ""
        if column not in ("pixel_sha256", _LABEL_MAP):
            first = other.iloc[0]
            example = f", such as '{first[column]}', now '{first[f'{column}_now']}'"
        found.append(f"{name} of {_images(len(other))} ({_some(other['patient_id'])}{example})")
    return "; ".join(found)


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _some(patients: pd.Series) -> str:
    names = sorted(set(patients.astype(str)))
    more = f" and {len(names) - _EXAMPLES} more" if len(names) > _EXAMPLES else ""
    return f"patient or group {', '.join(names[:_EXAMPLES])}{more}"
