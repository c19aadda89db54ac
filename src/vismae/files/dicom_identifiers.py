"""Which DICOM files form a series: identifiers read from headers, without pixels."""

import io
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pydicom
from pydicom import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from vismae.core.errors import UnreadableFileError
from vismae.files.dicom_head import first_elements
from vismae.files.dicom_labels import LABEL_CLASSES, LabelObject, describe_labels
from vismae.files.dicom_quiet import quiet_pydicom
from vismae.files.dicom_text import one_text, writable
from vismae.files.dicom_unnamed_series import SAME_IN_SERIES, unnamed_series
from vismae.files.dicom_zeros import until_zeros
from vismae.files.discover import Group, SourceFile
from vismae.files.pixels import MAX_IMAGE_BYTES

logger = logging.getLogger(__name__)

_LAST_TAG = 0x00280100  # BitsAllocated
_HEAD_BYTES = 2**14
_TEXTS = (
    *("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
    *("FrameOfReferenceUID", "ConcatenationUID"),
)
_NUMBERS = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
_TAG_OF = {
    keyword: Tag(keyword)
    for keyword in (*_TEXTS, *_NUMBERS, "SpecificCharacterSet", "SOPClassUID", "NumberOfFrames")
}
_WANTED = frozenset(map(int, _TAG_OF.values()))
_TAGS: list[BaseTag | int] = sorted(
    {*_TAG_OF.values(), *map(Tag, (*SAME_IN_SERIES, "ImagePositionPatient"))}
)
# A backslash divides values; a tilde is another sign in Japanese character sets.
_PLAIN_TEXT = re.compile(rb"[ -[\]-}]*")
_MOST_FRAMES = 2**31 - 1
_TEXT_FIELDS = ("patient", "study", "series", "instance", "frame_of_reference", "concatenation")


@dataclass(frozen=True)
class DicomIdentifiers:
    """Identifiers of one file; empty where the header has none.

    A header may say anything; what is kept here fits into a table.

    Attributes:
        patient, study, series, instance: PatientID and the three UIDs; of a slice without a
            series what stands for it, see ``unnamed_series``.
        frame_of_reference: FrameOfReferenceUID.
        concatenation: ConcatenationUID of a part of a divided multi-frame object.
        frames: Of a multi-frame object; 1 otherwise.
        pixel_bytes: Size of the decoded pixels; 0 where that is more than is ever read.
        labels: What a segmentation or structure set describes; None for everything else.
    """

    patient: str = ""
    study: str = ""
    series: str = ""
    instance: str = ""
    frame_of_reference: str = ""
    concatenation: str = ""
    frames: int = 1
    pixel_bytes: int = 0
    labels: LabelObject | None = None

    def __post_init__(self) -> None:
        """Bring what a header says within bounds."""
        for name in _TEXT_FIELDS:
            object.__setattr__(self, name, writable(getattr(self, name)))
        object.__setattr__(self, "frames", max(0, min(self.frames, _MOST_FRAMES)))
        if not 0 <= self.pixel_bytes <= MAX_IMAGE_BYTES:
            object.__setattr__(self, "pixel_bytes", 0)

    @property
    def series_key(self) -> tuple[str, str, str] | None:
        """What files share that are read together; None for one that stands alone.

        That is the series of single-frame files, and the concatenation of its parts. The patient
        is part of the key, since anonymisers are known to give one series UID to many.
        """
        if self.labels is not None:
            return None
        if self.concatenation:
            return self.patient, self.series, self.concatenation
        return (self.patient, self.series, "") if self.series and self.frames == 1 else None


def read_identifiers(file: SourceFile) -> DicomIdentifiers:
    """Return a DICOM file's identifiers, all empty where its header is damaged.

    The reader will meet the same damage and say so; here it only means "stands alone".

    Raises:
        UnreadableFileError: The file cannot be opened; ``label-empty`` for a segmentation or
            structure set that describes no structure, which no reader of images would name.
    """
    try:
        head = file.head(_HEAD_BYTES)
        quickly = _plain_identifiers(head)
        if quickly is not None and (quickly.series or quickly.frames != 1):
            return quickly
        with quiet_pydicom():
            header = _header(file, head)
            labels = None
            if header.get("SOPClassUID") in LABEL_CLASSES:
                with file.open() as stream:
                    whole = pydicom.dcmread(
                        until_zeros(stream), force=True, stop_before_pixels=True
                    )
                labels = describe_labels(whole, file.name)
            found = _identifiers(header, labels)
            if labels is None and not found.series and found.frames == 1:
                found = replace(found, series=unnamed_series(header, file))
            return found
    except (MemoryError, UnreadableFileError):
        raise
    except Exception as error:  # pydicom raises anything on damaged elements
        logger.debug("a header was not read for grouping: %s", type(error).__name__)
        return DicomIdentifiers()


def _plain_identifiers(head: bytes) -> DicomIdentifiers | None:
    """Return the identifiers of an ordinary file; None where pydicom has to look."""
    found = first_elements(head, _WANTED, _LAST_TAG)
    if found is None:
        return None
    texts = {keyword: found.get(_TAG_OF[keyword], b"") for keyword in (*_TEXTS, "SOPClassUID")}
    frames = found.get(_TAG_OF["NumberOfFrames"], b"").strip(b"\0 ")
    numbers = [found.get(_TAG_OF[keyword], b"") for keyword in _NUMBERS]
    plain = {keyword: text.rstrip(b"\0 ") for keyword, text in texts.items()}
    if not all(_PLAIN_TEXT.fullmatch(text) for text in plain.values()):
        return None
    if plain["SOPClassUID"].decode("ascii") in LABEL_CLASSES:
        return None
    if not (frames.isdigit() or not frames) or any(len(number) not in (0, 2) for number in numbers):
        return None
    rows, columns, samples, bits = (int.from_bytes(number, "little") for number in numbers)
    return _with_size(
        [plain[keyword].decode("ascii").strip() for keyword in _TEXTS],
        int(frames or 0) or 1,
        (rows, columns, samples, bits),
        None,
    )


def _header(file: SourceFile, head: bytes) -> Dataset:
    """Return the wanted elements, mostly from the first few bytes of a file."""
    is_complete = False

    def is_behind(tag: BaseTag, vr: str | None, length: int) -> bool:
        nonlocal is_complete
        is_complete = tag > _LAST_TAG
        return is_complete

    try:
        header = read_partial(io.BytesIO(head), is_behind, force=True, specific_tags=_TAGS)
    except Exception:  # the beginning of a deflated file cannot be inflated by itself
        if len(head) < _HEAD_BYTES:
            raise
    else:
        if is_complete or len(head) < _HEAD_BYTES:
            return header
    with file.open() as stream:
        return read_partial(until_zeros(stream), is_behind, force=True, specific_tags=_TAGS)


def _identifiers(header: Dataset, labels: LabelObject | None) -> DicomIdentifiers:
    rows, columns, samples, bits = (int(header.get(keyword) or 0) for keyword in _NUMBERS)
    return _with_size(
        [one_text(header.get(keyword)).strip() for keyword in _TEXTS],
        int(header.get("NumberOfFrames") or 1),
        (rows, columns, samples, bits),
        labels,
    )


def _with_size(
    texts: Sequence[str],
    frames: int,
    numbers: tuple[int, int, int, int],
    labels: LabelObject | None,
) -> DicomIdentifiers:
    rows, columns, samples, bits = numbers
    pixel_bytes = rows * columns * frames * (samples or 1) * max(1, bits // 8)
    return DicomIdentifiers(*texts, frames=frames, pixel_bytes=pixel_bytes, labels=labels)


def _series_key(file: SourceFile) -> tuple[str, str, str] | None:
    if file.kind != "dicom":
        return None
    try:
        return read_identifiers(file).series_key
    except UnreadableFileError:
        return None  # its reader will say why


def group_series(files: Iterable[SourceFile]) -> Iterator[Group]:
    """Put DICOM files that are read together into one group; all others stand alone.

    These are the single-frame files of a series, and the parts of a divided multi-frame image.
    Files that are no DICOM, and whole multi-frame DICOM files, come first in the order given; then
    the groups, each in the order of its first file.
    """
    series: dict[tuple[str, str, str], list[SourceFile]] = {}
    for file in files:
        key = _series_key(file)
        if key is None:
            yield Group(file.kind, (file,))
        else:
            series.setdefault(key, []).append(file)
    while series:
        yield Group("dicom", tuple(series.pop(next(iter(series)))))
