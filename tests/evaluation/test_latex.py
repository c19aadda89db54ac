"""Tables for papers."""

import pandas as pd

from vismae.evaluation.latex import escape, latex_table
from vismae.evaluation.statistics import Interval


def test_a_table_has_the_numbers_of_the_page_and_every_special_sign_is_escaped() -> None:
    frame = pd.DataFrame(
        {
            "labels_%": ["10 %", "50 %"],
            "score": [Interval(0.5, 0.4, 0.6, 9), Interval(float("nan"), 0, 0, 0)],
            "p": [0.04321, float("nan")],
        }
    )
    text = latex_table(frame, "Dice & more", "tab:dice")
    assert r"labels\_\% & score & p \\" in text
    assert r"10 \% & 0.500 [0.400, 0.600] & 0.043 \\" in text
    assert r"50 \% & -- & -- \\" in text
    assert r"\caption{Dice \& more}\label{tab:dice}" in text
    assert text.count(r"\begin") == text.count(r"\end") == 2


def test_a_bracket_at_the_start_of_a_row_is_no_length_of_the_rule_before_it() -> None:
    frame = pd.DataFrame({"class": ["[B] nodule", "*other", "plain"], "n": [1, 2, 3]})
    text = latex_table(frame, "Classes", "tab:classes")
    assert "\\midrule\n{}[B] nodule & 1 \\\\\n{}*other & 2 \\\\\nplain & 3" in text


def test_a_backslash_is_escaped_once() -> None:
    assert escape(r"a\b_{c}") == r"a\textbackslash{}b\_\{c\}"


def test_signs_that_the_font_shows_as_other_letters_are_set_as_mathematics() -> None:
    assert escape("grade <3|≥ 3 × 2>1") == r"grade $<$3\textbar{}$\geq$ 3 $\times$ 2$>$1"
