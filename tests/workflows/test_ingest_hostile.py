"""Thousands of damaged files: each is stored or left out with a code, and nothing hangs or dies."""

import gzip
import os
import random
import shutil
import struct
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.data import get_testdata_files
from pydicom.datadict import tag_for_keyword
from pydicom.uid import JPEGBaseline8Bit

from factories import (
    write_dicom_series,
    write_dicom_slice,
    write_encapsulated,
    write_nifti,
    write_png,
    write_tiff,
)
from vismae.core.config import IngestConfig
from vismae.core.errors import UnreadableFileError
from vismae.core.executor import Limits, open_executor
from vismae.data.sources import resolve_data
from vismae.data.store import Store
from vismae.files.discover import source_file
from vismae.files.read import read_image
from vismae.workflows.ingest import IngestResult, ingest
from vismae.workflows.intake.ledger import Ledger
from vismae.workflows.intake.listing import identify_files, list_sources
from vismae.workflows.intake.plan import plan
from vismae.workflows.intake.results import open_portions
from vismae.workflows.intake.work import meanings

_MOST_SEED_BYTES = 200_000


def run(source: Path, store: Path, **settings: object) -> IngestResult:
    return ingest(IngestConfig(sources=(source,), store=store, **settings))  # type: ignore[arg-type]


def seeds(test_data: Path | None) -> list[Path]:
    """Return small real files: those that come with pydicom and nibabel, and the data pack's."""
    folders = [Path(nib.__file__).parent / "tests" / "data"]
    if test_data is not None:
        folders.append(test_data / "data" / "dicom_nifti")
    found = [Path(str(path)) for path in get_testdata_files() if Path(str(path)).is_file()]
    for folder in folders:
        found += [path for path in sorted(folder.rglob("*")) if path.is_file()]
    known = (".dcm", ".nii", ".gz", ".hdr", "")
    return sorted(
        path
        for path in found
        if path.suffix.lower() in known and 64 < path.stat().st_size <= _MOST_SEED_BYTES
    )


def truncate(content: bytearray, rng: random.Random) -> bytearray:
    return content[: rng.randrange(1, len(content))]


def flip_bits(content: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 8, 64))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return content


def flip_header(content: bytearray, rng: random.Random) -> bytearray:
    """Damage the part where lengths and sizes stand."""
    for _ in range(rng.choice((1, 4, 16))):
        content[rng.randrange(min(len(content), 1500))] = rng.randrange(256)
    return content


def huge_numbers(content: bytearray, rng: random.Random) -> bytearray:
    """Write the largest 16-bit and 32-bit numbers somewhere, as lengths or image sizes."""
    place = rng.randrange(max(1, len(content) - 4))
    content[place : place + 4] = rng.choice((b"\xff\xff\xff\xff", b"\xff\xff\x00\x00", b"\x7f" * 4))
    return content


def cut_middle(content: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(content))
    del content[start : start + rng.randrange(1, 2000)]
    return content or bytearray(b"\x00")


def repeat_piece(content: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(content))
    piece = content[start : start + 400]
    return content[:start] + piece * rng.randrange(2, 30) + content[start:]


MUTATIONS: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    *(truncate, flip_bits, flip_header, huge_numbers, cut_middle, repeat_piece),
)


