"""Label maps that came without their image, which are no images to learn from.

Layouts in which both lie are paired before (``data.pairing``). What is left is told by its header
(NIfTI has an intent for it), or by its name together with what it holds: a name alone may be
anything, and so may a picture of few grey levels.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from vismae.core.errors import UnreadableFileError
from vismae.core.types import MedicalImage
from vismae.data.pairing_names import named_as_label_map
from vismae.files.reasons import Reason
from vismae.workflows.intake.work import Entry

# No set of structures that people draw has so many; hardly an image has so few grey levels.
_MOST_CLASSES = 64


def require_no_lone_label_map(images: Sequence[MedicalImage], entry: Entry) -> None:
    """Refuse what is a label map; a table that gives it a label or a label map makes it an image.

    Args:
        images: That one file holds.
        entry: The file, and what its table says of it.

    Raises:
        UnreadableFileError: ``label-without-image``.
    """
    if entry.row.label_map is not None or entry.row.label is not None:
        return
    if all(image.details.get("label_intent") for image in images):
        how = "by the intent in its header"
    else:
        place = PurePosixPath(entry.file.member or entry.file.path.as_posix())
        if not (named_as_label_map(place) and _holds_class_numbers(images)):
            return
        how = "by its name and its few whole numbers"
    raise UnreadableFileError(
        Reason.LABEL_WITHOUT_IMAGE,
        f"{entry.file.name}: a label map {how}, but no image is known that it belongs to. Give "
        "both in one folder with names that belong together (X and X_seg), or in a manifest with "
        "the columns path (of a DICOM series its folder) and label_map.",
    )


def _holds_class_numbers(images: Sequence[MedicalImage]) -> bool:
    numbers: set[float] = set()
    for image in images:
        if image.pixels.ndim != 3:
            return False
        for pixels in image.pixels:
            values = np.unique(pixels) * image.slope + image.intercept
            numbers.update(values.tolist())
            if len(numbers) > _MOST_CLASSES or (values != np.rint(values)).any():
                return False
    return True
