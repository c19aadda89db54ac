"""The Python functions: the same names and settings as the commands, and light to import."""

import inspect
from pathlib import Path
from typing import Any

import pytest

import vismae
from vismae import api_settings
from vismae.core.config import DemoConfig, PretrainConfig
from vismae.core.errors import DataError, SettingError
from vismae.core.settings_table import COMMANDS
from vismae.core.types import Modality


def built(kind: Any, command: str, /, **arguments: Any) -> Any:
    """Return the configuration that a function would run with."""
    source, assignments = arguments.pop("config", None), arguments.pop("set", None)
    return api_settings.configure(kind, command, source, assignments, arguments)


def pretraining(**arguments: Any) -> PretrainConfig:
    return built(PretrainConfig, "pretrain", out="run", **arguments)


def test_there_is_a_function_for_every_command() -> None:
    # vismae.web is the package of the page.
    functions = (set(COMMANDS) - {"web"}) | {"serve"}
    assert functions <= set(vismae.__all__)
    for name in functions:
        assert inspect.isfunction(getattr(vismae, name))


@pytest.mark.parametrize("name", vismae.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(vismae, name) is not None
    assert name in dir(vismae)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="pretrian"):
        getattr(vismae, "pretrian")  # noqa: B009


def test_settings_may_be_sections_dotted_names_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("store: s\noptimizer:\n  lr: 0.5\n")
    wanted = pretraining(store="s", optimizer={"lr": 0.5})
    assert wanted == pretraining(store="s", **{"optimizer.lr": 0.5})
    assert wanted == pretraining(store="s", set={"optimizer.lr": 0.5})
    assert wanted == pretraining(store="s", set=["optimizer.lr=0.5"])
    assert wanted == pretraining(config=file)
    assert wanted == pretraining(config=str(file))
    assert wanted == pretraining(config=wanted)


def test_keywords_win_over_set_over_config() -> None:
    config = pretraining(store="s", seed=1, trainer={"max_steps": 1, "log_every": 1, "nodes": 2})
    changed = built(
        PretrainConfig,
        "pretrain",
        config=config,
        set={"trainer.max_steps": 2, "trainer.log_every": 2},
        trainer={"max_steps": 3},
        seed=None,
    )
    trainer = changed.trainer
    assert (trainer.max_steps, trainer.log_every, trainer.nodes) == (3, 2, 2)
    assert changed.seed == 1


def test_values_in_set_may_be_paths_lists_and_nothing() -> None:
    config = pretraining(
        set={"store": Path("s"), "data.image_size": [32, 48], "trainer.max_epochs": None}
    )
    assert (config.store, config.data.image_size) == (Path("s"), (32, 48))
    assert config.trainer.max_epochs is None


@pytest.mark.parametrize("data", ["a, b", Path("a, b"), ["a, b"], [Path("a, b")]])
def test_data_names_sources_and_a_comma_does_not_divide_a_path(data: Any) -> None:
    config = pretraining(**api_settings.data_option(data))
    assert config.data.sources == (Path("a, b"),)


def test_data_as_a_mapping_is_the_section() -> None:
    config = pretraining(store="s", **api_settings.data_option({"batch_size": 3}))
    assert config.data.batch_size == 3


def test_a_wrong_setting_is_refused_before_anything_heavy_is_done() -> None:
    with pytest.raises(SettingError, match=r"optimizer\.lr_rate .* Did you mean optimizer\.lr\?"):
        vismae.pretrain(store="s", out="r", optimizer={"lr_rate": 1})
    with pytest.raises(SettingError, match=r"trainer\.device"):
        vismae.pretrain(store="s", out="r", device="gpu")
    with pytest.raises(SettingError, match=r"trainer\.devices"):
        vismae.finetune("segment", data="d", out="r", devices=0)
    with pytest.raises(SettingError, match=r"data\.modality: found 'ctt'"):
        vismae.pretrain(store="s", out="r", modality=["mr", "ctt"])
    with pytest.raises(SettingError, match=r"task\.kind: found 'detect'"):
        vismae.finetune("detect", data="d", out="r")
    with pytest.raises(SettingError, match="model is needed by evaluate"):
        vismae.evaluate(data="d", out="r")
    with pytest.raises(SettingError, match="sources is needed by ingest"):
        vismae.ingest(store="s")
    with pytest.raises(SettingError, match="store is needed by inspect"):
        vismae.inspect()
    with pytest.raises(SettingError, match="format: found 'pickle'"):
        vismae.export(model="m", out="o", format="pickle")
    with pytest.raises(SettingError, match="out is needed by demo"):
        vismae.demo()


def test_the_configuration_of_another_command_is_refused() -> None:
    with pytest.raises(SettingError, match="found a DemoConfig, pretrain needs a PretrainConfig"):
        vismae.pretrain(config=DemoConfig(out=Path("d")))


def test_a_single_text_for_set_is_refused() -> None:
    with pytest.raises(SettingError, match="expected a mapping or a list"):
        vismae.demo(out="d", set="seed=1")


def test_one_modality_or_several_choose_what_is_learnt_from() -> None:
    for given in ("ct,MRI", ["ct", "MRI"], (Modality.CT, Modality.MR)):
        config = pretraining(store="s", **{"data.modality": given})
        assert config.data.modality == (Modality.CT, Modality.MR)


def test_functions_reach_their_workflow(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no-such-folder"):
        vismae.ingest(tmp_path / "no-such-folder", store=tmp_path / "store")
