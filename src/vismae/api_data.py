"""Functions that bring data in, show it and choose from it; see ``vismae.api``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vismae.api_settings import AnyPath, Assignments, ConfigFrom, configure
from vismae.core.config import ConvertConfig, IngestConfig, InspectConfig, SelectConfig

if TYPE_CHECKING:
    from vismae.workflows.convert import ConvertResult
    from vismae.workflows.ingest import IngestResult
    from vismae.workflows.inspect import InspectReport
    from vismae.workflows.select import SelectResult


def ingest(
    *sources: AnyPath, config: ConfigFrom = None, set: Assignments = None, **settings: Any
) -> "IngestResult":
    """Read images from folders, files, archives or csv manifests into a store.

    Args:
        *sources: What to read; same as ``sources=[...]``.
        config: YAML file or ``IngestConfig``.
        set: Dotted names with values.
        **settings: ``store`` is needed; all others are listed at ``IngestConfig``.

    Returns:
        The store's folder, and how many images were stored and rejected.

    Raises:
        SettingError: A setting is unknown or wrong.
        DataError: Nothing could be stored, or too much was rejected.
    """
    if sources:
        settings["sources"] = [Path(source) for source in sources]
    built = configure(IngestConfig, "ingest", config, set, settings)
    from vismae.workflows.ingest import ingest as run

    return run(built)


def convert(
    layout: str,
    source: AnyPath,
    *,
    config: ConfigFrom = None,
    set: Assignments = None,
    **settings: Any,
) -> "ConvertResult":
    """Write manifest and settings for a public data set as its publishers hand it out.

    Args:
        layout: acdc, amos22, btcv, synapse, busi, isic2018, medmnist or nnunet.
        source: Its folder or file.
        config: YAML file or ``ConvertConfig``.
        set: Dotted names with values.
        **settings: ``out`` is needed; all others are listed at ``ConvertConfig``.

    Raises:
        SettingError: A setting is unknown or wrong.
        DataError: The folder does not have the layout.
    """
    given = {"layout": layout, "source": Path(source), **settings}
    built = configure(ConvertConfig, "convert", config, set, given)
    from vismae.workflows.convert import convert as run

    return run(built)


def inspect(
    store: AnyPath | None = None,
    *,
    config: ConfigFrom = None,
    set: Assignments = None,
    **settings: Any,
) -> "InspectReport":
    """Count the images of a store by modality and draw a contact sheet.

    Args:
        store: Folder of the store.
        config: YAML file or ``InspectConfig``.
        set: Dotted names with values.
        **settings: Listed at ``InspectConfig``.

    Raises:
        SettingError: A setting is unknown or wrong.
        DataError: The folder is no store, or ``verify`` found damage.
    """
    built = configure(InspectConfig, "inspect", config, set, {"store": store, **settings})
    from vismae.workflows.inspect import inspect as run

    return run(built)


def select(
    *, config: ConfigFrom = None, set: Assignments = None, **settings: Any
) -> "SelectResult":
    """Rank a store's unlabelled patients: which to label next.

    Args:
        config: YAML file or ``SelectConfig``.
        set: Dotted names with values.
        **settings: ``model``, ``store`` and ``out`` are needed; see ``SelectConfig``.

    Raises:
        SettingError: A setting is unknown or wrong, or the strategy does not go with the model.
        ModelError: The folder holds no model, or one without what the strategy needs.
        DataError: Nobody is left to choose.
    """
    built = configure(SelectConfig, "select", config, set, settings)
    from vismae.workflows.select import select as run

    return run(built)
