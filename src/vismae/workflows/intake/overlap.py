"""Sources that lie within one another: a folder given with its own table, or given twice.

What a csv table says of a file counts, then what a folder's layout says. A folder or archive does
not bring such a file again, nor the label maps that belong to images; what two folders bring comes
with the first. The files are kept in the ledger's database while it is open, so that an archive
may have any size.
"""

from collections.abc import Sequence
from pathlib import Path

from vismae.data.manifest import FileReference
from vismae.data.sources import DataSource, Manifest
from vismae.workflows.intake.ledger import Ledger, as_blob
from vismae.workflows.intake.remote import RemoteSource

_TABLE = (
    "CREATE TEMP TABLE IF NOT EXISTS taken_place"
    " (place BLOB PRIMARY KEY, of_csv INTEGER NOT NULL) WITHOUT ROWID"
)


class TakenPlaces:
    """Files that one of several sources has already; a single source has each file once.

    Args:
        ledger: Its database keeps them.
        sources: All of one ingest; their tables are read.
    """

    def __init__(self, ledger: Ledger, sources: Sequence[DataSource | RemoteSource]) -> None:
        self._db = ledger.db
        self._several = len(sources) > 1
        self._folders: set[Path] = set()
        if not self._several:
            return
        self._db.execute(_TABLE)
        tables = [source for source in sources if isinstance(source, Manifest)]
        with ledger.transaction():
            for source in sorted(tables, key=lambda table: table.table is None):
                for row in source.rows:
                    for reference in filter(None, (row.image, row.label_map)):
                        self._take(reference, source.table is not None)

    def _take(self, reference: FileReference, of_csv: bool) -> None:
        if not reference.is_folder:
            self._add(reference.path, reference.member, of_csv)
        elif of_csv:
            self._folders.add(reference.path.resolve())

    def comes_again(self, path: Path, member: str | None = None) -> bool:
        """Tell whether a file of a folder or archive came before; from now on it did."""
        if not self._several:
            return False
        return self._in_folder(path) or not self._add(path, member, of_csv=False)

    def in_csv(self, reference: FileReference) -> bool:
        """Tell whether a csv table names a file, which a folder's layout names too."""
        if not self._several:
            return False
        place = (_place(reference.path, reference.member),)
        found = self._db.execute("SELECT of_csv FROM taken_place WHERE place = ?", place).fetchone()
        return self._in_folder(reference.path) or found == (1,)

    def _in_folder(self, path: Path) -> bool:
        return bool(self._folders) and not self._folders.isdisjoint(path.resolve().parents)

    def _add(self, path: Path, member: str | None, of_csv: bool) -> bool:
        """Keep a file; returns whether it is new."""
        done = self._db.execute(
            "INSERT OR IGNORE INTO taken_place VALUES (?, ?)", (_place(path, member), of_csv)
        )
        return done.rowcount > 0


def _place(path: Path, member: str | None) -> bytes | None:
    return as_blob(str(path.resolve()) + ("" if member is None else f"!{member}"))
