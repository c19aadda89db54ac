"""``vismae embed``: images become rows of numbers, for search and simple classifiers."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from vismae.core.config_model import EmbedConfig
from vismae.core.errors import (
    DataError,
    ModelError,
    PreprocessingError,
    SettingError,
    UnreadableFileError,
)
from vismae.core.types import Flag
from vismae.data.store import Store
from vismae.files.dicom_text import writable
from vismae.inference.embedder import embed_slices, stored_slices
from vismae.inference.ensemble import Ensemble, load_ensemble
from vismae.inference.predictor import choose_device
from vismae.inference.slices import Slice
from vismae.inference.unanswered import Unanswered
from vismae.models.features import REVISION, require_features
from vismae.models.weights import Model
from vismae.workflows.embedding.looks import MAP_PICTURE, NEIGHBOURS, write_map, write_neighbours
from vismae.workflows.embedding.pieces import PIECES, Piece, Pieces, read_features
from vismae.workflows.embedding.stored import is_store, stored_pieces, usable_rows
from vismae.workflows.prediction.inputs import Failure, Input, failure_of
from vismae.workflows.prediction.listed import find_listed_inputs
from vismae.workflows.prediction.progress import progress_bar
from vismae.workflows.prediction.reading import ReadInput, prepared_slices, read_input
from vismae.workflows.prediction.results_folder import open_results
from vismae.workflows.prediction.tables import FAILED, failure_from, write_failed

FEATURES = "features.parquet"

logger = logging.getLogger(__name__)

_SHOWN_FAILURES = 5
# What may change without changing a feature.
_NO_REQUEST = {
    *("model", "inputs", "out", "batch_size", "device", "neighbours", "seed"),
    *("resume", "overwrite"),
}


@dataclass(frozen=True)
class EmbedResult:
    """Where the features ended.

    Attributes:
        folder: Holds the table, the neighbours, the map and ``failed.csv``.
        rows: Rows of the table, one for each slice.
        dim: Numbers in a row.
        embedded: Inputs (files, series, blocks of a store) computed now.
        skipped: Inputs that were there.
        maps: Kinds of map drawn.
        failures: What has no features; those that are ``left_out`` were no images.
    """

    folder: Path
    rows: int
    dim: int
    embedded: int
    skipped: int
    maps: tuple[str, ...]
    failures: tuple[Failure, ...]

    @property
    def failed(self) -> tuple[Failure, ...]:
        """Inputs that could not be embedded."""
        return tuple(failure for failure in self.failures if not failure.left_out)

    @property
    def table(self) -> pd.DataFrame:
        """The whole table, facts and features."""
        return pd.read_parquet(self.folder / FEATURES)

    @property
    def features(self) -> np.ndarray:
        """The features alone, (rows, dim) float32."""
        return read_features(self.table)

    def summary(self) -> str:
        """Say how many images were embedded, which were not, and where the results lie."""
        table = self.folder / FEATURES
        lines = [f"{self.rows} images, {self.dim} features each: {table}"]
        if self.maps:
            lines.append(f"Map ({', '.join(self.maps)}): {self.folder / MAP_PICTURE}")
        if (self.folder / NEIGHBOURS).is_file():
            lines.append(f"Nearest neighbours: {self.folder / NEIGHBOURS}")
        if self.skipped:
            lines.append(f"{self.skipped} inputs skipped, their features were there.")
        left_out = len(self.failures) - len(self.failed)
        if left_out:
            lines.append(f"{left_out} files left out, no images ({FAILED}).")
        if self.failed:
            lines.append(f"{len(self.failed)} could not be embedded ({FAILED}):")
            lines.extend(f"  {failure.message}" for failure in self.failed[:_SHOWN_FAILURES])
        return "\n".join(lines)


@dataclass
class _Run:
    """What is common to all inputs of a run."""

    config: EmbedConfig
    ensemble: Ensemble
    pieces: Pieces
    failures: list[Failure]
    # In the order of the table: identity, and whether it has its features.
    order: dict[str, bool] = field(default_factory=dict[str, bool])
    embedded: int = 0
    skipped: int = 0


def embed(config: EmbedConfig) -> EmbedResult:
    """Write the features of images, their nearest neighbours and a map.

    An input that cannot be read, or has no finite features, is listed in ``failed.csv``, and the
    others go on.

    Raises:
        SettingError: Stores and files are mixed, or a device is not there.
        ModelError: The folder holds no model, or one without an encoder.
        UnreadableFileError: An input does not exist.
        DataError: There is nothing to embed, or a store is damaged.
        RunFolderError: ``out`` is in use, or not empty without ``resume`` or ``overwrite``.
    """
    ensemble = load_ensemble(
        [config.model], choose_device(config.device), precision=config.precision
    )
    require_features(cast(Model, ensemble.models[0]))
    ensemble.preprocessing.refuse_sequences(
        str(config.model), "Use the model it was started from, whose features are of one image."
    )
    stores = [path for path in config.inputs if is_store(path)]
    if stores and len(config.inputs) > 1:
        raise SettingError(
            f"inputs: {stores[0]} is a store and was given with others. Give one store, or files."
        )
    with open_results(config, "embed", PIECES) as folder:
        pieces = Pieces(folder, _request_of(config, ensemble.digest))
        run = _Run(config, ensemble, pieces, [])
        if stores:
            _embed_store(run, Store(stores[0]))
        else:
            _embed_files(run)
        write_failed(folder, run.failures)
        done = [identity for identity, there in run.order.items() if there]
        if not done:
            first = run.failures[0].message if run.failures else "no image was found."
            raise DataError(f"Nothing could be embedded: {first} See {folder / FAILED}.")
        pieces.join(done, folder / FEATURES)
        table = pq.read_table(folder / FEATURES).to_pandas()
        if config.neighbours:
            write_neighbours(folder, table, config.neighbours)
        else:
            (folder / NEIGHBOURS).unlink(missing_ok=True)  # of an earlier table
        maps = write_map(folder, table, config.seed)
        dim = read_features(table).shape[1]
        logger.info("%d images, %d features each", len(table), dim)
    return EmbedResult(
        folder, len(table), dim, run.embedded, run.skipped, maps, tuple(run.failures)
    )


def _request_of(config: EmbedConfig, digest: str) -> str:
    settings = config.model_dump(mode="json", exclude=_NO_REQUEST)
    decides = [settings, digest, metadata.version("vismae"), REVISION]
    text = json.dumps(decides, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _embed_store(run: _Run, store: Store) -> None:
    card = run.ensemble.cards[0]
    rows, run.failures[:] = usable_rows(store, card)
    blocks = list(stored_pieces(store, rows))

    def slices(count_one: Callable[[], None]) -> Iterator[Slice[Piece]]:
        for piece, block in blocks:
            if _is_there(run, piece.identity, piece.fingerprint):
                count_one()
                continue
            for item in stored_slices(store, block, card.preprocessing):
                yield Slice(piece, item.image)

    _compute(run, slices, len(blocks))


def _embed_files(run: _Run) -> None:
    inputs, found = find_listed_inputs(run.config.inputs, run.config.out)
    run.failures.extend(found)

    def slices(count_one: Callable[[], None]) -> Iterator[Slice[Piece]]:
        for item in inputs:
            try:
                fingerprint = item.fingerprint()
                if _is_there(run, item.identity, fingerprint):
                    count_one()
                    continue
                read = _read(run, item)
            except (UnreadableFileError, PreprocessingError, DataError, MemoryError) as error:
                run.order[item.identity] = False
                run.failures.append(failure_from(item, error))
                count_one()
                continue
            run.failures.extend(failure_of(rejected, item.named) for rejected in read.rejected)
            piece = Piece(item.identity, fingerprint, _facts(read))
            for prepared in prepared_slices(read, run.ensemble.preprocessing):
                if piece.failed:
                    break
                yield Slice(piece, prepared.image)

    _compute(run, slices, len(inputs))


def _is_there(run: _Run, identity: str, fingerprint: str) -> bool:
    """Tell whether an input's features are there; it has its place in the table either way."""
    there = run.pieces.is_done(identity, fingerprint)
    run.order[identity] = there
    run.skipped += there
    return there


