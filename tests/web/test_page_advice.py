"""What the page and REST say about a file can be followed there: no options of commands."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from factories import PET_TAGS, write_dicom_slice, write_png
from models_on_disk import write_classifier, write_segmenter
from vismae.core.advice import advice, on_page
from vismae.core.errors import UnreadableFileError
from vismae.core.types import Modality
from vismae.files.discover import source_file
from vismae.files.read import read_image
from vismae.inference.dicom_source import source_header
from vismae.web.child import do
from vismae.web.work import Served, UploadTask

PIXELS = np.random.default_rng(0).integers(0, 900, (24, 20)).astype(np.uint16)
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def view(folder: Path, write: Any, model: Path | None = None, **tags: Any) -> dict[str, Any]:
    """Send a file to the page, and return what it shows."""
    (folder / "upload").mkdir(parents=True)
    name = "a.dcm" if write is write_dicom_slice else "a.png"
    write(folder / "upload" / name, PIXELS, **tags)
    models = () if model is None else (("model", model),)
    served = Served(models, "cpu", 2, 1, False, ())
    wanted = tuple(range(len(models)))
    return do(UploadTask("view", served, folder, name, None, 2**24, wanted), lambda _: None)


def test_the_words_are_those_of_the_door() -> None:
    assert advice("--this", "that") == "--this"
    with on_page():
        assert advice("--this", "that") == "that"
    assert advice("--this", "that") == "--this"


@pytest.mark.parametrize(
    ("tags", "reason", "cure"),
    [
        ({"SOPClassUID": SECONDARY_CAPTURE}, "secondary-capture", "not taken here"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer", "not taken here"),
        ({"RescaleSlope": None}, "no-rescale", r"Choose 'xr' under Read as \(field modality\)"),
        ({**PET_TAGS, "PatientWeight": None}, "no-suv", r"choose 'other' under Read as"),
    ],
)
def test_a_refusal_of_a_file_can_be_followed_on_the_page(
    tags: dict[str, Any],
    reason: str,
    cure: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # the child changes it
    with pytest.raises(UnreadableFileError, match=cure) as caught:
        view(tmp_path / "page", write_dicom_slice, **tags)
    assert caught.value.reason == reason
    assert not re.search(r"--[a-z]|keep", str(caught.value))
    with pytest.raises(UnreadableFileError, match=r"--modality|keep: ") as caught:
        read_image(source_file(tmp_path / "page" / "upload" / "a.dcm"))
    assert caught.value.reason == reason


def test_a_model_s_refusal_and_a_missing_file_name_no_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ct_only = write_classifier(tmp_path / "ct", modalities=(Modality.CT,))
    [answer] = view(tmp_path / "a", write_png, ct_only)["answers"]
    [note] = answer["notes"]
    assert "say which (Read as; field modality)" in note
    assert "--" not in note
    segmenter = write_segmenter(tmp_path / "any")
    [answer] = view(tmp_path / "b", write_dicom_slice, segmenter, StudyInstanceUID=None)["answers"]
    assert answer["layers"]
    [note] = answer["notes"]
    assert "All but this file is there" in note
    assert "--format" not in note
    with pytest.raises(ValueError, match="Take --format nifti or png"):
        source_header(source_file(tmp_path / "b" / "upload" / "a.dcm"))
