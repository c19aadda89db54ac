"""A look at the environment: real decoding, real training, and what to do."""

import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import vismae
import vismae.workflows.health.decoders as decoders
import vismae.workflows.health.training as training
from vismae.cli import app
from vismae.core.errors import TrainingError
from vismae.workflows.health.extras import extra_checks
from vismae.workflows.health.machine import machine_checks


def doctor(*words: str) -> Any:
    return CliRunner().invoke(app, ["doctor", *words])


def test_everything_needed_works_here_and_is_said_with_status_0() -> None:
    done = doctor()
    assert done.exit_code == 0, done.output
    assert "ok      3 steps of pre-training: phantoms, store, training on" in done.stdout
    assert "ok      DICOM, JPEG 2000 lossless: 64×64 decoded" in done.stdout
    assert "Everything needed works." in done.stdout
    assert done.stderr == ""


def test_a_program_reads_the_same_as_json() -> None:
    done = doctor("--json", "--no-train")
    found = json.loads(done.stdout)
    assert found["healthy"] is True
    names = [check["name"] for check in found["checks"]]
    assert {"torch", "memory", "disk, this folder", "DICOM, RLE lossless", "extra onnx"} < set(
        names
    )
    assert not any("pre-training" in name for name in names)


def test_a_decoder_that_does_not_work_is_a_failure_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = {"RLE lossless": "SC_rgb_rle.dcm", "broken": "rtdose_rle_1frame.dcm"}
    folder = Path(decoders.pydicom.data.__file__).parent / "test_files"
    (tmp_path / "test_files").mkdir()
    for file in samples.values():
        content = (folder / file).read_bytes()
        cut = len(content) // 2 if file == samples["broken"] else len(content)
        (tmp_path / "test_files" / file).write_bytes(content[:cut])
    monkeypatch.setattr(decoders.pydicom.data, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(decoders, "_SAMPLES", {**samples, "absent": "none.dcm"})
    good, bad, absent = decoders.decoder_checks()
    assert (good.state, bad.state, absent.state) == ("ok", "failed", "warning")
    assert "pip install" in bad.cure


def test_an_extra_that_is_not_installed_has_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = metadata.version

    def without_onnx(name: str) -> str:
        if name == "onnxruntime":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", without_onnx)
    found = {check.name: check for check in extra_checks()}
    assert found["extra onnx"].state == "missing"
    assert found["extra onnx"].cure == "pip install 'vismae[onnx]'"
    assert "onnxruntime" in found["extra onnx"].found
    assert found["extra web"].state == "ok"


def test_a_training_that_fails_is_told_and_gives_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise TrainingError("the loss is not finite. Use fp32.")

    monkeypatch.setattr(training, "pretrain", broken)
    done = doctor()
    assert done.exit_code == 1
    assert "FAILED  3 steps of pre-training: the loss is not finite. Use fp32." in done.stdout
    assert "1 needed parts do not work." in done.stdout


def test_a_full_disk_and_a_folder_without_rights_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1))
    monkeypatch.setattr("os.access", lambda path, _: Path(path) != tmp_path)
    found = {check.name: check for check in machine_checks(tmp_path)}
    assert found["disk, this folder"].state == "failed"
    assert found["disk, temporary files"].state == "warning"


def test_the_function_gives_what_the_command_says() -> None:
    result = vismae.doctor(train=False)
    assert result.healthy
    assert "Everything needed works." in result.summary().splitlines()[-1]
