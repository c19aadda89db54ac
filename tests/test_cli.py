"""Every command on real files, from images to report, through the command line itself."""

import ast
import csv
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import typer
import yaml
from typer.testing import CliRunner

import vismae
from factories import SMALL_ARCHIVE
from vismae.cli import app
from vismae.core.settings_table import COMMANDS
from vismae.files.phantom_archive import PhantomArchive, write_phantom_archive

TINY = (
    "--set=data.image_size=32",
    "--set=data.batch_size=4",
    "--set=data.workers=0",
    "--set=trainer.max_steps=2",
    "--device=cpu",
)

ROOT = Path(__file__).resolve().parents[1]
OF_OTHER_PROGRAMS = {
    # torchrun, SLURM
    *("--standalone", "--nproc-per-node", "--nnodes", "--node-rank", "--master-addr"),
    *("--master-port", "--rdzv-backend", "--rdzv-endpoint", "--export", "--ntasks-per-node"),
    *("--nodes", "--gpus-per-node", "--gpus-per-task", "--gpu-bind", "--requeue", "--signal"),
    # docker, pip, monai.bundle, mlflow, gdcmconv, benchmarks
    *("--build-arg", "--rm", "--user", "--gpus", "--shm-size", "--index-url"),
    *("--force-reinstall", "--meta_file", "--filepath", "--config_file", "--bundle_root"),
    *("--dataset_dir", "--output_dir", "--backend-store-uri", "--raw", "--batch"),
}


def run(*words: str | Path) -> str:
    """Run a command that must succeed; return what it printed on standard output."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


def fail(*words: str | Path, status: int) -> str:
    """Run a command that must fail in plain sentences; return its complaint."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == status, done.output
    assert "Traceback" not in done.output
    assert done.stdout == ""
    return done.stderr