def mutated(paths: list[Path], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    rng = random.Random(seed)
    for number in range(count):
        path = paths[number % len(paths)]
        content = bytearray(path.read_bytes())
        if path.suffix == ".gz" and rng.random() < 0.7:
            # Damage inside intact compression, which a checksum would otherwise catch.
            content = bytearray(gzip.decompress(bytes(content)))
            damaged = gzip.compress(bytes(rng.choice(MUTATIONS)(content, rng)), 1)
        else:
            damaged = bytes(rng.choice(MUTATIONS)(content, rng))
        yield f"{number:05d}_{path.name}", damaged


def every_file_is_accounted_for(result: IngestResult, store: Path, written: int) -> None:
    known = meanings()
    assert set(result.reasons) <= set(known)
    assert result.files >= written
    opened = Store(store)
    assert opened.verify() == []
    for name in ("reader-died", "reader-time", "reader-memory"):
        assert result.reasons.get(name, 0) <= written // 200, Counter(result.reasons)


@pytest.mark.slow
def test_two_thousand_damaged_files_are_stored_or_left_out_with_a_code(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    default = Path(__file__).resolve().parents[3] / "shared"
    folder = Path(os.environ.get("VISMAE_TEST_DATA", default))
    source = tmp_path / "in"
    source.mkdir()
    count = 2200
    for name, content in mutated(seeds(folder if folder.is_dir() else None), count, seed=0):
        (source / name).write_bytes(content)

    result = run(source, tmp_path / "s", workers=2, file_seconds=20.0, file_memory_gib=2.0)

    every_file_is_accounted_for(result, tmp_path / "s", count)


def test_damaged_files_are_stored_or_left_out_with_a_code(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    count = 200
    for name, content in mutated(seeds(None), count, seed=1):
        (source / name).write_bytes(content)

    result = run(source, tmp_path / "s", workers=2, file_seconds=20.0, file_memory_gib=2.0)

    every_file_is_accounted_for(result, tmp_path / "s", count)


def with_header(path: Path, keyword: str, content: bytes) -> None:
    """Give an element of an explicit little-endian file bytes that no writer would write."""
    tag = struct.pack("<HH", *divmod(tag_for_keyword(keyword) or 0, 2**16))
    raw = path.read_bytes()
    start = raw.index(tag, 132) + 6
    (length,) = struct.unpack_from("<H", raw, start)
    content += b" " * (len(content) % 2)
    size = struct.pack("<H", len(content))
    path.write_bytes(raw[:start] + size + content + raw[start + 2 + length :])


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"Rows": b"\xff\xff", "Columns": b"\xff\xff", "NumberOfFrames": b"9" * 12}, "too-large"),
        ({"NumberOfFrames": b"9" * 20}, "too-large"),
        ({"NumberOfFrames": b"9" * 5000}, "undecodable"),
        ({"NumberOfFrames": b"-9" + b"9" * 20}, "undecodable"),
        ({"Rows": b"\xff\xff", "Columns": b"\xff\xff", "NumberOfFrames": b"100000"}, "too-large"),
        ({"NumberOfFrames": b"200000"}, "truncated"),
        ({"SpecificCharacterSet": b"utf-7", "PatientID": b"+2AA-~"}, None),
    ],
)
def test_a_header_that_promises_anything_costs_its_own_file_only(
    tmp_path: Path, header: dict[str, bytes], reason: str | None
) -> None:
    source = tmp_path / "in"
    write_dicom_series(source / "good", np.arange(3 * 64, dtype="uint16").reshape(3, 8, 8))
    pixels = np.eye(20, dtype="uint16") * 9
    bad = write_dicom_slice(
        source / "bad.dcm", pixels, NumberOfFrames=1, SpecificCharacterSet="ISO_IR 100"
    )
    for keyword, content in header.items():
        with_header(bad, keyword, content)

    for _ in range(2):
        result = run(source, tmp_path / "s", executor="here")

        assert result.reasons == ({reason: 1} if reason else {})
        assert result.stored == (3 if reason else 4)
        assert result.store.verify() == []


def test_many_promises_of_pixels_do_not_fill_the_disk(tmp_path: Path) -> None:
    source = tmp_path / "in"
    frames = [b"\xff\xd8\xff\xd9"] * 100
    tags = {"Rows": 6500, "Columns": 6500, "NumberOfFrames": 100}
    for number in range(40):
        write_encapsulated(source / f"{number}.dcm", frames, JPEGBaseline8Bit, **tags)
    write_dicom_slice(source / "good.dcm", np.eye(20, dtype="uint16") * 9)

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        list_sources(ledger, resolve_data([source]))
        with open_executor("here", 1, Limits()) as executor:
            identify_files(ledger, executor)
        plan(ledger)

        assert sum(size for _, size in open_portions(ledger)) < 2**27


def test_frames_that_are_not_there_are_not_looked_at_one_by_one(tmp_path: Path) -> None:
    tags = {"NumberOfFrames": 2_000_000, "Rows": 8, "Columns": 8}
    native = write_dicom_slice(tmp_path / "a.dcm", np.eye(8, dtype="uint16"), **tags)
    packed = write_encapsulated(tmp_path / "b.dcm", [b"\xff\xd8\xff\xd9"], JPEGBaseline8Bit, **tags)

    started = time.process_time()
    for path in (native, packed):
        with pytest.raises(UnreadableFileError) as caught:
            read_image(source_file(path))
        assert caught.value.reason == "truncated"

    assert time.process_time() - started < 2.0


