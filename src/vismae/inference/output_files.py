"""Files that appear whole or not at all, whoever writes them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_or_none(path: Path) -> Iterator[Path]:
    """Give a path to write to; what lies there afterwards takes the place of ``path``.

    The path given has the same suffixes, by which libraries choose the format. Nothing is left
    behind where writing fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
