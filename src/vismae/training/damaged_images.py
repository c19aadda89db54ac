"""Images of a store that turn out damaged while a run learns: told, listed, and at last too many.

::

    RUN/damaged.csv    row of the store, shard, position in the shard; one line for each image

With several processes each but the first keeps a list of its own, ``damaged_rank_N.csv``.
"""

import csv
import logging
from pathlib import Path

from vismae.core.errors import TrainingError
from vismae.data.store import Store

_COLUMNS = ["row", "shard", "position"]
_TOLD = 5

logger = logging.getLogger(__name__)


class DamagedImages:
    """Counts the damaged images that training met; another image was taken in place of each.

    Args:
        folder: Run folder.
        store: Where the images are.
        images: How many images the run learns from.
        most: Share of them that may be damaged; at least one may, unless it is 0.
        rank: Of this process.
    """

    def __init__(self, folder: Path, store: Store, images: int, most: float, rank: int = 0) -> None:
        self.path = folder / (f"damaged_rank_{rank}.csv" if rank else "damaged.csv")
        self._store = store
        self._images = images
        self._share = most
        self._most = max(1, int(most * images)) if most else 0
        self._rows: set[int] = set()
        self._listed: set[str] | None = None

    def __call__(self, rows: list[int]) -> None:
        """Take note of the damaged images of a batch.

        Raises:
            TrainingError: They are too many by now.
        """
        for row in rows:
            if row not in self._rows:
                self._rows.add(row)
                self._tell(row)
        if len(self._rows) > self._most:
            raise TrainingError(
                f"{len(self._rows)} of {self._images} images were found damaged, more than "
                f"data.max_damaged_fraction {self._share:g} allows ({self.path}). Copy the shards "
                f"it names again, or make {self._store.address} again (vismae ingest --overwrite), "
                "and go on with --resume; a larger data.max_damaged_fraction learns without them."
            )

    def tell_sum(self) -> None:
        """Say how many there were, if any."""
        if self._rows:
            logger.warning(
                "%d of %d images were damaged, other images were seen in their place (%s)",
                len(self._rows),
                self._images,
                self.path,
            )

    def _tell(self, row: int) -> None:
        shard, position = self._store.place(row)
        if len(self._rows) <= _TOLD:
            logger.warning(
                "%s: row %d of it (row %d of the store) is damaged; another image is seen in its "
                "place",
                shard,
                position,
                row,
            )
        try:
            self._write([row, shard, position])
        except OSError as error:
            # As on a full disk: no reason to lose the steps since the last resume point.
            logger.warning("%s cannot be written (%s)", self.path, error.strerror or error)

    def _write(self, line: list[str | int]) -> None:
        """Add a line, unless an earlier process of this run did."""
        if self._listed is None:
            self._listed = set()
            if self.path.is_file():
                with self.path.open(newline="", encoding="utf-8") as file:
                    self._listed = {row[0] for row in csv.reader(file) if row}
        if str(line[0]) in self._listed:
            return
        with self.path.open("a", newline="", encoding="utf-8") as file:
            lines = [line] if self._listed else [_COLUMNS, line]
            csv.writer(file, lineterminator="\n").writerows(lines)
        self._listed.add(str(line[0]))
