"""Python functions for a trained model, beside predict, and for a look at the environment."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vismae.api_settings import AnyPath, Assignments, ConfigFrom, configure, paths
from vismae.core.config_model import EmbedConfig, ExportConfig

if TYPE_CHECKING:
    from vismae.workflows.doctor import DoctorResult
    from vismae.workflows.embed import EmbedResult
    from vismae.workflows.export import ExportResult


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
        inputs: A store, or images, folders, zip archives and manifests.
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


def export(
    *,
    data: AnyPath | Iterable[AnyPath] | None = None,
    config: ConfigFrom = None,
    set: Assignments = None,
    **settings: Any,
) -> "ExportResult":
    """Write a model folder in a form that other code reads, and compare it with torch.

    Args:
        data: Labelled images to measure what int8 loses on.
        config: YAML file or ``ExportConfig``.
        set: Dotted names with values.
        **settings: ``model``, ``format`` and ``out``; see ``ExportConfig``.

    Returns:
        The files, and the largest difference from torch.

    Raises:
        SettingError: A setting is unknown or wrong, or a package is missing.
        ModelError: The format cannot hold this model, or what was written differs.
        RunFolderError: ``out`` is in use, or not empty without ``overwrite``.
    """
    settings["data"] = paths(data)
    built = configure(ExportConfig, "export", config, set, settings)
    from vismae.workflows.export import export as run

    return run(built)


def doctor(*, train: bool = True, as_json: bool = False) -> "DoctorResult":
    """Look at what works here: torch, device, DICOM decoders, extras, disk, a short training.

    Args:
        train: Do the training of three steps too.
        as_json: Whether ``summary()`` of the result is JSON.

    Returns:
        Every check, with what to do; ``healthy`` says whether all that is needed works.
    """
    from vismae.workflows.doctor import doctor as run

    return run(train, as_json)
