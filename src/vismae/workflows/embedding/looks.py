"""Looks at a table of features: nearest neighbours and a picture."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from vismae.core.rundir import write_bytes, write_text
from vismae.evaluation.feature_map import (
    FEWEST_FOR_UMAP,
    feature_map,
    has_umap,
    principal_components,
    umap_positions,
)
from vismae.evaluation.neighbours import nearest_neighbours
from vismae.workflows.embedding.pieces import read_features

NEIGHBOURS = "neighbours.csv"
MAP_TABLE = "map.csv"
MAP_PICTURE = "map.png"

_MOST_POINTS = 20_000

logger = logging.getLogger(__name__)


def write_neighbours(folder: Path, table: pd.DataFrame, k: int) -> None:
    """Write the k nearest images of other volumes (or files) for every row."""
    groups = pd.factorize(table["volume_id" if "volume_id" in table else "source"])[0]
    found = nearest_neighbours(read_features(table), k, groups)
    row, rank = np.nonzero(found.rows >= 0)
    other = found.rows[row, rank]
    names = _names(table)
    columns = {
        "row": row,
        "image": names[row],
        "rank": rank + 1,
        "neighbour_row": other,
        "neighbour": names[other],
        "similarity": found.similarities[row, rank].round(6),
    }
    if "label" in table:
        labels = table["label"].to_numpy(object)
        columns |= {"label": labels[row], "neighbour_label": labels[other]}
    write_text(folder / NEIGHBOURS, pd.DataFrame(columns).to_csv(index=False))


def write_map(folder: Path, table: pd.DataFrame, seed: int) -> tuple[str, ...]:
    """Draw principal components, and a UMAP where umap-learn is installed.

    Returns:
        Names of the maps drawn.
    """
    rows = np.arange(len(table))
    if len(rows) > _MOST_POINTS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _MOST_POINTS, replace=False))
        logger.info("the map shows %d of %d images, drawn at random", len(rows), len(table))
    chosen = table.iloc[rows]
    features = read_features(chosen)
    places, shares = principal_components(features)
    labels = [f"direction {k + 1} ({share:.0%} of the variance)" for k, share in enumerate(shares)]
    maps = {"Principal components": (places, labels[0], labels[1])}
    columns: dict[str, object] = {"row": rows, "image": _names(table)[rows]}
    columns |= {"pca_1": places[:, 0], "pca_2": places[:, 1]}
    if has_umap() and len(rows) >= FEWEST_FOR_UMAP:
        places = umap_positions(features, seed)
        maps["UMAP"] = (places, "", "")
        columns |= {"umap_1": places[:, 0], "umap_2": places[:, 1]}
    by = "label" if "label" in chosen and chosen["label"].notna().any() else "modality"
    names = [None if pd.isna(name) else str(name) for name in chosen[by]]
    write_text(folder / MAP_TABLE, pd.DataFrame(columns).to_csv(index=False, float_format="%.6g"))
    write_bytes(folder / MAP_PICTURE, feature_map(maps, names, by))
    return tuple(maps)


def _names(table: pd.DataFrame) -> np.ndarray:
    """Name every row: the store's pseudonym, or the file as it was given."""
    return table["image_id" if "image_id" in table else "source"].to_numpy(object)
