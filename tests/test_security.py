"""Files from strangers: nothing in them is run, nothing outside is written, memory stays bounded.

Every payload is live: the test runs it itself at the end, so that a reader who trusted it would
have been found out.
"""

import gzip
import io
import json
import os
import pickle
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

import vismae
from factories import write_png
from models_on_disk import write_classifier, write_mae, write_segmenter
from stores import SMALL_RUN, pretrain_store
from vismae.cli import app
from vismae.core.errors import DataError, ModelError, SettingError, VismaeError
from vismae.data.store import Store
from vismae.models import load_checkpoint, load_model


class Payload:
    """Touches a file when somebody unpickles it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.trace}",))


def is_live(payload: Payload) -> bool:
    """Run a payload as a careless reader would, and say whether it left its trace."""
    pickle.loads(pickle.dumps(payload))
    return payload.trace.exists()


def fail(*words: str | Path, status: int = 1) -> str:
    """Run a command that must fail in a plain sentence."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == status, done.output
    return done.stderr


def test_a_malicious_checkpoint_starts_no_training_and_runs_nothing(tmp_path: Path) -> None:
    payload = Payload(tmp_path / "trace")
    torch.save({"model": {"weight": torch.ones(2)}, "args": payload}, tmp_path / "model.pth")
    pretrain_store(tmp_path / "store", images=3)
    words = ["pretrain", "--store", tmp_path / "store", "--out", tmp_path / "run"]
    said = fail(*words, "--init", tmp_path / "model.pth")
    assert "Nothing in it was run" in said
    assert not payload.trace.exists()
    assert is_live(payload)


