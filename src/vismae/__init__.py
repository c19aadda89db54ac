"""vismae: self-supervised pre-training for medical images.

One Python function for every command, and the few classes a script needs beside them. Names are
imported on first use, so that ``import vismae`` loads neither torch, monai nor lightning.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vismae.api import (
        demo,
        evaluate,
        finetune,
        plan_finetune,
        plan_pretrain,
        predict,
        pretrain,
        replay,
        serve,
        study,
    )
    from vismae.api_data import convert, ingest, inspect, select
    from vismae.api_model import doctor, embed, export
    from vismae.data.store import Store
    from vismae.models.reference import load_reference_checkpoint
    from vismae.models.weights import load_model
    from vismae.workflows.image_features import ImageFeatures

__all__ = [
    "ImageFeatures",
    "Store",
    "__version__",
    "convert",
    "demo",
    "doctor",
    "embed",
    "evaluate",
    "export",
    "finetune",
    "ingest",
    "inspect",
    "load_model",
    "load_reference_checkpoint",
    "plan_finetune",
    "plan_pretrain",
    "predict",
    "pretrain",
    "replay",
    "select",
    "serve",
    "study",
]

__version__ = version("vismae")

_HOME = {
    "ImageFeatures": "vismae.workflows.image_features",
    "Store": "vismae.data.store",
    "load_model": "vismae.models.weights",
    "load_reference_checkpoint": "vismae.models.reference",
    "convert": "vismae.api_data",
    "demo": "vismae.api",
    "doctor": "vismae.api_model",
    "embed": "vismae.api_model",
    "evaluate": "vismae.api",
    "export": "vismae.api_model",
    "finetune": "vismae.api",
    "ingest": "vismae.api_data",
    "inspect": "vismae.api_data",
    "plan_finetune": "vismae.api",
    "plan_pretrain": "vismae.api",
    "predict": "vismae.api",
    "pretrain": "vismae.api",
    "replay": "vismae.api",
    "serve": "vismae.api",
    "select": "vismae.api_data",
    "study": "vismae.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'vismae' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
