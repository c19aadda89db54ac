import logging
from pathlib import Path

import pytest
import torch

from vismae.models import arithmetic
from vismae.models.arithmetic import has_fast_bf16, resolve_precision, warn_of_slow_bf16


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Let the processor seem to have instructions and a maker."""

    def make(
        *,
        machine: str = "x86_64",
        avx512_bf16: bool = False,
        amx: bool = False,
        maker: str = "AuthenticAMD",
    ) -> None:
        facts = tmp_path / "cpuinfo"
        facts.write_text(f"processor\t: 0\nvendor_id\t: {maker}\n", encoding="utf-8")
        monkeypatch.setattr(arithmetic, "_CPU_FACTS", facts)
        monkeypatch.setattr(arithmetic.platform, "machine", lambda: machine)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        arithmetic._cpu_is_fast_in_bf16.cache_clear()

    yield make
    arithmetic._cpu_is_fast_in_bf16.cache_clear()


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "expected"),
    [(False, False, "fp32"), (True, False, "bf16"), (False, True, "bf16")],
)
def test_auto_takes_bf16_where_the_processor_computes_it(processor, avx512_bf16, amx, expected):
    processor(avx512_bf16=avx512_bf16, amx=amx)
    assert resolve_precision("auto", "cpu") == expected


def test_intels_vectors_are_slow_in_bf16_and_its_matrix_unit_is_not(processor, caplog):
    processor(avx512_bf16=True, maker="GenuineIntel")
    assert resolve_precision("auto", "cpu") == "fp32"
    warn_of_slow_bf16("bf16", "cpu", "trainer.precision")
    assert "slower than in fp32" in caplog.text
    processor(avx512_bf16=True, amx=True, maker="GenuineIntel")
    assert resolve_precision("auto", "cpu") == "bf16"


def test_where_no_file_tells_the_maker_the_name_does(processor, monkeypatch, tmp_path):
    processor(avx512_bf16=True)
    monkeypatch.setattr(arithmetic, "_CPU_FACTS", tmp_path / "none")
    name = "Intel64 Family 6 Model 143 Stepping 8, GenuineIntel"
    monkeypatch.setattr(arithmetic.platform, "processor", lambda: name)
    assert resolve_precision("auto", "cpu") == "fp32"


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