def _read(run: _Run, item: Input) -> ReadInput:
    keep = frozenset(Flag(word) for word in run.config.keep)
    return read_input(item, run.ensemble.cards, run.config.modality, keep)


def _facts(read: ReadInput) -> pd.DataFrame:
    """Name the slices of an input: the file as given, the image in it, the slice in that."""
    # A table holds no file name in another encoding than the system's.
    source = writable(read.item.source)
    rows = [
        (source, image, number, str(volume.image.modality))
        for image, volume in enumerate(read.volumes)
        for number in range(volume.shape[0])
    ]
    return pd.DataFrame(rows, columns=["source", "image", "slice_index", "modality"])


def _give_up(run: _Run, piece: Piece, why: Unanswered) -> None:
    """List an input as failed of which a slice has no features; the others go on.

    Raises:
        ModelError: It is a row of a store, of which a table without gaps is made.
    """
    if "row" in piece.facts:
        row = piece.facts["row"].iloc[len(piece.vectors)]
        raise ModelError(f"{run.config.inputs[0]}, row {row}: {why.message}")
    piece.failed = True
    piece.vectors.clear()
    source = str(piece.facts["source"].iloc[0])
    run.order[piece.identity] = False
    run.failures.append(Failure(source, why.reason, f"{source}: {why.message}"))


def _compute(
    run: _Run, slices: Callable[[Callable[[], None]], Iterator[Slice[Piece]]], total: int
) -> None:
    with progress_bar(total, "embedding") as count_one:
        stream = slices(count_one)
        for piece, vector in embed_slices(run.ensemble, stream, run.config.batch_size):
            if piece.failed:
                continue
            if isinstance(vector, Unanswered):
                _give_up(run, piece, vector)
                count_one()
                continue
            piece.vectors.append(vector)
            if piece.complete:
                run.pieces.write(piece)
                piece.vectors.clear()
                run.order[piece.identity] = True
                run.embedded += 1
                count_one()
