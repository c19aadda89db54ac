"""Figures of the training and evaluation reports, as SVG text; ``drawing`` says how they look."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Integer

from vismae.evaluation.drawing import INK, LINES, panel, plain, style, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = ("o", "s", "^", "D", "v", "P")
# Arms stand a little beside each other, so that none hides another; as factors of labels.
_ASIDE = 1.025
_MARGIN = 1.3


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
    with style():
        figure, axes = panel()
        for k, (name, (steps, values)) in enumerate(curves.items()):
            axes.plot(steps, values, color=LINES[k % len(LINES)], label=plain(name))
        if log_y:
            axes.set_yscale("log")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if len(curves) > 1:
            axes.legend()
        return svg(figure)


def roc_figure(roc: Mapping[str, pd.DataFrame], auroc: Mapping[str, float] | None = None) -> str:
    """Draw ROC curves.

    Args:
        roc: Class -> curve, as in ``ClassificationScores.roc``; empty curves are left out.
        auroc: Class -> area, for the legend.

    Returns:
        SVG.
    """
    with style():
        figure, axes = panel(4.4, 4.2)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
        for k, (name, curve) in enumerate(roc.items()):
            if len(curve) == 0:
                continue
            area = (auroc or {}).get(name)
            label = name if area is None else f"{name} ({area:.3f})"
            axes.plot(
                curve["false_positive_rate"],
                curve["sensitivity"],
                color=LINES[k % len(LINES)],
                label=plain(label),
            )
        _unit_square(axes, "1 − specificity", "sensitivity")
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="lower right", title="class (AUROC)" if auroc else None)
        return svg(figure)


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
    with style():
        figure, axes = panel(4.4, 4.2)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.plot(curve["probability"], curve["observed"], color=LINES[0], linewidth=1.0)
        size = 12 + 60 * curve["n"] / max(int(curve["n"].max()), 1)
        axes.scatter(curve["probability"], curve["observed"], s=size, color=LINES[0], zorder=3)
        _unit_square(axes, "predicted probability", "observed frequency")
        return svg(figure)


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
    with style():
        figure, axes = panel(2.2 + 0.55 * k, 1.8 + 0.5 * k)
        axes.grid(False)
        for row in range(k):
            for column in range(k):
                # Opacity, not a colour map: an empty cell is then the page itself, light or dark.
                shade = Rectangle((column - 0.5, row - 0.5), 1, 1, color=LINES[0], linewidth=0)
                shade.set_alpha(0.75 * share[row, column])
                axes.add_patch(shade)
                count = str(confusion[row, column])
                axes.text(column, row, count, ha="center", va="center")
        names = [plain(name) for name in class_names]
        axes.set_xticks(range(k), names, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(k), names)
        axes.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5), xlabel="decision", ylabel="truth")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return svg(figure)


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

    with style():
        figure, axes = panel(6.4, 4.0)
        middle = (curves["arm"].nunique() - 1) / 2
        for k, (arm, part) in enumerate(curves.groupby("arm", sort=False)):
            colour, part = LINES[k % len(LINES)], part.sort_values("labels")
            aside = _ASIDE ** (k - middle)
            x, y = part["labels"].to_numpy(float) * aside, part["estimate"].to_numpy(float)
            low, high = part["low"].to_numpy(float), part["high"].to_numpy(float)
            axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
            axes.plot(
                x,
                y,
                color=colour,
                marker=_MARKERS[k % len(_MARKERS)],
                markersize=5,
                label=plain(str(arm)),
            )
            # The band vanishes where an arm has one point; bars do not.
            axes.vlines(x, low, high, color=colour, linewidth=0.9)
            if points is not None:
                own = points[points["arm"] == arm]
                x = own["labels"].to_numpy(float) * aside
                axes.scatter(x, own["value"], s=9, color=colour, alpha=0.55, zorder=3)
        labels = sorted(curves["labels"].unique())
        axes.set_xscale("log")
        axes.set_xlim(labels[0] / _MARGIN, labels[-1] * _MARGIN)
        axes.set_xticks(labels)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.legend()
        return svg(figure)


def patients_figure(values: Mapping[str, Sequence[float] | np.ndarray], y_label: str) -> str:
    """Draw one dot for each patient over a box of quartiles and median, for each name.

    Whiskers reach to the last patient within 1.5 times the box's height.

    Args:
        values: Class or arm -> one value for each patient; NaN is left out.
        y_label: The score, with unit.

    Returns:
        SVG.
    """
    with style():
        figure, axes = panel(max(3.2, 1.4 + 0.75 * len(values)), 3.6)
        axes.grid(False, axis="x")
        names: list[str] = []
        for k, (name, scores) in enumerate(values.items()):
            array = np.asarray(scores, dtype=float)
            array = array[np.isfinite(array)]
            names.append(f"{plain(name)}\nn = {len(array)}")
            if len(array) == 0:
                continue
            axes.boxplot(
                array,
                positions=[k],
                widths=0.5,
                showfliers=False,
                medianprops={"color": INK, "linewidth": 1.4},
                boxprops={"color": INK, "linewidth": 0.7},
                whiskerprops={"color": INK, "linewidth": 0.7},
                capprops={"color": INK, "linewidth": 0.7},
            )
            # Steps of the golden ratio spread neighbours apart, the same way every time.
            spread = (np.arange(len(array)) * 0.618034) % 1.0 - 0.5
            axes.scatter(
                k + 0.34 * spread, array, s=11, color=LINES[0], alpha=0.6, linewidths=0, zorder=3
            )
        long = max((len(name) for name in values), default=0) > 10 and len(values) > 3
        rotation = {"rotation": 30, "ha": "right"} if long else {}
        axes.set_xticks(range(len(names)), names, **rotation)
        axes.set(xlim=(-0.6, len(names) - 0.4), ylabel=y_label)
        return svg(figure)