def test_archive_members_and_times_beyond_all_numbers_are_listed(tmp_path: Path) -> None:
    picture = write_png(tmp_path / "in" / "a.png", np.eye(9, dtype="uint8"))
    os.utime(picture, ns=(2**63, 2**63))
    with zipfile.ZipFile(tmp_path / "in" / "b.zip", "w") as packed:
        with packed.open("huge.png", "w", force_zip64=True) as member:
            member.write(b"x")
        packed.filelist[0].file_size = 2**63 + 1
    table = tmp_path / "in" / "list.csv"
    table.write_text("path\na.png\nb.zip!huge.png\n")
    for name, source in (("walked", tmp_path / "in"), ("listed", table)):
        result = run(source, tmp_path / name, executor="here")

        assert result.stored == 1
        assert result.reasons["too-large"] == 1


def png_bomb(path: Path, side: int) -> None:
    """Write a small PNG that unfolds to side x side pixels of one colour."""
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(b"\x00" * (side + 1)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def test_bombs_links_pipes_and_strange_names_do_no_harm(tmp_path: Path) -> None:
    source = tmp_path / "in"
    picture = write_png(source / "good.png", np.eye(30, dtype="uint8") * 200)
    png_bomb(source / "bomb.png", 30_000)
    with zipfile.ZipFile(source / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("zeros.dcm", b"\x00" * 50_000_000)
        packed.writestr("inner.zip", b"PK\x03\x04" + b"\x00" * 400)
        packed.writestr("../../escape.png", picture.read_bytes())
    (source / "big.nii.gz").write_bytes(gzip.compress(nifti_header((30_000, 30_000, 3_000))))
    (source / "loop").symlink_to(source)
    (source / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(source / "pipe.png")
    (source / "empty.dcm").touch()
    strange = os.fsencode(source) + b"/caf\xe9\xff.png"
    Path(os.fsdecode(strange)).write_bytes(picture.read_bytes()[:-40] + picture.read_bytes()[-40:])
    write_dicom_slice(source / "huge.dcm", np.zeros((8, 8), "uint16"), Rows=65535, Columns=65535)
    write_tiff(source / "t.tif", [np.eye(9, dtype="uint8") * 9])
    write_nifti(source / "v.nii.gz", np.arange(60, dtype="int16").reshape(3, 4, 5))

    result = run(source, tmp_path / "s", file_seconds=20.0, file_memory_gib=2.0)

    assert result.stored >= 3 + 3
    assert result.reasons["not-found"] == 1
    assert result.reasons["empty"] == 1
    assert result.reasons["nested-archive"] == 1
    assert result.reasons["too-large"] >= 2
    assert not (tmp_path / "escape.png").exists()
    assert not (tmp_path.parent / "escape.png").exists()


def nifti_header(shape: tuple[int, int, int]) -> bytes:
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype("int16")
    header["magic"], header["vox_offset"] = b"n+1", 352
    return header.binaryblock + b"\x00" * 400


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_files_without_permission_are_named_and_read_once_it_is_given(tmp_path: Path) -> None:
    source, store = tmp_path / "in", tmp_path / "out" / "s"

    for name in ("a.png", "b.png"):
        write_png(source / name, np.eye(20, dtype="uint8") * (100 if name == "a.png" else 50))
    closed = source / "closed"
    write_png(closed / "c.png", np.eye(20, dtype="uint8"))
    (source / "b.png").chmod(0)
    closed.chmod(0)
    (tmp_path / "out").mkdir()
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/") and folder.stat().st_uid == os.geteuid():
            folder.chmod(0o755)
    os.chown(tmp_path / "out", 65534, 65534)
    write_png(tmp_path / "warm" / "a.png", np.eye(9, dtype=np.uint8))
    script = tmp_path / "as_nobody.py"
    # Another user may be barred from the interpreter's own files: all is imported before.
    script.write_text(
        f"""
import os
from pathlib import Path
from vismae.core.config import IngestConfig
from vismae.workflows.ingest import ingest
def run(source, store):
    config = IngestConfig(sources=(Path(source),), store=Path(store), executor="here")
    return ingest(config).summary()
run({str(tmp_path / "warm")!r}, {str(tmp_path / "warm_store")!r})
os.setgid(65534)
os.setuid(65534)
print(run({str(source)!r}, {str(store)!r}))
"""
    )

    def ingest_as_nobody() -> str:
        shutil.rmtree(tmp_path / "warm_store", ignore_errors=True)
        shutil.rmtree(tmp_path / "warm_store.private", ignore_errors=True)
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "unreadable 2" in ingest_as_nobody()
    (source / "b.png").chmod(0o644)
    closed.chmod(0o755)
    (closed / "c.png").chmod(0o644)
    (source / "b.png").chmod(0o644)
    output = ingest_as_nobody()
    assert "3 images" in output
    assert "unreadable" not in output
