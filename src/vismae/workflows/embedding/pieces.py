"""Features on their way to one table: a file for each input, so that an interrupted run goes on.

A piece is the rows of one input (a file, a DICOM series, or a block of rows of a store). Its file
says what it was made from and how; one that would come out the same again is not made again.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vismae.core.rundir import write_bytes

PIECES = "pieces"
FEATURE = "feature_"

logger = logging.getLogger(__name__)


@dataclass
class Piece:
    """The rows of one input.

    Attributes:
        identity: Tells this input from every other.
        fingerprint: Changes when the input does.
        facts: One row for each slice: what the table says beside the features.
        vectors: Features so far, in order.
        failed: A slice has no features, so that the input has none.
    """

    identity: str
    fingerprint: str
    facts: pd.DataFrame
    vectors: list[np.ndarray] = field(default_factory=list[np.ndarray])
    failed: bool = False

    @property
    def complete(self) -> bool:
        """Whether every slice has its features."""
        return len(self.vectors) == len(self.facts)


class Pieces:
    """The pieces of an output folder.

    Args:
        folder: The output folder.
        request: Hash of everything that decides the features beside the input.
    """

    def __init__(self, folder: Path, request: str) -> None:
        self._folder = folder / PIECES
        self._request = request
        # Paths of files may name patients.
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def is_done(self, identity: str, fingerprint: str) -> bool:
        """Tell whether the piece is there and would come out the same again."""
        path = self._path(identity)
        if not path.is_file():
            return False
        try:
            known = pq.read_schema(path).metadata or {}
        except (OSError, pa.ArrowException):
            logger.warning("%s cannot be read; it is computed again", path.name)
            return False
        return known.get(b"vismae") == self._mark(identity, fingerprint)

    def write(self, piece: Piece) -> None:
        """Keep a complete piece."""
        vectors = np.stack(piece.vectors).astype(np.float32)
        columns: dict[str, pa.Array] = {}
        for name, values in piece.facts.items():
            numeric = pd.api.types.is_integer_dtype(values.dtype)
            kind = pa.int32() if numeric else pa.string()
            columns[str(name)] = pa.array(
                [None if pd.isna(value) else value for value in values.tolist()], kind
            )
        for number in range(vectors.shape[1]):
            columns[f"{FEATURE}{number:04d}"] = pa.array(vectors[:, number])
        table = pa.table(columns)
        mark = {b"vismae": self._mark(piece.identity, piece.fingerprint)}
        buffer = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata(mark), buffer, compression="zstd")
        write_bytes(self._path(piece.identity), buffer.getvalue().to_pybytes())

    def join(self, identities: Sequence[str], path: Path) -> None:
        """Write the pieces, in this order, as one table."""
        temporary = path.with_name(f".{path.name}.unfinished")
        writer: pq.ParquetWriter | None = None
        try:
            for table in self._tables(identities):
                writer = writer or pq.ParquetWriter(temporary, table.schema, compression="zstd")
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
        temporary.replace(path)

    def _tables(self, identities: Sequence[str]) -> Iterator[pa.Table]:
        for identity in identities:
            yield pq.read_table(self._path(identity)).replace_schema_metadata(None)

    def _path(self, identity: str) -> Path:
        return self._folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.parquet"

    def _mark(self, identity: str, fingerprint: str) -> bytes:
        text = "|".join((identity, fingerprint, self._request))
        return hashlib.sha256(text.encode()).hexdigest().encode()


def read_features(table: pd.DataFrame) -> np.ndarray:
    """Return the features of a table, (N, C) float32."""
    names = [name for name in table.columns if str(name).startswith(FEATURE)]
    return table[names].to_numpy(np.float32)
