"""A full disk, for real: a small file system, and a limit on the size of files."""

import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stores import numbered_record
from vismae.core.errors import DataError
from vismae.data.store import PartWriter, Store, assemble_store
from vismae.data.store_curation import write_curation
from vismae.data.store_disk import NewFile

NOISE = np.random.default_rng(0).integers(0, 255, (8, 512, 512), np.uint8)  # 0.25 MiB each


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)]
    if mount is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system is not permitted here")
    yield tmp_path
    # Stores that the test opened still map files of it.
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def fill(writer: PartWriter, count: int) -> None:
    for number in range(count):
        writer.add(numbered_record(number), NOISE[number % len(NOISE)])


def test_a_full_disk_is_named_and_finished_parts_are_kept(small_disk: Path) -> None:
    folder = small_disk / "store"
    with PartWriter(folder, "a") as writer:
        fill(writer, 4)
        first = writer.finish()

    with (
        pytest.raises(DataError) as caught,
        PartWriter(folder, "b", encoding="raw", shard_mib=1) as writer,
    ):
        fill(writer, 40)

    message = str(caught.value)
    assert f"{folder}: no space is left for part b (No space left on device)" in message
    assert "MiB are free" in message
    assert re.search(r"[23]\.\d MiB of it were written before", message)
    assert "Finished parts are kept: make room and run the same command again" in message
    assert not list(folder.rglob("*.unfinished"))
    store = assemble_store(folder, [first], encoding="zstd")
    assert store.verify() == []
    # The room that the failed part took is free again.
    with PartWriter(folder, "b") as writer:
        fill(writer, 4)
        second = writer.finish()
    assert len(assemble_store(folder, [second], encoding="zstd", previous=store)) == 8


def test_a_disk_that_is_full_at_the_end_leaves_the_old_store_whole(small_disk: Path) -> None:
    folder = small_disk / "store"
    with PartWriter(folder, "a") as writer:
        fill(writer, 2)
        store = assemble_store(folder, [writer.finish()], encoding="zstd")
    with PartWriter(folder, "b") as writer:
        fill(writer, 2)
        part = writer.finish()
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        file.write(bytes(shutil.disk_usage(small_disk).free))

    with pytest.raises(DataError, match="no space is left for the index"):
        assemble_store(folder, [part], encoding="zstd", previous=store)
    with pytest.raises(DataError, match="no space is left for the curation"):
        write_curation(folder, {"duplicate_of": np.array([-1, -1])})
    with pytest.raises(DataError, match="no space is left for part c"), PartWriter(folder, "c"):
        pass

    assert Store(folder).verify() == []
    ballast.unlink()
    assert len(assemble_store(folder, [part], encoding="zstd", previous=store)) == 4


def test_a_limit_on_the_size_of_files_is_treated_alike(tmp_path: Path) -> None:
    code = f"""
        import resource, sys
        import numpy as np
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from pathlib import Path
        from stores import numbered_record
        from vismae.core.errors import DataError
        from vismae.data.store import PartWriter

        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
        pixels = np.random.default_rng(0).integers(0, 255, (512, 512), np.uint8)
        try:
            with PartWriter(Path({str(tmp_path)!r}), "a") as writer:
                for number in range(40):
                    writer.add(numbered_record(number), pixels)
        except DataError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "no space is left for part a (File too large)" in done.stdout
    assert done.stderr == ""
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_another_error_of_the_disk_passes_through(tmp_path: Path) -> None:
    (tmp_path / "shards").write_text("a file where a folder should be")
    with pytest.raises(FileExistsError):
        PartWriter(tmp_path, "a")


def test_a_new_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    file = NewFile(path)
    file.write(b"new")
    file.complete()
    assert path.read_bytes() == b"old"

    file.rename()

    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]
