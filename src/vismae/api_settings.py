"""What a command's function was given becomes its configuration."""

import json
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from vismae.core.config import Settings
from vismae.core.errors import SettingError
from vismae.core.settings import build_config

AnyPath = str | PathLike[str]
ConfigFrom = AnyPath | Settings | None
Assignments = Mapping[str, Any] | Iterable[str] | None
ConfigT = TypeVar("ConfigT", bound=Settings)


def configure(
    kind: type[ConfigT],
    command: str,
    config: ConfigFrom,
    set: Assignments,
    settings: Mapping[str, Any],
) -> ConfigT:
    """Build the configuration of a command from everything its function was given.

    Raises:
        SettingError: A setting is unknown or wrong.
    """
    if isinstance(config, Settings) and not isinstance(config, kind):
        raise SettingError(
            f"config: found a {type(config).__name__}, {command} needs a {kind.__name__} or the "
            "path of a YAML file."
        )
    base = config if isinstance(config, kind) else None
    file = None if config is None or isinstance(config, Settings) else Path(config)
    if isinstance(set, str):
        raise SettingError(f"set: found the text {set!r}, expected a mapping or a list of texts.")
    if isinstance(set, Mapping):
        # JSON is YAML, which is how the value of an assignment is read.
        set = [f"{name}={json.dumps(value, default=str)}" for name, value in set.items()]
    return build_config(kind, command, file, tuple(set or ()), settings, base=base)


def data_option(
    data: AnyPath | Iterable[AnyPath] | Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Read ``data`` as the command line does: paths are sources, a mapping is the section."""
    if data is None or isinstance(data, Mapping):
        return {"data": data}
    return {"data.sources": paths(data)}


def paths(given: AnyPath | Iterable[AnyPath] | None) -> list[Path] | None:
    """Let one path stand for a list."""
    if given is None:
        return None
    return [Path(path) for path in ([given] if isinstance(given, str | PathLike) else given)]
