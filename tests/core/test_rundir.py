"""Run folders: refusal, lock, atomic writes."""

import json
import logging
import os
import platform
import pwd
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from vismae.core import rundir
from vismae.core.config import PredictConfig, PretrainConfig
from vismae.core.config_model import ExportConfig
from vismae.core.errors import RunFolderError
from vismae.core.launch import Launch
from vismae.core.settings import build_config
from vismae.core.study_config import StudyConfig

HOLDER = """
import sys, time
from pathlib import Path
from vismae.core.rundir import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def start_holder(folder: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def test_a_living_process_keeps_its_run_folder(tmp_path: Path) -> None:
    process = start_holder(tmp_path)
    try:
        with (
            pytest.raises(RunFolderError, match=f"in use by process {process.pid}"),
            rundir.locked(tmp_path),
        ):
            pytest.fail("the lock was given twice")
    finally:
        end(process)


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    end(start_holder(tmp_path))
    assert (tmp_path / rundir.LOCK_NAME).exists()
    with rundir.locked(tmp_path):
        held = json.loads((tmp_path / rundir.LOCK_NAME).read_text())
        assert held["pid"] == os.getpid()
    assert not (tmp_path / rundir.LOCK_NAME).exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_of_several_that_start_together_one_takes_over_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".lock").write_text("")
    read = rundir._read_holder  # pyright: ignore[reportPrivateUsage]

    def slowly(lock: Path) -> dict[str, object]:
        found = read(lock)
        time.sleep(0.05)
        return found

    monkeypatch.setattr(rundir, "_read_holder", slowly)
    start, all_tried = threading.Barrier(4), threading.Barrier(4)
    given: list[bool] = []

    def take() -> None:
        start.wait()
        try:
            with rundir.locked(tmp_path):
                given.append(True)
                all_tried.wait()
        except RunFolderError:
            given.append(False)
            all_tried.wait()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == [False, False, False, True]


def test_a_killed_process_that_its_parent_has_not_collected_does_not_block(tmp_path: Path) -> None:
    process = start_holder(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    try:
        with rundir.locked(tmp_path):
            pass
    finally:
        process.communicate()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_process_number_used_again_does_not_block(tmp_path: Path) -> None:
    stale = {"pid": os.getpid(), "host": platform.node(), "started": "1"}
    (tmp_path / rundir.LOCK_NAME).write_text(json.dumps(stale))
    with rundir.locked(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"pid": "7"}'])
def test_a_broken_lock_file_does_not_block(content: str, tmp_path: Path) -> None:
    (tmp_path / rundir.LOCK_NAME).write_text(content)
    with rundir.locked(tmp_path):
        pass


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), rundir.locked(tmp_path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def config(folder: Path, **settings: object) -> PretrainConfig:
    return PretrainConfig.model_validate({"out": folder, "store": "store", **settings})


def open_and_close(folder: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    settings = config(folder, resume=resume, overwrite=overwrite)
    with rundir.open_run(folder, "pretrain", settings, resume=resume, overwrite=overwrite):
        if folder.exists():
            has_done_something(folder)


def has_done_something(folder: Path) -> None:
    (folder / "metrics.csv").write_text("step,loss\n1,0.5\n")


def test_a_folder_with_content_is_refused_and_both_ways_on_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep")
    with pytest.raises(RunFolderError, match=r"notes\.txt.*--resume.*--overwrite"):
        open_and_close(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_a_command_that_cannot_resume_does_not_offer_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep")
    settings = ExportConfig(model=Path("m"), out=tmp_path)
    with (
        pytest.raises(RunFolderError, match=r"Use --overwrite"),
        rundir.open_run(tmp_path, "export", settings),
    ):
        pytest.fail("was opened")


def test_a_run_keeps_its_settings_and_what_made_it_and_holds_the_lock(tmp_path: Path) -> None:
    run = tmp_path / "deep" / "run"
    settings = config(run, seed=3)
    with rundir.open_run(run, "pretrain", settings) as folder:
        assert folder == run
        assert (run / rundir.LOCK_NAME).exists()
        logging.getLogger("vismae.test").info("from inside")
    assert build_config(PretrainConfig, "pretrain", file=run / "config.yaml") == settings
    assert json.loads((run / "provenance.json").read_text())["command"] == "pretrain"
    assert "from inside" in (run / "log.txt").read_text()
    assert not (run / rundir.LOCK_NAME).exists()


def test_resume_keeps_and_overwrite_empties(tmp_path: Path) -> None:
    open_and_close(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}")
    open_and_close(tmp_path, resume=True)
    assert (tmp_path / "model" / "model.json").exists()
    open_and_close(tmp_path, overwrite=True)
    assert not (tmp_path / "model").exists()


def test_a_run_is_not_resumed_with_settings_that_make_it_another_one(tmp_path: Path) -> None:
    open_and_close(tmp_path)
    changed = config(tmp_path, resume=True, optimizer={"lr": 0.5})
    with (
        pytest.raises(RunFolderError, match=r"optimizer\.lr was 0\.001, now 0\.5"),
        rundir.open_run(tmp_path, "pretrain", changed, resume=True),
    ):
        pytest.fail("was resumed")
    longer = config(tmp_path, resume=True, trainer={"max_steps": 5}, data={"workers": 0})
    with rundir.open_run(tmp_path, "pretrain", longer, resume=True):
        pass


def test_a_run_that_failed_before_its_first_step_begins_anew_in_its_folder(tmp_path: Path) -> None:
    fail_at_the_first_step(tmp_path)
    lower = config(tmp_path, optimizer={"lr": 0.5})
    with rundir.open_run(tmp_path, "pretrain", lower):
        assert not (tmp_path / "checkpoints").exists()
        assert "tried once" in (tmp_path / "log.txt").read_text()
    assert build_config(PretrainConfig, "pretrain", file=tmp_path / "config.yaml") == lower


def test_a_run_without_a_step_is_resumed_with_any_settings_but_other_images(tmp_path: Path) -> None:
    fail_at_the_first_step(tmp_path)
    (tmp_path / "store").mkdir()
    ingested = tmp_path / "store" / "manifest.json"
    ingested.write_text("{}")
    with (
        pytest.raises(RunFolderError, match="not empty"),
        rundir.open_run(tmp_path, "pretrain", config(tmp_path)),
    ):
        pytest.fail("was opened")
    lower = config(tmp_path, optimizer={"lr": 0.5}, trainer={"accumulate": 3})
    with rundir.open_run(tmp_path, "pretrain", lower, resume=True):
        assert ingested.exists()
    other = config(tmp_path, store=None, data={"sources": ["b"]})
    with (
        pytest.raises(RunFolderError, match=r"data\.sources was \[\], now \['b'\]"),
        rundir.open_run(tmp_path, "pretrain", other, resume=True),
    ):
        pytest.fail("was resumed")


def fail_at_the_first_step(folder: Path) -> None:
    with suppress(MemoryError), rundir.open_run(folder, "pretrain", config(folder)):
        logging.getLogger("vismae.test").info("tried once")
        rundir.write_json(folder / "checkpoints" / "images.json", {})
        (folder / "checkpoints" / "last.partial").write_bytes(b"half")
        (folder / "metrics.csv").write_text("step\n")
        raise MemoryError


@pytest.mark.parametrize("name", ["checkpoints/last.ckpt", "nan_step/step.json", "plan.yaml"])
def test_a_folder_with_a_result_is_not_begun_anew(tmp_path: Path, name: str) -> None:
    fail_at_the_first_step(tmp_path)
    rundir.write_text(tmp_path / name, "kept")
    with (
        pytest.raises(RunFolderError, match="not empty"),
        rundir.open_run(tmp_path, "pretrain", config(tmp_path)),
    ):
        pytest.fail("was opened")
    assert (tmp_path / name).read_text() == "kept"


def study(folder: Path, **changes: object) -> StudyConfig:
    settings = {
        "out": folder,
        "tasks": {"heart": {"kind": "segment", "sources": ["a"], "settings": {"trainer.x": 1}}},
        "starts": {"ours": {"settings": {"optimizer.lr": 1}}, "none": {}},
        "baseline": "none",
        "settings": {"model.size": "nano"},
    }
    return StudyConfig.model_validate({**settings, **changes})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"settings": {"model.size": "nano", "augment.rotate": 180}},
            r"settings\.augment\.rotate was unset, now 180",
        ),
        (
            {"starts": {"ours": {"settings": {"optimizer.lr": 1, "a.b": 2}}, "none": {}}},
            r"starts\.ours\.settings\.a\.b was unset, now 2",
        ),
        (
            {
                "starts": {
                    "ours": {"settings": {"optimizer.lr": 1}},
                    "none": {"segment": {"model.network": "unet"}},
                }
            },
            r"starts\.none\.segment was \{\}",
        ),
    ],
)
def test_a_study_is_not_resumed_with_further_settings_of_its_runs(
    changes: dict[str, object], named: str, tmp_path: Path
) -> None:
    with rundir.open_run(tmp_path, "study", study(tmp_path)):
        has_done_something(tmp_path)
    with (
        pytest.raises(RunFolderError, match=named),
        rundir.open_run(tmp_path, "study", study(tmp_path, **changes), resume=True),
    ):
        pytest.fail("was resumed")


def test_a_study_grows_by_tasks_starts_and_seeds(tmp_path: Path) -> None:
    with rundir.open_run(tmp_path, "study", study(tmp_path)):
        has_done_something(tmp_path)
    begun = study(tmp_path)
    larger = study(
        tmp_path,
        seeds=[0, 1, 2, 3],
        tasks={
            "heart": begun.tasks["heart"].model_dump(),
            "lung": {"kind": "segment", "sources": ["b"], "settings": {"trainer.x": 2}},
        },
        starts={
            **{name: start.model_dump() for name, start in begun.starts.items()},
            "unet": {"segment": {"model.network": "unet"}},
        },
    )
    with rundir.open_run(tmp_path, "study", larger, resume=True):
        pass


def test_a_start_may_take_part_in_a_task_that_is_added(tmp_path: Path) -> None:
    heart = {"kind": "segment", "sources": ["a"]}

    def growing(tasks: dict[str, object], weights: dict[str, str]) -> StudyConfig:
        own = {"tasks": list(tasks), "init_for": weights}
        return study(tmp_path, tasks=tasks, starts={"ours": own, "none": {}})

    with rundir.open_run(tmp_path, "study", growing({"heart": heart}, {"heart": "h"})):
        has_done_something(tmp_path)
    both = {"heart": heart, "lung": {"kind": "segment", "sources": ["b"]}}
    larger = growing(both, {"heart": "h", "lung": "l"})
    with rundir.open_run(tmp_path, "study", larger, resume=True):
        pass
    with (
        pytest.raises(RunFolderError, match=r"init_for\.heart was h, now x"),
        rundir.open_run(tmp_path, "study", growing(both, {"heart": "x"}), resume=True),
    ):
        pytest.fail("was resumed")


def test_the_saved_settings_do_not_overwrite_once_more(tmp_path: Path) -> None:
    open_and_close(tmp_path, overwrite=True)
    saved = build_config(PretrainConfig, "pretrain", file=tmp_path / "config.yaml")
    assert not saved.overwrite


def test_overwrite_removes_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "scan.dcm").write_text("x")
    run = tmp_path / "run"
    run.mkdir()
    (run / "link").symlink_to(precious)
    open_and_close(run, overwrite=True)
    assert not (run / "link").exists()
    assert (precious / "scan.dcm").exists()


def test_overwrite_does_not_empty_a_folder_that_is_still_to_be_read(tmp_path: Path) -> None:
    out = tmp_path / "run"
    image = out / "scans" / "a.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"")
    inside = ExportConfig(model=out / "scans", out=out, overwrite=True)
    several = PredictConfig(model=tmp_path, inputs=(tmp_path / "b", image), out=out)
    for command, config in (("export", inside), ("predict", several)):
        with (
            pytest.raises(RunFolderError, match=r"lies in it and is to be read"),
            rundir.open_run(out, command, config, overwrite=True),
        ):
            pytest.fail("the folder was opened")
        assert image.exists()
        assert not (out / rundir.LOCK_NAME).exists()


def test_overwrite_does_not_empty_the_folder_of_a_living_run(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("")
    process = start_holder(tmp_path)
    try:
        with pytest.raises(RunFolderError, match="in use"):
            open_and_close(tmp_path, overwrite=True)
    finally:
        end(process)
    assert (tmp_path / "precious.txt").exists()


def test_resume_and_overwrite_together_are_a_contradiction(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="contradict"):
        open_and_close(tmp_path, resume=True, overwrite=True)


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as caught:
        rundir.write_text(tmp_path, "text")
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path), None)


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(RunFolderError, match="is a file"):
        open_and_close(file)


@pytest.mark.parametrize("out", [".", "..", "../.."])
def test_the_working_folder_and_those_around_it_are_never_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    inner = tmp_path / "project" / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "project" / "work.txt").write_text("")
    (inner / "work.txt").write_text("")
    monkeypatch.chdir(inner)
    with pytest.raises(RunFolderError, match="will not be emptied"):
        open_and_close(Path(out), overwrite=True)
    assert len(list(tmp_path.rglob("work.txt"))) == 2


def test_a_home_behind_a_link_is_never_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "work.txt").write_text("")
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(RunFolderError, match="will not be emptied"):
        open_and_close(tmp_path / "home", overwrite=True)
    assert (tmp_path / "disk" / "work.txt").exists()


def test_a_user_without_a_home_may_overwrite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # as a container's user with any number
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old.txt").write_text("")
    open_and_close(tmp_path / "run", overwrite=True)
    assert not (tmp_path / "run" / "old.txt").exists()


def test_other_processes_of_one_training_only_get_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in Launch("torchrun", 1, 1, 2, 2).variables().items():
        monkeypatch.setenv(name, value)
    run = tmp_path / "run"
    open_and_close(run)
    assert not run.exists()


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    contents = [b"a" * 200_000, b"b" * 200_000]
    rundir.write_bytes(path, contents[0])
    seen: list[bytes] = []

    def read() -> None:
        while len(seen) < 200:
            seen.append(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    turn = 0
    while reader.is_alive():
        rundir.write_bytes(path, contents[turn % 2])
        turn += 1
    reader.join()
    assert set(seen) <= set(contents)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        rundir.write_text(path, "new")
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(TypeError):
        rundir.write_bytes(tmp_path / "file", "no bytes")  # pyright: ignore[reportArgumentType]
    assert (tmp_path / "file").read_bytes() == b"old"
    (tmp_path / "file").unlink()
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_json_reads_back(tmp_path: Path) -> None:
    rundir.write_json(tmp_path / "deep" / "x.json", {"b": [1, None], "a": "ü"})
    assert json.loads((tmp_path / "deep" / "x.json").read_text()) == {"b": [1, None], "a": "ü"}


def test_provenance_names_versions_and_neither_user_nor_host() -> None:
    made = rundir.provenance("pretrain")
    assert made["command"] == "pretrain"
    assert {"vismae", "torch", "numpy"} <= made["versions"].keys()
    assert str(Path.home()) not in json.dumps(made)


def test_log_lines_also_go_to_the_run_s_log_only_while_inside(tmp_path: Path) -> None:
    logger = logging.getLogger("vismae.test")
    with rundir.log_to(tmp_path):
        logger.info("inside %d", 1)
    logger.info("outside")
    text = (tmp_path / "log.txt").read_text()
    assert "INFO inside 1" in text
    assert "outside" not in text
