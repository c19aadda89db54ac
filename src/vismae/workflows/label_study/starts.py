"""What a study makes for itself before its runs: phantom images, and weights it pre-trains."""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from vismae.core.config import FinetuneConfig, PretrainConfig
from vismae.core.errors import ModelError, RunFolderError, SettingError
from vismae.core.rundir import write_json, write_text
from vismae.core.settings import build_config
from vismae.core.study_config import StudyConfig, StudyStart
from vismae.data.store_format import file_sha256
from vismae.files.phantom_archive import write_phantom_archive
from vismae.models.weights import CARD_FILE, WEIGHTS_FILE, read_card
from vismae.workflows.adapted_network import require_known_sequences
from vismae.workflows.pretrain import pretrain

PHANTOM = "phantom:"
_AS_OPTION = " (given as an option)"
_TESTED = ("task.classes", "data.modality", "model.sequences")
_PARTS = ("unlabelled", "segmentation", "classification")

logger = logging.getLogger(__name__)


def with_phantoms(config: StudyConfig, folder: Path) -> StudyConfig:
    """Return a study whose sources ``phantom:PART`` are folders of an archive made in ``folder``.

    Raises:
        SettingError: There is no such part.
    """
    named = [str(path) for task in config.tasks.values() for path in task.sources]
    named += [str(path) for start in config.starts.values() for path in _pretrain_sources(start)]
    wanted = [name for name in named if name.startswith(PHANTOM)]
    if not wanted:
        return config
    for name in wanted:
        if name.removeprefix(PHANTOM) not in _PARTS:
            raise SettingError(
                f"{name} is no part of the phantom archive. Use one of "
                f"{', '.join(PHANTOM + part for part in _PARTS)}."
            )
    archive = folder / "phantom"
    _make(archive, folder / "phantom_is_whole.txt")
    tasks = {
        name: task.model_copy(update={"sources": _located(task.sources, archive)})
        for name, task in config.tasks.items()
    }
    starts = {name: _start_located(start, archive) for name, start in config.starts.items()}
    return config.model_copy(update={"tasks": tasks, "starts": starts})


def _make(archive: Path, marker: Path) -> None:
    """Write the archive unless a whole one is there."""
    if marker.is_file() and archive.is_dir():
        return
    shutil.rmtree(archive, ignore_errors=True)
    logger.info("making the phantom archive in %s", archive)
    write_phantom_archive(archive)
    write_text(marker, "The archive beside this file was written to its end.\n")


def _pretrain_sources(start: StudyStart) -> list[str]:
    sources = start.pretrain.get("data.sources", [])
    return [str(path) for path in ([sources] if isinstance(sources, str | Path) else sources)]


def _located(sources: Sequence[Path | str], archive: Path) -> tuple[Path, ...]:
    return tuple(
        archive / str(path).removeprefix(PHANTOM) if str(path).startswith(PHANTOM) else Path(path)
        for path in sources
    )


def _start_located(start: StudyStart, archive: Path) -> StudyStart:
    if not start.pretrain:
        return start
    sources = _located(_pretrain_sources(start), archive)
    return start.model_copy(update={"pretrain": {**start.pretrain, "data.sources": sources}})


def pretrain_configs(config: StudyConfig, folder: Path) -> dict[str, PretrainConfig]:
    """Return the settings of the pre-trainings that a study does itself.

    Raises:
        SettingError: One is no setting of pre-training.
    """
    made: dict[str, PretrainConfig] = {}
    for name, start in config.starts.items():
        own = {"out": folder / "pretrained" / name, "init": start.init, "resume": True}
        if not start.pretrain:
            continue
        try:
            made[name] = build_config(PretrainConfig, "pretrain", options={**start.pretrain, **own})
        except SettingError as error:
            text = str(error).replace(_AS_OPTION, "")
            raise SettingError(f"starts.{name}.pretrain: {text}") from None
    return made


