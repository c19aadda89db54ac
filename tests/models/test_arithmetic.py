import logging

import pytest
import torch

from vismae.models import arithmetic
from vismae.models.arithmetic import has_fast_bf16, resolve_precision, warn_of_slow_bf16


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch):
    """Let the processor seem to have instructions, and to be fast in them."""

    def make(
        *,
        machine: str = "x86_64",
        avx512_bf16: bool = False,
        amx: bool = False,
        gains: bool = True,
    ) -> None:
        monkeypatch.setattr(arithmetic, "_cpu_gains_by_bf16", lambda: gains)
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


def test_a_processor_that_is_slow_in_its_bf16_takes_fp32_and_says_so(processor, caplog):
    processor(avx512_bf16=True, gains=False)
    assert resolve_precision("auto", "cpu") == "fp32"
    warn_of_slow_bf16("bf16", "cpu", "trainer.precision")
    assert "slower than in fp32" in caplog.text


@pytest.mark.parametrize(("seconds", "gains"), [((4.0, 3.0), True), ((3.0, 4.0), False)])
def test_the_faster_product_decides(monkeypatch, seconds, gains):
    """One slow product of each, as on a busy machine, changes nothing."""
    in_fp32, in_bf16 = seconds
    readings, now = [], 0.0
    for number in range(arithmetic._ROUNDS):
        for took in (in_fp32, in_bf16):
            readings += [now, now + took * (9.0 if number == 1 else 1.0)]
            now += 100.0
    ticks = iter(readings)
    monkeypatch.setattr(arithmetic.time, "perf_counter", lambda: next(ticks))
    arithmetic._cpu_gains_by_bf16.cache_clear()
    try:
        assert arithmetic._cpu_gains_by_bf16() is gains
    finally:
        arithmetic._cpu_gains_by_bf16.cache_clear()


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
