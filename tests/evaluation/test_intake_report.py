"""The page of an ingest: its numbers are the account's, it needs no network, it reads aloud."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from vismae.core.counting import Histogram, Tally
from vismae.core.intake_account import (
    SIDE_BINS_PX,
    SPACING_BINS_MM,
    IntakeAccount,
    ModalityAccount,
    Repeats,
)
from vismae.core.types import Modality
from vismae.evaluation.intake_report import SheetImage, account_lines, intake_report
from vismae.evaluation.intake_words import FLAG_MEANINGS, warnings_of

SQUARE = 11 * (SIDE_BINS_PX.count + 2) + 11
ONE_MM = int(SPACING_BINS_MM.positions(1.0))
CT = ModalityAccount(
    images=12_345,
    volumes=100,
    patients=60,
    grouping={"patient": 12_345},
    sides=Histogram({SQUARE: 12_345}),
    sizes=Tally.of({f"{500 + k}×512": 1000 + k for k in range(12)}, 256, further=279),
    spacing_in_plane_mm=Histogram({ONE_MM: 12_000}, unknown=345),
    spacing_slices_mm=Histogram({ONE_MM: 1000, ONE_MM + 5: 11_000}, unknown=345),
    dtypes={"int16": 12_000, "uint16": 345},
    channels={"1": 12_345},
    units={"hu": 12_345},
    flags={"lossy": 7, "missing-slices": 900},
    intensities={"hu": Histogram({4: 500, 44: 700})},
)
US = ModalityAccount(
    images=40,
    patients=3,
    grouping={"patient": 40},
    sides=Histogram({SQUARE: 40}),
    sizes=Tally.of({"480×640": 40}, 256),
    spacing_in_plane_mm=Histogram({}, unknown=40),
    spacing_slices_mm=Histogram({}, unknown=40),
    dtypes={"uint8": 40},
    channels={"1": 30, "3": 10},
    units={"display": 40},
    flags={"lossy": 1},
    intensities={"grey": Histogram({1: 800})},
)
ACCOUNT = IntakeAccount(
    files=2000,
    bytes_read=7_300_000_000,
    bytes_stored=4_100_000_000,
    seconds=7500.0,
    patients=61,
    left_out={"truncated": 3, "localizer": 150},
    modalities={Modality.CT: CT, Modality.US: US},
    labels=Tally.of(
        {"<script>alert(1)</script>": 20, **{f"c{k:03}": 30 for k in range(120)}}, 1000
    ),
    label_map_images=Tally.of({"1": 90, "2": 30}, 1000),
    label_map_pixels=Tally.of({"1": 75_000, "2": 25_000}, 1000),
    exact=Repeats(14, 2, {"train and test": 5}),
    near=Repeats(33, 0, {"train and test": 1, "train and val": 3}),
)
MEANINGS = {"truncated": "The file ends early.", "localizer": "A scout view.", "video": "A film."}


class Page(HTMLParser):
    """Tables as texts (header row first), pictures with what is read out, links, plain words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.headers: list[dict[str, str | None]] = []
        self.read_out: list[str] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.loads += [
            value or ""
            for name, value in attrs
            if name.split(":")[-1] in ("href", "src", "srcset", "data", "action", "poster")
        ]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
            self._cell = True
            self.headers += [found] if tag == "th" else []
        elif tag == "img" or found.get("role") == "img":
            self.read_out.append(found.get("alt") or found.get("aria-label") or "")

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())
        if self._cell:
            self.tables[-1][-1][-1] += data

    def table(self, first: str) -> dict[str, dict[str, str]]:
        """Return the table whose first column has a name: first cell -> column -> cell."""
        (found,) = (table for table in self.tables if table[0][0] == first)
        header = found[0]
        return {row[0]: dict(zip(header, row, strict=True)) for row in found[1:]}


def sheets() -> dict[Modality, list[SheetImage]]:
    rng = np.random.default_rng(0)
    return {
        Modality.CT: [SheetImage(rng.random((30, 40)), f"slice {k} × 2") for k in range(8)],
        Modality.US: [SheetImage(rng.integers(0, 255, (20, 30, 3)).astype(np.uint8))],
        Modality.MR: [],
    }


@pytest.fixture(scope="module")
def html() -> str:
    return intake_report(ACCOUNT, MEANINGS, sheets(), {1: "left lung"})


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def number(cell: str) -> int:
    return int(cell.replace("\u202f", ""))


def test_the_page_loads_nothing_from_anywhere(html: str, page: Page) -> None:
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.loads)
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", html))


def test_tables_have_headers_and_figures_are_read_out(page: Page) -> None:
    assert len(page.tables) == 8
    assert all(table[0] and all(table[0]) for table in page.tables)
    assert all(header["scope"] == "col" for header in page.headers)
    assert len(page.read_out) == 5
    assert "Contact sheet of 8 CT images." in page.read_out
    assert any("CT: mostly 511×512 pixels." in text for text in page.read_out)
    assert any("CT: pixels 1 mm, slices 1 to 3.2 mm." in text for text in page.read_out)


