"""An object of a DICOMweb server as a file like any other: it is fetched when it is opened."""

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vismae.files.dicomweb import DicomWebServer, RemoteSeries
from vismae.files.dicomweb_address import as_written
from vismae.files.discover import SourceFile


@dataclass(frozen=True)
class RemoteFile(SourceFile):
    """One object of a server.

    Attributes:
        path: Address of the service, as a path (for its name only).
        member: StudyInstanceUID, SeriesInstanceUID and SOPInstanceUID, joined by ``/``.
        kind: ``dicom``.
        server: Where it is fetched from.
        kept: Folder in which fetched objects stay, so that they are fetched once; None keeps none.
    """

    server: DicomWebServer
    kept: Path | None = None

    @property
    def name(self) -> str:
        """``dicomweb+https://host/path!study/series/instance``."""
        return f"{as_written(self.path)}!{self.member}"

    def head(self, count: int) -> bytes:
        """Return the first bytes; the whole object is fetched for them."""
        with self.open() as stream:
            return stream.read(count)

    def open(self) -> BinaryIO:
        """Fetch the object as the server stores it; its bytes stay in memory, or ``kept``.

        Raises:
            UnreadableFileError: The server has it no longer, or it does not arrive whole.
            DicomWebError: The server cannot be used.
        """
        if self.kept is not None:
            return io.BytesIO(self._fetched(self.kept))
        with tempfile.TemporaryDirectory(prefix="vismae-") as folder:
            return io.BytesIO(self._fetched(Path(folder)))

    def _fetched(self, into: Path) -> bytes:
        study, series, instance = (self.member or "").split("/")
        found = RemoteSeries("", study, series, "", None)
        return self.server.fetch_instance(found, instance, into).read_bytes()
