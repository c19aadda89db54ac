"""``vismae predict``: label maps, class probabilities or error maps of people's own files."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from vismae.core.config import PredictConfig
from vismae.core.errors import (
    DataError,
    PreprocessingError,
    SettingError,
    UnreadableFileError,
    VismaeError,
)
from vismae.core.types import Flag
from vismae.files.dicomweb_failures import DicomWebError
from vismae.inference.class_slices import classify_slices
from vismae.inference.ensemble import Ensemble, load_ensemble
from vismae.inference.error_slices import error_slices
from vismae.inference.predictor import choose_device
from vismae.inference.slices import Slice, segment_slices
from vismae.inference.unanswered import Unanswered
from vismae.workflows.prediction.case_reading import read_case
from vismae.workflows.prediction.cases import find_cases
from vismae.workflows.prediction.fitting import resolved
from vismae.workflows.prediction.inputs import (
    Failure,
    Input,
    allot_names,
    failure_of,
)
from vismae.workflows.prediction.listed import find_listed_inputs
from vismae.workflows.prediction.progress import progress_bar
from vismae.workflows.prediction.reading import (
    ReadInput,
    Volume,
    prepared_slices,
)
from vismae.workflows.prediction.records import RECORDS, Record, Records, request_of
from vismae.workflows.prediction.remote import (
    RemoteInput,
    remote_inputs,
    send_results,
    servers_of,
)
from vismae.workflows.prediction.results import (
    Results,
    add_classes,
    add_errors,
    add_label_maps,
)
from vismae.workflows.prediction.results_folder import open_results
from vismae.workflows.prediction.tables import (
    FAILED,
    failure_from,
    write_failed,
    write_tables,
)

logger = logging.getLogger(__name__)

Key = tuple[ReadInput, Volume, int]

_SHOWN_FAILURES = 5


@dataclass(frozen=True)
class PredictResult:
    """Where a prediction ended.

    Attributes:
        folder: Holds the results, the tables and ``failed.csv``.
        outputs: Files written for each input that has a result: first file -> paths.
        predicted: Inputs predicted now.
        skipped: Inputs whose results were there.
        failures: What has no result; those that are ``left_out`` were no images.
        remarks: Sentences on inputs of which only a part was predicted now.
    """

    folder: Path
    outputs: dict[str, tuple[Path, ...]]
    predicted: int
    skipped: int
    failures: tuple[Failure, ...]
    remarks: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[Failure, ...]:
        """Inputs that could not be predicted."""
        return tuple(failure for failure in self.failures if not failure.left_out)

    def summary(self) -> str:
        """Say how many inputs were predicted, which were not, and where the results lie."""
        lines = [f"{self.predicted} inputs predicted. Results: {self.folder}"]
        if self.skipped:
            lines.append(f"{self.skipped} skipped, their results were there.")
        left_out = len(self.failures) - len(self.failed)
        if left_out:
            lines.append(f"{left_out} files left out, no images to predict ({FAILED}).")
        lines.extend(self.remarks[:_SHOWN_FAILURES])
        if self.failed:
            lines.append(f"{len(self.failed)} could not be predicted ({FAILED}):")
            lines.extend(f"  {failure.message}" for failure in self.failed[:_SHOWN_FAILURES])
        return "\n".join(lines)


@dataclass
class _Run:
    """What is common to all inputs of a run."""

    config: PredictConfig
    ensemble: Ensemble
    records: Records
    request: str
    names: dict[str, str]
    failures: list[Failure]
    fingerprints: dict[str, str] = field(default_factory=dict[str, str])
    predicted: int = 0
    skipped: int = 0
    alone: int = 0
    remarks: list[str] = field(default_factory=list[str])


def predict(config: PredictConfig) -> PredictResult:
    """Predict files, folders, archives and series of a PACS with a model folder, or several.

    An input that cannot be predicted is listed in ``failed.csv``, and the others go on: one that
    cannot be read, whose answers are not finite, or for which memory runs out.

    Raises:
        DicomWebError: A server cannot be used; what is done stays, and ``resume`` goes on.
        SettingError: A setting does not fit the model, or a package is missing.
        ModelError: A folder holds no model, or the models do not fit together.
        UnreadableFileError: An input does not exist.
        DataError: There is nothing to predict.
        RunFolderError: ``out`` is in use, or not empty without ``resume`` or ``overwrite``.
    """
    ensemble = load_ensemble(
        config.model, choose_device(config.device), config.flips, config.precision
    )
    config = resolved(config, ensemble)
    with tempfile.TemporaryDirectory(prefix="vismae-") as scratch:
        sequences = ensemble.preprocessing.sequences
        inputs, failures = _find_all(config, sequences, Path(scratch))
        if not inputs and not failures:
            raise DataError(
                f"{', '.join(map(str, config.inputs))}: no image was found. Name images, folders "
                "or zip archives that hold some, or a query that finds some on the server."
            )
        with open_results(config, "predict", RECORDS) as folder:
            return _predict_into(folder, config, ensemble, inputs, failures)


def _find_all(
    config: PredictConfig, sequences: tuple[str, ...], scratch: Path
) -> tuple[list[Input], list[Failure]]:
    servers, on_disk = servers_of(config.inputs, config.query)
    if sequences:
        return find_cases(on_disk, sequences, config.out)
    inputs, failures = find_listed_inputs(on_disk, config.out)
    for address, server in servers.items():
        for found in remote_inputs(address, server, config.query, _kept(config), scratch):
            if isinstance(found, Failure):
                failures.append(found)
            else:
                inputs.append(found)
    # A series can be found twice, as where a study arrived while pages were read.
    return list({item.identity: item for item in inputs}.values()), failures


def _predict_into(
    folder: Path,
    config: PredictConfig,
    ensemble: Ensemble,
    inputs: list[Input],
    failures: list[Failure],
) -> PredictResult:
    records = Records(folder)
    request = request_of(config, ensemble.digest, metadata.version("vismae"))
    names = allot_names(inputs, records.grow(inputs) | records.names())
    run = _Run(config, ensemble, records, request, names, failures)
    try:
        _predict_all(run, inputs)
    finally:
        # What is done is told even where the rest was not reached.
        task = None if ensemble.kind == "mae" else ensemble.task
        write_tables(folder, records.all(), task, ensemble.digest)
        write_failed(folder, run.failures)
        logger.info(
            "%d inputs predicted, %d skipped, %d files without a result",
            run.predicted,
            run.skipped,
            len(run.failures),
        )
        if run.alone:
            logger.warning(
                "%d inputs were single slices, but the model was trained to see %d on each side: "
                "it saw each slice repeated. Give a volume as one file, a series or a manifest.",
                run.alone,
                ensemble.preprocessing.neighbours,
            )
        if run.remarks:
            # The log names no file, since a name may be a patient's; the summary does.
            logger.warning(
                "%d pictures have pages of another size than the first, which were left out.",
                len(run.remarks),
            )
    wanted = {item.identity for item in inputs}
    outputs = {
        record.source: tuple(folder / output for output in record.outputs)
        for record in records.all()
        if record.identity in wanted
    }
    return PredictResult(
        folder,
        outputs,
        run.predicted,
        run.skipped,
        tuple(run.failures),
        tuple(run.remarks),
    )


def _kept(config: PredictConfig) -> frozenset[Flag]:
    return frozenset(Flag(word) for word in config.keep)


def _predict_all(run: _Run, inputs: list[Input]) -> None:
    with progress_bar(len(inputs)) as count:
        slices = _read_all(run, inputs, count)
        for (read, volume, _), answer in _answers(run, slices):
            if read.failed:
                continue
            if isinstance(answer, Unanswered):
                # The bar moves on by what is left of the input.
                count(1 - read.answered / read.slice_count)
                _give_up(run, read, answer)
                continue
            volume.answers.append(answer)
            # A long volume moves the bar too.
            count(1 / read.slice_count)
            if read.complete:
                _finish(run, read)


def _answers(run: _Run, slices: Iterator[Slice[Key]]) -> Iterator[tuple[Key, object]]:
    config, ensemble = run.config, run.ensemble
    if ensemble.kind == "segmenter":
        overlap = config.overlap if config.tiling else None
        return segment_slices(ensemble, slices, config.batch_size, overlap, config.uncertainty)
    if ensemble.kind == "classifier":
        return classify_slices(ensemble, slices, config.batch_size, config.explain)
    return error_slices(ensemble, slices, config.batch_size)


def _read_all(run: _Run, inputs: list[Input], count: Callable[..., None]) -> Iterator[Slice[Key]]:
    """Yield the slices of all inputs that can be read, one input after the other."""
    keep = _kept(run.config)
    for item in inputs:
        try:
            fingerprint = item.fingerprint()
            if run.records.is_done(item.identity, fingerprint, run.request):
                run.skipped += 1
                _send(run, item)
                count()
                continue
            run.fingerprints[item.identity] = fingerprint
            if isinstance(item, RemoteInput):
                item.fetch()
            read = read_case(item, run.ensemble.cards, run.config.modality, keep)
        except DicomWebError:
            raise
        except (UnreadableFileError, PreprocessingError, DataError, MemoryError) as error:
            _fail(run, item, error)
            _discard(item)
            count()
            continue
        run.failures.extend(failure_of(rejected, item.named) for rejected in read.rejected)
        if left_out := sum(volume.pages_left_out for volume in read.volumes):
            run.remarks.append(
                f"{item.source}: {left_out} pages left out, of another size than the first. Save "
                "them as files of their own to predict them."
            )
        if run.ensemble.preprocessing.neighbours:
            run.alone += all(volume.shape[0] == 1 for volume in read.volumes)
        yield from prepared_slices(read, run.ensemble.preprocessing)


def _fail(run: _Run, item: Input, error: VismaeError | MemoryError) -> None:
    """List an input as failed, and remove what was made of another state of it or request."""
    run.failures.append(failure_from(item, error))
    if item.identity in run.fingerprints:  # else it could not even be looked at this time
        run.records.forget(item.identity)


def _give_up(run: _Run, read: ReadInput, why: Unanswered) -> None:
    """List an input as failed of which a slice has no answer; the others go on."""
    item = read.item
    read.failed = True
    for volume in read.volumes:
        volume.answers.clear()
    run.failures.append(Failure(item.source, why.reason, f"{item.source}: {why.message}"))
    run.records.forget(item.identity)
    _discard(item)


def _finish(run: _Run, read: ReadInput) -> None:
    """Write the results of an input, then the record that it is done, and send what is to go."""
    item = read.item
    _write_results(run, read)
    _discard(item)


def _discard(item: Input) -> None:
    """Remove what was fetched for an input."""
    if isinstance(item, RemoteInput):
        item.discard()


def _write_results(run: _Run, read: ReadInput) -> None:
    item = read.item
    device = run.ensemble.digest[:16]
    results = Results(read, run.names[item.identity], run.records, run.request)
    try:
        if run.ensemble.kind == "segmenter":
            add_label_maps(results, run.config, run.ensemble.task, device)
        elif run.ensemble.kind == "classifier":
            add_classes(results, run.config, run.ensemble.task, device)
        else:
            add_errors(results)
    except (DataError, UnreadableFileError, SettingError) as error:
        for path in results.outputs:
            path.unlink(missing_ok=True)
        _fail(run, item, error)
        return
    run.records.write(
        Record(
            source=item.source,
            identity=item.identity,
            fingerprint=run.fingerprints[item.identity],
            request=run.request,
            weights=run.ensemble.digest,
            name=results.name,
            outputs=[path.relative_to(run.records.folder).as_posix() for path in results.outputs],
            images=results.images,
            volumes=results.volumes,
        )
    )
    run.predicted += 1
    _send(run, item)


def _send(run: _Run, item: Input) -> None:
    if not run.config.send or not isinstance(item, RemoteInput):
        return
    failure = send_results(item, run.records.of(item.identity), run.records)
    if failure is not None:
        run.failures.append(failure)
