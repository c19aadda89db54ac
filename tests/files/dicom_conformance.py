"""Writes the table in ``docs/dicom-conformance.md``: what becomes of pydicom's test files.

    python tests/files/dicom_conformance.py

The text of the document above the table is kept. ``test_dicom_conformance.py`` compares.
"""

from itertools import groupby
from pathlib import Path

import pydicom
import pydicom.data

from vismae.core.errors import UnreadableFileError
from vismae.core.types import KEEPABLE, MedicalImage
from vismae.files.discover import source_file
from vismae.files.read import read_image

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "dicom-conformance.md"
TITLE = "| file | ingested or left out | unit | shape | dtype | flags |"
_FILES = Path(str(pydicom.data.__file__)).parent / "test_files"


def table() -> list[str]:
    """Return one line per file that comes with pydicom; like files of a folder share one."""
    paths = sorted(path for path in _FILES.rglob("*") if path.is_file())
    rows = [(path.relative_to(_FILES), _outcome(path)) for path in paths]
    lines = [TITLE, "|---|---|---|---|---|---|"]
    for (folder, outcome), same in groupby(rows, key=lambda row: (row[0].parent, row[1])):
        names = [path.as_posix() for path, _ in same]
        if len(names) < 5 or folder == Path("."):
            lines += [f"| `{name}` | {outcome} |" for name in names]
        else:
            lines.append(f"| `{folder.as_posix()}/`, {len(names)} files | {outcome} |")
    return lines


def _outcome(path: Path) -> str:
    try:
        return _description(read_image(source_file(path)))
    except UnreadableFileError as error:
        left_out = f"left out: `{error.reason}`"
    try:
        return f"{left_out}; kept: {_description(read_image(source_file(path), keep=KEEPABLE))}"
    except UnreadableFileError as error:
        kept = "" if f"`{error.reason}`" in left_out else f"; kept: `{error.reason}`"
        return f"{left_out}{kept} | | | | "


def _description(images: list[MedicalImage]) -> str:
    [image] = images
    shape = "×".join(map(str, image.pixels.shape))
    flags = ", ".join(sorted(image.details["flags"]))
    return f"{image.modality} | {image.unit} | {shape} | {image.pixels.dtype} | {flags}"


def document() -> str:
    """Return the document with today's table, and the version of pydicom it was made with."""
    text = DOCUMENT.read_text(encoding="utf-8")
    above = text[: text.index("Files of pydicom ")]
    return f"{above}Files of pydicom {pydicom.__version__}:\n\n" + "\n".join([*table(), ""])


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
