import logging

import pytest
import torch

from vismae.models import arithmetic
from vismae.models.arithmetic import has_fast_bf16, resolve_precision, warn_of_slow_bf16


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch):
    """Let the processor seem to have instructions."""

    def make(*, machine: str = "x86_64", avx512_bf16: bool = False, amx: bool = False) -> None:
        monkeypatch.setattr(arithmetic.platform, "machine", lambda: machine)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        arithmetic._cpu_has_bf16.cache_clear()

    yield make
    arithmetic._cpu_has_bf16.cache_clear()


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "expected"),
    [(False, False, "fp32"), (True, False, "bf16"), (False, True, "bf16")],
)
def test_auto_takes_bf16_where_the_processor_computes_it(processor, avx512_bf16, amx, expected):
    processor(avx512_bf16=avx512_bf16, amx=amx)
    assert resolve_precision("auto", "cpu") == expected


def test_what_is_named_stays(processor):
    processor()
    assert resolve_precision("bf16", "cpu") == "bf16"
    processor(amx=True)
    assert resolve_precision("fp32", "cpu") == "fp32"


def test_a_torch_without_these_probes_means_fp32(processor, monkeypatch):
    processor(amx=True)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert resolve_precision("auto", "cpu") == "fp32"


def test_apple_gpus_stay_with_fp32():
    assert not has_fast_bf16("mps")


@pytest.mark.parametrize("computes", [True, False])
def test_other_processors_are_asked_through_onednn(processor, monkeypatch, computes):
    processor(machine="aarch64", amx=not computes)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: computes)
    assert has_fast_bf16("cpu") is computes


def test_emulated_bf16_that_was_asked_for_is_told(processor, caplog):
    processor()
    with caplog.at_level(logging.WARNING):
        warn_of_slow_bf16("bf16", "cpu", "trainer.precision")
        warn_of_slow_bf16("fp32", "cpu", "trainer.precision")
    processor(avx512_bf16=True)
    warn_of_slow_bf16("bf16", "cpu", "trainer.precision")
    assert [record.getMessage().split(",")[0] for record in caplog.records] == [
        "trainer.precision is bf16"
    ]
    assert "Use fp32" in caplog.text
