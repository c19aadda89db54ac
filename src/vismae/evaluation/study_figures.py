"""Ranks of a study's starts as a figure; ``drawing`` says how it looks."""

import numpy as np
import pandas as pd

from vismae.evaluation.drawing import INK, LINES, panel, plain, style, svg
from vismae.evaluation.ranking import Ranking


def ranking_figure(stability: pd.DataFrame, ranking: Ranking) -> str:
    """Draw mean ranks, their intervals, and bars over starts within the critical difference.

    Args:
        stability: As from ``ranking_stability``.
        ranking: Of the same starts over the tasks.

    Returns:
        SVG; the best start on top.
    """
    names = stability["start"].tolist()
    with style():
        figure, axes = panel(6.4, 1.1 + 0.42 * len(names) + 0.16 * len(ranking.groups))
        place = np.arange(len(names))
        axes.hlines(place, stability["low"], stability["high"], color=LINES[0], linewidth=1.2)
        axes.scatter(stability["mean_rank"], place, s=30, color=LINES[0], zorder=3)
        rank_of = dict(zip(ranking.starts, ranking.mean_rank, strict=True))
        for number, group in enumerate(ranking.groups):
            ranks = [rank_of[name] for name in group]
            below = len(names) - 0.35 + 0.35 * number
            axes.hlines(below, min(ranks) - 0.03, max(ranks) + 0.03, color=INK, linewidth=3.0)
        axes.set_yticks(place, [plain(name) for name in names])
        axes.set(
            xlim=(0.8, len(names) + 0.2),
            ylim=(len(names) - 0.4 + 0.35 * len(ranking.groups), -0.6),
            xlabel="mean rank over tasks (1 is best)",
        )
        axes.set_xticks(range(1, len(names) + 1))
        axes.grid(False, axis="y")
        return svg(figure)
