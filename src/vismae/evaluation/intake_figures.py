"""Figures of the account of an ingest: sizes, spacings and intensities, a panel a modality.

Bins hold shares of images or pixels; the root of a share is drawn where one bin (air, black
borders) would press all others flat. SVG text, as all figures; ``drawing`` says how they look.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from vismae.core.counting import Bins, Histogram
from vismae.core.intake_account import (
    INTENSITY_BINS,
    SIDE_BINS_PX,
    SPACING_BINS_MM,
    IntensityScale,
    ModalityAccount,
)
from vismae.core.types import Modality
from vismae.evaluation.drawing import INK, LINES, panels, style, svg
from vismae.evaluation.intake_words import MODALITY_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 3
_SCALE_WORDS: dict[IntensityScale, str] = {
    IntensityScale.HU: "Hounsfield units",
    IntensityScale.SUV: "SUV by body weight",
    IntensityScale.GREY: "grey level",
    IntensityScale.RANGE: "position in the volume's range",
}


def sizes_figure(modalities: Mapping[Modality, ModalityAccount]) -> str:
    """Draw height against width: each cell's darkness is its share of the modality's images."""
    from matplotlib.patches import Rectangle

    side = SIDE_BINS_PX.count + 2
    used = {k for part in modalities.values() for n in part.sides.counts for k in divmod(n, side)}
    # Sides beyond all bins count as those of the first or last one.
    low, high = (min(max(end, 1), SIDE_BINS_PX.count) for end in (min(used), max(used)))
    limits = (SIDE_BINS_PX.edges[low - 1], SIDE_BINS_PX.edges[high])
    ticks = [2**k for k in range(4, 15) if limits[0] <= 2**k <= limits[1]]
    with style():
        figure, drawn = panels(len(modalities), _COLUMNS, height=2.9)
        for axes, (modality, part) in zip(drawn, modalities.items(), strict=True):
            most = max(part.sides.counts.values())
            for place, number in part.sides.counts.items():
                row, column = (min(max(k, low), high) for k in divmod(place, side))
                left, bottom = SIDE_BINS_PX.edges[column - 1], SIDE_BINS_PX.edges[row - 1]
                width = SIDE_BINS_PX.edges[column] - left
                height = SIDE_BINS_PX.edges[row] - bottom
                cell = Rectangle((left, bottom), width, height, color=_colour(modality))
                cell.set(alpha=0.15 + 0.85 * (number / most) ** 0.5, linewidth=0)
                axes.add_patch(cell)
            axes.plot(limits, limits, color=INK, linewidth=0.6, linestyle=(0, (2, 3)))
            axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits, aspect="equal")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_ticks(ticks, [str(tick) for tick in ticks])
                axis.set_ticks([], minor=True)
            axes.tick_params(axis="x", rotation=45)
            axes.set(xlabel="width, pixels", ylabel="height, pixels")
            _name(axes, modality)
        return svg(figure)


def spacing_figure(modalities: Mapping[Modality, ModalityAccount]) -> str:
    """Draw the distance of pixels (coloured) and of slices (grey), as shares of images."""
    from matplotlib.ticker import MaxNLocator

    with style():
        figure, drawn = panels(len(modalities), _COLUMNS)
        for axes, (modality, part) in zip(drawn, modalities.items(), strict=True):
            colour = _colour(modality)
            if part.spacing_in_plane_mm.known:
                shares = _shares(part.spacing_in_plane_mm, SPACING_BINS_MM)
                axes.stairs(shares, SPACING_BINS_MM.edges, fill=True, color=colour, alpha=0.55)
            if part.spacing_slices_mm.known:
                shares = _shares(part.spacing_slices_mm, SPACING_BINS_MM)
                axes.stairs(shares, SPACING_BINS_MM.edges, fill=True, color=INK, alpha=0.35)
            axes.set(xscale="log", xlim=(SPACING_BINS_MM.low, SPACING_BINS_MM.high))
            axes.set_xticks([0.01, 0.1, 1, 10, 100], ["0.01", "0.1", "1", "10", "100"])
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
            _percent_axis(axes)
            axes.set_xlabel("mm")
            _name(axes, modality)
        return svg(figure)


def intensity_figure(modalities: Mapping[Modality, ModalityAccount]) -> str:
    """Draw the intensities of pixels, a panel for each modality and scale; roots of shares."""
    found = [
        (modality, IntensityScale(scale), values)
        for modality, part in modalities.items()
        for scale, values in part.intensities.items()
        if values.known
    ]
    with style():
        figure, drawn = panels(len(found), _COLUMNS)
        for axes, (modality, scale, values) in zip(drawn, found, strict=True):
            bins = INTENSITY_BINS[scale]
            shares = _shares(values, bins)
            axes.stairs(shares, bins.edges, fill=True, color=_colour(modality), alpha=0.55)
            axes.stairs(shares, bins.edges, color=_colour(modality), linewidth=0.9)
            axes.set_yscale("function", functions=(_root, np.square))
            axes.set(xlim=(bins.low, bins.high), ylim=(0, max(1.1 * shares.max(), 0.01)))
            axes.set_yticks(_root_ticks(float(shares.max())))
            _percent_axis(axes)
            axes.set_xlabel(_SCALE_WORDS[scale])
            _name(axes, modality)
        return svg(figure)


def _shares(values: Histogram, bins: Bins) -> np.ndarray:
    """Return the share of the known values in each bin; those beyond count in the outer ones."""
    counts = values.dense(bins)
    inside = counts[1:-1].copy()
    inside[0] += counts[0]
    inside[-1] += counts[-1]
    return inside / values.known


def _root(shares: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(shares, 0.0))


def _root_ticks(highest: float) -> list[float]:
    """Return a few round shares that lie well apart on an axis of roots."""
    ticks = [share for share in (0.01, 0.05, 0.2, 0.5, 0.8) if share <= 1.1 * highest]
    return [0.0, *ticks[-3:]]


def _percent_axis(axes: "Axes") -> None:
    from matplotlib.ticker import PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))


def _colour(modality: Modality) -> str:
    return LINES[list(Modality).index(modality) % len(LINES)]


def _name(axes: "Axes", modality: Modality) -> None:
    axes.set_title(MODALITY_NAMES[modality], loc="left", fontsize=9.5, fontweight="bold")
