"""An object of a DICOMweb server as a file like any other: it is fetched when it is opened."""

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vismae.files.dicomweb import DicomWebServer, RemoteSeries
from vismae.files.discover import SourceFile


@dataclass(frozen=True)
class RemoteFile(SourceFile):
    """One object of a server.

    Attributes:
        path: Address of the service, as a path (for its name only).
        member: StudyInstanceUID, SeriesInstanceUID and SOPInstanceUID, joined by ``/``.
        kind: ``dicom``.
        server: Where it is fetched from.
    """

    server: DicomWebServer

    def head(self, count: int) -> bytes:
        """Return the first bytes; the whole object is fetched for them."""
        with self.open() as stream:
            return stream.read(count)

    def open(self) -> BinaryIO:
        """Fetch the object as the server stores it; only its bytes stay, in memory.

        Raises:
            UnreadableFileError: The server has it no longer, or it does not arrive whole.
            DicomWebError: The server cannot be used.
        """
        study, series, instance = (self.member or "").split("/")
        with tempfile.TemporaryDirectory(prefix="vismae-") as folder:
            found = RemoteSeries("", study, series, "", None)
            fetched = self.server.fetch_instance(found, instance, Path(folder))
            return io.BytesIO(fetched.read_bytes())