def said_in_study(error: SettingError, config: StudyConfig, start: str, task: str) -> SettingError:
    """Return an error of a run's settings that names start, task and the section it is in."""
    own, of_task = config.starts[start], config.tasks[task]
    further = "segment" if of_task.kind == "segment" else "classify"
    sections = {
        "settings": config.settings,
        f"tasks.{task}.settings": of_task.settings,
        f"starts.{start}.settings": own.settings,
        f"starts.{start}.{further}": getattr(own, further),
    }
    text = str(error).replace(_AS_OPTION, "")
    named = [
        section
        for section, values in sections.items()
        if any(re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", text) for name in values)
    ]
    # Those of the start weigh most.
    where = f" (in {named[-1]})" if named else ""
    return SettingError(f"Start '{start}', task '{task}': {text}{where}")


def require_weights(config: StudyConfig, starts_on_tasks: Iterable[tuple[str, str]]) -> None:
    """Refuse weights that are not there, before hours of pre-training and of other runs.

    Args:
        config: The study.
        starts_on_tasks: Start and task of the runs to do.

    Raises:
        SettingError: Names the start and the path.
    """
    for name, task in starts_on_tasks:
        start = config.starts[name]
        init = start.init if start.pretrain else start.init_for.get(task, start.init)
        if init is not None and not init.exists():
            raise SettingError(
                f"Start '{name}', task '{task}': {init} does not exist. Correct init (or init_for) "
                f"of starts.{name}: a model folder, a checkpoint file, or none for random weights."
            )


def require_tested_alike(task: str, runs: Mapping[str, FinetuneConfig]) -> None:
    """Refuse starts that read the labels or choose the images of a task in different ways.

    Args:
        task: Of all runs.
        runs: Start -> settings of a run.

    Raises:
        SettingError: Names the setting, and what it is for every start.
    """
    for setting in _TESTED:
        section, name = setting.split(".")
        found = {
            start: ", ".join(map(str, getattr(getattr(run, section), name) or ())) or "not set"
            for start, run in runs.items()
        }
        if len(set(found.values())) > 1:
            values = "; ".join(f"'{start}': {value}" for start, value in found.items())
            raise SettingError(
                f"The starts of task '{task}' differ in {setting} ({values}). Set it for the task "
                f"(tasks.{task}.settings), so that all are tested on the same."
            )


def require_sequences_known(run: FinetuneConfig) -> None:
    """Refuse weights that see several sequences of a case where the runs see single images.

    Weights without a ``model.json`` that can be read see single images; a run says if not.

    Args:
        run: Settings of a run.

    Raises:
        SettingError: Names the weights and the sequences.
    """
    if run.init is None or not (run.init / CARD_FILE).is_file():
        return
    try:
        known = read_card(run.init).preprocessing
    except ModelError:
        return
    require_known_sequences(known, run.init, run.model)


def pretrain_starts(configs: dict[str, PretrainConfig]) -> None:
    """Pre-train what is not finished; one that was stopped goes on."""
    for name, settings in configs.items():
        logger.info("pre-training '%s' in %s", name, settings.out)
        logger.info("%s", pretrain(settings).summary())


def require_same_weights(
    folder: Path, inits: Iterable[tuple[str, Path]], finished: Collection[tuple[str, Path]]
) -> None:
    """Refuse weights that were replaced since runs of their start were finished.

    Keeps ``weights.json``: what the weights of every start hold.

    Args:
        folder: Of the study.
        inits: Start and path of its weights, of the runs to do.
        finished: The same of finished runs.

    Raises:
        RunFolderError: Names the start, the path and what to do.
    """
    path = folder / "weights.json"
    known: dict[str, dict[str, str]] = json.loads(path.read_text()) if path.is_file() else {}
    for start, init in inits:
        now, of_start = _content(init), known.setdefault(start, {})
        if of_start.get(str(init), now) != now and (start, init) in finished:
            raise RunFolderError(
                f"Start '{start}': {init} holds other weights than when its finished runs began "
                "with them. Put those back; or, to have all of its runs with the new ones, remove "
                f"its folders {folder / 'runs'}/*/{start}, or give the new ones another name."
            )
        of_start[str(init)] = now
    write_json(path, known)


def _content(init: Path) -> str:
    """Return a hash of weights: of a model folder's two files, or of a checkpoint."""
    files = [init / WEIGHTS_FILE, init / CARD_FILE] if init.is_dir() else [init]
    digest = hashlib.sha256()
    for path in files:
        if path.is_file():
            with path.open("rb") as file:
                digest.update(file_sha256(file).encode())
    return digest.hexdigest()


def init_of(config: StudyConfig, start: str, task: str, folder: Path) -> Path | None:
    """Return the weights that a start is fine-tuned from on a task."""
    own = config.starts[start]
    if own.pretrain:
        return folder / "pretrained" / start / "model"
    return own.init_for.get(task, own.init)
