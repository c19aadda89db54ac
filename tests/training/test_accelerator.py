from pathlib import Path

import pytest

from vismae.core.config import PretrainConfig
from vismae.core.rundir import write_text
from vismae.core.settings import build_config, to_yaml
from vismae.training import accelerator
from vismae.training.accelerator import with_precision


def config(out: Path, **options: object) -> PretrainConfig:
    given = {"out": out, "data.sources": [out], "trainer.device": "cpu", **options}
    return build_config(PretrainConfig, "pretrain", options=given)


@pytest.mark.parametrize(("fast", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_becomes_what_the_processor_is_fast_in(
    fast: bool, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "resolve_precision", lambda *_: "bf16" if fast else "fp32")
    assert with_precision(config(tmp_path / "run")).trainer.precision == expected


@pytest.mark.parametrize("begun", ["bf16", "fp32"])
def test_a_resumed_run_keeps_its_arithmetic_on_any_machine(begun: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    first = config(out, **{"trainer.precision": begun})
    write_text(out / "config.yaml", to_yaml(first))
    assert with_precision(config(out, resume=True)).trainer.precision == begun


def test_without_resume_an_earlier_run_decides_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    write_text(out / "config.yaml", "trainer: {precision: unheard of}\n")
    assert with_precision(config(out)).trainer.precision in ("bf16", "fp32")
