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
        earlier: Size and change under which ledgers may know it that were begun before all of it
            counted: those of a MetaImage or NRRD header without its pixels.
    """

    path: Path
    member: str | None
    size: int
    change_mark: int
    earlier: tuple[tuple[int, int], ...] = ()

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
    earlier: tuple[tuple[int, int], ...] = ()
    if place is None:
        place = pixels_beside(*found.place)
        earlier = ((found.size, found.change_mark),)
    if place is None:
        return found
    try:
        pixels = unopened(*place)
    except UnreadableFileError:  # gone meanwhile: whoever reads the image says so
        return found
    mark = _joint_mark(found, pixels)
    return replace(found, size=found.size + pixels.size, change_mark=mark, earlier=earlier)


def with_label_map(found: FoundFile, label_map: FoundFile) -> FoundFile:
    """Return an image that changes with its label map too; its size stays its own."""
    known = (*found.earlier, (found.size, found.change_mark))
    return replace(found, change_mark=_joint_mark(found, label_map), earlier=known)


def _joint_mark(found: FoundFile, beside: FoundFile) -> int:
    return (found.change_mark * 31 + beside.change_mark) % 2**63


def found_member(path: Path, info: zipfile.ZipInfo) -> FoundFile:
    """Return a member of an archive by its entry in the archive's list."""
    return FoundFile(path, info.filename, _unpacked_size(info), info.CRC)


def _unpacked_size(info: zipfile.ZipInfo) -> int:
    """Return what a member says of its size, up to one byte more than is read of any."""
    return min(info.file_size, MAX_MEMBER_BYTES + 1)
