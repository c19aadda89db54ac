"""Fixtures of the tests of whole commands: small stores, and settings that take seconds."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stores import SMALL_RUN, classification_store, pretrain_store, segmentation_store
from vismae.core.config import FinetuneConfig, PretrainConfig
from vismae.core.settings import build_config
from vismae.workflows.pretrain import pretrain


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The order of additions, and with it the last bits, depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pretrain_config() -> Callable[..., PretrainConfig]:
    """Settings of a pre-training on the CPU: ``pretrain_config(out, store, **more)``."""

    def make(out: Path, store: Path, **more: Any) -> PretrainConfig:
        options = {**SMALL_RUN, "trainer.max_steps": 4, "out": out, "store": store, **more}
        return build_config(PretrainConfig, "pretrain", options=options)

    return make


@pytest.fixture
def finetune_config() -> Callable[..., FinetuneConfig]:
    """Settings of a fine-tuning on the CPU: ``finetune_config(kind, out, store, **more)``."""

    def make(kind: str, out: Path, store: Path, **more: Any) -> FinetuneConfig:
        options = {
            **SMALL_RUN,
            "trainer.max_steps": 2,
            "task.kind": kind,
            "out": out,
            "data.sources": [store],
            **more,
        }
        return build_config(FinetuneConfig, "finetune", options=options)

    return make


@pytest.fixture(scope="session")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 12 images of three modalities."""
    return pretrain_store(tmp_path_factory.mktemp("unlabelled") / "store").folder


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 10 patients with a label map of one class."""
    return segmentation_store(tmp_path_factory.mktemp("discs") / "store").folder


@pytest.fixture(scope="session")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 12 patients of two classes."""
    return classification_store(tmp_path_factory.mktemp("shades") / "store").folder


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory, unlabelled: Path) -> Path:
    """The model folder of a short pre-training on ``unlabelled``."""
    out = tmp_path_factory.mktemp("pretrained") / "run"
    options = {**SMALL_RUN, "trainer.max_steps": 2, "out": out, "store": unlabelled}
    config = build_config(PretrainConfig, "pretrain", options=options)
    return pretrain(config).model
