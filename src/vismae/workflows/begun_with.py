"""The images that a training began with, which it keeps however its store grows meanwhile."""

import json
import logging
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from vismae.core.errors import DataError
from vismae.core.launch import is_main_process
from vismae.core.rundir import CHECKPOINT, write_json
from vismae.data.store import Store
from vismae.training.trainer import resume_step

logger = logging.getLogger(__name__)

IMAGES = CHECKPOINT.with_name("images.json")


def images_of_run(folder: Path, store: Store, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that a run learns from: on a resume those it began with.

    What is added to a store comes behind, so the first rows are the ones that were there. Other
    images would come in another order, and the run would be no longer the one that was begun.

    Args:
        folder: The run folder; keeps what the run begins with.
        store: Where the images are.
        rows: Modality, unit and patient of the rows to learn from, labelled by row number.

    Raises:
        DataError: The store no longer holds the images that the run began with.
    """
    path = folder / IMAGES
    if not resume_step(folder) or not path.is_file():
        if is_main_process():
            begun = {"store_rows": len(store), "images": len(rows), "checksum": _checksum(rows)}
            write_json(path, begun)
        return rows
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
        store_rows, images, checksum = (begun[n] for n in ("store_rows", "images", "checksum"))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged ({error}). Remove it if {store.address} is unchanged."
        ) from error
    first = rows[rows.index < store_rows]
    if _checksum(first) != checksum:
        raise DataError(
            f"{store.address} does not hold the images that {folder} began with: it learnt from "
            f"{images} of {store_rows} rows, of which {len(first)} are found, or they are of other "
            "patients or modalities. Resume with the store as it was (adding to it does no harm), "
            "or start a new run with another --out."
        )
    if len(first) < len(rows):
        logger.info(
            "the store has grown: going on with the %d images the run began with, without the %d "
            "that came later",
            len(first),
            len(rows) - len(first),
        )
    return first


def require_same_division(folder: Path, store: Store, train: np.ndarray, val: np.ndarray) -> None:
    """Refuse to go on with other images to learn from or to validate on, or with other labels.

    A store that grows is divided anew where its rows bear no split: a patient that was learnt from
    could become one to be tested. Test patients that are added do no harm.

    Args:
        folder: The run folder; keeps what the run begins with.
        store: Where the images are.
        train: Row numbers to learn from.
        val: Row numbers to validate on.

    Raises:
        DataError: They are not what the run began with.
    """
    path = folder / IMAGES
    columns = ("modality", "unit", "patient_id", "label", "shard")
    rows = [store.columns(list(columns), chosen) for chosen in (train, val)]
    shards = sorted({int(shard) for part in rows for shard in part["shard"]})
    content = "".join(str(store.manifest["shards"][shard]["sha256"]) for shard in shards)
    now = {
        "images": len(train),
        "checksum": [*(_checksum(part, columns) for part in rows), zlib.crc32(content.encode())],
    }
    if not resume_step(folder) or not path.is_file():
        if is_main_process():
            write_json(path, now)
    elif json.loads(path.read_text(encoding="utf-8")) != now:
        raise DataError(
            f"{store.address} does not hold the images, labels and division that {folder} began "
            "with (images may have been added to it or labels corrected, and patients without a "
            "split been divided anew). Resume with the store as it was, or start a new run with "
            "another --out."
        )


def _checksum(
    rows: pd.DataFrame, columns: Sequence[str] = ("modality", "unit", "patient_id")
) -> int:
    """Return a number that tells these rows, with what they say, from others."""
    hashes = pd.util.hash_pandas_object(rows[list(columns)], index=True)
    return zlib.crc32(np.ascontiguousarray(hashes.to_numpy()).tobytes())
