"""Numbers of DICOM headers where a header may hold none: ``1,5`` or a word in a decimal string.

pydicom raises when such an element is looked at, or leaves a text among several numbers. What an
image does not need must not cost it: there a number that is none counts as missing. What it needs
is named when the file is refused. Standard: PS3.5 section 6.2 (decimal and integer strings).
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from pydicom import Dataset

from vismae.core.errors import UnreadableFileError
from vismae.files.reasons import Reason


def readable(holder: Dataset, keyword: str) -> Any:
    """Return an element's value; None where it is missing or cannot be read."""
    try:
        return holder.get(keyword)
    except Exception:  # pydicom raises anything on damaged elements
        return None


def number(holder: Dataset, keyword: str) -> float | None:
    """Return an element's number; None where it is missing, empty, several or no finite number."""
    found = _as_float(readable(holder, keyword))
    return found if found is not None and math.isfinite(found) else None


def whole_number(holder: Dataset, keyword: str) -> int:
    """Return an element's number without what is behind its point; 0 where ``number`` is None."""
    return int(number(holder, keyword) or 0.0)


def numbers(holder: Dataset, keyword: str, count: int) -> np.ndarray | None:
    """Return an element's numbers; None unless there are so many, all of them finite."""
    value = readable(holder, keyword)
    if value is None or isinstance(value, (str, float, int)) or len(value) != count:
        return None
    parts = [part for part in map(_as_float, value) if part is not None and math.isfinite(part)]
    return np.array(parts) if len(parts) == count else None


def is_malformed(holder: Dataset, keyword: str) -> bool:
    """Tell whether an element is there and holds what its type does not allow."""
    try:
        value = holder.get(keyword)
    except Exception:  # as above
        return True
    parts = [value] if value is None or isinstance(value, (str, float, int)) else list(value)
    return any(isinstance(p, str) and p.strip() and _as_float(p) is None for p in parts)


def _as_float(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def without_use(holder: Dataset, keyword: str) -> str:
    """Say of an element without a usable number what is the matter with it."""
    return f"{keyword} {'is no number' if is_malformed(holder, keyword) else 'is missing'}"


def require_numbers(holder: Dataset, keywords: Iterable[str], name: str) -> None:
    """Refuse a file in which a needed element is there and malformed.

    Raises:
        UnreadableFileError: ``undecodable``, naming the elements.
    """
    malformed = [keyword for keyword in keywords if is_malformed(holder, keyword)]
    if malformed:
        # The value itself is not quoted: a header that is wrong may hold a name there.
        raise UnreadableFileError(
            Reason.UNDECODABLE,
            f"{name}: {', '.join(malformed)} holds no number, and the image cannot be read without "
            "it. Mend the header, or fetch the file again from its source.",
        )
