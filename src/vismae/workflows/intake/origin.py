"""Which source of the ledger a named folder, file or table is: a known one, moved or not, or new.

Image ids come from names, so that they stay the same wherever a source lies. Two sources may bear
one name (every disc for a patient has a folder ``DICOM``), hence the ledger remembers where each
one lay: another place is another source, unless the old place is gone and the files are the same.
"""

import json
import os
from collections import Counter
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from vismae.core.errors import UnreadableFileError
from vismae.data.manifest import FileReference, locate
from vismae.files.discover import find_file
from vismae.workflows.intake.entry_facts import stored_row
from vismae.workflows.intake.labelled import found_with_label_map
from vismae.workflows.intake.ledger import Ledger
from vismae.workflows.intake.moved import moved_beside

_ORIGINS = "source_origins"


@dataclass(frozen=True)
class Place:
    """Where a source lies.

    Attributes:
        origin: The folder, file or csv, which tells it from other sources.
        folder: Where the names of its files start from.
    """

    origin: Path
    folder: Path


def source_name(ledger: Ledger, name: str, place: Place, taken: set[str]) -> str:
    """Return the name under which the ledger keeps a source: ``DICOM``, ``DICOM-2`` and so on.

    Args:
        ledger: Remembers the place.
        name: What the source is called.
        place: Where it lies now.
        taken: Names given to other sources of this ingest; the result is added.
    """
    origins: dict[str, str] = json.loads(ledger.fact(_ORIGINS) or "{}")
    known = ledger.source_numbers()
    origin = str(place.origin.resolve())
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    candidates: list[str] = []
    for candidate in names:
        if candidate in taken:
            continue
        candidates.append(candidate)
        if candidate not in known:
            break
    found = next((one for one in candidates if origins.get(one) == origin), None)
    if found is None:
        found = next(
            (one for one in candidates[:-1] if _has_moved(ledger, one, origins[one], place)),
            candidates[-1],
        )
    taken.add(found)
    ledger.set_fact(_ORIGINS, json.dumps({**origins, found: origin}))
    return found


def _has_moved(ledger: Ledger, name: str, before: str, place: Place) -> bool:
    """Tell whether a known source lies at another place now.

    Most of its files of each kind must be there, so that a disc with other images, but with the
    same viewer as the one before, is not taken for it.
    """
    if Path(before).exists():
        return False
    same: Counter[str | None] = Counter()
    other: Counter[str | None] = Counter()
    entries = ledger.db.execute(
        "SELECT name, path, member, size, changed_ns, kind, row FROM entry"
        " WHERE source = ? AND state != 'rejected'",
        (ledger.source_numbers()[name],),
    )
    for full_name, path, member, size, mark, kind, row in entries:
        below = os.fsdecode(full_name).removeprefix(name).removeprefix("/")
        reference = locate(below, place.folder)
        try:
            found = find_file(reference.path, reference.member)
        except UnreadableFileError:
            continue
        labels = stored_row(full_name, path, member, row).label_map
        if labels is not None:
            beside = moved_beside(labels.path, Path(os.fsdecode(path)), found.path)
            found = found_with_label_map(found, FileReference(beside, labels.member))
        known_place = (Path(os.fsdecode(path)).absolute(), member and os.fsdecode(member))
        now = ((found.size, found.change_mark), *found.earlier)
        agrees = known_place == found.place or (size, mark) in now
        (same if agrees else other)[kind] += 1
    return bool(same) and all(same[kind] > other[kind] for kind in same | other)
