"""Which DICOM files form a series: identifiers read from headers, without pixels."""

import io
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pydicom
from pydicom import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from vismae.files.dicom_labels import LABEL_CLASSES, LabelObject, describe_labels
from vismae.files.dicom_quiet import quiet_pydicom
from vismae.files.discover import Group, SourceFile

logger = logging.getLogger(__name__)

_LAST_TAG = 0x00280100  # BitsAllocated
_HEAD_BYTES = 2**14
_TAGS: list[BaseTag | int] = [
    Tag(keyword)
    for keyword in (
        *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"),
        *("SeriesInstanceUID", "PatientID", "NumberOfFrames", "Rows", "Columns"),
        *("SamplesPerPixel", "BitsAllocated"),
    )
]


@dataclass(frozen=True)
class DicomIdentifiers:
    """Identifiers of one file; empty where the header has none.

    Attributes:
        patient, study, series, instance: PatientID and the three UIDs.
        frames: Of a multi-frame object; 1 otherwise.
        pixel_bytes: Size of the decoded pixels.
        labels: What a segmentation or structure set describes; None for everything else.
    """

    patient: str = ""
    study: str = ""
    series: str = ""
    instance: str = ""
    frames: int = 1
    pixel_bytes: int = 0
    labels: LabelObject | None = None

    @property
    def series_key(self) -> tuple[str, str] | None:
        """Patient and series of a single-frame file; None for one that stands alone.

        The patient is part of the key, since anonymisers are known to give one series UID to
        many.
        """
        if not self.series or self.frames != 1 or self.labels is not None:
            return None
        return self.patient, self.series


def read_identifiers(file: SourceFile) -> DicomIdentifiers:
    """Return a DICOM file's identifiers, all empty where its header is damaged.

    The reader will meet the same damage and say so; here it only means "stands alone".
    """
    try:
        with quiet_pydicom():
            header = _header(file)
            labels = None
            if header.get("SOPClassUID") in LABEL_CLASSES:
                with file.open() as stream:
                    whole = pydicom.dcmread(stream, force=True, stop_before_pixels=True)
                labels = describe_labels(whole, file.name)
            return _identifiers(header, labels)
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises anything on damaged elements
        logger.debug("a header was not read for grouping: %s", type(error).__name__)
        return DicomIdentifiers()


def _header(file: SourceFile) -> Dataset:
    """Return the wanted elements, mostly from the first few bytes of a file."""
    is_complete = False

    def is_behind(tag: BaseTag, vr: str | None, length: int) -> bool:
        nonlocal is_complete
        is_complete = tag > _LAST_TAG
        return is_complete

    head = io.BytesIO(file.head(_HEAD_BYTES))
    header = read_partial(head, is_behind, force=True, specific_tags=_TAGS)
    if is_complete or len(head.getbuffer()) < _HEAD_BYTES:
        return header
    with file.open() as stream:
        return read_partial(stream, is_behind, force=True, specific_tags=_TAGS)


def _identifiers(header: Dataset, labels: LabelObject | None) -> DicomIdentifiers:
    names = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    frames = int(header.get("NumberOfFrames") or 1)
    pixels = int(header.get("Rows") or 0) * int(header.get("Columns") or 0) * frames
    samples = int(header.get("SamplesPerPixel") or 1)
    return DicomIdentifiers(
        *(str(header.get(name) or "").strip() for name in names),
        frames=frames,
        pixel_bytes=pixels * samples * max(1, int(header.get("BitsAllocated") or 0) // 8),
        labels=labels,
    )


def group_series(files: Iterable[SourceFile]) -> Iterator[Group]:
    """Put the single-frame DICOM files of one series into one group; all others stand alone.

    Files that are no DICOM, and multi-frame DICOM files, come first in the order given; then the
    series, each in the order of its first file.
    """
    series: dict[tuple[str, str], list[SourceFile]] = {}
    for file in files:
        key = read_identifiers(file).series_key if file.kind == "dicom" else None
        if key is None:
            yield Group(file.kind, (file,))
        else:
            series.setdefault(key, []).append(file)
    while series:
        yield Group("dicom", tuple(series.pop(next(iter(series)))))
