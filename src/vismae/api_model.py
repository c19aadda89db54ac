"""What is done with a trained model beside predicting, as Python functions: embed, export."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vismae.api_settings import AnyPath, Assignments, ConfigFrom, configure, paths
from vismae.core.config_model import EmbedConfig, ExportConfig

if TYPE_CHECKING:
    from vismae.workflows.embed import EmbedResult


def embed(
    *,
    model: AnyPath | None = None,
    inputs: AnyPath | Iterable[AnyPath] | None = None,
    config: ConfigFrom = None,
    set: Assignments = None,
    **settings: Any,
) -> "EmbedResult":
    """Write the features that a model's encoder makes of images, one row for each slice.

    Args:
        model: Model folder.
        inputs: A store, or images, folders and zip archives.
        config: YAML file or ``EmbedConfig``.
        set: Dotted names with values.
        **settings: ``out`` is needed; see ``EmbedConfig``.

    Returns:
        The folder; ``features`` and ``table`` of the result read it.

    Raises:
        SettingError: A setting is unknown or wrong, or stores and files are mixed.
        ModelError: The folder holds no model, or one without an encoder.
        DataError: There is nothing to embed.
        RunFolderError: ``out`` is in use, or not empty without ``resume`` or ``overwrite``.
    """
    named = {"model": model, "inputs": paths(inputs)}
    built = configure(EmbedConfig, "embed", config, set, named | settings)
    from vismae.workflows.embed import embed as run

    return run(built)


def export(*, config: ConfigFrom = None, set: Assignments = None, **settings: Any) -> Path:
    """Write a model folder in another program's file format.

    Args:
        config: YAML file or ``ExportConfig``.
        set: Dotted names with values.
        **settings: ``model`` and ``out`` are needed; see ``ExportConfig``.

    Returns:
        Path of the written file.

    Raises:
        SettingError: A setting is unknown or wrong.
        ModelError: The format cannot hold this model.
    """
    built = configure(ExportConfig, "export", config, set, settings)
    from vismae.workflows.export import export as run

    return run(built)
