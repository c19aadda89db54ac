"""``dataset.json`` of the Medical Segmentation Decathlon and of nnU-Net: classes and modality.

The Decathlon writes ``"labels": {"1": "liver"}`` and ``"modality": {"0": "CT"}``; nnU-Net version
2 ``"labels": {"liver": 1}`` and ``"channel_names": {"0": "CT"}``. Its label ``ignore`` marks pixels
that nobody annotated. Values are also met as texts and as floats (``"1"``, ``1.0``).
"""

import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vismae.core.errors import DataError
from vismae.core.types import Modality
from vismae.data.labels import NOT_ANNOTATED

DATASET_JSON = "dataset.json"

_MOST_BYTES = 16 * 1024**2
_WHOLE = re.compile(r"([0-9]{1,9})(?:\.0*)?")
_MR_WORDS = re.compile(r"t1.*|t2.*|flair|pd|adc|dwi|swi|mri?.*|cine.*", re.IGNORECASE)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetFacts:
    """What the table says.

    Attributes:
        class_names: Value in the label maps -> name, background left out; ``NOT_ANNOTATED`` for
            one that is no class.
        unclear: Name of a label -> why it stands for no value of the label maps, such as a region
            (a union of classes).
        channels: Channel -> its name as written, such as ``FLAIR``.
        modalities: Channel -> ``ct``, ``mr``, ``pet``, ``xr`` or ``us``; unknown words are left
            out.
    """

    class_names: dict[int, str] = field(default_factory=dict)
    unclear: dict[str, str] = field(default_factory=dict)
    channels: dict[int, str] = field(default_factory=dict)
    modalities: dict[int, str] = field(default_factory=dict)

    def modality(self, channel: int | None) -> str | None:
        """Return the modality of a channel; without one, that of all channels if they agree."""
        if channel is not None:
            return self.modalities.get(channel)
        words = set(self.modalities.values())
        return words.pop() if len(words) == 1 else None

    def number_of(self, wanted: int | str, where: str) -> int:
        """Return the number of the channel that becomes the image.

        Args:
            wanted: Its number, or its name in any case.
            where: The table, for messages.

        Raises:
            DataError: None or several are of that number or name.
        """
        found = ", ".join(f"{number} {name}" for number, name in sorted(self.channels.items()))
        text = str(wanted).strip()
        numbers = [number for number, name in self.channels.items() if _same(name, text)]
        if not numbers and text.isdecimal():
            numbers = [int(text)] if not self.channels or int(text) in self.channels else []
        if len(numbers) != 1:
            raise DataError(
                f"{where}: channel '{text}' is the name or number of {len(numbers)} channels; "
                f"expected one of {found or 'the numbers of the files (0 is case_0000)'}. "
                "Correct --channel."
            )
        return numbers[0]


def read_dataset_json(folder: Path) -> DatasetFacts:
    """Return what ``dataset.json`` in a folder says; nothing if it is missing or not understood."""
    path = folder / DATASET_JSON
    try:
        if not path.is_file():
            return DatasetFacts()
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"larger than {_MOST_BYTES} bytes")
        table = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(table, dict):
            raise ValueError("not a table of names")
    except (OSError, ValueError, RecursionError) as error:
        logger.info("%s is not understood (%s); classes stay without names", path, error)
        return DatasetFacts()
    names, unclear = _class_names(table.get("labels"))
    channels = _channels(table.get("channel_names") or table.get("modality"))
    return DatasetFacts(names, unclear, channels, _modalities(channels))


def _class_names(labels: Any) -> tuple[dict[int, str], dict[str, str]]:
    """Return value -> name without background, and what no single value can be told of."""
    if not isinstance(labels, dict):
        return {}, {}
    unclear: dict[str, str] = {}
    named: dict[int, list[str]] = {}
    for left, right in labels.items():
        found = _value_and_name(left, right)
        if isinstance(found, str):
            unclear[left] = found
        else:
            named.setdefault(found[0], []).append(found[1])
    names: dict[int, str] = {}
    for value, several in sorted(named.items()):
        if len(several) > 1 and value != 0:
            unclear |= {name: f"the value {value}, as {several}" for name in several}
        elif value != 0:
            is_none = several[0].strip().lower() == NOT_ANNOTATED
            names[value] = NOT_ANNOTATED if is_none else several[0]
    return names, unclear


def _value_and_name(left: str, right: Any) -> tuple[int, str] | str:
    """Return value and name of a label, or why they cannot be told apart."""
    if isinstance(right, list):
        return f"the region {right}"
    old, new = _whole(left), _whole(right)
    if isinstance(right, str) and new is None:
        return (old, right) if old is not None else f"'{right}', and neither is a whole number"
    if new is None:
        return f"{right!r}, which is no whole number"
    if isinstance(right, str) and old is not None and old != new:
        return f"'{right}', and either may be the value"
    return new, left


def _whole(value: Any) -> int | None:
    """Return a class number written as number, float or text; None if it is none."""
    if isinstance(value, str):
        found = _WHOLE.fullmatch(value.strip())
        return None if found is None else int(found[1])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if value >= 0 and float(value).is_integer() else None


def _channels(table: Any) -> dict[int, str]:
    if not isinstance(table, dict):
        return {}
    return {
        int(number): word.strip()
        for number, word in table.items()
        if str(number).isdecimal() and isinstance(word, str)
    }


def _modalities(channels: dict[int, str]) -> dict[int, str]:
    found: dict[int, str] = {}
    for number, word in channels.items():
        modality = Modality.MR if _MR_WORDS.fullmatch(word) else Modality.parse(word)
        if modality is not Modality.OTHER:
            found[number] = modality.value
    return found


def _same(name: str, text: str) -> bool:
    return name.casefold() == text.casefold()
