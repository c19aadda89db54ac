"""Stores at an address: the same rows by ranged reads, from memory and over HTTP."""

import multiprocessing
import pickle
import re
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest

from stores import pretrain_store, segmentation_store
from vismae.core.errors import DataError
from vismae.core.preprocessing import Preprocessing
from vismae.core.sections import PretrainDataSettings
from vismae.data.loaders import PretrainImages, training_loader
from vismae.data.sampler import BatchStream, DrawStream
from vismae.data.store import Store
from vismae.data.store_curation import write_curation
from vismae.data.store_files import is_remote


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return segmentation_store(tmp_path_factory.mktemp("remote") / "store", patients=3)


@pytest.fixture
def in_memory(local: Store) -> Iterator[str]:
    system = fsspec.filesystem("memory")
    system.put(str(local.folder), "/bucket/store", recursive=True)
    yield "memory://bucket/store"
    system.rm("/bucket", recursive=True)


class Server(ThreadingHTTPServer):
    """Serves a folder on loopback, with ranges; remembers what was asked for."""

    def __init__(self, folder: Path, ranges: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.ranges = ranges
        self.asked: list[tuple[str, str | None]] = []
        self.broken: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, with_body: bool) -> None:
        wanted = self.headers.get("Range") if self.server.ranges else None
        self.server.asked.append((self.path, wanted))
        path = self.server.folder / self.path.lstrip("/")
        status = 500 if self.path in self.server.broken else 200 if path.is_file() else 404
        content = path.read_bytes() if status == 200 else b""
        size = len(content)
        self.send_response(206 if wanted and status == 200 else status)
        if wanted and status == 200:
            first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted).groups()  # type: ignore[union-attr]
            content = content[int(first) : int(last) + 1]
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        if self.server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)


@pytest.fixture
def serve() -> Iterator:
    started: list[Server] = []

    def start(folder: Path, ranges: bool = True) -> Server:
        server = Server(folder, ranges)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def assert_same(remote: Store, local: Store) -> None:
    assert len(remote) == len(local)
    for row in (len(local) - 1, 0, 3):
        np.testing.assert_array_equal(remote.read(row).pixels, local.read(row).pixels)
        np.testing.assert_array_equal(remote.read(row).label_map, local.read(row).label_map)
    names = ["image_id", "scale_high", "has_label_map"]
    assert remote.columns(names).equals(local.columns(names))
    assert remote.index.equals(local.index)
    assert remote.verify() == []


def test_a_store_in_memory_is_read_like_one_on_disk(in_memory: str, local: Store) -> None:
    remote = Store(in_memory)
    assert_same(remote, local)
    assert remote.address == in_memory


def test_a_path_made_of_an_address_means_the_address(in_memory: str, local: Store) -> None:
    assert str(Path(in_memory)) != in_memory
    assert_same(Store(Path(in_memory)), local)
    assert is_remote(Path(in_memory))
    assert is_remote("s3://bucket/store")
    assert not is_remote(local.folder)
    assert not is_remote("C:/store")


@pytest.mark.parametrize("form", ["file://{}", "file:{}", "local://{}"])
def test_a_file_address_is_a_local_folder(form: str, local: Store) -> None:
    store = Store(form.format(local.folder))
    assert_same(store, local)
    assert store.folder == local.folder
    assert not is_remote(form.format(local.folder))


def test_rows_over_http_are_ranges_of_their_shard(serve, local: Store) -> None:
    server = serve(local.folder)
    remote = Store(server.address)
    assert_same(remote, local)
    server.asked.clear()

    remote.read(2)

    facts = local.index.iloc[2]
    shard = f"/{local.manifest['shards'][0]['file']}"
    expected = []
    for name in ("pixels", "label_map"):
        first = int(facts[f"{name}_offset"])
        last = first + int(facts[f"{name}_bytes"]) - 1
        expected.append((shard, f"bytes={first}-{last}"))
    assert server.asked == expected


def mean_of_row(store: Store, row: int) -> float:
    return float(store.read(row).pixels.mean())


def test_a_store_over_http_travels_to_another_process(serve, local: Store) -> None:
    remote = Store(serve(local.folder).address)
    assert len(pickle.dumps(remote)) < 500
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(mean_of_row, remote, 4).result() == mean_of_row(local, 4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "http"])
def test_training_reads_a_store_at_an_address_in_worker_processes(
    serve, tmp_path: Path, kind: str
) -> None:
    local = pretrain_store(tmp_path / "store")
    address = serve(local.folder).address if kind == "http" else f"file://{local.folder}"
    settings = PretrainDataSettings()
    stream = DrawStream(np.arange(len(local)), np.zeros(len(local)))
    contract = Preprocessing(image_size=(32, 32), in_channels=1)
    first = [
        next(iter(training_loader(dataset, BatchStream(stream, 6), workers)))["image"]
        for dataset, workers in (
            (PretrainImages(local, contract, settings, 0), 0),
            (PretrainImages(Store(address), contract, settings, 0), 2),
        )
    ]
    assert first[0].equal(first[1])


def test_curation_columns_are_read_from_an_address(serve, local: Store, tmp_path: Path) -> None:
    shutil.copytree(local.folder, tmp_path / "s")
    write_curation(tmp_path / "s", {"duplicate_of": np.full(len(local), -1)})
    remote = Store(serve(tmp_path / "s").address)
    assert remote.columns(["duplicate_of"])["duplicate_of"].eq(-1).all()


def test_what_needs_a_local_folder_says_so(in_memory: str) -> None:
    with pytest.raises(DataError, match=r"memory://bucket/store is no local folder"):
        _ = Store(in_memory).folder


def test_missing_files_and_failing_servers_are_named(serve, tmp_path: Path, local: Store) -> None:
    shutil.copytree(local.folder, tmp_path / "s")
    server = serve(tmp_path / "s")
    remote = Store(server.address)
    shard = f"/{local.manifest['shards'][0]['file']}"

    server.broken.add(shard)
    with pytest.raises(DataError, match=rf"{server.address}{shard} is missing or damaged.*500"):
        remote.read(0)
    (tmp_path / "s" / shard[1:]).unlink()
    server.broken.clear()
    with pytest.raises(DataError, match=rf"{server.address}{shard} is missing or damaged"):
        remote.read(0)
    assert remote.verify() == [f"{server.address}{shard} is missing"]
    with pytest.raises(DataError, match="is not a finished store"):
        Store(f"{server.address}/elsewhere")
    server.broken.add("/manifest.json")
    with pytest.raises(DataError, match="cannot be read"):
        Store(server.address)


def test_a_server_without_ranges_is_named(serve, local: Store) -> None:
    with pytest.raises(DataError, match="range"):
        Store(serve(local.folder, ranges=False).address).read(3)


def test_an_address_that_nobody_understands_is_an_error() -> None:
    with pytest.raises(DataError, match=r"nowhere://store cannot be opened.*Correct the address"):
        Store("nowhere://store")
