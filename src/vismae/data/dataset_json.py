"""``dataset.json`` of the Medical Segmentation Decathlon and of nnU-Net: classes and modality.

The Decathlon writes ``"labels": {"1": "liver"}`` and ``"modality": {"0": "CT"}``; nnU-Net version
2 ``"labels": {"liver": 1}`` and ``"channel_names": {"0": "CT"}``. Its label ``ignore`` marks pixels
that nobody annotated.
"""

import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vismae.core.types import Modality
from vismae.data.labels import NOT_ANNOTATED

DATASET_JSON = "dataset.json"

_MOST_BYTES = 16 * 1024**2
_MR_WORDS = re.compile(r"t1.*|t2.*|flair|pd|adc|dwi|swi|mri?.*|cine.*", re.IGNORECASE)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetFacts:
    """What the table says.

    Attributes:
        class_names: Value in the label maps -> name, background left out; ``NOT_ANNOTATED`` for
            one that is no class.
        modalities: Channel -> ``ct``, ``mr``, ``pet``, ``xr`` or ``us``; unknown words are left
            out.
    """

    class_names: dict[int, str] = field(default_factory=dict)
    modalities: dict[int, str] = field(default_factory=dict)

    def modality(self, channel: int | None) -> str | None:
        """Return the modality of a channel; without one, that of all channels if they agree."""
        if channel is not None:
            return self.modalities.get(channel)
        words = set(self.modalities.values())
        return words.pop() if len(words) == 1 else None


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
    names = _class_names(table.get("labels"))
    return DatasetFacts(names, _modalities(table.get("channel_names") or table.get("modality")))


def _class_names(labels: Any) -> dict[int, str]:
    if not isinstance(labels, dict):
        return {}
    names: dict[int, str] = {}
    for left, right in labels.items():
        # Regions of nnU-Net are lists of values: unions of classes, and no classes themselves.
        if isinstance(right, str) and left.isdecimal():
            names[int(left)] = right
        elif isinstance(right, int):
            names[right] = left
    names = {
        value: NOT_ANNOTATED if name.strip().lower() == NOT_ANNOTATED else name
        for value, name in names.items()
    }
    return {value: name for value, name in sorted(names.items()) if value != 0}


def _modalities(channels: Any) -> dict[int, str]:
    if not isinstance(channels, dict):
        return {}
    found: dict[int, str] = {}
    for number, word in channels.items():
        if not (str(number).isdecimal() and isinstance(word, str)):
            continue
        modality = Modality.MR if _MR_WORDS.fullmatch(word.strip()) else Modality.parse(word)
        if modality is not Modality.OTHER:
            found[int(number)] = modality.value
    return found