def test_the_overview_agrees_with_the_account(page: Page) -> None:
    overview = overview_of(page)
    for name, part in (("CT", CT), ("Ultrasound", US)):
        assert number(overview[name]["images"]) == part.images
        assert number(overview[name]["patients"]) == part.patients
    assert overview["Ultrasound"]["volumes"] == "–"
    assert overview["Ultrasound"]["channels"] == "grey (30), colour (10)"
    assert overview["CT"]["stored as"] == "int16 (12\u202f000), uint16 (345)"
    assert list(overview) == ["CT", "Ultrasound"]


def overview_of(page: Page) -> dict[str, dict[str, str]]:
    header, *rows = page.tables[0]
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def test_every_reason_has_its_files_and_its_meaning(page: Page) -> None:
    table = page.table("reason")
    assert {reason: number(row["files"]) for reason, row in table.items()} == ACCOUNT.left_out
    assert list(table) == ["localizer", "truncated"]
    assert table["localizer"]["meaning"] == "A scout view."
    assert table["localizer"]["of all files"] == "7.5 %"


def test_flags_duplicates_and_label_maps_agree_with_the_account(page: Page) -> None:
    flags = page.table("flag")
    assert {flag: (row["CT"], row["Ultrasound"]) for flag, row in flags.items()} == {
        "missing-slices": ("900", "0"),
        "lossy": ("7", "1"),
    }
    assert flags["lossy"]["meaning"] in FLAG_MEANINGS.values()
    duplicates = page.table("alike in")
    assert list(duplicates["equal pixels"].values())[1:] == ["14", "2", "5"]
    assert list(duplicates["nearly equal pictures"].values())[1:] == ["33", "0", "4"]
    label_maps = page.table("value")
    assert list(label_maps["1"].values()) == ["1", "left lung", "90", "75\u202f000", "75 %"]
    assert label_maps["2"]["class"] == "–"


def test_a_hundred_classes_are_shown_and_the_rest_is_counted(page: Page) -> None:
    table = page.table("class")
    assert len(table) == 101
    assert sum(number(row["images"]) for row in table.values()) == ACCOUNT.labels.total
    assert number(table["further classes"]["images"]) == 20 * 30 + 20


def test_the_commonest_sizes_are_shown_and_the_rest_is_counted(page: Page) -> None:
    (table,) = (t for t in page.tables if "height × width" in " ".join(t[0]))
    words = table[1][1]
    shown = [number(count) for count in re.findall(r"\((\S+)\)", words)]
    assert len(shown) == 11
    assert sum(shown) == CT.images
    assert words.startswith("511×512\u00a0(1011), 510×512")
    assert table[2] == ["Ultrasound", "480×640\u00a0(40)"]


def test_spacing_is_given_where_it_is_known(page: Page) -> None:
    (table,) = (t for t in page.tables if "pixels, mm" in t[0])
    assert table[1] == ["CT", "1", "345", "1 to 3.2", "345"]
    assert table[2] == ["Ultrasound", "–", "40", "–", "40"]


def test_the_top_holds_the_great_numbers_and_every_warning(page: Page) -> None:
    for text in ("12\u202f385", "61", "153", "7.3 GB", "4.1 GB", "2 h 5 min"):
        assert text in page.words
    assert len(warnings_of(ACCOUNT)) == 6
    assert all(warning in page.words for warning in warnings_of(ACCOUNT))


def test_a_class_named_like_a_script_is_shown_and_not_run(html: str) -> None:
    shown = replace(ACCOUNT, labels=Tally.of({"<script>alert(1)</script>": 20}, 1000))
    page = Page(intake_report(shown, MEANINGS))
    assert "<script>alert(1)</script>" in page.table("class")
    assert "script" not in page.tags
    assert "<script" not in html


def test_an_account_of_nothing_is_a_page_too() -> None:
    page = Page(intake_report(IntakeAccount(files=3, left_out={"video": 3}), MEANINGS))
    assert "No image came in." in page.words
    assert [table[1][0] for table in page.tables] == ["video"]


def test_images_without_spacing_range_flags_or_labels_are_no_obstacle() -> None:
    blank = replace(US, flags={}, intensities={"range": Histogram({}, unknown=40)})
    page = Page(intake_report(IntakeAccount(modalities={Modality.US: blank}), {}))
    text = " ".join(page.words)
    assert "Nothing out of the ordinary was noticed." in text
    assert "Duplicates were not looked for." in text
    assert "No pixel holds a value" in text
    assert page.read_out == ["Height against width. Ultrasound: mostly 480×640 pixels."]


def test_the_lines_for_a_terminal_hold_the_same_numbers() -> None:
    lines = account_lines(ACCOUNT)
    assert lines[0] == (
        "12\u202f385 images of 2 modalities from 1847 files; 153 further files left out."
    )
    assert lines[1] == (
        "CT: 12\u202f345 images, 100 volumes, 60 patients; mostly 511×512, 510×512; HU"
    )
    assert lines[2] == "Ultrasound: 40 images, 3 patients; mostly 480×640; grey levels"
    assert lines[3] == "left out: localizer 150, truncated 3"
    assert lines[4] == "noticed: missing-slices 900, lossy 8"
    assert "equal to another: 14 images" in lines
    assert lines[-len(warnings_of(ACCOUNT)) :] == [f"Note: {w}" for w in warnings_of(ACCOUNT)]
    assert account_lines(IntakeAccount())[0] == "0 images of 0 modalities."
