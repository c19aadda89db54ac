"""``vismae ingest``: image files of any kind into one store, with an account of what was left out.

::

    STORE/rejected.csv           path, reason, message of every file that could not be used
    STORE.private/salt           secret behind the pseudonyms of patient ids in file headers
    STORE.private/sources.csv    image_id and the file it came from
    STORE.private/request.json   what was asked for, to recognise the same request again

The private folder stays with the user (mode 600); nothing in it is needed to train.
"""

import csv
import json
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vismae.core.config import IngestConfig
from vismae.core.errors import DataError
from vismae.core.rundir import write_text
from vismae.core.types import Modality
from vismae.data.sources import DataSource, Manifest, Task, resolve_data
from vismae.data.store import Store, StoreWriter
from vismae.data.store_format import MANIFEST_NAME, REJECTED_NAME
from vismae.workflows.intake.processes import read_all
from vismae.workflows.intake.read import ItemResult, ReadSettings
from vismae.workflows.intake.work import Rejection, WorkItem, find_work

_REFRESH_EVERY = 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestResult:
    """What an ingest did.

    Attributes:
        store: The finished store.
        stored: Slices in it.
        files: Files looked at, those left out included.
        rejected: Files left out; ``STORE/rejected.csv`` says why.
        reasons: Reason code -> number of files.
        seconds: Time it took.
    """

    store: Store
    stored: int
    files: int
    rejected: int
    reasons: dict[str, int]
    seconds: float

    def summary(self) -> str:
        """Return what a person wants to know at the end, in a few lines."""
        by_modality = self.store.manifest["by_modality"]
        lines = [
            f"{self.stored} images from {self.files - self.rejected} files in {self.store.folder} "
            f"({', '.join(f'{name} {count}' for name, count in by_modality.items())}; "
            f"{self.seconds:.1f} s)"
        ]
        if self.rejected:
            lines.append(_rejections(self))
        return "\n".join(lines)


def ingest(config: IngestConfig) -> IngestResult:
    """Read all sources into a new store.

    A file that cannot be used is recorded and the others go on.

    Raises:
        DataError: A source or table is unusable, no image could be stored, or a larger share
            than ``max_rejected_fraction`` was rejected (the store is then finished all the same).
        RunFolderError: The store's folder is in use.
    """
    sources = resolve_data(config.sources, keep_columns=config.keep_column)
    return _ingest(sources, config, _describe(config))


def open_or_ingest(
    data: Sequence[Path],
    into: Path,
    *,
    task: Task | None = None,
    fold: int | None = None,
    modality: str | None = None,
    workers: int = 2,
    keep_column: Sequence[str] = (),
) -> Store:
    """Return the store that ``data`` is, or a store made from it.

    Args:
        data: One store, or sources as ``ingest`` takes them.
        into: Folder for a store made on the way. A finished one there is opened if the same
            request made it (a resumed run must see the same rows), else replaced.
        task, fold: As for ``data.sources.resolve_data``; ``Store.manifest['fold']`` says whether
            the rows' splits are those of the fold.
        modality, workers, keep_column: As in ``IngestConfig``.

    Raises:
        DataError: Several stores, or as for ``ingest``.
    """
    stores = [path for path in data if (path / MANIFEST_NAME).is_file()]
    if stores and len(data) > 1:
        raise DataError(
            f"{stores[0]} is a store and cannot be joined with further data. Give one store, or "
            "ingest all sources into a new one."
        )
    if stores:
        return Store(stores[0])
    config = IngestConfig(
        sources=tuple(data),
        store=into,
        modality=modality,
        workers=workers,
        keep_column=tuple(keep_column),
        overwrite=True,
    )
    request = _describe(config, task, fold)
    recorded = private_folder(into) / "request.json"
    finished = (into / MANIFEST_NAME).is_file() and recorded.is_file()
    if finished and recorded.read_text(encoding="utf-8") == request:
        logger.info("store %s was made from the same data before and is used again", into)
        return Store(into)
    result = _ingest(resolve_data(data, task, fold, keep_column), config, request)
    logger.info("%s", result.summary())
    return result.store


def private_folder(store: Path) -> Path:
    """Return the folder beside a store that holds the salt and the table of sources."""
    return store.parent / f"{store.name}.private"


def _ingest(sources: Sequence[DataSource], config: IngestConfig, request: str) -> IngestResult:
    started = time.perf_counter()
    extra_columns = _extra_columns(sources, config)
    folds = {source.fold for source in sources if isinstance(source, Manifest)}
    writer = StoreWriter(
        config.store,
        config.encoding,
        config.shard_mib,
        extra_columns,
        config.overwrite,
        fold=folds.pop() if len(folds) == 1 else None,
    )
    reasons: Counter[str] = Counter()
    files = stored = 0
    with writer, _reports(config.store) as reports, _progress() as progress:
        salt = _salt(config.store)
        settings = ReadSettings(salt, config.modality, config.encoding, extra_columns)
        bar = progress.add_task("finding files", total=None)
        items, early = _find(sources)
        logger.info("found %d files and series to read", len(items))
        reasons.update(reports.reject(early))
        files += len(early)
        progress.update(bar, description="reading", total=len(items))
        for number, result in enumerate(read_all(items, settings, config.workers)):
            files += result.files
            reasons.update(reports.reject(result.rejected))
            stored += _store(result, writer, reports)
            progress.update(bar, advance=1, refresh=number % _REFRESH_EVERY == 0)
        if not stored:
            raise _nothing_stored(config, files, reasons)
        store = writer.finish()
    _write_private(private_folder(config.store) / "request.json", request)
    result = IngestResult(
        store,
        len(store),
        files,
        reasons.total(),
        dict(reasons.most_common()),
        time.perf_counter() - started,
    )
    _require_enough(result, config)
    return result


