"""The images a pre-training began with, which it keeps however its store grows meanwhile."""

import json
import logging
import zlib
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


def _checksum(rows: pd.DataFrame) -> int:
    """Return a number that tells these rows, with their patients and modalities, from others."""
    hashes = pd.util.hash_pandas_object(rows[["modality", "unit", "patient_id"]], index=True)
    return zlib.crc32(np.ascontiguousarray(hashes.to_numpy()).tobytes())
