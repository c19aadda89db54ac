"""Headers whose values are converted once for a whole series.

Most elements of a slice hold the same bytes as those of the slice before, and turning bytes into
numbers and words is what pydicom spends most of its time on: half a millisecond a file, as much
as reading its pixels.
"""

from functools import lru_cache
from typing import Any, cast

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.tag import BaseTag

Known = dict[tuple[str, bytes, bool], Any]
"""Converted values by keyword, bytes and byte order; made for one series and dropped with it."""

# Positions and numbers of slices are all different; a series of 100,000 must not hold them all.
_MOST_KNOWN = 10_000
# What depends on nothing but its own bytes: no text in a character set, no number whose sign
# another element tells, no sequence. Written in files or, in implicit ones, known from the tag.
_BY_BYTES_ALONE = {"AS", "CS", "DA", "DS", "FD", "FL", "IS", "TM", "UI", "UL", "US"}


class Header(FileDataset):
    """A dataset read from a file that shares converted values with others of its series.

    ``Header.of`` makes one of what ``pydicom.dcmread`` returns.
    """

    _known: Known

    @classmethod
    def of(cls, dataset: FileDataset, known: Known) -> "Header":
        """Make a dataset look its values up among known ones first, and add to them.

        Args:
            dataset: Becomes the result itself; its elements are not copied.
            known: Of its series.
        """
        dataset.__class__ = cls
        object.__setattr__(dataset, "_known", known)
        return cast(Header, dataset)

    def get(self, key: Any, default: Any = None) -> Any:
        """Return an element's value by keyword, or as pydicom does by tag."""
        place = _place(key) if isinstance(key, str) else None
        if place is None:
            return super().get(key, default)
        element = self._dict.get(place[0])
        return default if element is None else self._value(key, element, *place)

    def __getattr__(self, name: str) -> Any:
        """Return an element's value by keyword."""
        place = _place(name)
        element = None if place is None else self._dict.get(place[0])
        if place is None or element is None:
            return super().__getattr__(name)
        return self._value(name, element, *place)

    def _value(self, keyword: str, element: Any, tag: BaseTag, vr: str | None) -> Any:
        if not isinstance(element, RawDataElement) or vr is None or element.VR not in (None, vr):
            return self[tag].value
        content = element.value
        if not isinstance(content, bytes):
            return self[tag].value
        key = (keyword, content, element.is_little_endian)
        if key not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = self[tag].value
        return self._known[key]


@lru_cache(maxsize=1024)
def _place(keyword: str) -> tuple[BaseTag, str | None] | None:
    """Return the tag of a keyword, and how it is written if its bytes alone tell its value."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        return None
    vr = dictionary_VR(tag)
    return BaseTag(tag), vr if vr in _BY_BYTES_ALONE else None
