"""Files whose content nobody has looked at yet, with what tells whether they have changed."""

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

from vismae.core.errors import UnreadableFileError
from vismae.files.archive import MAX_MEMBER_BYTES, no_access, open_archive
from vismae.files.detached_pixels import pixels_beside
from vismae.files.nifti_pair import voxels_beside
from vismae.files.reasons import Reason


@dataclass(frozen=True)
class FoundFile:
    """A file whose content nobody has looked at yet.

    Attributes:
        path: The file, or the archive that holds it.
        member: Name inside the archive, or None for a plain file.
        size: Bytes, unpacked; those of a header with those of the pixels beside it.
        change_mark: Another number when the content is another: the time of the last change in
            nanoseconds since 1970, or the CRC-32 of an archive member, since the time of an
            archive says nothing of one member. A header changes with the pixels beside it.
        header: Size and change of a MetaImage or NRRD header without its pixels, as ledgers know
            it that were begun before pixels counted; None for every other file.
    """

    path: Path
    member: str | None
    size: int
    change_mark: int
    header: tuple[int, int] | None = None

    @property
    def place(self) -> tuple[Path, str | None]:
        """Path and member."""
        return self.path, self.member


def unopened(path: Path, member: str | None = None) -> FoundFile:
    """Return one named file or archive member by itself.

    Raises:
        UnreadableFileError: It does not exist, or its archive is damaged.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise no_access(str(path), error) from error
    if member is None:
        return FoundFile(path, None, status.st_size, status.st_mtime_ns)
    try:
        return found_member(path, open_archive(path).getinfo(member))
    except KeyError as error:
        raise UnreadableFileError(
            Reason.NOT_FOUND,
            f"{path}!{member}: the archive has no such member. Check the name.",
        ) from error


def with_pixels(found: FoundFile) -> FoundFile:
    """Return a header whose pixels lie beside it with the size and the changes of both files."""
    place = voxels_beside(*found.place)
    header = None
    if place is None:
        place = pixels_beside(*found.place)
        header = (found.size, found.change_mark)
    if place is None:
        return found
    try:
        pixels = unopened(*place)
    except UnreadableFileError:  # gone meanwhile: whoever reads the image says so
        return found
    mark = (found.change_mark * 31 + pixels.change_mark) % 2**63
    return replace(found, size=found.size + pixels.size, change_mark=mark, header=header)


def found_member(path: Path, info: zipfile.ZipInfo) -> FoundFile:
    """Return a member of an archive by its entry in the archive's list."""
    return FoundFile(path, info.filename, _unpacked_size(info), info.CRC)


def _unpacked_size(info: zipfile.ZipInfo) -> int:
    """Return what a member says of its size, up to one byte more than is read of any."""
    return min(info.file_size, MAX_MEMBER_BYTES + 1)
