"""Concatenations: one multi-frame image that was divided into several instances.

Writers divide what is too long for one file. All parts bear one ConcatenationUID, and each says
which of the frames it holds. Standard: PS3.3 C.7.6.16.1.1 and C.7.6.16.2.2.4.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.pixels.utils import get_nr_frames

from vismae.files.dicom_numbers import whole_number
from vismae.files.dicom_text import writable

_STORAGE = "1.2.840.10008.5.1.4.1.1."
DIVISIBLE_CLASSES = frozenset(
    _STORAGE + branch
    for branch in (
        *("2.1", "2.2", "4.1", "4.3", "4.4", "6.2", "128.1", "130", "12.1.1", "12.2.1"),
        *("13.1.1", "13.1.2", "13.1.3", "13.1.4", "13.1.5", "14.1", "14.2", "7.2", "7.3", "7.4"),
        *("77.1.5.4", "77.1.6", "77.1.5.7", "77.1.5.8"),
    )
)
"""SOP classes of images with functional groups, which alone may be divided."""


@dataclass(frozen=True)
class Part:
    """What a file says of its place in a concatenation.

    Attributes:
        uid: ConcatenationUID.
        number: InConcatenationNumber, from 1.
        total: InConcatenationTotalNumber, 0 where the writer did not know it.
        offset: ConcatenationFrameOffsetNumber: frames of the whole image before this part.
        frames: In this part.
    """

    uid: str
    number: int
    total: int
    offset: int
    frames: int


def part_of(dataset: Dataset) -> Part | None:
    """Return a file's place in its concatenation, or None for one that is whole."""
    uid = concatenation_uid(dataset)
    if not uid:
        return None
    return Part(
        uid,
        whole_number(dataset, "InConcatenationNumber"),
        whole_number(dataset, "InConcatenationTotalNumber"),
        whole_number(dataset, "ConcatenationFrameOffsetNumber"),
        get_nr_frames(dataset, warn=False),
    )


def concatenation_uid(dataset: Dataset) -> str:
    """Return ConcatenationUID, empty for an image that is whole."""
    return writable(str(dataset.get("ConcatenationUID") or "").strip())


def lacking_parts(parts: Iterable[Part]) -> frozenset[str]:
    """Return the concatenations of which parts are missing.

    Those at the end are missed only where a part says how many there are.
    """
    found: defaultdict[str, set[Part]] = defaultdict(set)
    for part in parts:
        found[part.uid].add(part)
    return frozenset(uid for uid, own in found.items() if not _is_whole(own))


def _is_whole(parts: set[Part]) -> bool:
    behind = 0
    for part in sorted(parts, key=lambda part: part.offset):
        if part.offset > behind:
            return False
        behind = max(behind, part.offset + part.frames)
    wanted = range(1, max(part.total for part in parts) + 1)
    return {part.number for part in parts}.issuperset(wanted)
