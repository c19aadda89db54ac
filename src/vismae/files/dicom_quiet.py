"""Reading headers without pydicom's remarks on the terminal.

pydicom warns of odd elements and quotes their values, among them names and dates of patients. A
clinical archive has thousands of such files, and its terminal output is often kept. What matters
is told by the reader's own messages, which quote coded values only.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom.config import disable_value_validation


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's warnings and logger, and let it accept values that break the rules.

    Silence within silence costs nothing: who reads many files is silent around them all.
    """
    logger = logging.getLogger("pydicom")
    level = logger.level
    if level > logging.CRITICAL:
        yield
        return
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
