"""Read tensors out of a pickled checkpoint without ever running code from it.

``torch.load(weights_only=True)`` follows pickle instructions only for tensors and plain
containers. Everything else a file names (an ``argparse.Namespace`` of settings, say) is replaced
by ``Inert`` here, which does nothing when it is called or filled; dictionaries of settings that
other training code keeps beside its weights become plain ones.
"""

import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from vismae.core.errors import ModelError

# The legacy format cannot be searched for names beforehand; official files hold just this one.
_KNOWN_FOREIGN = ["argparse.Namespace", "yacs.config.CfgNode"]
# Filled item by item, which torch allows for known dictionaries alone: those of Microsoft's Swin
# and SimMIM code, and of Lightning.
_DICTIONARIES = (
    "yacs.config.CfgNode",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)


class Inert:
    """Stands for an object of a class that we will not import; keeps nothing of it."""

    def __init__(self, *args: object, **settings: object) -> None:
        """Take anything, do nothing."""

    def __setstate__(self, state: object) -> None:
        """Forget the state."""


def load_tensors_only(path: Path) -> Any:
    """Read a file written by ``torch.save``; foreign objects come back as ``Inert``.

    Raises:
        ModelError: The file is missing, no checkpoint, or tries to do something.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist. Give a checkpoint file or a model folder.")
    try:
        names = _KNOWN_FOREIGN
        if zipfile.is_zipfile(path):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        stand_ins: list[Any] = [
            (OrderedDict if name in _DICTIONARIES else Inert, name) for name in names
        ]
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        RuntimeError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        EOFError,
    ) as error:
        raise ModelError(
            f"{path} {_what_it_is(path, error)}. Expected a checkpoint of tensors (official "
            "VIS-MAE .pth, or .safetensors). Nothing in it was run. Take a fresh copy from a "
            "source you trust."
        ) from error


def _what_it_is(path: Path, error: Exception) -> str:
    """Say what is wrong with a file, never in torch's words: these advise to run its code."""
    if path.stat().st_size == 0:
        return "is empty"
    if named := re.search(r"\bGLOBAL (\S+)", str(error)):
        return f"holds code ({named[1]}), not only tensors"
    if "unrecognized function" in str(error):
        return "holds code, not only tensors"
    return "is no checkpoint, or a damaged one"
