"""The conformance document says what really happens."""

import importlib.util

import pydicom
import pytest
from dicom_conformance import DOCUMENT, document

from vismae.files.reasons import REASONS


def test_the_table_is_what_reading_gives() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    if f"Files of pydicom {pydicom.__version__}:" not in text:
        pytest.skip("the table was made with the files of another version of pydicom")
    if importlib.util.find_spec("imagecodecs") is not None:
        pytest.skip("the table is that of an installation without imagecodecs")

    assert text == document(), "run: python tests/files/dicom_conformance.py"


def test_every_reason_in_the_document_exists() -> None:
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    left_out = [
        line.split("left out: `")[1].split("`")[0] for line in lines if "left out: `" in line
    ]

    assert left_out
    assert set(left_out) <= set(REASONS)
