"""A report's table as LaTeX (booktabs), with the same numbers as on the page."""

from collections.abc import Iterable, Mapping

import pandas as pd

from vismae.evaluation.report import format_cell

_SPECIAL = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    # In the font that LaTeX begins with, these three stand for other letters.
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "×": r"$\times$",
    "−": r"$-$",
    "\u202f": r"\,",
}


def latex_table(
    frame: pd.DataFrame, caption: str, label: str, digits: int | Mapping[str, int] = 3
) -> str:
    """Return a table environment for a paper that loads ``booktabs``.

    Args:
        frame: Its index is left out; an ``Interval`` reads ``mean [low, high]``.
        caption: What it shows.
        label: To refer to it by.
        digits: Decimals, for all columns or by column.
    """
    columns = [frame.iloc[:, k].astype(object).tolist() for k in range(frame.shape[1])]
    names = [str(name) for name in frame.columns]
    places = [digits if isinstance(digits, int) else digits.get(name, 3) for name in names]
    shown = [
        [escape(format_cell(value, place)) for value in column]
        for column, place in zip(columns, places, strict=True)
    ]
    lines = [
        r"\begin{table}",
        rf"\caption{{{escape(caption)}}}\label{{{label}}}",
        rf"\begin{{tabular}}{{{'l' * len(names)}}}",
        r"\toprule",
        _row(map(escape, names)),
        r"\midrule",
        *(_row(row) for row in zip(*shown, strict=True)),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    line = " & ".join(cells)
    # After \\ and \midrule, [ begins the length of a gap and * forbids a page break.
    return ("{}" if line.startswith(("[", "*")) else "") + line + r" \\"


def escape(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)
