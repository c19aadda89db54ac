"""What is read in one go, and what is left out: the words of intake."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from vismae.core.executor import Lost
from vismae.data.manifest import ManifestRow
from vismae.files.discover import RejectedFile, SourceFile
from vismae.files.reasons import REASONS


class Begin(Protocol):
    """Told what is begun, so that a limit on its time begins anew and a culprit is known."""

    def __call__(self, entry: int | None, label_map: bool = False) -> None:
        """Begin a file.

        Args:
            entry: Its number; None where all files of an item are worked on.
            label_map: It is the label map that the table gives to that entry.
        """
        ...


MOST_CULPRITS = 3
"""Files of one work item that are left out alone because they took their readers down.

With more of them the whole item is left out: each costs a reading of those before it, and what is
too large for the memory as a whole has no single culprit.
"""


class IntakeReason(StrEnum):
    """Reason codes of ``rejected.csv`` that arise only where files are put together.

    Those of single files are in ``files.reasons``.
    """

    LABEL_SHAPE = "label-shape"
    LABEL_VALUES = "label-values"
    LABEL_LATE = "label-late"
    NOT_STORABLE = "not-storable"
    READER_DIED = "reader-died"
    READER_TIME = "reader-time"
    READER_MEMORY = "reader-memory"


INTAKE_REASONS: dict[IntakeReason, str] = {
    IntakeReason.LABEL_SHAPE: "A label map has another size than its image.",
    IntakeReason.LABEL_VALUES: "A label map holds values outside 0 to 65535.",
    IntakeReason.LABEL_LATE: "A segmentation came after its images had been stored.",
    IntakeReason.NOT_STORABLE: "Pixel values do not fit the types that a store keeps.",
    IntakeReason.READER_DIED: "The process that read the file died, by a fault in a decoder.",
    IntakeReason.READER_TIME: "Reading the file took longer than file_seconds.",
    IntakeReason.READER_MEMORY: "Reading the file took more memory than file_memory_gib.",
}

INTAKE_CURES: dict[IntakeReason, str] = {
    IntakeReason.LABEL_SHAPE: "Draw it on this image, or resample it to the image's grid.",
    IntakeReason.LABEL_VALUES: "Number the classes from 0.",
    IntakeReason.LABEL_LATE: "Give both together, or begin anew with `--overwrite`.",
    IntakeReason.NOT_STORABLE: "Save the values as numbers of at most 16 bits, or as float32.",
    IntakeReason.READER_DIED: "Convert the file with another program, or leave it out.",
    IntakeReason.READER_TIME: "Raise `--set file_seconds=...`, or leave it out.",
    IntakeReason.READER_MEMORY: "Raise `--set file_memory_gib=...`, or divide the file.",
}
"""What to do about a file with each of these codes."""


def lost_reason(lost: Lost[Any]) -> tuple[IntakeReason, str]:
    """Return why a file took its reader down: the code, and the sentence after its name."""
    if lost.cause == "time":
        return IntakeReason.READER_TIME, (
            f"reading it took too long ({lost.detail}). Raise --set file_seconds=..., "
            "or leave it out."
        )
    if lost.cause == "memory":
        return IntakeReason.READER_MEMORY, (
            f"reading it took too much memory ({lost.detail}). Raise --set file_memory_gib=..., "
            "divide the file, or leave it out."
        )
    return IntakeReason.READER_DIED, (
        f"the process that read it died ({lost.detail}), mostly because of a fault in a decoder. "
        "Leave the file out, or convert it with another program."
    )


def meanings() -> dict[str, str]:
    """Return what every reason code of ``rejected.csv`` means."""
    return {str(code): text for code, text in (*REASONS.items(), *INTAKE_REASONS.items())}


@dataclass(frozen=True)
class Entry:
    """A file to read and what its table says of it.

    Attributes:
        file: Where it is.
        row: Its table row; ``row.name`` is its stable name.
        number: Of its entry in the ledger.
        copy: How many files with the same DICOM identifiers stand in earlier work items.
        stored: The file from which the store has the same DICOM object since an earlier ingest.
        place: Of a table's volume, which of its rows; those that were left out count.
    """

    file: SourceFile
    row: ManifestRow
    number: int = 0
    copy: int = 0
    stored: SourceFile | None = None
    place: int = 0


@dataclass(frozen=True)
class LabelFile:
    """A DICOM segmentation or structure set to draw.

    Attributes:
        file: Where it is.
        number: Of its entry in the ledger.
        class_names: Name of a structure by the file's own header -> name of its class, which is
            another one where the images tell that the name holds a patient.
    """

    file: SourceFile
    number: int
    class_names: Mapping[str, str]


@dataclass(frozen=True)
class WorkItem:
    """What is read in one go.

    Attributes:
        entries: One file, the files of a DICOM series, or the files of one volume.
        joined: The files are slices of one volume because the table says so; each is read by
            itself.
        labels: DICOM segmentations and structure sets that speak of these images.
    """

    entries: tuple[Entry, ...]
    joined: bool = False
    labels: tuple[LabelFile, ...] = ()


@dataclass(frozen=True)
class Rejection:
    """A file that was left out, with its path: for the private table only."""

    path: str
    reason: str
    message: str


def rejection(found: RejectedFile) -> Rejection:
    """Return the readers' rejection in intake's words."""
    return Rejection(found.path, str(found.reason), found.message)


@dataclass(frozen=True)
class NewFiles:
    """What a listing added.

    Attributes:
        new: Files not seen before.
        known: Files seen before and not changed.
        changed: Files whose content or table row changed after their images were stored.
    """

    new: int = 0
    known: int = 0
    changed: int = 0

    def __add__(self, other: "NewFiles") -> "NewFiles":
        return NewFiles(
            self.new + other.new, self.known + other.known, self.changed + other.changed
        )
