"""A PACS as a source: series found and fetched over DICOMweb (DICOM PS3.18, QIDO-RS and WADO-RS).

Files are fetched as the server stores them, never transcoded on the way, so that reading them
gives what reading the same files from disk would give. Accounts come from the environment alone
(``VISMAE_DICOMWEB_USER`` and ``VISMAE_DICOMWEB_PASSWORD``, or ``VISMAE_DICOMWEB_TOKEN``).
"""

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pydicom

from vismae.core.errors import SettingError, UnreadableFileError
from vismae.files.dicom_quiet import quiet_pydicom
from vismae.files.dicom_zeros import until_zeros
from vismae.files.dicomweb_address import check_address, parse_dicomweb
from vismae.files.dicomweb_failures import DicomWebError, Failure, with_retries
from vismae.files.dicomweb_parts import instance_file_name, save_parts
from vismae.files.dicomweb_query import Level, divide_by_level, first_number, first_text, fits
from vismae.files.reasons import Reason

if TYPE_CHECKING:
    from vismae.files.dicomweb_connection import Connection

__all__ = ["DicomWebServer", "RemoteInstance", "RemoteSeries", "parse_dicomweb"]

_PAGE = 200
_IDENTITY: dict[Level, str] = {
    "studies": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
    "instances": "SOPInstanceUID",
}

Result = TypeVar("Result")


@dataclass(frozen=True)
class RemoteSeries:
    """One series of a server. What identifies the patient is left out of its ``repr``.

    Attributes:
        patient_id: Empty where the server does not tell.
        study_uid, series_uid: StudyInstanceUID and SeriesInstanceUID.
        modality: The two letters of DICOM, such as ``CT``; empty where the server does not tell.
        instances: How many the series has, or None where the server does not tell.
    """

    patient_id: str = field(repr=False)
    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    modality: str
    instances: int | None


@dataclass(frozen=True)
class RemoteInstance:
    """One object of a series.

    Attributes:
        sop_uid, sop_class: SOPInstanceUID and SOPClassUID.
        frames: 1 unless the server tells.
        instance_number: InstanceNumber, or None.
        concatenation: ConcatenationUID of a part of a divided multi-frame object; empty for a
            whole one, and where the server does not tell.
    """

    sop_uid: str = field(repr=False)
    sop_class: str
    frames: int
    instance_number: int | None
    concatenation: str = field(default="", repr=False)


