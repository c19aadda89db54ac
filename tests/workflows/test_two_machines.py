"""Two machines, made of two network namespaces; one is cut off in the middle of a training."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from launched import ENVIRONMENT, command_line, processes_of, unruly, wait_until
from vismae.core.config import PretrainConfig

pytestmark = pytest.mark.slow

MakeConfig = Callable[..., PretrainConfig]
MACHINES = (0, 1)


def ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True, timeout=20)


def namespace(machine: int) -> str:
    return f"vismae-{os.getpid()}-{machine}"


def link(machine: int) -> str:
    return f"vm{os.getpid() % 100000}n{machine}"


@pytest.fixture
def machines() -> Iterator[None]:
    """Namespaces joined by a cable: addresses 10.123.0.1 and 10.123.0.2."""
    if shutil.which("ip") is None:
        pytest.skip("needs the program ip (Debian: iproute2)")
    with ExitStack() as after:
        for machine in MACHINES:
            made = ip("netns", "add", namespace(machine), check=False)
            if made.returncode:
                pytest.skip(f"network namespaces are not allowed here: {made.stderr.strip()}")
            after.callback(ip, "netns", "delete", namespace(machine))
        made = ip("link", "add", link(0), "type", "veth", "peer", "name", link(1), check=False)
        if made.returncode:
            pytest.skip(f"virtual network cables are not allowed here: {made.stderr.strip()}")
        for machine in MACHINES:
            inside = ("-n", namespace(machine))
            ip("link", "set", link(machine), "netns", namespace(machine))
            ip(*inside, "addr", "add", f"10.123.0.{machine + 1}/24", "dev", link(machine))
            ip(*inside, "link", "set", "lo", "up")
            ip(*inside, "link", "set", link(machine), "up")
        yield


class Started:
    """torchrun on both machines, their screens in files."""

    def __init__(self, folder: Path, words: list[str]) -> None:
        self.screens = [folder / f"screen-{machine}.txt" for machine in MACHINES]
        self.processes: list[subprocess.Popen[bytes]] = []
        for machine, screen in zip(MACHINES, self.screens, strict=True):
            command = [
                *("ip", "netns", "exec", namespace(machine)),
                *(sys.executable, "-m", "torch.distributed.run"),
                *("--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(machine)),
                *("--master-addr", "10.123.0.1", "--master-port", "29500"),
                *words,
            ]
            with screen.open("wb") as file:
                process = subprocess.Popen(
                    command,
                    env={**ENVIRONMENT, "GLOO_SOCKET_IFNAME": link(machine)},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            self.processes.append(process)

    def told(self) -> list[str]:
        """What stands on the screens."""
        return [screen.read_text() for screen in self.screens]

    def end(self, seconds: float) -> list[int]:
        """Wait for both and return their exit statuses."""
        try:
            return [process.wait(seconds) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()


def test_a_machine_that_is_cut_off_stops_the_other_and_the_run_goes_on(
    machines: None, unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "trainer.nodes": 2,
        "trainer.max_steps": 120,
        "trainer.checkpoint_every": 5,
        "trainer.silence_seconds": 5,
        "model.drop_path": 0.2,
    }
    out = tmp_path / "run"
    config = pretrain_config(out, unlabelled, **settings)
    (tmp_path / "cut").mkdir()
    started = Started(tmp_path / "cut", unruly(tmp_path / "cut", "pretrain", config, seconds=0.2))
    try:
        point = out / "checkpoints" / "last.ckpt"
        wait_until(
            lambda: point.exists() or any(each.poll() for each in started.processes),
            "the first resume point",
            180,
        )
        assert point.exists(), started.told()
        ip("-n", namespace(0), "link", "set", link(0), "down")
    finally:
        # Neither waits for the network's own limits, which are a quarter of an hour and more.
        statuses = started.end(150)
    told = started.told()
    assert all(statuses), told
    for machine, other in ((0, 1), (1, 0)):
        assert f"(rank {other} on " in told[machine]
        assert "has given no sign of life for 5 s: its machine or the network" in told[machine]
    assert processes_of(tmp_path) == []
    ip("-n", namespace(0), "link", "set", link(0), "up")
    whole = pretrain_config(tmp_path / "whole-run", unlabelled, **settings)
    for name, each in {"again": config, "whole": whole}.items():
        (tmp_path / name).mkdir()
        words = [*command_line("pretrain", each)[1:], "--resume"]
        started = Started(tmp_path / name, words)
        assert started.end(240) == [0, 0], started.told()
    assert "2 processes on 2 machines" in (tmp_path / "again" / "screen-0.txt").read_text()
    found, expected = (
        load_file(each / "model" / "model.safetensors") for each in (out, tmp_path / "whole-run")
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
