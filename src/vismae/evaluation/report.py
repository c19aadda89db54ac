"""One self-contained HTML file from text, tables, figures and settings.

No script, no font and no picture is fetched from anywhere: the file can be mailed, archived and
opened in a hospital without a network. All text is escaped; only figures made by
``evaluation/figures.py`` and its like enter as markup.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vismae.core.errors import DataError
from vismae.core.rundir import write_text
from vismae.evaluation.overlay import png_bytes
from vismae.evaluation.statistics import Interval

_LONG_NUMBER = 10_000
_PNG_START = b"\x89PNG\r\n\x1a\n"
# What could run or fetch something from inside an SVG; matplotlib writes none of it.
_ACTIVE_SVG = re.compile(
    r"<script|<foreignobject|<image|@import|url\((?!#)|\son\w+\s*=|href\s*=\s*[\"'](?!#)", re.I
)


class Report:
    """Collects blocks in reading order and writes them as one page.

    Args:
        title: At the top, and the name of the page.
        subtitle: One line below it.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._facts: list[tuple[str, str]] = []
        self._warnings: list[str] = []
        self._sections: list[str] = []
        self._blocks: list[dict[str, Any]] = []

    def fact(self, name: str, value: str) -> None:
        """Put one short value, such as a count, into the line of large numbers at the top."""
        self._facts.append((name, value))

    def warn(self, text: str) -> None:
        """Put a sentence into a box at the very top, before any result."""
        self._warnings.append(text)

    def section(self, title: str) -> None:
        """Begin a section; two or more get a table of contents."""
        self._sections.append(title)
        self._blocks.append({"kind": "section", "title": title, "number": len(self._sections)})

    def text(self, text: str) -> None:
        """Add plain text; an empty line begins a new paragraph."""
        for paragraph in filter(None, re.split(r"\n\s*\n", text.strip())):
            self._blocks.append({"kind": "text", "text": " ".join(paragraph.split())})

    def table(
        self,
        rows: pd.DataFrame | Sequence[Mapping[str, Any]],
        caption: str,
        digits: int | Mapping[str, int] = 3,
    ) -> None:
        """Add a table.

        Numbers are aligned right; an ``Interval`` reads ``mean [low, high]``; what is undefined is
        a dash.

        Args:
            rows: A frame (its index is left out), or one mapping of column to value for each row.
            caption: What it shows, with the unit of averaging and n.
            digits: Decimals of numbers, for all columns or by column.
        """
        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
        values = [frame.iloc[:, k].astype(object).tolist() for k in range(frame.shape[1])]
        names = [str(name) for name in frame.columns]
        decimals = [digits if isinstance(digits, int) else digits.get(n, 3) for n in names]
        shown = [
            [format_cell(value, places) for value in column]
            for column, places in zip(values, decimals, strict=True)
        ]
        self._blocks.append(
            {
                "kind": "table",
                "number": self._count("table"),
                "columns": [
                    {"name": name, "numeric": _is_numeric(column)}
                    for name, column in zip(names, values, strict=True)
                ],
                "rows": list(zip(*shown, strict=True)),
                "caption": caption,
            }
        )

    def figure(
        self, figure: str | bytes | np.ndarray, caption: str, alternative: str | None = None
    ) -> None:
        """Add a figure.

        Args:
            figure: SVG text from ``evaluation/figures.py`` and its like, the content of a PNG
                file, or a uint8 picture.
            caption: What it shows.
            alternative: Read out in place of the figure; the caption when unset.

        Raises:
            DataError: It is none of these, or the SVG holds scripts or references to elsewhere.
        """
        block: dict[str, Any] = {
            "kind": "figure",
            "number": self._count("figure"),
            "caption": caption,
            "alternative": alternative or caption,
            "svg": None,
            "png": None,
        }
        if isinstance(figure, str):
            block["svg"] = _checked_svg(figure)
        else:
            content = png_bytes(figure) if isinstance(figure, np.ndarray) else figure
            if not content.startswith(_PNG_START):
                raise DataError("A figure's bytes are not a PNG file; give PNG, SVG or an array.")
            block["png"] = base64.b64encode(content).decode("ascii")
        self._blocks.append(block)

    def code(self, text: str, title: str, collapsed: bool = True) -> None:
        """Add settings or other literal text under a title that opens on a click."""
        self._blocks.append(
            {"kind": "code", "text": text.rstrip(), "title": title, "open": not collapsed}
        )

    def html(self) -> str:
        """Return the page."""
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup

        environment = Environment(autoescape=True, undefined=StrictUndefined)
        source = resources.files("vismae.evaluation").joinpath("report.html.j2")
        blocks = [
            {**block, "svg": Markup(block["svg"])} if block.get("svg") else block
            for block in self._blocks
        ]
        return environment.from_string(source.read_text(encoding="utf-8")).render(
            title=self.title,
            subtitle=self.subtitle,
            facts=self._facts,
            warnings=self._warnings,
            sections=self._sections,
            blocks=blocks,
        )

    def write(self, path: Path) -> None:
        """Write the page; readers see the old file or the new one, never a half."""
        write_text(path, self.html())

    def _count(self, kind: str) -> int:
        return 1 + sum(block["kind"] == kind for block in self._blocks)


def _checked_svg(text: str) -> str:
    svg = text.strip()
    if not svg.startswith("<svg") or not svg.endswith("</svg>"):
        raise DataError(
            f"A figure's text begins with '{svg[:20]}'; one whole <svg> element is needed."
        )
    if found := _ACTIVE_SVG.search(svg):
        raise DataError(
            f"A figure's SVG holds '{found.group().strip()}', which could run or fetch something "
            "when the report is opened. Give it as PNG instead."
        )
    return svg


def _is_numeric(values: Sequence[Any]) -> bool:
    """Tell whether a column is to be aligned as numbers: some are, and nothing is a word."""
    numbers = [isinstance(v, int | float | np.number | Interval) for v in values if not _missing(v)]
    return bool(numbers) and all(numbers)


def _missing(value: Any) -> bool:
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    return value is None or value is pd.NA


def format_cell(value: Any, digits: int = 3) -> str:
    """Return a value as a table shows it: decimals, ``mean [low, high]``, a dash for nothing."""
    if _missing(value):
        return "–"
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return whole_number(int(value))
    if isinstance(value, Interval):
        return value.text(digits)
    if isinstance(value, float | np.floating):
        text = f"{value:.{digits}f}"
        # A p-value or a loss below the last decimal must not read as zero.
        return f"{value:.1e}" if value != 0 and float(text) == 0 else text
    return str(value)


def whole_number(value: int) -> str:
    """Return a number with a narrow space between thousands, those of four digits without."""
    return str(value) if abs(value) < _LONG_NUMBER else f"{value:,}".replace(",", "\u202f")
