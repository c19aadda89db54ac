"""Settings: precedence, names, types, and messages that say where a wrong setting came from."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from vismae.core.config import (
    DemoConfig,
    EvaluateConfig,
    FinetuneConfig,
    IngestConfig,
    InspectConfig,
    PretrainConfig,
)
from vismae.core.config_model import ExportConfig
from vismae.core.errors import SettingError
from vismae.core.settings import build_config, setting_names, to_yaml
from vismae.core.study_config import StudyConfig
from vismae.core.types import Modality

NEEDED = {"store": "store", "out": "run"}

EXAMPLES: list[BaseModel] = [
    IngestConfig(sources=(Path("a, b"), Path("c")), store=Path("s"), keep_column=("age", "sex")),
    InspectConfig(store=Path("s"), images=9),
    PretrainConfig(
        out=Path("run"),
        store=Path("s"),
        data={"modality": "mri,CR", "image_size": 96},
        optimizer={"lr": 2.5e-5},
        trainer={"max_epochs": 0.5, "ema_decay": 0.999},
    ),
    FinetuneConfig(
        out=Path("run"),
        task={"kind": "segment", "classes": ("left, lung", "off"), "label_values": {255: 1, 0: 0}},
        data={"sources": ("task",)},
    ),
    EvaluateConfig(model=Path("m"), out=Path("e"), data={"sources": ("task",)}, split="val"),
    ExportConfig(model=Path("m"), out=Path("e")),
    DemoConfig(out=Path("d"), seed=3),
]


def refusal(kind: type[BaseModel], **arguments: object) -> str:
    with pytest.raises(SettingError) as caught:
        build_config(kind, "pretrain", **arguments)
    return str(caught.value)


@pytest.mark.parametrize("config", EXAMPLES, ids=lambda config: type(config).__name__)
def test_saved_settings_read_back_as_the_same_configuration(
    config: BaseModel, tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert build_config(type(config), "any", file=file) == config


def test_options_win_over_assignments_over_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("seed: 1\ntrainer: {max_steps: 10, log_every: 2, devices: 3}\n")
    config = build_config(
        PretrainConfig,
        "pretrain",
        file=file,
        assignments=["trainer.log_every=4", "trainer.devices=5"],
        options={**NEEDED, "trainer.devices": 6, "seed": None},
    )
    assert (config.seed, config.trainer.max_steps) == (1, 10)
    assert (config.trainer.log_every, config.trainer.devices) == (4, 6)
    assert config.trainer.precision == "auto"


def test_a_configuration_to_start_from_counts_less_than_an_assignment() -> None:
    base = PretrainConfig(out=Path("run"), store=Path("s"), seed=4, trainer={"max_steps": 7})
    config = build_config(PretrainConfig, "pretrain", assignments=["seed=5"], base=base)
    assert config == base.model_copy(update={"seed": 5})


def test_naming_one_setting_of_a_section_keeps_the_other_defaults_of_the_command() -> None:
    finetune = build_config(
        FinetuneConfig,
        "finetune",
        assignments=["trainer.device=cpu", "optimizer.lr=1e-4"],
        options={"out": "run", "data.sources": ["task"], "task.kind": "segment"},
    )
    assert (finetune.trainer.max_steps, finetune.data.batch_size) == (None, 16)
    assert finetune.trainer.ema_decay == 0.99
    assert finetune.optimizer.betas == (0.9, 0.999)
    pretrain = PretrainConfig(out=Path("run"), store=Path("s"), optimizer={"lr": 1.0})
    assert pretrain.optimizer.lr_scaling == "sqrt"


def test_nested_and_dotted_names_mean_the_same(tmp_path: Path) -> None:
    nested, dotted = tmp_path / "nested.yaml", tmp_path / "dotted.yaml"
    nested.write_text("optimizer:\n  lr: 1e-4\n")
    dotted.write_text("optimizer.lr: 1e-4\n")
    one, two = (
        build_config(PretrainConfig, "pretrain", file=file, options=NEEDED)
        for file in (nested, dotted)
    )
    assert one == two
    assert one.optimizer.lr == 1e-4


def test_an_unknown_name_is_refused_with_the_nearest_one_and_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("# first line\nseed: 1\noptimizer:\n  weight_decay: 0.1\n  lr_rate: 1e-3\n")
    message = refusal(PretrainConfig, file=file, options=NEEDED)
    assert "optimizer.lr_rate is not a setting of pretrain" in message
    assert "Did you mean optimizer.lr?" in message
    assert f"{file}, line 5" in message


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("optimiser.lr", "optimizer.lr"),
        ("batch_size", "data.batch_size"),
        ("model.masking_ratio", "model.mask_ratio"),
        ("trainer.max_step", "trainer.max_steps"),
        ("sed", "seed"),
    ],
)
def test_the_nearest_name_is_the_one_that_was_meant(given: str, meant: str) -> None:
    message = refusal(PretrainConfig, assignments=[f"{given}=1"], options=NEEDED)
    assert f"{given} is not a setting" in message
    assert f"Did you mean {meant}?" in message
    assert f"--set {given}=1" in message


def test_an_unknown_keyword_is_refused() -> None:
    assert "Did you mean overwrite?" in refusal(
        PretrainConfig, options={**NEEDED, "overwritten": True}
    )


def test_a_section_given_as_a_single_value_names_its_settings() -> None:
    message = refusal(PretrainConfig, assignments=["model=nano"], options=NEEDED)
    assert "model is a section" in message
    assert "model.size" in message


def test_a_wrong_type_names_setting_value_and_line(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("trainer:\n  log_every: 1\n  max_steps: soon\n")
    message = refusal(PretrainConfig, file=file, options=NEEDED)
    assert "trainer.max_steps: found 'soon'" in message
    assert f"{file}, line 3" in message


def test_a_wrong_value_is_not_blamed_on_a_setting_whose_name_begins_alike() -> None:
    message = refusal(
        PretrainConfig,
        assignments=["optimizer.lr=1", "optimizer.lr_batch_size=0"],
        options=NEEDED,
    )
    assert message.startswith("optimizer.lr_batch_size: found 0")


def test_one_wrong_part_of_a_pair_is_found() -> None:
    message = refusal(PretrainConfig, assignments=["data.image_size=[64, wide]"], options=NEEDED)
    assert "data.image_size: found 'wide'" in message


def test_a_pair_with_one_value_is_refused_as_such() -> None:
    message = refusal(PretrainConfig, assignments=["optimizer.betas=[0.9]"], options=NEEDED)
    assert message.startswith("optimizer.betas: found [0.9], which has too few values.")


@pytest.mark.parametrize(
    ("assignment", "part", "lines"),
    [
        ("optimizer.lr=inf", "finite number", 1),
        ("optimizer.betas=[1.5, 2]", "less than 1", 2),
        (f"seed={2**64 + 1}", "use a number below 4294967296", 1),
        ("data.image_size=0", "greater than or equal to 1", 1),
    ],
)
def test_numbers_that_nothing_can_be_done_with_are_refused(
    assignment: str, part: str, lines: int
) -> None:
    message = refusal(PretrainConfig, assignments=[assignment], options=NEEDED)
    assert message.startswith(assignment.partition("=")[0] + ": found")
    assert part in message
    assert len(message.splitlines()) == lines


def test_what_is_missing_is_named() -> None:
    assert "out is needed by pretrain" in refusal(PretrainConfig, options={"store": "s"})


def test_two_sources_or_none_are_a_contradiction() -> None:
    both = {**NEEDED, "data.sources": ["images"]}
    assert "--store" in refusal(PretrainConfig, options=both)
    assert "--data" in refusal(PretrainConfig, options={"out": "run"})


@pytest.mark.parametrize("text", ["lr", "=3", ""])
def test_an_assignment_without_name_and_value_is_refused(text: str) -> None:
    assert "expected section.name=value" in refusal(PretrainConfig, assignments=[text])


@pytest.mark.parametrize(
    ("content", "part"),
    [("- a\n- b\n", "found a list"), ("a: [1\n", "not valid YAML"), ("5\n", "found a int")],
)
def test_a_file_that_holds_no_settings_is_refused(content: str, part: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(content)
    message = refusal(PretrainConfig, file=file)
    assert part in message
    assert str(file) in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "absent.yaml" in refusal(PretrainConfig, file=tmp_path / "absent.yaml")


def test_an_empty_file_and_an_empty_section_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    for content in ("", "optimizer:\n", "optimizer: {}\n"):
        file.write_text(content)
        config = build_config(PretrainConfig, "pretrain", file=file, options=NEEDED)
        assert config == build_config(PretrainConfig, "pretrain", options=NEEDED)


def test_modalities_are_understood_in_any_case_and_unknown_ones_refused() -> None:
    config = build_config(
        PretrainConfig, "pretrain", assignments=["data.modality=CT, mri,Pt"], options=NEEDED
    )
    assert config.data.modality == (Modality.CT, Modality.MR, Modality.PET)
    message = refusal(PretrainConfig, assignments=["data.modality=ctt"], options=NEEDED)
    assert "data.modality: found 'ctt'" in message


def test_no_start_model_can_be_said_in_words() -> None:
    for word in ("none", "None"):
        config = FinetuneConfig(
            out=Path("run"), init=word, task={"kind": "segment"}, data={"sources": "task"}
        )
        assert config.init is None
        assert PretrainConfig(out=Path("run"), store=Path("s"), init=word).init is None


@pytest.mark.parametrize("written", ["off", "'off'", "false", "Off"])
def test_off_is_a_word_although_yaml_takes_it_for_a_truth_value(
    written: str, tmp_path: Path
) -> None:
    assignment = [f"monitor.mlflow={written}"]
    found = build_config(PretrainConfig, "pretrain", assignments=assignment, options=NEEDED)
    assert found.monitor.mlflow == "off"
    file = tmp_path / "c.yaml"
    file.write_text(f"monitor:\n  mlflow: {written}\n")
    found = build_config(PretrainConfig, "pretrain", file, options=NEEDED)
    assert found.monitor.mlflow == "off"


def test_one_number_stands_for_a_square() -> None:
    config = build_config(
        PretrainConfig, "pretrain", assignments=["data.image_size=64"], options=NEEDED
    )
    assert config.data.image_size == (64, 64)


def test_configurations_cannot_be_changed() -> None:
    config = PretrainConfig(out=Path("run"), store=Path("s"))
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 5


@pytest.mark.parametrize("config", EXAMPLES, ids=lambda config: type(config).__name__)
def test_every_setting_has_a_description(config: BaseModel) -> None:
    def check(kind: type[BaseModel], prefix: str) -> None:
        for name, field in kind.model_fields.items():
            section = field.annotation
            if isinstance(section, type) and issubclass(section, BaseModel):
                check(section, f"{prefix}{name}.")
            else:
                assert field.description, f"{prefix}{name} has no description"

    check(type(config), "")


def test_the_same_names_are_there_for_pretraining_and_finetuning() -> None:
    shared = {
        "model.size",
        "data.image_size",
        "data.batch_size",
        "trainer.max_steps",
        "trainer.max_epochs",
        "trainer.precision",
        "trainer.checkpoint_every",
        "optimizer.lr",
        "seed",
    }
    assert shared <= set(setting_names(PretrainConfig)) & set(setting_names(FinetuneConfig))
    assert "model.mask_ratio" in setting_names(PretrainConfig)


def test_a_loss_of_nothing_is_refused() -> None:
    options = {"out": "run", "data.sources": ["d"], "task.dice_weight": 0}
    none = {**options, "task.kind": "segment", "task.cross_entropy_weight": 0}
    with pytest.raises(SettingError, match=r"nothing would be learnt: dice_weight, .* all 0"):
        build_config(FinetuneConfig, "finetune", options=none)
    build_config(FinetuneConfig, "finetune", options={**none, "task.focal_weight": 1})
    build_config(FinetuneConfig, "finetune", options={**none, "task.kind": "classify"})


def test_yaml_nested_without_end_is_no_defect(tmp_path: Path) -> None:
    file = tmp_path / "deep.yaml"
    file.write_text("[" * 3000)
    with pytest.raises(SettingError, match=r"deep\.yaml: not valid YAML"):
        build_config(PretrainConfig, "pretrain", file)
    with pytest.raises(SettingError, match="not valid YAML"):
        build_config(PretrainConfig, "pretrain", None, ["seed=" + "[" * 3000])


@pytest.mark.parametrize("name", ["", " heart", ".heart", "CT/MR", "<b>CT</b>", "CT\\MR"])
def test_a_name_that_cannot_be_a_folder_is_refused_in_words(name: str) -> None:
    study = {
        "out": "study",
        "tasks": {name: {"kind": "segment", "sources": ["data"]}},
        "starts": {"scratch": {"init": "none"}},
        "baseline": "scratch",
    }
    with pytest.raises(SettingError, match=r"cannot be the name of a folder.*without /") as found:
        build_config(StudyConfig, "study", options=study)
    assert "pattern" not in str(found.value)


def test_a_name_too_long_for_files_of_it_is_refused_before_the_first_run() -> None:
    study = {
        "out": "study",
        "tasks": {"心" * 60: {"kind": "segment", "sources": ["data"]}},
        "starts": {"scratch": {"init": "none"}},
        "baseline": "scratch",
    }
    with pytest.raises(SettingError, match=r"has 180 bytes.*at most 150"):
        build_config(StudyConfig, "study", options=study)
