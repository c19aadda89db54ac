"""Series of a PACS as inputs: listed first, fetched when their turn comes, results sent back."""

import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydicom import Dataset

from vismae.core.errors import SettingError, UnreadableFileError
from vismae.core.types import Flag
from vismae.files.dicom_objects import require_image
from vismae.files.dicomweb import DicomWebServer, RemoteInstance, RemoteSeries, parse_dicomweb
from vismae.files.dicomweb_address import as_written
from vismae.files.dicomweb_send import send_files
from vismae.files.discover import Group, SourceFile
from vismae.files.reasons import Reason
from vismae.files.remote_file import RemoteFile
from vismae.workflows.prediction.inputs import Failure, Input
from vismae.workflows.prediction.records import Record, Records

NOT_SENT = "not-sent"
"""Reason code of a result that lies in the folder, but not on the server."""

# UIDs become names of folders here and parts of addresses there. Anonymisers write letters too.
_UID = re.compile(r"[0-9A-Za-z]+(\.[0-9A-Za-z]+)*")
_LEDGER = "sent.jsonl"


@dataclass(frozen=True)
class RemoteInput(Input):
    """Objects of one series of a server that are predicted together.

    Attributes:
        server: Where they are, and where results go.
        series: Which series.
        whole: They are all there is in the series.
        kept: Folder for the files while the input is at work.
    """

    server: DicomWebServer
    series: RemoteSeries
    whole: bool
    kept: Path

    @property
    def identity(self) -> str:
        """Tell this input from every other, whatever its files hold."""
        text = f"{self.server.url}|{len(self.group.files)}|{self.group.files[0].member}"
        return hashlib.sha256(text.encode()).hexdigest()

    def fingerprint(self) -> str:
        """Return a hash over the objects' UIDs: an object of a PACS never changes under its UID."""
        members = sorted(file.member or "" for file in self.group.files)
        return hashlib.sha256("\n".join(members).encode()).hexdigest()

    def fetch(self) -> None:
        """Fetch the files; of a part of a series each when it is opened.

        Raises:
            UnreadableFileError: They do not come whole.
            DicomWebError: The server cannot be used.
        """
        if self.whole:
            self.server.fetch_series(self.series, self.kept)

    def discard(self) -> None:
        """Remove the files that were fetched."""
        shutil.rmtree(self.kept, ignore_errors=True)


def servers_of(
    sources: tuple[Path, ...], query: Mapping[str, str]
) -> tuple[dict[Path, DicomWebServer], tuple[Path, ...]]:
    """Divide sources into servers by their address, and paths on disk.

    Raises:
        SettingError: An address is none, a query is missing, or there is nobody to ask it.
    """
    servers: dict[Path, DicomWebServer] = {}
    for source in sources:
        url = parse_dicomweb(str(source))
        if url is not None:
            servers[source] = DicomWebServer(url)
    if servers and not query:
        raise SettingError(
            "query is empty: that would predict everything on the server. Say what is wanted, such "
            "as --query StudyInstanceUID=1.2.3 or --query StudyDate=20200101 --query Modality=CT."
        )
    if query and not servers:
        raise SettingError(
            "query is for a DICOMweb server, but no input is one. Leave it out, or name "
            "dicomweb+https://host/path among the inputs."
        )
    return servers, tuple(source for source in sources if source not in servers)


def remote_inputs(
    address: Path,
    server: DicomWebServer,
    query: Mapping[str, str],
    keep: frozenset[Flag],
    scratch: Path,
) -> Iterator[RemoteInput | Failure]:
    """Ask a server for series; objects that are no images are left out unfetched.

    Args:
        address: As the user named it, for names only.
        server: Whom to ask.
        query: DICOM keyword -> value.
        keep: DICOM images to read although they are left out as a rule.
        scratch: Folder in which inputs keep their files while they are at work.

    Raises:
        DicomWebError: The search failed.
        SettingError: The query holds no DICOM keyword.
    """
    for series in server.find_series(query):
        instances = server.find_instances(series)
        images: list[RemoteInstance] = []
        for instance in instances:
            name = _member(series, instance)
            left_out = _left_out(f"{as_written(address)}!{name}", series, instance, keep)
            if left_out is None:
                images.append(instance)
            else:
                yield left_out
        images.sort(key=lambda image: (image.instance_number or 0, image.sop_uid))
        together = [image for image in images if image.frames == 1]
        for own in [together, *([image] for image in images if image.frames != 1)]:
            if not own:
                continue
            kept = scratch / hashlib.sha256(_member(series, own[0]).encode()).hexdigest()
            files: list[SourceFile] = [
                RemoteFile(address, _member(series, image), "dicom", server, kept) for image in own
            ]
            name = f"{series.study_uid}/{series.series_uid}"
            if own is not together:
                name += f"/{own[0].sop_uid}"
            whole = len(own) == len(instances)
            group = Group("dicom", tuple(files))
            yield RemoteInput(group, name, False, server, series, whole, kept)


def send_results(item: RemoteInput, record: Record, records: Records) -> Failure | None:
    """Store the DICOM results of an input on its server, unless they are there.

    Raises:
        DicomWebError: The server was not reached, or refuses the account.
    """
    paths = [records.folder / name for name in record.outputs if name.endswith(".dcm")]
    report = send_files(item.server, paths, records.private(_LEDGER), ask_first=True)
    if not report.failed:
        return None
    _, why = report.failed[0]
    return Failure(item.source, NOT_SENT, f"{item.source}: its result was not stored. {why}")


def _member(series: RemoteSeries, instance: RemoteInstance) -> str:
    return f"{series.study_uid}/{series.series_uid}/{instance.sop_uid}"


def _left_out(
    name: str, series: RemoteSeries, instance: RemoteInstance, keep: frozenset[Flag]
) -> Failure | None:
    """Return why an object is no input, by what the server says of it."""
    uids = (series.study_uid, series.series_uid, instance.sop_uid)
    if not all(_UID.fullmatch(uid) for uid in uids):
        message = f"{name}: its identifiers are no UIDs. Ask whoever runs the server to mend them."
        return Failure(name, str(Reason.UNDECODABLE), message)
    header = Dataset()
    header.SOPClassUID, header.Modality = instance.sop_class, series.modality
    try:
        require_image(header, name, keep)
    except UnreadableFileError as error:
        return Failure(name, str(error.reason), str(error), left_out=True)
    return None


def require_sendable(
    sources: tuple[Path, ...],
    servers: Mapping[Path, DicomWebServer],
    kind: str,
    format: str | None,
) -> Literal["dicomseg", "dicomsr"]:
    """Require that every input has a server to go back to; return the format that a PACS takes.

    Raises:
        SettingError: It has not.
    """
    if kind not in ("segmenter", "classifier"):
        raise SettingError("send is for segmenters and classifiers. Error maps are no DICOM.")
    wanted = "dicomseg" if kind == "segmenter" else "dicomsr"
    if format not in (None, wanted):
        raise SettingError(
            f"send stores DICOM objects, but format is {format}. Leave format out, or use {wanted}."
        )
    for source in sources:
        if source not in servers:
            raise SettingError(
                f"send: {source} came from no server, so there is none to send its results to. "
                "Leave send out, or name only dicomweb+https://host/path among the inputs."
            )
    return wanted
