"""What the ledger keeps of what a table says of a file."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vismae.core.types import Spacing
from vismae.data.manifest import FileReference, ManifestRow


def stored_row(name: bytes, path: bytes, member: bytes | None, facts: str) -> ManifestRow:
    """Return the table row of an entry."""
    values: dict[str, Any] = json.loads(facts)
    label_map = values.pop("label_map", None)
    spacing = values.pop("spacing", {})
    return ManifestRow(
        name=os.fsdecode(name),
        image=FileReference(
            Path(os.fsdecode(path)), None if member is None else os.fsdecode(member)
        ),
        label_map=None if label_map is None else FileReference(Path(label_map[0]), label_map[1]),
        spacing=Spacing(**spacing),
        **values,
    )


def row_to_json(row: ManifestRow) -> str:
    """Return what a table says of a file beside where it lies; only what it does say."""
    values = {name: value for name, value in asdict(row).items() if value not in (None, {}, "")}
    for name in ("name", "image", "label_map"):
        values.pop(name, None)
    values["spacing"] = {k: v for k, v in asdict(row.spacing).items() if v is not None}
    if not values["spacing"]:
        del values["spacing"]
    if row.label_map is not None:
        values["label_map"] = [str(row.label_map.path), row.label_map.member]
    return json.dumps(values, sort_keys=True)