def test_a_pickle_in_place_of_safetensors_is_not_read(tmp_path: Path) -> None:
    payload = Payload(tmp_path / "trace")
    model = write_mae(tmp_path / "model")
    (model / "model.safetensors").write_bytes(pickle.dumps(payload))
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(model)
    (tmp_path / "other.safetensors").write_bytes(pickle.dumps(payload))
    with pytest.raises(ModelError, match="cannot be read"):
        load_checkpoint(tmp_path / "other.safetensors")
    assert not payload.trace.exists()
    assert is_live(payload)


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 9) + b"not json!",
        b"\x00" * 7,
        *(
            struct.pack("<Q", len(header)) + header + b"\x00" * 8
            for header in (
                json.dumps({"a": entry, **more}).encode()
                for entry, more in [
                    ({"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}, {}),
                    ({"dtype": "F32", "shape": [2**63, 4], "data_offsets": [0, 8]}, {}),
                    ({"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}, {}),
                    ({"dtype": "PY", "shape": [2], "data_offsets": [0, 8]}, {}),
                    (
                        {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                        {"b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}},
                    ),
                    (
                        {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                        {"__metadata__": {"run": ["os.system", {"x": 1}]}},
                    ),
                ]
            )
        ),
    ],
)
def test_safetensors_with_wild_headers_are_errors(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        load_checkpoint(path)


def test_a_checkpoint_to_resume_from_runs_nothing(tmp_path: Path) -> None:
    payload = Payload(tmp_path / "trace")
    pretrain_store(tmp_path / "store")
    settings = {**SMALL_RUN, "trainer.max_steps": 2, "trainer.checkpoint_every": 1}
    run = {"store": tmp_path / "store", "out": tmp_path / "run", **settings}
    vismae.pretrain(**run)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    state = torch.load(last, weights_only=True)
    torch.save({**state, "extra": payload}, last)
    longer = {**run, "trainer.max_steps": 3}
    with pytest.raises((VismaeError, pickle.UnpicklingError), match=r"system|not read|damaged"):
        vismae.pretrain(**longer, resume=True)
    assert not payload.trace.exists()
    assert is_live(payload)


def test_from_pretrained_reads_no_pickle(tmp_path: Path) -> None:
    from vismae.models.hub import HubModel

    payload = Payload(tmp_path / "trace")
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    torch.save({"weight": payload}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"model\.json does not exist"):
        HubModel.from_pretrained(folder)
    assert not payload.trace.exists()
    assert is_live(payload)


def test_tags_in_yaml_build_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    evil = f'!!python/object/apply:os.system ["touch {trace}"]'
    (tmp_path / "settings.yaml").write_text(f"store: s\noptimizer:\n  lr: {evil}\n")
    words = ("pretrain", "--out", tmp_path / "run", "--store", tmp_path)
    fail(*words, "--config", tmp_path / "settings.yaml", status=2)
    fail(*words, "--set", f"optimizer.lr={evil}", status=2)
    assert not trace.exists()
    yaml.unsafe_load(evil)
    assert trace.exists()


def test_arrays_of_pickled_objects_are_refused(tmp_path: Path) -> None:
    payload = Payload(tmp_path / "trace")
    images = np.array([payload], dtype=object)
    arrays = {f"{split}_images": images for split in ("train", "val", "test")}
    arrays |= {f"{split}_labels": images for split in ("train", "val", "test")}
    np.savez(tmp_path / "octmnist.npz", **arrays)
    with pytest.raises(DataError, match="Objects are never loaded"):
        vismae.convert("medmnist", tmp_path / "octmnist.npz", out=tmp_path / "task")
    assert not payload.trace.exists()
    assert is_live(payload)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weights": "../../elsewhere.safetensors"}, "weights: Extra inputs are not permitted"),
        (
            {"architecture.swin.embed_dim": 10**9},
            "embed_dim is 1000000000, but the weights",
        ),
        ({"architecture.swin.depths": [10**9] * 3}, "depths is"),
        ({"architecture.swin.window_size": 10**6}, "window_size is"),
        ({"architecture.swin.mlp_ratio": 1e9}, "mlp_ratio is"),
        ({"architecture.num_classes": 10**12, "task": None}, "num_classes is"),
        ({"architecture.network": "os.system"}, "network 'os.system' is unknown"),
        ({"format_version": "1; import os"}, "has no format_version"),
        ({"preprocessing.image_size": [10**9, "x"]}, "preprocessing.image_size"),
    ],
)
def test_a_model_card_that_asks_for_something_else_is_refused(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    model = write_segmenter(tmp_path / "model")
    card = json.loads((model / "model.json").read_text())
    for name, value in changes.items():
        *sections, last = name.split(".")
        place = card
        for section in sections:
            place = place[section]
        place[last] = value
    (model / "model.json").write_text(json.dumps(card))
    with pytest.raises((ModelError, SettingError), match=reason):
        load_model(model)


def test_a_model_card_nested_without_end_is_refused(tmp_path: Path) -> None:
    model = write_segmenter(tmp_path / "model")
    (model / "model.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match="is no JSON"):
        load_model(model)


@pytest.mark.parametrize("name", ["../secret.arrow", "/etc/passwd", "shards/../../x", "C:\\x", ""])
def test_a_store_whose_files_lie_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    pretrain_store(tmp_path / "store", images=3)
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    manifest["shards"][0]["file"] = name
    (tmp_path / "store" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="not inside the store"):
        Store(tmp_path / "store")


def everything_below(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def test_an_archive_writes_nowhere_but_into_the_results(tmp_path: Path) -> None:
    picture = write_png(tmp_path / "a.png", np.eye(20, dtype=np.uint8) * 200).read_bytes()
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture)
    names = ("../../up.png", "/tmp/vismae-absolute.png", "..\\..\\back.png", "in/../../mid.png")
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as packed:
        for name in (*names, "good.png"):
            packed.writestr(name, picture)
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, str(secret))
    before = everything_below(tmp_path)
    model = write_segmenter(tmp_path / "model")
    result = vismae.predict(
        model=model, inputs=tmp_path / "bad.zip", out=tmp_path / "out", device="cpu"
    )
    made = {path for path in everything_below(tmp_path) - before if path.parts[0] != "model"}
    assert {path.parts[0] for path in made} == {"out"}
    assert not Path("/tmp/vismae-absolute.png").exists()
    assert any("good.png" in source for source in result.outputs)
    # A link in an archive is a small text, not the file that it names.
    assert not any("link.png" in source for source in result.outputs)
    embedded = vismae.embed(
        model=model, inputs=tmp_path / "bad.zip", out=tmp_path / "features", device="cpu"
    )
    assert not any("link.png" in source for source in embedded.table["source"])


def test_bombs_are_refused_by_name_in_bounded_memory(tmp_path: Path) -> None:

    source = tmp_path / "in"
    source.mkdir()

    def chunk(kind: bytes, content: bytes) -> bytes:
        code = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", code)

    side = 60_000
    deflate = zlib.compressobj(9)
    rows = (
        b"".join(deflate.compress(b"\x00" * (side + 1)) for _ in range(side // 8)) + deflate.flush()
    )
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    (source / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    header = nib.Nifti1Header()
    header.set_data_shape((30_000, 30_000, 3_000))
    header["magic"], header["vox_offset"] = b"n+1", 352
    with gzip.open(source / "bomb.nii.gz", "wb", 9) as file:
        file.write(header.binaryblock + b"\x00" * 4)
        for _ in range(256):
            file.write(b"\x00" * 2**20)
    with zipfile.ZipFile(source / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        with packed.open("zeros.dcm", "w", force_zip64=True) as member:
            for _ in range(512):
                member.write(b"\x00" * 2**20)
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as nested:
            nested.writestr("again.zip", b"PK\x03\x04" + b"\x00" * 10**6)
        packed.writestr("nested.zip", inner.getvalue())
    write_png(source / "good.png", np.eye(20, dtype=np.uint8) * 200)
    model = write_classifier(tmp_path / "model")
    code = (
        "import re, sys, vismae; from pathlib import Path; model, source, out = sys.argv[1:]; "
        "result = vismae.predict(model=model, inputs=source, out=out, device='cpu'); "
        # Not ru_maxrss, which begins at the size of the process that started this one.
        "status = Path('/proc/self/status').read_text(); "
        "peak_kib = int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]); "
        "print(peak_kib // 1024, len(result.outputs), *[f.reason for f in result.failures])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(model), str(source), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    peak_mib, outputs, *reasons = done.stdout.split()
    assert outputs == "1"
    assert sorted(reasons) == ["nested-archive", "too-large", "too-large", "undecodable"]
    assert int(peak_mib) < 1500
