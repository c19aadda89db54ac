"""MetaImage and NRRD headers whose pixels lie in a file beside them (``scan.mhd``, ``scan.raw``).

The header stands for both: it is what is listed, and its image changes when the pixels do.
"""

from pathlib import Path, PurePosixPath

from vismae.core.errors import UnreadableFileError
from vismae.files.archive import read_member
from vismae.files.itk_header import HEADER_BYTES, parse_itk_header
from vismae.files.reasons import Reason

_HEADERS = (".mhd", ".nhdr", ".mha", ".nrrd")
# Ordinary headers are this short; only for longer ones more is read.
_FIRST_BYTES = 2**12


def pixels_beside(path: Path, member: str | None) -> tuple[Path, str | None] | None:
    """Return the file that a header says its pixels are in; None for one that holds them itself.

    Whether it is there is not looked at. A file that is no header, or cannot be read, has none:
    its reader will say what is wrong.
    """
    name = path.name if member is None else PurePosixPath(member).name
    if not name.lower().endswith(_HEADERS):
        return None
    for count in (_FIRST_BYTES, HEADER_BYTES):
        try:
            pixel_file = parse_itk_header(_head(path, member, count), name).pixel_file
        except UnreadableFileError as error:
            if error.reason != Reason.TRUNCATED:
                return None
        except OSError:
            return None
        else:
            break
    else:
        return None
    if pixel_file is None:
        return None
    if member is None:
        return path.with_name(pixel_file), None
    return path, str(PurePosixPath(member).with_name(pixel_file))


def _head(path: Path, member: str | None, count: int) -> bytes:
    if member is not None:
        return read_member(path, member, count)
    with path.open("rb", buffering=0) as stream:
        return stream.read(count)
