"""PNG and TIFF of 16-bit colours, through SimpleITK: Pillow decodes their upper 8 bits only."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vismae.core.errors import UnreadableFileError
from vismae.files.discover import SourceFile
from vismae.files.itk import simple_itk
from vismae.files.reasons import Reason

_READERS = {"PNG": "PNGImageIO", "TIFF": "TIFFImageIO"}


def read_deep_pages(
    file: SourceFile, format_name: str, upper: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Return the pages of a file with all their bits.

    Args:
        file: The image.
        format_name: ``PNG`` or ``TIFF``.
        upper: The upper 8 bits of each page as another decoder has them, (H, W) or (H, W, 3): what
            is read here must agree, or one of the two has turned or converted something.

    Returns:
        uint16, of the shapes of ``upper``.

    Raises:
        UnreadableFileError: ``needs-extra`` without SimpleITK; ``unsupported-pixels`` where it does
            not read the file, or reads it otherwise.
    """
    sitk = simple_itk(file.name, "PNG and TIFF files of 16-bit colours")
    reader = sitk.ImageFileReader()
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = file.path
            if file.member is not None:
                path = Path(folder) / f"image.{format_name.lower()}"
                path.write_bytes(file.read_bytes())
            reader.SetImageIO(_READERS[format_name])
            reader.SetFileName(str(path))
            values = sitk.GetArrayFromImage(reader.Execute())
    except (KeyError, RuntimeError) as error:
        raise _unsupported(file.name) from error
    values = values[None] if values.ndim == 3 else values  # of several pages it has four axes
    if values.dtype != np.uint16 or values.ndim != 4 or len(values) != len(upper):
        raise _unsupported(file.name)
    pages = [
        page[..., 0] if eight.ndim == 2 else page[..., :3]
        for page, eight in zip(values, upper, strict=True)
    ]
    if not all(np.array_equal(page >> 8, eight) for page, eight in zip(pages, upper, strict=True)):
        raise _unsupported(file.name)
    return pages


def _unsupported(name: str) -> UnreadableFileError:
    return UnreadableFileError(
        Reason.UNSUPPORTED_PIXELS,
        f"{name}: colours of 16 bits, of which only the upper 8 bits can be read. Save it as PNG "
        "of 16-bit RGB, or as 8-bit colours if that is enough.",
    )
