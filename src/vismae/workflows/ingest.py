"""``vismae ingest``: image files of any kind into one store, with an account of what was left out.

::

    STORE/report.html            what came in, what did not and why
    STORE/rejected.csv           salted hash, reason code of every file that was left out
    STORE.private/salt           secret behind all pseudonyms
    STORE.private/sources.csv    image_id and the file it came from
    STORE.private/rejected.csv   the same as above with paths and messages
    STORE.private/ledger.sqlite  what was found, what is done: an interrupted ingest goes on here

The private folder stays with the user (mode 700); nothing in it is needed to train. The steps are
in ``intake/``: list and identify files (``listing``), put them in order (``plan``), read them in
portions (``portion``), and look at the whole (``curate``).
"""

import logging
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vismae.core.config import IngestConfig
from vismae.core.errors import DataError, RunFolderError
from vismae.core.executor import Limits, open_executor
from vismae.core.intake_account import IntakeAccount
from vismae.core.processes import available_cores
from vismae.core.remains import remove_unfinished
from vismae.core.rundir import locked
from vismae.core.types import Flag
from vismae.data.labels import join_class_names
from vismae.data.sources import DataSource, Manifest, Task, resolve_data
from vismae.data.store import Store
from vismae.data.store_format import MANIFEST_NAME, REJECTED_NAME, clear_store, read_manifest
from vismae.data.store_parts import assemble_store
from vismae.workflows.intake import results
from vismae.workflows.intake.curate import REPORT_NAME, curate, write_report
from vismae.workflows.intake.identity import (
    Identity,
    make_private_folder,
    private_folder,
    read_salt,
    write_private,
)
from vismae.workflows.intake.ledger import Ledger
from vismae.workflows.intake.listing import identify_files, list_sources
from vismae.workflows.intake.overlap import TakenPlaces
from vismae.workflows.intake.plan import plan, structures
from vismae.workflows.intake.portion import PartSettings
from vismae.workflows.intake.progress import progress_bar
from vismae.workflows.intake.reading import read_portions
from vismae.workflows.intake.records import ReadSettings
from vismae.workflows.intake.remote import RemoteSource, remote_source
from vismae.workflows.intake.request import describe, refuse_other_request, request_columns

