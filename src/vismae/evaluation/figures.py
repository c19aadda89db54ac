"""Figures for the report, as SVG text that takes the page's own text colour.

Axes and letters are drawn in one ink that becomes ``currentColor``, on no background, so a figure
set into an HTML page reads in light and dark alike. Matplotlib is imported where it is needed
(half a second) and used without pyplot, whose figures would outlive their use.
"""

import io
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Integer

from vismae.evaluation.overlay import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A colour nobody would choose, so that replacing it touches nothing else.
_INK = "#1b1c1e"
# The entries of the colour table that are dark and light enough for lines on either page.
_LINES = tuple(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in (COLOURS[i] for i in (7, 1, 4, 5, 6, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P")

_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": _INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "lines.linewidth": 1.6,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "svg.hashsalt": "vismae",
}


@contextmanager
def _style() -> Generator[None]:
    """Hold matplotlib's settings to ``_STYLE`` while a figure is drawn and written."""
    from matplotlib import rc_context

    with rc_context(_STYLE):
        yield


def _panel(width: float = 6.4, height: float = 3.6) -> "tuple[Figure, Axes]":
    """Return an empty figure with one axis; sizes in inches. To be called inside ``_style``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(True)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: "Figure") -> str:
    """Return a figure as an ``<svg>`` element, without prolog and metadata."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    # Comments repeat every label; dashes and names inside them have no place in a page.
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    # Nothing refers to groups, and several figures in one page would repeat their names.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    return text.replace(_INK, "currentColor").strip()


def training_curves(
    curves: Mapping[str, tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]],
    y_label: str,
    x_label: str = "optimiser steps",
    log_y: bool = False,
) -> str:
    """Draw how numbers changed during training.

    Args:
        curves: Name -> steps and values; values that are not finite are gaps.
        y_label: What the values are, with unit.
        x_label: What the steps are.
        log_y: Logarithmic values.

    Returns:
        SVG.
    """
    with _style():
        figure, axes = _panel()
        for k, (name, (steps, values)) in enumerate(curves.items()):
            axes.plot(steps, values, color=_LINES[k % len(_LINES)], label=_plain(name))
        if log_y:
            axes.set_yscale("log")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if len(curves) > 1:
            axes.legend()
        return _svg(figure)


def _plain(text: str) -> str:
    """Keep matplotlib from reading $ as mathematics and a leading _ as 'no legend'."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def roc_figure(roc: Mapping[str, pd.DataFrame], auroc: Mapping[str, float] | None = None) -> str:
    """Draw ROC curves.

    Args:
        roc: Class -> curve, as in ``ClassificationScores.roc``; empty curves are left out.
        auroc: Class -> area, for the legend.

    Returns:
        SVG.
    """
    with _style():
        figure, axes = _panel(4.4, 4.2)
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=(0, (2, 3)))
        for k, (name, curve) in enumerate(roc.items()):
            if len(curve) == 0:
                continue
            area = (auroc or {}).get(name)
            label = name if area is None else f"{name} ({area:.3f})"
            axes.plot(
                curve["false_positive_rate"],
                curve["sensitivity"],
                color=_LINES[k % len(_LINES)],
                label=_plain(label),
            )
        _unit_square(axes, "1 − specificity", "sensitivity")
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="lower right", title="class (AUROC)" if auroc else None)
        return _svg(figure)


def _unit_square(axes: "Axes", x_label: str, y_label: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set(xlabel=x_label, ylabel=y_label)


def reliability_figure(curve: pd.DataFrame) -> str:
    """Draw predicted against observed frequency; dots grow with the cases of their bin.

    Args:
        curve: As from ``calibration.reliability_curve``.

    Returns:
        SVG.
    """
    with _style():
        figure, axes = _panel(4.4, 4.2)
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.plot(curve["probability"], curve["observed"], color=_LINES[0], linewidth=1.0)
        size = 12 + 60 * curve["n"] / max(int(curve["n"].max()), 1)
        axes.scatter(curve["probability"], curve["observed"], s=size, color=_LINES[0], zorder=3)
        _unit_square(axes, "predicted probability", "observed frequency")
        return _svg(figure)


def confusion_figure(confusion: Integer[np.ndarray, "K K"], class_names: Sequence[str]) -> str:
    """Draw a confusion matrix: counts, shaded by their share of the true class.

    Args:
        confusion: Truth by decision.
        class_names: K names.

    Returns:
        SVG.
    """
    from matplotlib.patches import Rectangle

    total = confusion.sum(axis=1, keepdims=True)
    share = np.divide(confusion, total, out=np.zeros(confusion.shape), where=total > 0)
    k = len(class_names)
    with _style():
        figure, axes = _panel(2.2 + 0.55 * k, 1.8 + 0.5 * k)
        axes.grid(False)
        for row in range(k):
            for column in range(k):
                # Opacity, not a colour map: an empty cell is then the page itself, light or dark.
                shade = Rectangle((column - 0.5, row - 0.5), 1, 1, color=_LINES[0], linewidth=0)
                shade.set_alpha(0.75 * share[row, column])
                axes.add_patch(shade)
                count = str(confusion[row, column])
                axes.text(column, row, count, ha="center", va="center")
        names = [_plain(name) for name in class_names]
        axes.set_xticks(range(k), names, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(k), names)
        axes.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5), xlabel="decision", ylabel="truth")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return _svg(figure)


def label_efficiency_figure(
    curves: pd.DataFrame,
    y_label: str,
    points: pd.DataFrame | None = None,
    x_label: str = "patients with labels",
) -> str:
    """Draw a score against the number of labels, one line with a band for each arm.

    Args:
        curves: Columns arm, labels, estimate, low, high; limits may be NaN.
        y_label: The score, with unit.
        points: Columns arm, labels, value: single runs, drawn as small dots.
        x_label: What is counted in ``labels``.

    Returns:
        SVG.
    """
    from matplotlib.ticker import NullLocator, ScalarFormatter

    with _style():
        figure, axes = _panel(6.4, 4.0)
        for k, (arm, part) in enumerate(curves.groupby("arm", sort=False)):
            colour, part = _LINES[k % len(_LINES)], part.sort_values("labels")
            x, y = part["labels"].to_numpy(float), part["estimate"].to_numpy(float)
            low, high = part["low"].to_numpy(float), part["high"].to_numpy(float)
            axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
            axes.plot(
                x,
                y,
                color=colour,
                marker=_MARKERS[k % len(_MARKERS)],
                markersize=5,
                label=_plain(str(arm)),
            )
            # The band vanishes where an arm has one point; bars do not.
            axes.vlines(x, low, high, color=colour, linewidth=0.9)
            if points is not None:
                own = points[points["arm"] == arm]
                axes.scatter(own["labels"], own["value"], s=9, color=colour, alpha=0.55, zorder=3)
        axes.set_xscale("log")
        axes.set_xticks(sorted(curves["labels"].unique()))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.legend()
        return _svg(figure)


def patients_figure(values: Mapping[str, Sequence[float] | np.ndarray], y_label: str) -> str:
    """Draw one dot for each patient over a box of quartiles and median, for each name.

    Whiskers reach to the last patient within 1.5 times the box's height.

    Args:
        values: Class or arm -> one value for each patient; NaN is left out.
        y_label: The score, with unit.

    Returns:
        SVG.
    """
    with _style():
        figure, axes = _panel(max(3.2, 1.4 + 0.75 * len(values)), 3.6)
        axes.grid(False, axis="x")
        names: list[str] = []
        for k, (name, scores) in enumerate(values.items()):
            array = np.asarray(scores, dtype=float)
            array = array[np.isfinite(array)]
            names.append(f"{_plain(name)}\nn = {len(array)}")
            if len(array) == 0:
                continue
            axes.boxplot(
                array,
                positions=[k],
                widths=0.5,
                showfliers=False,
                medianprops={"color": _INK, "linewidth": 1.4},
                boxprops={"color": _INK, "linewidth": 0.7},
                whiskerprops={"color": _INK, "linewidth": 0.7},
                capprops={"color": _INK, "linewidth": 0.7},
            )
            # Steps of the golden ratio spread neighbours apart, the same way every time.
            spread = (np.arange(len(array)) * 0.618034) % 1.0 - 0.5
            axes.scatter(
                k + 0.34 * spread, array, s=11, color=_LINES[0], alpha=0.6, linewidths=0, zorder=3
            )
        long = max((len(name) for name in values), default=0) > 10 and len(values) > 3
        rotation = {"rotation": 30, "ha": "right"} if long else {}
        axes.set_xticks(range(len(names)), names, **rotation)
        axes.set(xlim=(-0.6, len(names) - 0.4), ylabel=y_label)
        return _svg(figure)
