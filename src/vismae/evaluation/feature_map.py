"""Features of many images as points on a plane: principal components and UMAP.

UMAP (McInnes et al. 2018, arXiv 1802.03426) needs the package umap-learn; distances between far
groups mean nothing in it. Principal components keep distances as far as two directions can.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from vismae.evaluation.drawing import INK, LINES, panels, plain, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# UMAP of fewer images is an arrangement of noise.
FEWEST_FOR_UMAP = 10
_NEIGHBOURS = 15


def principal_components(features: Float[np.ndarray, "N C"]) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's place on the two directions of largest spread.

    Args:
        features: One row per image.

    Returns:
        Places (N, 2), and the share of the whole variance along each direction, (2,); zeros where
        the features do not vary. The largest entry of each direction is positive, so that the
        picture does not turn over from one run to the next.
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    variances, directions = np.linalg.eigh(centred.T @ centred)
    chosen = directions[:, ::-1][:, :2]
    signs = np.sign(chosen[np.abs(chosen).argmax(axis=0), range(chosen.shape[1])])
    places = np.zeros((len(features), 2))
    places[:, : chosen.shape[1]] = centred @ (chosen * signs)
    total = np.clip(variances, 0.0, None).sum()
    shares = np.zeros(2)
    if total > 0.0:
        shares[: chosen.shape[1]] = np.clip(variances[::-1][:2], 0.0, None) / total
    return places, shares


def has_umap() -> bool:
    """Tell whether umap-learn is installed."""
    return find_spec("umap") is not None


def umap_positions(features: Float[np.ndarray, "N C"], seed: int) -> np.ndarray:
    """Return each image's place in a UMAP by cosine distance, (N, 2).

    Args:
        features: One row per image, at least ``FEWEST_FOR_UMAP``.
        seed: The same seed gives the same picture.
    """
    with warnings.catch_warnings():
        # It says that a seed keeps it to one thread, which is wanted.
        warnings.simplefilter("ignore")
        from umap import UMAP

        neighbours = min(_NEIGHBOURS, len(features) - 1)
        made = UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1)
        return np.asarray(made.fit_transform(features), dtype=np.float64)


def feature_map(
    maps: Mapping[str, tuple[np.ndarray, str, str]], names: Sequence[str | None], title: str
) -> bytes:
    """Draw one scatter plot for each map, points coloured by name.

    Args:
        maps: Heading -> places (N, 2) and the labels of both axes.
        names: Of each image, such as its class; the five most frequent get a colour of their own.
        title: Of the legend: what the names are.

    Returns:
        A PNG file.
    """
    known = np.array([name or "" for name in names])
    frequent, counts = np.unique(known[known != ""], return_counts=True)
    shown = [str(name) for name in frequent[np.argsort(-counts, kind="stable")][: len(LINES) - 1]]
    with style():
        figure, drawn = panels(len(maps), 2, 4.6, 4.2)
        for axes, (heading, (places, x_label, y_label)) in zip(drawn, maps.items(), strict=True):
            _scatter(axes, places, known, shown)
            axes.set(title=heading, xlabel=x_label, ylabel=y_label, xticks=[], yticks=[])
        handles, labels = drawn[0].get_legend_handles_labels()
        if len(labels) > 1:
            figure.legend(handles, labels, title=title, loc="outside right upper")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160, facecolor="white")
    return buffer.getvalue()


def _scatter(axes: "Axes", places: np.ndarray, names: np.ndarray, shown: list[str]) -> None:
    size = float(np.clip(4000.0 / max(1, len(places)), 3.0, 26.0))
    rest = ~np.isin(names, shown)
    if rest.any():
        label = "others" if shown else "images"
        axes.scatter(*places[rest].T, s=size, color=INK, alpha=0.35, linewidths=0, label=label)
    for number, name in enumerate(shown):
        chosen = places[names == name]
        colour = LINES[number]
        axes.scatter(*chosen.T, s=size, color=colour, alpha=0.75, linewidths=0, label=plain(name))
