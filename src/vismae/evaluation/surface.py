"""How far apart the outlines of two regions lie: HD95 and surface Dice.

The surface of a region are its pixels with a face neighbour outside it; beyond the picture counts
as outside. Surface pixels count one each. Same definitions as MONAI's metrics without subvoxels.

HD95: Huttenlocher et al. 1993, with the 95th percentile in place of the largest distance; the
larger of the two directions. Surface Dice (NSD): Nikolov et al. 2018, arXiv 1809.04430.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy.ndimage import binary_erosion, find_objects
from scipy.spatial import KDTree

DistanceUnit = Literal["mm", "px"]
VolumeSpacing = tuple[float | None, float | None, float | None]


def surface_distances(
    prediction: Bool[np.ndarray, "..."],
    truth: Bool[np.ndarray, "..."],
    spacing: Sequence[float] | None = None,
) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, " T"]]:
    """Return the distance of each surface pixel of one region to the other region's surface.

    Args:
        prediction: Region, 2D or 3D.
        truth: Region of the same shape.
        spacing: Distance between pixel centres along each axis; 1 when None.

    Returns:
        Distances from the prediction's surface pixels, and from the truth's. Infinite where the
        other region is empty; of length 0 where the region itself is.
    """
    scale = np.ones(truth.ndim) if spacing is None else np.asarray(spacing, dtype=float)
    from_prediction = np.argwhere(_surface(prediction)) * scale
    from_truth = np.argwhere(_surface(truth)) * scale
    if len(from_prediction) == 0 or len(from_truth) == 0:
        return np.full(len(from_prediction), np.inf), np.full(len(from_truth), np.inf)
    # A tree over surface pixels gives the exact distances of a distance transform, but needs
    # memory for the surface only; a transform of a whole-body CT takes gigabytes.
    return (
        np.asarray(KDTree(from_truth).query(from_prediction)[0]),
        np.asarray(KDTree(from_prediction).query(from_truth)[0]),
    )


def _surface(region: Bool[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
    return region & ~binary_erosion(region)


def hd95(
    prediction: Bool[np.ndarray, "..."],
    truth: Bool[np.ndarray, "..."],
    spacing: Sequence[float] | None = None,
) -> float:
    """Return the 95th percentile Hausdorff distance; NaN where a region is empty.

    See ``surface_distances`` for the arguments; the unit is that of ``spacing``.
    """
    return _hd95(*surface_distances(prediction, truth, spacing))


def _hd95(from_prediction: Float[np.ndarray, " P"], from_truth: Float[np.ndarray, " T"]) -> float:
    if len(from_prediction) == 0 or len(from_truth) == 0:
        return float("nan")
    return float(max(np.quantile(from_prediction, 0.95), np.quantile(from_truth, 0.95)))


def surface_dice(
    prediction: Bool[np.ndarray, "..."],
    truth: Bool[np.ndarray, "..."],
    tolerance: float,
    spacing: Sequence[float] | None = None,
) -> float:
    """Return the share of both surfaces that lies within ``tolerance`` of the other.

    See ``surface_distances`` for the other arguments; ``tolerance`` has the unit of ``spacing``.

    Returns:
        0 to 1; 0 where one region is empty, NaN where both are.
    """
    distances = np.concatenate(surface_distances(prediction, truth, spacing))
    return float(np.mean(distances <= tolerance)) if len(distances) else float("nan")


@dataclass(frozen=True)
class SurfaceScores:
    """Surface scores of one volume, one entry for each class (background left out).

    Attributes:
        hd95: NaN where no piece holds the class in both truth and prediction.
        nsd: NaN where the truth does not hold the class, 0 where only the truth does.
        unit: Of ``hd95`` and of the tolerance behind ``nsd``.
        dimensions: 3 when the volume was measured whole, 2 when slice by slice.
        unmatched: Pieces (slices in 2D, the volume in 3D) where only one of truth and prediction
            holds the class: they have no ``hd95``, but their surfaces lower ``nsd``.
    """

    hd95: Float[np.ndarray, " K"]
    nsd: Float[np.ndarray, " K"]
    unit: DistanceUnit
    dimensions: Literal[2, 3]
    unmatched: Integer[np.ndarray, " K"]


def score_surfaces(
    truth: Sequence[Integer[np.ndarray, "_ _"]],
    prediction: Sequence[Integer[np.ndarray, "_ _"]],
    n_classes: int,
    tolerance: float,
    spacing_mm: VolumeSpacing | None = None,
    contiguous: bool = True,
) -> SurfaceScores:
    """Score the surfaces of every class of one volume.

    In 3D when the volume has several contiguous slices of one size and all spacings are known.
    Else slice by slice, in mm when the spacing inside the slice is known: HD95 is then the mean
    over the slices that hold the class in both truth and prediction, and surface Dice pools the
    surfaces of all slices, so that a missed or an invented slice counts against it.

    Args:
        truth: Label maps in slice order, values 0 (background) to ``n_classes`` - 1.
        prediction: Label maps of the same shapes.
        n_classes: Number of classes with the background.
        tolerance: Largest distance that counts as correct, in mm where spacing is known, else px.
        spacing_mm: Between slices, rows and columns; None or NaN where unknown.
        contiguous: No slice between the first and the last is left out.
    """
    spacing = [
        float(s) if s is not None and np.isfinite(s) and s > 0 else None
        for s in (spacing_mm or (None, None, None))
    ]
    in_plane = [s for s in spacing[1:] if s is not None]
    every = [s for s in spacing if s is not None]
    one_size = len({t.shape for t in truth}) == 1
    whole = len(truth) > 1 and contiguous and one_size and len(every) == 3
    if whole:
        pieces = [(np.stack(truth), np.stack(prediction))]
        scale: list[float] | None = every
    else:
        pieces = list(zip(truth, prediction, strict=True))
        scale = in_plane if len(in_plane) == 2 else None
    hd95_values, nsd, unmatched = _score_pieces(pieces, n_classes, tolerance, scale)
    return SurfaceScores(
        hd95=hd95_values,
        nsd=nsd,
        unit="px" if scale is None else "mm",
        dimensions=3 if whole else 2,
        unmatched=unmatched,
    )


def _score_pieces(
    pieces: Iterable[tuple[np.ndarray, np.ndarray]],
    n_classes: int,
    tolerance: float,
    scale: Sequence[float] | None,
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"], Integer[np.ndarray, " K"]]:
    """Return HD95, surface Dice and unmatched pieces for classes 1 to ``n_classes`` - 1."""
    distance_sum = np.zeros(n_classes - 1)
    matched = np.zeros(n_classes - 1, dtype=int)
    unmatched = np.zeros(n_classes - 1, dtype=int)
    within = np.zeros(n_classes - 1)
    surface = np.zeros(n_classes - 1)
    in_truth = np.zeros(n_classes - 1, dtype=bool)
    for truth, prediction in pieces:
        for k, box in enumerate(_class_boxes(truth, prediction, n_classes)):
            if box is None:
                continue
            distances = surface_distances(prediction[box] == k + 1, truth[box] == k + 1, scale)
            in_truth[k] |= len(distances[1]) > 0
            within[k] += sum(np.count_nonzero(d <= tolerance) for d in distances)
            surface[k] += sum(len(d) for d in distances)
            piece = _hd95(*distances)
            if np.isnan(piece):
                unmatched[k] += 1
            else:
                distance_sum[k] += piece
                matched[k] += 1
    hd95_values = np.full(n_classes - 1, np.nan)
    np.divide(distance_sum, matched, out=hd95_values, where=matched > 0)
    nsd = np.full(n_classes - 1, np.nan)
    np.divide(within, surface, out=nsd, where=in_truth)
    return hd95_values, nsd, unmatched


def _class_boxes(
    truth: np.ndarray, prediction: np.ndarray, n_classes: int
) -> list[tuple[slice, ...] | None]:
    """Return the smallest box that holds each class of both label maps; None where absent.

    Cutting it out changes no distance, and spares eroding the whole picture for every class.
    """
    boxes: list[tuple[slice, ...] | None] = []
    for a, b in zip(
        find_objects(truth, n_classes - 1),
        find_objects(prediction, n_classes - 1),
        strict=True,
    ):
        if a is None or b is None:
            boxes.append(a or b)
        else:
            boxes.append(
                tuple(
                    slice(min(p.start, q.start), max(p.stop, q.stop))
                    for p, q in zip(a, b, strict=True)
                )
            )
    return boxes
