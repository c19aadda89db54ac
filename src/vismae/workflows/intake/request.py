"""What an ingest was asked for, in words that decide the rows of the store."""

import json
from collections.abc import Sequence

from vismae.core.config import IngestConfig
from vismae.core.errors import DataError
from vismae.core.types import Modality
from vismae.data.cases import PLACE_COLUMN
from vismae.data.manifest import CASE_COLUMN, SEQUENCE_COLUMN
from vismae.data.sources import DataSource, Manifest, Task
from vismae.workflows.intake.identity import Identity
from vismae.workflows.intake.ledger import Ledger
from vismae.workflows.intake.remote import RemoteSource

# Settings that decide what an image looks like in the store; all of a store's images agree.
_DECIDING = ("modality", "keep", "max_side", "keep_ids", "encoding")


def describe(config: IngestConfig, task: Task | None = None, fold: int | None = None) -> str:
    """Return what decides all rows of a store made in one go, as text to compare."""
    request = {
        "sources": [str(path.resolve()) for path in config.sources],
        "task": task,
        "fold": fold,
        "keep_column": list(config.keep_column),
        **{name: getattr(config, name) for name in _DECIDING},
    }
    return json.dumps(request, indent=2) + "\n"


def refuse_other_request(
    ledger: Ledger, config: IngestConfig, columns: Sequence[str], identity: Identity
) -> None:
    """Remember a store's settings, or compare them with those it began with.

    Raises:
        DataError: One differs; names it with both values.
    """
    wanted = {
        **{name: getattr(config, name) for name in _DECIDING},
        "keep_column": list(columns),
        "salt": identity.pseudonym("salt"),
    }
    text = json.dumps(wanted)
    before = ledger.fact("settings")
    if before is None:
        ledger.set_fact("settings", text)
        return
    known, wanted = json.loads(before), json.loads(text)
    for name, value in known.items():
        if wanted[name] == value:
            continue
        found = "another one" if name == "salt" else f"{wanted[name]!r}, it began with {value!r}"
        raise DataError(
            f"{config.store} cannot be added to with other settings: {name} is {found}. Give the "
            "settings it began with, or --overwrite to begin anew."
        )


def request_columns(
    sources: Sequence[DataSource | RemoteSource], config: IngestConfig
) -> tuple[str, ...]:
    """Return the wanted columns, and ``modality`` where a word would be lost as "other".

    With ``sequence`` come the case of an image and where its volume lies, without which images of
    several sequences cannot be put together.
    """
    words = {config.modality}
    for source in sources:
        if isinstance(source, Manifest):
            words |= {row.modality for row in source.rows}
    unknown = any(_is_unknown(word) for word in words)
    wanted = [*config.keep_column, *(["modality"] if unknown else [])]
    if SEQUENCE_COLUMN in wanted:
        wanted += [CASE_COLUMN, PLACE_COLUMN]
    return tuple(dict.fromkeys(wanted))


def _is_unknown(word: str | None) -> bool:
    return word is not None and word.lower() != "other" and Modality.parse(word) is Modality.OTHER
