"""What to do about an error, in the words of the door that the person stands at.

Commands have options that the page and REST lack. The web's process says once that it answers
there (``on_page``); whoever writes a message gives both sentences.
"""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

_ON_PAGE = ContextVar("on_page", default=False)


@contextmanager
def on_page() -> Generator[None, None, None]:
    """Let messages speak to users of the web page and of REST, within the block."""
    token = _ON_PAGE.set(True)
    try:
        yield
    finally:
        _ON_PAGE.reset(token)


def advice(command: str, page: str) -> str:
    """Return one of two sentences.

    Args:
        command: For users of commands and of Python.
        page: For users of the page and of REST: they choose under ``Read as``, which is the field
            ``modality``, and can change the file.
    """
    return page if _ON_PAGE.get() else command
