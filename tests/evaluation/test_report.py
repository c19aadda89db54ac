"""The report: self-contained, escaped, readable numbers."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vismae.core.errors import DataError
from vismae.evaluation.figures import training_curves
from vismae.evaluation.overlay import png_bytes
from vismae.evaluation.report import Report, format_cell
from vismae.evaluation.statistics import Interval

VOID = {"meta", "img", "br", "link", "hr", "input"}
EVIL = "<script>alert('x')</script>"


class Page(HTMLParser):
    """Collects tags and texts, and fails on tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
        for name, value in attrs:
            if name.split(":")[-1] in ("href", "src") and value:
                self.links.append(value)
            if name == "id" and value:
                self.ids.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def whole_report(name: str = "liver") -> Report:
    report = Report(f"Scores of {name}", subtitle=name)
    report.warn(f"{name} was in the training data.")
    report.section(f"Overlap of {name}")
    report.text(f"First about {name}.\n\nSecond\nparagraph.")
    report.table([{"class": name, "Dice": Interval(0.8, 0.7, 0.9, 12), "n": 12}], f"Of {name}.")
    report.figure(training_curves({name: ([0, 1], [1, 0])}, "loss"), f"Curve of {name}.")
    report.section("Settings")
    report.figure(np.zeros((4, 4, 3), np.uint8), f"Picture of {name}.")
    report.figure(png_bytes(np.zeros((4, 4), np.uint8)), "The same from bytes.")
    report.code(f"classes: [{name}]", f"config of {name}")
    return report


def test_a_class_named_like_a_script_is_shown_and_not_run() -> None:
    html = whole_report(EVIL).html()
    page = Page(html)
    assert "script" not in page.tags
    assert EVIL not in html
    assert sum(EVIL in words for words in page.words) >= 9


def test_the_page_is_well_formed_and_fetches_nothing() -> None:
    html = whole_report().html()
    page = Page(html)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", html))
    assert "link" not in page.tags


def test_contents_lead_to_every_section() -> None:
    page = Page(whole_report().html())
    assert [link for link in page.links if link.startswith("#section")] == [
        "#section-1",
        "#section-2",
    ]
    assert {"section-1", "section-2"} <= set(page.ids)
    single = Report("One")
    single.section("Only")
    assert "nav" not in Page(single.html()).tags


def test_blocks_keep_their_order_and_are_numbered() -> None:
    text = " ".join(" ".join(Page(whole_report().html()).words).split())
    places = [
        text.index(words)
        for words in (
            "liver was in the training data.",
            "First about liver.",
            "Second paragraph.",
            "Table 1.",
            "Figure 1.",
            "Figure 2.",
            "Figure 3.",
            "classes: [liver]",
        )
    ]
    assert places == sorted(places)


def test_numbers_stand_right_and_intervals_read_mean_low_high() -> None:
    report = Report("T")
    frame = pd.DataFrame(
        {
            "class": ["a", "b"],
            "Dice": [Interval(0.81234, 0.7, 0.9, 5), None],
            "p": [0.0004, float("nan")],
            "n": pd.array([5, None], dtype="Int64"),
        }
    )
    report.table(frame, "C", digits={"p": 2})
    html = report.html()
    cells = re.findall(r"<td( class=\"numeric\")?>(.*?)</td>", html)
    assert [text for _, text in cells] == [
        "a",
        "0.812 [0.700, 0.900]",
        "4.0e-04",
        "5",
        "b",
        "–",
        "–",
        "–",
    ]
    assert [bool(numeric) for numeric, _ in cells[:4]] == [False, True, True, True]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (0.5, "0.500"),
        (np.float32(0.25), "0.250"),
        (0.0, "0.000"),
        (-0.00001, "-1.0e-05"),
        (7, "7"),
        (np.int64(7), "7"),
        (pd.NA, "–"),
        (None, "–"),
        (np.float64("nan"), "–"),
        (True, "True"),
        ("word", "word"),
    ],
)
def test_a_cell_is_formatted_by_what_it_holds(cell: object, text: str) -> None:
    assert format_cell(cell) == text


def test_the_settings_are_folded_away_unless_wanted_open() -> None:
    report = Report("T")
    report.code("a: 1", "folded")
    report.code("b: 2", "unfolded", collapsed=False)
    assert re.findall(r"<details( open)?>", report.html()) == ["", " open"]


@pytest.mark.parametrize(
    "svg",
    [
        "<svg><script>alert(1)</script></svg>",
        '<svg onload="x()"></svg>',
        '<svg><use href="https://example.org/a.svg#b"/></svg>',
        '<svg><image xlink:href="x.png"/></svg>',
        "<svg><style>@import 'x'</style></svg>",
        "<p>no figure</p>",
        "<svg></svg><p>",
    ],
)
def test_an_svg_that_could_run_or_fetch_something_is_refused(svg: str) -> None:
    with pytest.raises(DataError, match="figure's"):
        Report("T").figure(svg, "c")


def test_bytes_that_are_no_png_are_refused() -> None:
    with pytest.raises(DataError, match="not a PNG"):
        Report("T").figure(b"GIF89a", "c")


def test_an_empty_table_keeps_its_header() -> None:
    report = Report("T")
    report.table(pd.DataFrame(columns=pd.Index(["class", "Dice"])), "Nothing yet.")
    assert '<th scope="col">Dice</th>' in report.html()


def test_the_written_file_is_the_page_and_leaves_no_other_file(tmp_path: Path) -> None:
    report = whole_report()
    report.write(tmp_path / "report" / "index.html")
    assert (tmp_path / "report" / "index.html").read_text(encoding="utf-8") == report.html()
    assert [p.name for p in (tmp_path / "report").iterdir()] == ["index.html"]