@dataclass(frozen=True)
class Road:
    """Folders that the commands made one after the other, and what they printed."""

    archive: PhantomArchive
    folder: Path
    printed: dict[str, str]

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def run_of(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Road:
    """Walk the whole road once: ingest, inspect, pretrain, finetune, evaluate, export."""
    folder = tmp_path_factory.mktemp("road")
    archive = write_phantom_archive(folder / "archive", **SMALL_ARCHIVE)
    printed: dict[str, str] = {}
    store, mae = folder / "store", folder / "pretrain"
    printed["ingest"] = run("ingest", archive.unlabelled, "--store", store, "--workers", "1")
    printed["inspect"] = run("inspect", store, "--verify")
    printed["pretrain"] = run(
        "pretrain", "--store", store, "--out", mae, "--set", "model.size=nano", *TINY
    )
    tasks = {
        "segment": archive.segmentation_manifest,
        "classify": archive.classification_manifest.parent,
    }
    for kind, data in tasks.items():
        adapted, model = folder / kind, folder / kind / "model"
        printed[kind] = run(
            "finetune", kind, "--data", data, "--out", adapted, "--init", mae / "model", *TINY
        )
        printed[f"evaluate {kind}"] = run(
            "evaluate", "--model", model, "--data", data, "--out", folder / f"scores_{kind}",
            "--device", "cpu", "--set", "bootstrap=100",
        )  # fmt: skip
    printed["export"] = run(
        "export", "--model", mae / "model", "--format", "reference", "--out", folder / "exported"
    )
    return Road(archive, folder, printed)


def test_ingest_stores_every_image_of_all_modalities(road: Road) -> None:
    store = vismae.Store(road.store)
    assert len(store) == road.archive.slice_count
    assert set(store.index["modality"]) == {"ct", "mr", "pet", "us", "xr"}
    assert str(road.store) in road.printed["ingest"]
    assert str(road.archive.slice_count) in road.printed["ingest"]


def test_the_modality_option_speaks_for_files_that_do_not_say(road: Road, tmp_path: Path) -> None:
    folders = (road.archive.unlabelled / name for name in ("us", "mr", "ct"))
    run("ingest", *folders, "--store", tmp_path / "store", "--modality", "US", "--workers", "1")
    index = vismae.Store(tmp_path / "store").index
    assert set(index["modality"]) == {"us", "ct"}
    assert set(index.loc[index["modality"] == "ct", "unit"]) == {"hu"}


def test_inspect_prints_counts_and_draws_a_contact_sheet(road: Road) -> None:
    counts = vismae.Store(road.store).index["modality"].value_counts()
    for modality, count in counts.items():
        assert f"{modality} {count}" in road.printed["inspect"]
    assert (road.store / "contact_sheet.png").stat().st_size > 1000


def test_a_run_folder_holds_settings_provenance_metrics_and_one_model(road: Road) -> None:
    run_folder = road.run_of("pretrain")
    settings = yaml.safe_load((run_folder / "config.yaml").read_text())
    assert settings["model"]["size"] == "nano"
    assert settings["data"]["image_size"] == [32, 32]
    assert json.loads((run_folder / "provenance.json").read_text())["command"] == "pretrain"
    assert (run_folder / "metrics.csv").is_file()
    assert (run_folder / "checkpoints" / "last.ckpt").is_file()
    assert len(list(run_folder.rglob("model.safetensors"))) == 1
    assert str(run_folder / "model") in road.printed["pretrain"]


def test_the_saved_settings_run_the_same_command_again(road: Road, tmp_path: Path) -> None:
    first = road.run_of("pretrain")
    run("pretrain", "--config", first / "config.yaml", "--out", tmp_path / "again")
    weights = [
        (folder / "model" / "model.safetensors").read_bytes()
        for folder in (first, tmp_path / "again")
    ]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("kind", ["segment", "classify"])
def test_fine_tuning_ends_with_a_model_that_knows_its_classes(road: Road, kind: str) -> None:
    folder = road.run_of(kind) / "model"
    card = json.loads((folder / "model.json").read_text())
    assert card["kind"] == {"segment": "segmenter", "classify": "classifier"}[kind]
    assert len(card["task"]["classes"]) == {"segment": 4, "classify": 2}[kind]
    assert {"pretrain", "finetune"} <= card["training"].keys()
    assert str(folder) in road.printed[kind]
    preprocessing = vismae.load_model(folder).preprocessing
    assert preprocessing is not None
    assert preprocessing.image_size == (32, 32)


@pytest.mark.parametrize("kind", ["segment", "classify"])
def test_evaluation_scores_the_test_patients_and_writes_one_page(road: Road, kind: str) -> None:
    folder = road.run_of(f"scores_{kind}")
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "<html" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert str(folder / "report" / "index.html") in road.printed[f"evaluate {kind}"]
    manifest = {
        "segment": road.archive.segmentation_manifest,
        "classify": road.archive.classification_manifest,
    }[kind]
    with manifest.open(newline="") as file:
        tested = {row["patient_id"] for row in csv.DictReader(file) if row["split"] == "test"}
    scores = pd.read_parquet(folder / "scores.parquet")
    assert set(scores["patient_id"].astype(str)) == tested
    assert (folder / "scores.csv").is_file()


def test_an_exported_checkpoint_starts_a_fine_tuning(road: Road, tmp_path: Path) -> None:
    checkpoints = [path for path in road.run_of("exported").rglob("*") if path.suffix == ".pth"]
    assert len(checkpoints) == 1
    assert str(checkpoints[0]) in road.printed["export"]
    run(
        "finetune", "segment", "--data", road.archive.segmentation_manifest,
        "--init", checkpoints[0], "--out", tmp_path / "run", *TINY,
    )  # fmt: skip


def test_training_from_scratch_and_on_few_labels(road: Road, tmp_path: Path) -> None:
    run(
        "finetune", "classify", "--data", road.archive.classification_manifest, "--init", "none",
        "--label-fraction", "0.34", "--out", tmp_path / "run", "--set", "model.size=nano", *TINY,
    )  # fmt: skip
    card = json.loads((tmp_path / "run" / "model" / "model.json").read_text())
    assert "pretrain" not in card["training"]


def test_a_full_run_folder_is_refused_and_both_ways_on_are_named(road: Road) -> None:
    out = road.run_of("pretrain")
    complaint = fail("pretrain", "--store", road.store, "--out", out, status=1)
    assert "--resume" in complaint
    assert "--overwrite" in complaint


def test_resuming_a_finished_run_says_so(road: Road) -> None:
    out = road.run_of("pretrain")
    before = (out / "model" / "model.safetensors").stat().st_mtime_ns
    printed = run(
        "pretrain", "--store", road.store, "--out", out, "--resume", "--set", "model.size=nano",
        *TINY,
    )  # fmt: skip
    assert "finished" in printed
    assert (out / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_pretraining_from_data_ingests_on_the_way(road: Road, tmp_path: Path) -> None:
    unlabelled = road.archive.unlabelled
    run(
        "pretrain", "--data", unlabelled / "ct", "--data", unlabelled / "mr", "--out",
        tmp_path / "run", "--modality", "ct", "--set", "model.size=nano", *TINY,
    )  # fmt: skip
    card = json.loads((tmp_path / "run" / "model" / "model.json").read_text())
    assert card["modalities"] == ["ct"]


def test_training_rows_are_never_scored_in_silence(road: Road, tmp_path: Path) -> None:
    complaint = fail(
        "evaluate", "--model", road.run_of("segment") / "model",
        "--data", road.archive.segmentation_manifest, "--split", "train", "--out", tmp_path / "e",
        "--device", "cpu", status=1,
    )  # fmt: skip
    assert "allow_training_rows" in complaint


def test_images_prepared_in_another_way_are_refused_by_field(road: Road, tmp_path: Path) -> None:
    complaint = fail(
        "evaluate", "--model", road.run_of("segment") / "model",
        "--data", road.archive.segmentation_manifest, "--out", tmp_path / "e",
        "--set", "preprocessing.fit=stretch", "--device", "cpu", status=1,
    )  # fmt: skip
    assert "preprocessing.fit" in complaint


def test_unreadable_files_are_listed_and_only_a_passed_limit_fails(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    write_phantom_archive(
        tmp_path / "archive", 1, size=32, slices_per_volume=1, ultrasound_frames=1,
        segmentation_patients=(1, 1, 1), segmentation_slices=1,
        classification_patients=(1, 1, 1), classification_slices=1,
    )  # fmt: skip
    (tmp_path / "archive" / "segmentation" / "images").rename(scans)
    (scans / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    run("ingest", scans, "--store", tmp_path / "a", "--modality", "mr")
    with (tmp_path / "a.private" / "rejected.csv").open(newline="") as file:
        rejected = list(csv.DictReader(file))
    assert ["broken.png" in row["path"] for row in rejected] == [True]
    complaint = fail(
        "ingest", scans, "--store", tmp_path / "b", "--max-rejected-fraction", "0.1", status=1
    )
    assert "rejected" in complaint


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["pretrain", "--set", "optimizer.lr_rate=1"], "Did you mean optimizer.lr?"),
        (["pretrain", "--store", "s"], "out is needed by pretrain"),
        (["finetune", "segment", "--out", "r"], "--data"),
        (["finetune", "detect"], "segment"),
        (["ingest"], "sources is needed by ingest"),
        (["ingest", "scans", "--query", "CT"], "--query CT: expected KEY=VALUE"),
        (["convert", "acdc", "ACDC"], "out is needed by convert"),
        (["select", "--store", "s"], "model is needed by select"),
        (["predict", "a.png"], "model is needed by predict"),
        (["embed", "--model", "m"], "inputs is needed by embed"),
        (["export"], "model is needed by export"),
        (["study"], "out is needed by study"),
        (["web"], "model is needed by web"),
        (["demo", "--config", "no-such.yaml"], "no-such.yaml"),
        (["evaluate", "--device", "gpu"], "cuda"),
    ],
)
def test_wrong_settings_end_with_status_2_and_a_sentence(words: list[str], part: str) -> None:
    assert part in fail(*words, status=2)


def test_a_wrong_line_of_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("out: run\nstore: s\ntrainer:\n  max_stps: 4\n")
    complaint = fail("pretrain", "--config", file, status=2)
    assert f"{file}, line 4" in complaint
    assert "trainer.max_steps" in complaint


def test_missing_data_is_named_without_a_traceback(tmp_path: Path) -> None:
    complaint = fail("ingest", tmp_path / "absent", "--store", tmp_path / "store", status=1)
    assert str(tmp_path / "absent") in complaint
    assert not (tmp_path / "store").exists()


def test_verbose_shows_where_an_error_came_from(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["ingest", str(tmp_path / "absent"), "--store", str(tmp_path / "s"), "--verbose"]
    )
    assert done.exit_code == 1
    assert "Traceback" in done.stderr


def test_the_version_is_the_package_s() -> None:
    assert run("--version") == f"vismae {vismae.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_settings_and_explains_itself(command: str) -> None:
    text = run(command, "--help")
    for option in ("--config", "--set", "--verbose", "--quiet"):
        assert option in text


def test_options_that_messages_and_pages_name_are_there() -> None:
    commands = typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
    known = {name for command in commands for option in command.params for name in option.opts}
    known |= {"--no-train", "--version", "--help"}
    texts = {page: page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md")}
    for file in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        words = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        texts[file] = "\n".join(word for word in words if isinstance(word, str))
    for file, text in texts.items():
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z_-]*[a-z]", text))
        assert named <= known | OF_OTHER_PROGRAMS, file.name


def test_the_program_prints_its_result_alone_on_standard_output(road: Road) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from vismae.cli import main; main()", "inspect", str(road.store)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == run("inspect", road.store).strip()
    assert "Warning" not in done.stderr


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on_and_then_goes_on(road: Road, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [
        *(sys.executable, "-c", "from vismae.cli import main; main()", "pretrain"),
        *("--store", str(road.store), "--out", str(out), "--set", "model.size=nano", *TINY),
        *("--set", "trainer.checkpoint_every=50", "--set", "trainer.max_steps=300"),
    ]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130, complaint
    assert "--resume" in complaint
    assert "Traceback" not in complaint
    subprocess.run([*words, "--resume"], check=True)
    assert (out / "model" / "model.safetensors").is_file()
