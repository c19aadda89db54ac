"""The folder that answers to files go into: new, or gone on with under any settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vismae.core.config import PredictConfig
from vismae.core.config_model import EmbedConfig
from vismae.core.errors import SettingError
from vismae.core.remains import remove_unfinished
from vismae.core.rundir import locked, log_to, open_run, provenance, write_json, write_text
from vismae.core.settings import to_yaml


@contextmanager
def open_results(config: PredictConfig | EmbedConfig, command: str, records: str) -> Iterator[Path]:
    """Hold the folder of results; with ``resume`` one that is there, even under other settings.

    Every input's record says what was asked for, so other settings only mean computing anew.

    Args:
        config: Complete settings of the command.
        command: Its name.
        records: Folder of its records, by which its results are known.

    Raises:
        SettingError: ``resume`` and ``overwrite`` contradict each other.
        RunFolderError: The folder is in use, or not empty without ``resume`` or ``overwrite``.
    """
    folder = config.out
    if not (config.resume and (folder / records).is_dir()):
        with open_run(folder, command, config, overwrite=config.overwrite) as opened:
            yield opened
        return
    if config.overwrite:
        raise SettingError("resume and overwrite contradict each other; give one of them.")
    with locked(folder):
        remove_unfinished(folder)
        write_text(folder / "config.yaml", to_yaml(config.model_copy(update={"resume": False})))
        write_json(folder / "provenance.json", provenance(command))
        with log_to(folder):
            yield folder
