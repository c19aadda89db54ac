"""How every figure is drawn: one ink, the project's colours, and SVG as the page takes it.

Axes and letters are drawn in one ink that becomes ``currentColor``, on no background, so a figure
set into an HTML page reads in light and dark alike. Matplotlib is imported where it is needed
(half a second) and used without pyplot, whose figures would outlive their use.
"""

import io
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vismae.evaluation.overlay import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Nobody would choose it, so that replacing it touches nothing else.
INK = "#1b1c1e"
"""Colour of axes and letters, which becomes the page's own."""

LINES = tuple(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in (COLOURS[i] for i in (7, 1, 4, 5, 6, 2)))
"""The entries of the colour table that are dark and light enough for lines on either page."""

_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "svg.hashsalt": "vismae",
}


@contextmanager
def style() -> Generator[None]:
    """Hold matplotlib's settings to ``_STYLE`` while a figure is drawn and written."""
    from matplotlib import rc_context

    with rc_context(_STYLE):
        yield


def panel(width: float = 6.4, height: float = 3.6) -> "tuple[Figure, Axes]":
    """Return an empty figure with one axis; sizes in inches. To be called inside ``style``."""
    figure, (axes,) = panels(1, 1, width, height)
    return figure, axes


def panels(
    count: int, columns: int, width: float = 3.1, height: float = 2.3
) -> "tuple[Figure, list[Axes]]":
    """Return an empty figure of several axes, row by row, each of a size in inches.

    To be called inside ``style``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(columns, count)
    rows = -(-count // columns)
    layout = ConstrainedLayoutEngine(hspace=0.1)
    figure = Figure(figsize=(width * columns, height * rows), layout=layout)
    FigureCanvasAgg(figure)
    drawn = [figure.add_subplot(rows, columns, place + 1) for place in range(count)]
    for axes in drawn:
        axes.grid(True)
        axes.set_axisbelow(True)
    return figure, drawn


def svg(figure: "Figure") -> str:
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
    return text.replace(INK, "currentColor").strip()


def plain(text: str) -> str:
    """Keep matplotlib from reading $ as mathematics and a leading _ as 'no legend'."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