@dataclass(frozen=True)
class DicomWebServer:
    """A DICOMweb server; holds settings only, so it may be sent to other processes.

    Attributes:
        url: Root of the service, as ``parse_dicomweb`` returns it.
        timeout_seconds: Longest silence of the server.
        retries: How often a request is made again after a failure that may pass.
        pause_seconds: Pause before the first retry; each further one is twice as long.

    Raises:
        SettingError: A value is out of range; later, the extra ``pacs`` is not installed.
    """

    url: str
    timeout_seconds: float = 60.0
    retries: int = 4
    pause_seconds: float = 1.0

    def __post_init__(self) -> None:
        check_address(self.url)
        times = (self.timeout_seconds, self.pause_seconds)
        if not all(math.isfinite(value) and value > 0 for value in times) or self.retries < 0:
            raise SettingError(
                f"timeout_seconds {self.timeout_seconds}, pause_seconds {self.pause_seconds}, "
                f"retries {self.retries}. The first two must be above 0, retries not below."
            )

    def find_series(self, query: Mapping[str, str]) -> Iterator[RemoteSeries]:
        """Yield the series that match, as the server's pages come in, in the server's order.

        Studies are searched by the keys of patient and study, then each study's series by the
        others: many servers do not know study keys in a search for series. Where there is a
        SeriesInstanceUID and nothing of the study, series are searched for directly. Memory is
        bounded by a page; a study that arrives while pages are read can come twice.

        Args:
            query: DICOM keyword to value, matched as QIDO-RS does: ``StudyDate`` takes a range
                ``20200101-20201231``, text takes ``*`` and ``?``. All must match. Empty finds all.

        Raises:
            SettingError: A key is not a DICOM keyword.
            DicomWebError: The search failed.
        """
        of_study, of_series = divide_by_level(query)
        if "SeriesInstanceUID" in of_series and not of_study:
            yield from self._series(None, "", of_series)
            return
        for study in self._pages("studies", (), of_study, ("PatientID", *of_study)):
            uid = first_text(study, "StudyInstanceUID")
            yield from self._series(uid, first_text(study, "PatientID"), of_series)

    def _series(
        self, study_uid: str | None, patient_id: str, keys: Mapping[str, str]
    ) -> Iterator[RemoteSeries]:
        parents = () if study_uid is None else (study_uid,)
        fields = ("PatientID", "StudyInstanceUID", "NumberOfSeriesRelatedInstances", *keys)
        for item in self._pages("series", parents, keys, fields):
            if patient_id and first_text(item, "PatientID") not in ("", patient_id):
                continue  # anonymisers are known to give one study UID to many patients
            yield RemoteSeries(
                first_text(item, "PatientID") or patient_id,
                study_uid or first_text(item, "StudyInstanceUID"),
                first_text(item, "SeriesInstanceUID"),
                first_text(item, "Modality"),
                first_number(item, "NumberOfSeriesRelatedInstances"),
            )

    def find_instances(self, series: RemoteSeries) -> list[RemoteInstance]:
        """Return the objects of a series, each once, in the server's order.

        Raises:
            DicomWebError: The search failed.
        """
        fields = ("SOPClassUID", "NumberOfFrames", "InstanceNumber", "ConcatenationUID")
        pages = self._pages("instances", (series.study_uid, series.series_uid), {}, fields)
        found: dict[str, RemoteInstance] = {}
        for item in pages:
            uid = first_text(item, "SOPInstanceUID")
            found[uid] = RemoteInstance(
                uid,
                first_text(item, "SOPClassUID"),
                first_number(item, "NumberOfFrames") or 1,
                first_number(item, "InstanceNumber"),
                first_text(item, "ConcatenationUID"),
            )
        return list(found.values())

    def has_instance(self, study_uid: str, series_uid: str, sop_uid: str) -> bool:
        """Tell whether the server holds an object.

        Raises:
            Failure: The search failed once; for callers that try again themselves.
        """
        # From the top, since some servers answer a search in an unknown study with 404.
        parents: tuple[str, ...] = ()
        levels: tuple[Level, ...] = ("studies", "series", "instances")
        for level, uid in zip(levels, (study_uid, series_uid, sop_uid), strict=True):
            keys = {_IDENTITY[level]: uid}
            page = self.connection().search(level, parents, keys, (), (0, _PAGE))
            if not any(first_text(item, _IDENTITY[level]) == uid for item in page):
                return False
            parents = (*parents, uid)
        return True

    def fetch_series(self, series: RemoteSeries, into: Path) -> list[Path]:
        """Fetch the files of a series that are not there yet, and return the paths of all.

        They come as one stream; what is missing after it broke off is fetched singly. A file in
        ``into`` is always whole: it gets its name when its last byte was written.

        Args:
            series: As found.
            into: Folder for the files, made with mode 700; names are hashes of the UIDs.

        Raises:
            UnreadableFileError: ``not-found``, ``truncated`` or ``unreadable``: this series cannot
                be fetched whole. What came stays in ``into`` for another try.
            DicomWebError: The server cannot be used, or ``into`` cannot be written.
        """
        sop_uids = [instance.sop_uid for instance in self.find_instances(series)]
        paths = {uid: into / instance_file_name(uid) for uid in sop_uids}
        if not paths:
            raise Failure("missing", "the series has no images").as_image_error(
                self.url, "fetching a series"
            )

        def fetch_all() -> None:
            try:
                for _ in self._save(series, None, set(paths), into):
                    pass
            except Failure as failure:
                if not failure.passing or not _any_exists(paths.values()):
                    raise

        if not _any_exists(paths.values()):
            self._fetch("fetching a series", into, fetch_all)
        for uid, path in paths.items():
            if not path.exists():
                self.fetch_instance(series, uid, into)
        return list(paths.values())

    def fetch_instance(self, series: RemoteSeries, sop_uid: str, into: Path) -> Path:
        """Fetch one object as the server stores it, unless it is there; return its path.

        Raises:
            UnreadableFileError: As for ``fetch_series``.
            DicomWebError: As for ``fetch_series``.
        """
        path = into / instance_file_name(sop_uid)

        def fetch() -> Path:
            # Read to the end, so that the connection can be used again.
            saved = list(self._save(series, sop_uid, {sop_uid}, into))
            if not saved:
                raise Failure("broken", "the answer does not hold the image asked for")
            return saved[0]

        return path if path.exists() else self._fetch("fetching an image", into, fetch)

    def _fetch(self, what: str, into: Path, action: Callable[[], Result]) -> Result:
        try:
            into.mkdir(mode=0o700, parents=True, exist_ok=True)
            return with_retries(action, self.retries, self.pause_seconds)
        except Failure as failure:
            raise failure.as_image_error(self.url, what) from None
        except OSError as error:
            raise DicomWebError(
                f"{into}: {what} failed: {error.strerror or type(error).__name__}. Give a folder "
                f"on a disk with free space that may be written."
            ) from None

    def _save(
        self, series: RemoteSeries, sop_uid: str | None, wanted: set[str], into: Path
    ) -> Iterator[Path]:
        """Yield the final path of every object of an answer that is wanted, when it is whole."""
        stream = self.connection().retrieve(series.study_uid, series.series_uid, sop_uid)
        with stream as (content_type, chunks):
            for part in save_parts(content_type, chunks, into):
                found = _sop_uid_of(part)
                if found in wanted:
                    yield part.replace(into / instance_file_name(found))

    def _pages(
        self,
        level: Level,
        parents: Sequence[str],
        keys: Mapping[str, str],
        fields: Sequence[str],
    ) -> Iterator[dict[str, Any]]:
        """Yield results until a page brings nothing new.

        A short page is no sign of the end: servers have limits of their own.
        """
        what = f"the search for {level}"
        earlier: set[tuple[str, str]] = set()
        offset = 0
        while True:
            with _as_dicomweb_error(self.url, what):
                page = with_retries(
                    lambda offset=offset: self.connection().search(
                        level, parents, keys, fields, (offset, _PAGE)
                    ),
                    self.retries,
                    self.pause_seconds,
                )
            results = {
                (first_text(item, "PatientID"), first_text(item, _IDENTITY[level])): item
                for item in page
            }
            fresh = results.keys() - earlier
            if not fresh and len(page) >= _PAGE:
                raise DicomWebError(
                    f"{self.url}: {what} failed: the server answers each page with the first one. "
                    f"Narrow the query, so that fewer than {_PAGE} are found."
                )
            if not fresh:
                return
            for name, item in results.items():
                if name in fresh and name[1] and fits(item, keys):
                    yield item
            earlier = set(results)
            offset += len(page)

    def connection(self) -> "Connection":
        """Return this thread's open session with the server.

        Raises:
            SettingError: The extra ``pacs`` is not installed.
        """
        # A session must be shared neither with a forked process nor with another thread.
        return _connection(self.url, self.timeout_seconds, os.getpid(), threading.get_ident())


