import argparse
import os
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vismae.core.errors import ModelError
from vismae.models import load_checkpoint
from vismae.models.safe_pickle import Inert, load_tensors_only


class Attack:
    """Calls a function when a file that holds it is unpickled without care."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["system", "eval", "exec", "write"])
def test_code_in_a_checkpoint_never_runs(tmp_path: Path, zipped: bool, name: str):
    trace = tmp_path / "trace"
    code = f"__import__('pathlib').Path({str(trace)!r}).touch()"
    attack = {
        "system": Attack(os.system, f"touch {trace}"),
        "eval": Attack(eval, code),
        "exec": Attack(exec, code),
        "write": Attack(Path.touch, trace),
    }[name]
    content = {"model": {"weight": torch.ones(2)}, "args": attack}
    path = tmp_path / "model.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError):
        load_checkpoint(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(attack))  # the payload is live: a careless reader would run it
    assert trace.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_beside_a_namespace_are_read(tmp_path: Path, zipped: bool):
    content = {"model": {"weight": torch.arange(3.0)}, "args": argparse.Namespace(lr=1e-3)}
    path = tmp_path / "model.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    read = load_tensors_only(path)
    assert torch.equal(read["model"]["weight"], content["model"]["weight"])
    assert isinstance(read["args"], Inert)
    assert not hasattr(read["args"], "lr")


def test_other_foreign_objects_become_inert(tmp_path: Path):
    content = {"model": {"weight": torch.ones(1)}, "best": np.float64(0.5), "at": Path("x")}
    path = tmp_path / "model.pth"
    torch.save(content, path)
    read = load_tensors_only(path)
    assert isinstance(read["best"], Inert)
    assert isinstance(read["at"], Inert)


@pytest.mark.parametrize(
    "content", [b"", b"no checkpoint", b"PK\x03\x04 half a zip", b"\x80\x02]."]
)
def test_files_that_are_no_checkpoint_are_errors(tmp_path: Path, content: bytes):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.pth"):
        load_checkpoint(path)


def test_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(ModelError, match="does not exist"):
        load_checkpoint(tmp_path / "nothing.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_settings_that_other_training_code_keeps_are_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
):
    """Microsoft's Swin code saves its settings, a dictionary with attributes, with the weights."""

    class CfgNode(dict):
        """As yacs has it."""

    module = types.ModuleType("yacs.config")
    CfgNode.__module__, CfgNode.__qualname__, module.CfgNode = module.__name__, "CfgNode", CfgNode
    for name in ("yacs", "yacs.config"):
        monkeypatch.setitem(sys.modules, name, module)
    config = CfgNode(MODEL=CfgNode(TYPE="swin"))
    config.__dict__["__immutable__"] = True
    path = tmp_path / "ckpt_epoch_29.pth"
    content = {"model": {"weight": torch.ones(1)}, "config": config}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    for name in ("yacs", "yacs.config"):
        monkeypatch.delitem(sys.modules, name)
    read = load_tensors_only(path)
    assert torch.equal(read["model"]["weight"], torch.ones(1))
    assert type(read["config"]["MODEL"]) is OrderedDict


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_called_code_and_nobody_is_told_to_run_it(tmp_path: Path, zipped: bool):
    path = tmp_path / "model.pth"
    content = {"w": Attack(os.system, "true")}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError) as caught:
        load_tensors_only(path)
    assert f"model.pth holds code ({os.name}.system), not only tensors. Exp" in str(caught.value)
    assert "weights_only" not in str(caught.value)


def test_a_call_to_what_stands_for_a_foreign_function_is_called_code(tmp_path: Path):
    path = tmp_path / "model.pth"
    torch.save({"w": Attack(Path.touch, tmp_path / "trace")}, path)
    with pytest.raises(ModelError, match=r"model\.pth holds code, not only tensors\. Expected"):
        load_tensors_only(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"some words of a text file", "is no checkpoint, or a damaged one"),
        (b"PK\x03\x04 half a zip", "is no checkpoint, or a damaged one"),
    ],
)
def test_what_is_no_checkpoint_is_called_so(tmp_path: Path, content: bytes, what: str):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"model\.pth {what}\. Expected"):
        load_tensors_only(path)
