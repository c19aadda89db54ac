"""Settings of a study: what is wrong in them is told with its whole name, value and way out."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from vismae.core.errors import SettingError
from vismae.core.settings import build_config
from vismae.core.study_config import StudyConfig

GOOD: dict[str, Any] = {
    "tasks": {"heart": {"kind": "segment", "sources": ["data"]}},
    "starts": {"scratch": {}, "ours": {"init": "model"}},
    "baseline": "scratch",
    "out": "out",
}


def refusal(folder: Path, **changes: Any) -> str:
    """The message of a study whose dotted settings are changed; None takes one away."""
    values: dict[str, Any] = yaml.safe_load(yaml.safe_dump(GOOD, sort_keys=False))
    for place, value in changes.items():
        *sections, last = place.split("__")
        inner = values
        for section in sections:
            inner = inner[section]
        inner.pop(last, None)
        if value is not None:
            inner[last] = value
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(SettingError) as caught:
        build_config(StudyConfig, "study", file=file)
    return str(caught.value)


def test_a_setting_of_a_task_or_start_is_named_whole_with_its_line(tmp_path: Path) -> None:
    told = refusal(tmp_path, tasks__heart__kind="segmentation")
    assert told.startswith("tasks.heart.kind: found 'segmentation'. Input should be 'segment' or")
    assert told.endswith("study.yaml, line 5)")
    told = refusal(tmp_path, tasks__heart__sources=None)
    assert told.startswith("tasks.heart.sources is needed by study and was not given. (")
    told = refusal(tmp_path, starts__ours__select="unsure")
    assert told.startswith("starts.ours.select: found 'unsure'. Input should be 'random'")
    told = refusal(tmp_path, starts__ours__pretrian={"x": 1})
    assert told.startswith("starts.ours.pretrian is not a setting of study. Did you mean pretrain?")
    told = refusal(tmp_path, seeds=3)
    assert told.startswith("seeds: found 3. Input should be a list, such as [0, 1]. (")


def test_what_a_study_decides_for_each_run_is_no_setting_of_its_runs(tmp_path: Path) -> None:
    for place, name, cure in (
        ("settings", "seed", "seeds"),
        ("tasks__heart__settings", "label_fraction", "label_fractions or label_patients"),
        ("starts__ours__segment", "init", r"starts.*.init"),
    ):
        told = refusal(tmp_path, **{place: {name: 1}})
        section = place.replace("__", ".")
        assert f"{section} has {name}, which a study decides for each run; leave it out" in told
        assert told.endswith(f"and use {cure}.")


def test_a_place_to_run_that_there_is_not_is_refused_at_once(tmp_path: Path) -> None:
    told = refusal(tmp_path, executor="slurm")
    assert "executor: 'slurm' is no place to run; use processes, here or dask://host:port" in told
    build_config(StudyConfig, "study", options={**GOOD, "executor": "dask://127.0.0.1:8786"})
