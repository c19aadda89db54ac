"""Files that appear whole or not at all, whoever writes them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vismae.core.remains import UNFINISHED


@contextmanager
def whole_or_none(path: Path) -> Iterator[Path]:
    """Give a path to write to; what lies there afterwards takes the place of ``path``.

    The path given has the same suffixes, by which libraries choose the format. Nothing is left
    behind where writing fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own, since one as long as a name may be cannot be lengthened.
    ending = ".nii.gz" if path.name.endswith(".nii.gz") else path.suffix
    temporary = path.with_name(f".{os.getpid()}{UNFINISHED}{ending}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None:  # as of a full disk, which names no file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
