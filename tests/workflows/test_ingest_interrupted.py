"""An ingest that is killed, loses a worker, or reads elsewhere ends as if nothing had happened."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from factories import write_dicom_series, write_png
from vismae.core.config import IngestConfig
from vismae.core.errors import DataError
from vismae.data.store import Store
from vismae.workflows.ingest import ingest

_SERIES = 36


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 MR series of 1.5 MB, a picture and a broken file: ten portions."""
    folder = tmp_path_factory.mktemp("archive") / "in"
    rng = np.random.default_rng(0)
    for number in range(_SERIES):
        volume = rng.integers(0, 4000, (12, 256, 256)).astype(np.uint16)
        write_dicom_series(
            folder / f"{number:02d}",
            volume,
            Modality="MR",
            PatientID=f"P{number // 2}",
            SeriesInstanceUID=f"1.2.{number}",
        )
    write_png(folder / "a.png", np.eye(30, dtype=np.uint8) * 200)
    (folder / "b.dcm").write_bytes(b"no DICOM at all, in spite of its name" * 9)
    return folder


@pytest.fixture(scope="module")
def reference(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("reference")
    config = IngestConfig(
        sources=(archive,), store=folder / "s", salt=archive.parent / "salt", workers=1
    )
    return ingest(config).store


def same_rows(store: Store, reference: Store) -> None:
    assert store.verify() == []
    places = ["shard", "position", "pixels_offset", "label_map_offset"]
    found, expected = (
        each.index.drop(columns=[name for name in places if name in each.index.columns])
        for each in (store, reference)
    )
    pd.testing.assert_frame_equal(found, expected)
    left_out = [each.folder / "rejected.csv" for each in (store, reference)]
    assert left_out[0].read_bytes() == left_out[1].read_bytes()


def finished_portions(ledger: Path) -> int:
    if not ledger.is_file():
        return 0
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=20) as db:
        try:
            query = "SELECT count(*) FROM portion WHERE result IS NOT NULL"
            return int(db.execute(query).fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def command(archive: Path, store: Path) -> list[str]:
    salt = str(archive.parent / "salt")
    start = [sys.executable, "-c", "from vismae.cli import main; main()", "ingest"]
    return [*start, str(archive), "--store", str(store), "--salt", salt, "--workers", "2"]


def test_an_ingest_killed_in_the_middle_goes_on_where_it_stopped(
    archive: Path, reference: Store, tmp_path: Path
) -> None:
    store = tmp_path / "killed"
    ledger = archive.parent / "killed.private" / "ledger.sqlite"
    running = subprocess.Popen(
        command(archive, store), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while finished_portions(ledger) < 2 and running.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    done = finished_portions(ledger)
    assert not (store / "manifest.json").exists(), "it was finished before it could be killed"
    written = {path.name: path.stat().st_mtime_ns for path in (store / "shards").glob("*.arrow")}

    again = subprocess.run(command(archive, store), capture_output=True, text=True)

    assert again.returncode == 0, again.stderr
    assert done >= 2
    kept = [
        name
        for name, changed in written.items()
        if (store / "shards" / name).stat().st_mtime_ns == changed
    ]
    assert len(kept) >= done
    same_rows(Store(store), reference)


def test_files_that_a_killed_ingest_was_writing_are_removed_by_the_next(tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "a.png", np.eye(30, dtype=np.uint8) * 200)
    config = IngestConfig(sources=(tmp_path / "in",), store=tmp_path / "s", executor="here")
    ingest(config)
    for folder in (tmp_path / "s", tmp_path / "s.private"):
        assert folder.is_dir()
        (folder / ".3k_x9.unfinished").write_bytes(b"half")
    ingest(config)
    assert list(tmp_path.rglob(".*.unfinished")) == []
    assert Store(tmp_path / "s").verify() == []


def test_parts_that_were_lost_are_read_again(
    archive: Path, reference: Store, tmp_path: Path
) -> None:
    config = IngestConfig(
        sources=(archive,), store=tmp_path / "torn", salt=archive.parent / "salt", workers=2
    )
    store = ingest(config).store
    min((store.folder / "shards").glob("*.arrow")).unlink()
    assert store.verify()
    with pytest.raises(DataError, match=r"000001-000\.arrow is gone"):
        ingest(config)
    (store.folder / "manifest.json").unlink()

    ingest(config)

    same_rows(Store(store.folder), reference)


def test_a_dask_cluster_that_loses_a_worker_gives_the_same_store(
    archive: Path, reference: Store, tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed")
    store = tmp_path / "dask"
    ledger = archive.parent / "dask.private" / "ledger.sqlite"
    with distributed.LocalCluster(
        n_workers=3,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        silence_logs=50,
    ) as cluster:
        pids = [worker.process.pid for worker in cluster.workers.values()]

        def kill_one() -> None:
            while finished_portions(ledger) < 2:
                time.sleep(0.01)
            os.kill(pids[0], signal.SIGKILL)

        killer = threading.Thread(target=kill_one, daemon=True)
        killer.start()
        address = cluster.scheduler_address.removeprefix("tcp://")
        ingest(
            IngestConfig(
                sources=(archive,),
                store=store,
                salt=archive.parent / "salt",
                executor=f"dask://{address}",
            )
        )
        killer.join(timeout=10)
        assert not killer.is_alive(), "no worker was killed"

    same_rows(Store(store), reference)
