"""What was done for each input: a small file apart, so that an interrupted run can go on.

A record is written when all results of an input lie on the disk. The tables are made from the
records, and so hold earlier runs' inputs as well.
"""

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vismae.core.config import PredictConfig
from vismae.core.errors import DataError
from vismae.core.rundir import write_json
from vismae.workflows.prediction.inputs import Input

RECORDS = "records"

logger = logging.getLogger(__name__)

# What may change without changing a result.
_NO_REQUEST = {
    *("model", "inputs", "query", "send", "out", "batch_size", "device", "resume", "overwrite"),
}


@dataclass(frozen=True)
class Record:
    """One input that is done.

    Attributes:
        source: Its first file.
        identity, fingerprint: See ``Input``.
        request: See ``request_of``.
        weights: Which models answered; see ``load_ensemble``.
        name: What its results are called.
        outputs: Files, relative to the folder of the results.
        images: Rows for ``predictions.csv``.
        volumes: Rows for ``volumes.csv``.
    """

    source: str
    identity: str
    fingerprint: str
    request: str
    weights: str
    name: str
    outputs: list[str]
    images: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    volumes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


def request_of(config: PredictConfig, digest: str, version: str) -> str:
    """Return a hash of all that decides a result beside the input: settings, weights, version."""
    settings = config.model_dump(mode="json", exclude=_NO_REQUEST)
    text = json.dumps([settings, digest, version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Records:
    """The records of a folder of results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._place = folder / RECORDS
        # Paths of files may name patients, and rows hold their ids.
        self._place.mkdir(mode=0o700, exist_ok=True)
        self._known: dict[str, Record] = {}
        for path in sorted(self._place.glob("*.json")):
            try:
                record = Record(**json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError):
                logger.warning("%s cannot be read; its input is predicted again", path.name)
                continue
            self._known[record.identity] = record
        self._owner = {
            output: record.identity for record in self._known.values() for output in record.outputs
        }

    def private(self, name: str) -> Path:
        """Return a path beside the records, where nobody else may read."""
        return self._place / name

    def names(self) -> dict[str, str]:
        """Return identity -> name."""
        return {identity: record.name for identity, record in self._known.items()}

    def all(self) -> list[Record]:
        """Return all records in the order of their names."""
        return sorted(self._known.values(), key=lambda record: record.name)

    def of(self, identity: str) -> Record:
        """Return the record of an input that is done."""
        return self._known[identity]

    def is_done(self, identity: str, fingerprint: str, request: str) -> bool:
        """Tell whether an input's results are there and would come out the same again."""
        record = self._known.get(identity)
        return (
            record is not None
            and (record.fingerprint, record.request) == (fingerprint, request)
            and all((self.folder / output).is_file() for output in record.outputs)
        )

    def claim(self, path: Path, identity: str) -> Path:
        """Return a path for a result, unless it is another input's.

        Raises:
            DataError: It is.
        """
        output = path.relative_to(self.folder).as_posix()
        if self._owner.setdefault(output, identity) != identity:
            raise DataError(
                f"{path} is the result of another input. Predict this one into another --out."
            )
        return path

    def grow(self, inputs: Sequence[Input]) -> dict[str, str]:
        """Let go what was made of a series before files came to it or went from it.

        Such a series is another input. Its results would stand in the tables a second time.

        Args:
            inputs: Of this run.

        Returns:
            Identity -> name, of the series as they are now.
        """
        current = {item.identity for item in inputs}
        owner = {file.name: item for item in inputs for file in item.group.files}
        names: dict[str, str] = {}
        for record in [known for known in self.all() if known.identity not in current]:
            item = owner.get(record.source)
            if item is None or item.identity in self._known or item.identity in names:
                continue
            # Of the same file a slice may have been asked for by itself, under a name of its own.
            if re.fullmatch(rf"{re.escape(item.wanted_name)}(-\d+)?", record.name):
                names[item.identity] = record.name
                self.forget(record.identity)
        return names

    def forget(self, identity: str) -> None:
        """Remove what an earlier run kept of an input that has no result any more."""
        earlier = self._known.pop(identity, None)
        if earlier is None:
            return
        (self._place / f"{identity}.json").unlink(missing_ok=True)
        for output in earlier.outputs:
            (self.folder / output).unlink(missing_ok=True)
            self._owner.pop(output, None)

    def write(self, record: Record) -> None:
        """Keep a record, and remove what an earlier one left beside it."""
        earlier = self._known.get(record.identity)
        write_json(self._place / f"{record.identity}.json", asdict(record))
        self._known[record.identity] = record
        for output in set(earlier.outputs if earlier else ()) - set(record.outputs):
            (self.folder / output).unlink(missing_ok=True)
            self._owner.pop(output, None)