@lru_cache(maxsize=16)
def _connection(url: str, timeout_seconds: float, process: int, thread: int) -> "Connection":
    try:
        from vismae.files.dicomweb_connection import Connection
    except ModuleNotFoundError as error:
        raise SettingError(
            f"A DICOMweb server needs the package {error.name}, which is not installed: "
            f"pip install 'vismae[pacs]'."
        ) from error
    return Connection(url, timeout_seconds)


@contextmanager
def _as_dicomweb_error(url: str, what: str) -> Iterator[None]:
    try:
        yield
    except Failure as failure:
        raise failure.as_error(url, what) from None


def _any_exists(paths: Iterable[Path]) -> bool:
    return any(path.exists() for path in paths)


def _sop_uid_of(path: Path) -> str:
    try:
        with path.open("rb") as stream, quiet_pydicom():
            header = pydicom.dcmread(
                until_zeros(stream), specific_tags=["SOPInstanceUID"], stop_before_pixels=True
            )
        return str(header.get("SOPInstanceUID", "")).strip()
    except Exception as error:  # whatever a damaged header makes pydicom raise
        raise UnreadableFileError(
            Reason.UNDECODABLE,
            f"An object that the server sent cannot be read as DICOM ({type(error).__name__}). Its "
            f"copy on the server is damaged.",
        ) from None