def _find(sources: Sequence[DataSource]) -> tuple[list[WorkItem], list[Rejection]]:
    items: list[WorkItem] = []
    rejected: list[Rejection] = []
    for found in find_work(sources):
        if isinstance(found, WorkItem):
            items.append(found)
        else:
            rejected.append(found)
    return items, rejected


def _store(result: ItemResult, writer: StoreWriter, reports: "_Reports") -> int:
    for piece in result.slices:
        writer.add_encoded(piece.encoded)
        reports.sources.writerow([piece.image_id, piece.source])
    return len(result.slices)


class _Reports:
    """The two tables written while reading: what was left out, and where images came from."""

    def __init__(self, rejected: TextIO, sources: TextIO) -> None:
        self.sources = csv.writer(sources)
        self.sources.writerow(["image_id", "source"])
        self._rejected = csv.writer(rejected)
        self._rejected.writerow(["path", "reason", "message"])

    def reject(self, found: Sequence[Rejection]) -> list[str]:
        """Write the rejections and return their reasons."""
        for rejection in found:
            self._rejected.writerow([rejection.path, rejection.reason, rejection.message])
            logger.debug("left out: %s", rejection.message)
        return [rejection.reason for rejection in found]


@contextmanager
def _reports(store: Path) -> Iterator[_Reports]:
    sources = os.open(
        _make_private_folder(store) / "sources.csv", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
    )
    # Names that are not UTF-8 keep their bytes.
    text: dict[str, Any] = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
    with (store / REJECTED_NAME).open("w", **text) as table, os.fdopen(sources, "w", **text) as to:
        yield _Reports(table, to)


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        # Drawn from the loop: a drawing thread may hold a lock while processes are forked.
        auto_refresh=False,
    )


def _salt(store: Path) -> bytes:
    """Return the store's secret; an overwritten store keeps its own, so pseudonyms stay."""
    path = _make_private_folder(store) / "salt"
    if not path.is_file():
        _write_private(path, secrets.token_hex(32) + "\n")
    return bytes.fromhex(path.read_text(encoding="ascii"))


def _make_private_folder(store: Path) -> Path:
    folder = private_folder(store)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def _write_private(path: Path, text: str) -> None:
    write_text(path, text)
    path.chmod(0o600)


def _describe(config: IngestConfig, task: Task | None = None, fold: int | None = None) -> str:
    """Return what decides the rows of a store, as text to compare."""
    request = {
        "sources": [str(path.resolve()) for path in config.sources],
        "task": task,
        "fold": fold,
        "modality": config.modality,
        "keep_column": list(config.keep_column),
    }
    return json.dumps(request, indent=2) + "\n"


def _extra_columns(sources: Sequence[DataSource], config: IngestConfig) -> tuple[str, ...]:
    """Return the wanted columns, and ``modality`` where a word would be lost as "other"."""
    tables = [source.rows for source in sources if isinstance(source, Manifest)]
    words = {row.modality for rows in tables for row in rows} | {config.modality}
    unknown = any(_is_unknown(word) for word in words)
    added = ("modality",) if unknown and "modality" not in config.keep_column else ()
    return (*config.keep_column, *added)


def _is_unknown(word: str | None) -> bool:
    return word is not None and word.lower() != "other" and Modality.parse(word) is Modality.OTHER


def _nothing_stored(config: IngestConfig, files: int, reasons: Counter[str]) -> DataError:
    sources = ", ".join(str(path) for path in config.sources)
    if not files:
        return DataError(
            f"{sources}: no image files were found. DICOM, NIfTI, PNG, JPEG and TIFF are read, "
            "in folders, zip archives or listed in a csv."
        )
    return DataError(
        f"{sources}: none of {files} files could be used ({_top(reasons)}). "
        f"{config.store / REJECTED_NAME} says why for each."
    )


def _require_enough(result: IngestResult, config: IngestConfig) -> None:
    allowed = config.max_rejected_fraction
    if allowed is not None and result.rejected > allowed * result.files:
        raise DataError(
            f"{_rejections(result)}. That is more than max_rejected_fraction {allowed:g} allows; "
            "the store is finished all the same. Allow more, or mend the files."
        )


def _rejections(result: IngestResult) -> str:
    table = result.store.folder / REJECTED_NAME
    return (
        f"{result.rejected} of {result.files} files were left out ({_top(result.reasons)}); "
        f"{table} says why"
    )


def _top(reasons: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in Counter(reasons).most_common(5))
