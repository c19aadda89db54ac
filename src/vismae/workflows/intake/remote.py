"""A PACS as a source: its objects entered into the ledger as if they were files."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vismae.data.manifest import FileReference, ManifestRow
from vismae.files.dicom_concatenation import DIVISIBLE_CLASSES
from vismae.files.dicom_identifiers import DicomIdentifiers
from vismae.files.dicom_labels import LABEL_CLASSES
from vismae.files.dicomweb import DicomWebServer, RemoteInstance, RemoteSeries, parse_dicomweb
from vismae.files.discover import SourceFile
from vismae.files.pixels import MAX_IMAGE_BYTES
from vismae.files.remote_file import RemoteFile
from vismae.workflows.intake.ledger import Listed

# A server does not tell the size of pixels; a slice of CT or MR has about this.
_FRAME_BYTES = 2**19

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteSource:
    """A server, and what of it is wanted.

    Attributes:
        address: As the user named it.
        server: Where to ask.
        query: DICOM keyword -> value.
    """

    address: Path
    server: DicomWebServer
    query: Mapping[str, str]


def remote_source(source: Path, query: Mapping[str, str]) -> RemoteSource | None:
    """Return the server that a source names, or None for a path on disk.

    Raises:
        SettingError: The address holds an account, or is no address.
    """
    url = parse_dicomweb(str(source))
    return None if url is None else RemoteSource(source, DicomWebServer(url), query)


def remote_files(source: RemoteSource, number: int) -> Iterator[Listed]:
    """Yield every object that matches the query, with what the server says of it."""
    for series in source.server.find_series(source.query):
        instances = source.server.find_instances(series)
        unsure = _perhaps_parts(instances)
        for instance in instances:
            yield _listed(source, number, series, instance, instance.sop_uid in unsure)


def _perhaps_parts(instances: Sequence[RemoteInstance]) -> set[str]:
    """Return the objects that may be parts of a divided image although the server does not say so.

    A server that tells of one part of a series tells of all; a part is never alone.
    """
    if any(instance.concatenation for instance in instances):
        return set()
    found = {one.sop_uid for one in instances if one.sop_class in DIVISIBLE_CLASSES}
    return found if len(found) > 1 else set()


def _listed(
    source: RemoteSource,
    number: int,
    series: RemoteSeries,
    instance: RemoteInstance,
    unsure: bool,
) -> Listed:
    member = f"{series.study_uid}/{series.series_uid}/{instance.sop_uid}"
    size = min(_FRAME_BYTES * max(1, instance.frames), MAX_IMAGE_BYTES)
    identifiers = DicomIdentifiers(
        patient=series.patient_id,
        study=series.study_uid,
        series=series.series_uid,
        instance=instance.sop_uid,
        concatenation=instance.concatenation,
        frames=instance.frames,
        pixel_bytes=size,
    )
    # What segmentations speak of stands in their headers, and so does what servers do not tell:
    # these are fetched and looked at.
    known = None if instance.sop_class in LABEL_CLASSES or unsure else identifiers
    row = ManifestRow(f"{source.address}!{member}", FileReference(source.address, member))
    return Listed(number, row, size, 0, identifiers=known)


def reopened(path: Path, member: str | None) -> SourceFile | None:
    """Return an object of a server that the ledger names, or None for a file on disk."""
    found = remote_source(path, {})
    return None if found is None else RemoteFile(path, member, "dicom", found.server)