REQUEST_NAME = "request.json"
LEDGER_NAME = "ledger.sqlite"
_PRELOAD = ("vismae.workflows.intake.portion",)
SALT_NAME = "salt"
# Reasons that may have passed by the next time: another machine, more memory, a mended disk.
_WORTH_ANOTHER_LOOK = (
    *("not-found", "unreadable", "needs-extra", "label-without-image"),
    *("reader-died", "reader-time", "reader-memory"),
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestResult:
    """What an ingest did.

    Attributes:
        folder: Of the store.
        account: What is in it now and what was left out, over all ingests into it.
        new_files: Files that this ingest saw for the first time.
        changed_files: Files that changed after their images were stored; the old ones stay.
        seconds: Time it took.
        dry_run: Nothing was written.
        salt: The file of the secret, where it was named; the private folder lies beside it.
    """

    folder: Path
    account: IntakeAccount
    new_files: int
    changed_files: int
    seconds: float
    dry_run: bool = False
    salt: Path | None = None

    @property
    def store(self) -> Store:
        """The finished store."""
        return Store(self.folder)

    @property
    def stored(self) -> int:
        """Images in the store."""
        return self.account.images

    @property
    def files(self) -> int:
        """Files looked at, those left out included."""
        return self.account.files

    @property
    def rejected(self) -> int:
        """Files left out; ``STORE/rejected.csv`` says why."""
        return self.account.files_left_out

    @property
    def reasons(self) -> dict[str, int]:
        """Reason code -> files left out."""
        return dict(self.account.left_out)

    def summary(self) -> str:
        """Return what a person wants to know at the end, in a few lines."""
        report = [] if self.dry_run else [f"Report: {self.folder / REPORT_NAME}"]
        return "\n".join([self.outcome(), *report])

    def outcome(self) -> str:
        """Return what came in and what did not, in a few lines."""
        by_modality = ", ".join(f"{name} {n}" for name, n in self.account.by_modality().items())
        place = "would be stored" if self.dry_run else f"in {self.folder}"
        lines = [
            f"{self.stored} images from {self.files - self.rejected} files {place} "
            f"({by_modality}; {self.new_files} new files, {self.seconds:.1f} s)"
        ]
        if self.rejected:
            lines.append(_rejections(self))
        if self.changed_files:
            lines.append(
                f"{self.changed_files} files changed after their images were stored; the store "
                "keeps the old images. Ingest with --overwrite to have the new ones."
            )
        return "\n".join(lines)


def ingest(config: IngestConfig) -> IngestResult:
    """Read all sources into a store: a new one, one that was begun, or one that is added to.

    A file that cannot be used is recorded and the others go on. What is interrupted goes on
    where it stopped when the same is asked for again; files that are in the store already are
    not read again.

    Raises:
        DataError: A source or table is unusable, no image could be stored, the disk is too full,
            or a larger share than ``max_rejected_fraction`` was rejected (the store is then
            finished all the same).
        RunFolderError: The store's folder is in use, or holds something else.
    """
    remote = [found for path in config.sources if (found := remote_source(path, config.query))]
    named = [found.address for found in remote]
    local = [path for path in config.sources if path not in named]
    _require_no_store(local, config.store)
    sources: list[DataSource | RemoteSource] = [*remote]
    if local or not remote:
        sources = [*resolve_data(local, keep_columns=config.keep_column), *remote]
    own = _own_places(config)
    if not config.dry_run:
        return _ingest(sources, config, describe(config), own)
    with tempfile.TemporaryDirectory(prefix="vismae-") as folder:
        trial = config.model_copy(update={"store": Path(folder) / config.store.name})
        result = _ingest(sources, trial, describe(config), [*own, Path(folder)])
        return replace(result, folder=config.store, dry_run=True)


def _require_no_store(sources: Sequence[Path], store: Path) -> None:
    """Refuse to read the store into itself, before ``overwrite`` removes it."""
    for path in sources:
        if path.resolve().is_relative_to(store.resolve()):
            raise DataError(
                f"{path} is the store, or within it, and holds no images to take in. Name the "
                "folder of the images, or another --store."
            )


def open_or_ingest(
    data: Sequence[Path],
    into: Path,
    *,
    task: Task | None = None,
    fold: int | None = None,
    modality: str | None = None,
    workers: int | None = None,
    keep_column: Sequence[str] = (),
) -> Store:
    """Return the store that ``data`` is, or a store made from it.

    Ids of csv tables stay as written: such a store belongs to a run of the one who wrote them.

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
        keep_ids=True,
        overwrite=True,
    )
    request = describe(config, task, fold)
    recorded = private_folder(into) / REQUEST_NAME
    finished = (into / MANIFEST_NAME).is_file() and recorded.is_file()
    if finished and recorded.read_text(encoding="utf-8") == request:
        logger.info("store %s was made from the same data before and is used again", into)
        return Store(into)
    sources = resolve_data(data, task, fold, keep_column)
    result = _ingest(sources, config, request, _own_places(config))
    logger.info("%s", result.outcome())
    return result.store


def _own_places(config: IngestConfig) -> list[Path]:
    """Return what an ingest writes, which is no source though it may lie within one."""
    return [
        *(config.store, private_folder(config.store, config.salt)),
        *([] if config.salt is None else [config.salt]),
        *([] if config.report is None else [config.report]),
    ]


def _ingest(
    sources: Sequence[DataSource | RemoteSource],
    config: IngestConfig,
    request: str,
    own: Sequence[Path],
) -> IngestResult:
    started = time.perf_counter()
    # A trial must not touch the private folder of the store that it is a trial for.
    home = None if config.dry_run else config.salt
    private = make_private_folder(private_folder(config.store, home))
    identity = Identity(read_salt(config.salt or private / SALT_NAME), config.keep_ids)
    limits = Limits(config.file_seconds, config.file_memory_gib)
    workers = config.workers or available_cores()
    with (
        locked(private),
        _open_ledger(private, config) as ledger,
        progress_bar() as bar,
        open_executor(config.executor, workers, limits, preload=_PRELOAD) as executor,
    ):
        columns = request_columns(sources, config)
        refuse_other_request(ledger, config, columns, identity)
        for folder in (private, config.store) if not config.dry_run else ():
            remove_unfinished(folder)
        reopened = results.reopen_lost_parts(ledger, config.store)
        if reopened:
            logger.warning("%d parts of the store are gone and are read again", reopened)
        ledger.forget_rejections(_WORTH_ANOTHER_LOOK)
        taken = TakenPlaces(ledger, sources)
        listed = list_sources(ledger, sources, own, taken)
        logger.info("found %d new files (%d known before)", listed.new, listed.known)
        bar.begin("looking at files")
        listed += identify_files(ledger, executor, taken)
        plan(ledger)
        read = ReadSettings(
            identity=identity,
            modality=config.modality,
            keep=frozenset(Flag(word) for word in config.keep),
            max_side=config.max_side,
            structures=structures(ledger),
            extra_columns=columns,
        )
        write = PartSettings(
            config.store, config.encoding, config.shard_mib, keep_pixels=not config.dry_run
        )
        read_portions(ledger, executor, read, write, bar, config.check_space)
        account = results.account(ledger)
        _write_tables(ledger, private, config, identity)
        if not account.images:
            raise _nothing_stored(config, account)
        bar.begin("looking at the whole")
        _assemble(ledger, sources, config, columns)
        account = curate(config.store, account)
        if config.report is not None or not config.dry_run:
            report = config.report or config.store / REPORT_NAME
            write_report(report, config.store, account, with_pictures=write.keep_pixels)
        write_private(private / REQUEST_NAME, request)
    took = time.perf_counter() - started
    new, changed = listed.new, listed.changed
    result = IngestResult(config.store, account, new, changed, took, salt=config.salt)
    _require_enough(result, config)
    return result


def _open_ledger(private: Path, config: IngestConfig) -> Ledger:
    """Open the ledger of a store to go on with, or begin a new one with an empty store."""
    path = private / LEDGER_NAME
    if config.overwrite:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    if not path.exists():
        if (config.store / MANIFEST_NAME).is_file() and not config.overwrite:
            raise RunFolderError(
                f"{config.store} holds a store, but {path}, which knows its files, is gone. Put "
                "the private folder back beside it, use --overwrite to begin anew, or another "
                "--store."
            )
        clear_store(config.store, config.overwrite)
    config.store.mkdir(parents=True, exist_ok=True)
    return Ledger(path)


def _assemble(
    ledger: Ledger,
    sources: Sequence[DataSource | RemoteSource],
    config: IngestConfig,
    columns: Sequence[str],
) -> None:
    """Put new parts behind the store's rows."""
    finished = (config.store / MANIFEST_NAME).is_file()
    previous = read_manifest(config.store) if finished else None
    known = {shard["file"] for shard in previous["shards"]} if previous else set[str]()
    new = [
        part
        for part in results.parts(ledger)
        if known.isdisjoint(shard.file for shard in part.shards)
    ]
    if previous is not None and not new:
        return
    tables = [source for source in sources if isinstance(source, Manifest)]
    folds = {table.fold for table in tables}
    drawn = {value: name for name, value in structures(ledger).items()}
    assemble_store(
        config.store,
        new,
        encoding=config.encoding,
        extra_columns=columns,
        fold=folds.pop() if len(folds) == 1 else None,
        classes=join_class_names([drawn, *(table.class_names for table in tables)]),
        previous=previous,
    )


def _write_tables(ledger: Ledger, private: Path, config: IngestConfig, identity: Identity) -> None:
    results.write_rejected(
        ledger,
        config.store / REJECTED_NAME,
        private / results.PRIVATE_REJECTED_NAME,
        identity,
    )
    results.write_sources(ledger, private / results.SOURCES_NAME)


def _nothing_stored(config: IngestConfig, account: IntakeAccount) -> DataError:
    sources = ", ".join(str(path) for path in config.sources)
    if not account.files:
        return DataError(
            f"{sources}: no image files were found. DICOM, NIfTI, PNG, JPEG and TIFF are read, "
            "in folders, zip archives or listed in a csv."
        )
    table = private_folder(config.store, config.salt) / results.PRIVATE_REJECTED_NAME
    return DataError(
        f"{sources}: none of {account.files} files could be used ({_top(account.left_out)}). "
        f"{table} says why for each."
    )


def _require_enough(result: IngestResult, config: IngestConfig) -> None:
    allowed = config.max_rejected_fraction
    if allowed is not None and result.rejected > allowed * result.files:
        raise DataError(
            f"{_rejections(result)}. That is more than max_rejected_fraction {allowed:g} allows; "
            "the store is finished all the same. Allow more, or mend the files."
        )


def _rejections(result: IngestResult) -> str:
    table = private_folder(result.folder, result.salt) / results.PRIVATE_REJECTED_NAME
    place = "" if result.dry_run else f"; {table} says why"
    return (
        f"{result.rejected} of {result.files} files were left out ({_top(result.reasons)}){place}"
    )


def _top(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in Counter(reasons).most_common(5))
