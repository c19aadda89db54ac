"""What a file that takes its reader down costs: itself, and not the series that it is part of."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vismae.workflows.ingest as ingesting
from factories import write_dicom_series, write_dicom_slice, write_png
from factories_labels import write_labelled_series, write_rtstruct
from vismae.core.config import IngestConfig
from vismae.core.executor import Lost, Step
from vismae.workflows.ingest import IngestResult, ingest
from vismae.workflows.intake.identity import private_folder
from vismae.workflows.intake.portion import begun, read_portion

VOLUME = np.random.default_rng(0).integers(0, 100, (6, 12, 10)).astype(np.int16)


class Crash(BaseException):
    """A process that dies, as seen from inside."""


class DeadlyFiles:
    """An executor whose readers die at some files, as of a fault in a decoder.

    Args:
        names: Of these files; empty for a death when the files of a series are put together.
    """

    def __init__(self, names: set[str]) -> None:
        self._names = names

    def run(self, function: Callable[[Any, Step], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        for task in tasks:
            begun = [""]

            def step(name: str, task: Any = task, begun: list[str] = begun) -> None:
                begun[0] = name
                if function is read_portion and self._is_deadly(task, name):
                    raise Crash

            try:
                outcome = function(task, step)
            except Crash:
                outcome = Lost(task, begun[0], "died", "signal SIGSEGV")
            yield outcome

    def _is_deadly(self, task: Any, step: str) -> bool:
        item, entry, of_label_map = begun(step)
        content = dict(task.items)[item]
        if entry is None:
            return not self._names
        if of_label_map:
            row = next(file.row for file in content.entries if file.number == entry)
            return row.label_map.path.name in self._names
        files = {file.number: file.file.path.name for file in (*content.entries, *content.labels)}
        return files[entry] in self._names


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Path, set[str]], IngestResult]:
    """Ingest with files that kill their reader: ``run(source, store, names)``."""

    def make(source: Path, store: Path, names: set[str]) -> IngestResult:
        @contextmanager
        def opened(*_: Any, **__: Any) -> Iterator[DeadlyFiles]:
            yield DeadlyFiles(names)

        monkeypatch.setattr(ingesting, "open_executor", opened)
        return ingest(IngestConfig(sources=(source,), store=store))

    return make


def left_out(store: Path) -> list[tuple[str, str]]:
    """Return file name and reason of every line."""
    lines = (private_folder(store) / "rejected.csv").read_text().splitlines()[1:]
    fields = [line.split(",") for line in lines]
    return sorted((Path(path).name, reason) for _, path, reason, *_ in fields)


def test_slices_that_kill_their_reader_cost_themselves_only(
    tmp_path: Path, run: Callable[..., IngestResult]
) -> None:
    write_dicom_series(tmp_path / "in", VOLUME)
    names = {"slice_000.dcm", "slice_003.dcm", "slice_005.dcm"}

    result = run(tmp_path / "in", tmp_path / "s", names)

    assert left_out(tmp_path / "s") == [(name, "reader-died") for name in sorted(names)]
    assert (result.stored, result.files) == (3, 6)
    assert result.store.index["volume_id"].nunique() == 1
    assert result.store.verify() == []


def test_a_series_of_many_such_slices_is_left_out_as_a_whole(
    tmp_path: Path, run: Callable[..., IngestResult]
) -> None:
    write_dicom_series(tmp_path / "in", VOLUME)
    write_dicom_slice(tmp_path / "in" / "good.dcm", VOLUME[0])
    names = {f"slice_00{number}.dcm" for number in range(5)}

    result = run(tmp_path / "in", tmp_path / "s", names)

    everything = [f"slice_00{number}.dcm" for number in range(6)]
    assert left_out(tmp_path / "s") == [(name, "reader-died") for name in everything]
    assert result.stored == 1


def test_a_series_that_cannot_be_put_together_is_left_out_as_a_whole(
    tmp_path: Path, run: Callable[..., IngestResult]
) -> None:
    write_dicom_series(tmp_path / "in", VOLUME)

    with pytest.raises(ValueError, match="reader-died 6"):
        run(tmp_path / "in", tmp_path / "s", set())


def test_a_label_file_that_kills_its_reader_costs_the_labels_only(
    tmp_path: Path, run: Callable[..., IngestResult]
) -> None:
    series = write_labelled_series(tmp_path / "in" / "ct", VOLUME)
    square = np.array([[1.5, 2.5, 5], [6.5, 2.5, 5], [6.5, 5.5, 5], [1.5, 5.5, 5]])
    write_rtstruct(tmp_path / "in" / "deadly.dcm", series, {"Gland": [square]})
    write_rtstruct(tmp_path / "in" / "good.dcm", series, {"Gland": [square]})

    result = run(tmp_path / "in", tmp_path / "s", {"deadly.dcm"})

    assert left_out(tmp_path / "s") == [("deadly.dcm", "reader-died")]
    assert result.stored == 6
    label_map = result.store.read(1).label_map
    assert label_map is not None
    assert np.count_nonzero(label_map) == 15


def test_a_slice_that_is_too_large_for_the_memory_is_left_out_alone(tmp_path: Path) -> None:
    tags: dict[str, Any] = {"SeriesInstanceUID": "1.2.3.5", "StudyInstanceUID": "1.2.3.6"}
    write_dicom_series(tmp_path / "in", VOLUME, **tags)
    tags |= {"Rows": 20_000, "Columns": 20_000}
    large = write_dicom_slice(tmp_path / "in" / "large.dcm", VOLUME[0], **tags)
    pixel_bytes = 2 * 20_000**2
    with large.open("rb+") as file:
        file.seek(file.read().index(b"\xe0\x7f\x10\x00OW") + 8)
        file.write(pixel_bytes.to_bytes(4, "little"))
        # Zeros that take no room on the disk.
        file.truncate(file.tell() + pixel_bytes)

    result = ingest(
        IngestConfig(
            sources=(tmp_path / "in",),
            store=tmp_path / "s",
            executor="processes",
            workers=1,
            file_memory_gib=0.3,
        )
    )

    assert left_out(tmp_path / "s") == [("large.dcm", "reader-memory")]
    assert result.stored == 6


@pytest.mark.parametrize("count", [1, 5])
def test_label_maps_that_kill_their_reader_cost_themselves_only(
    tmp_path: Path, run: Callable[..., IngestResult], count: int
) -> None:
    """Those of a whole volume are given up where more than a few of them do."""
    pictures = VOLUME.astype(np.uint8)
    rows = ["path,volume_id,label_map"]
    for number in range(6):
        write_png(tmp_path / "in" / f"{number}.png", pictures[number])
        write_png(tmp_path / "in" / f"labels_{number}.png", pictures[number] // 50)
        rows.append(f"{number}.png,V,labels_{number}.png")
    (tmp_path / "in" / "manifest.csv").write_text("\n".join(rows))
    names = {f"labels_{number}.png" for number in range(count)}

    result = run(tmp_path / "in", tmp_path / "s", names)

    assert result.stored == 6
    without = 1 if count == 1 else 6
    told = [(f"labels_{number}.png", "reader-died") for number in range(without)]
    assert left_out(tmp_path / "s") == told
    assert (~result.store.index["has_label_map"]).sum() == without
    # Another ingest neither tries them again nor forgets them.
    again = run(tmp_path / "in", tmp_path / "s", names)
    assert (again.stored, again.reasons) == (6, {"reader-died": without})
