"""Images per second of pre-training: the reference recipe and ours, side by side in one run.

    python benchmarks/pretraining_step.py [--quick] [--size vismae] [--side-px 224] [--batch 16]

Forward and backward pass of one batch (``--optimizer`` adds the optimiser's step), the same
network, batch and images for all. Each arm runs in a process of its own, so that its peak memory
is its own; the arms take turns for ``--rounds`` rounds, and each ratio to the reference is the
median over rounds, so that a busy machine disturbs all alike. With one thread the processor's time
is counted instead of the clock's, which other programs disturb less.

Ours keeps freed memory, and keeps it whole, on a CPU, as the command ``vismae pretrain`` does
(``core/host_memory.py``); the arm ``reference, memory kept`` shows how much of the gain that alone
would bring. Below the arms stand two floors, the time no formulation in the same arithmetic can
undercut: matrix products at their measured rate, and bytes that unfused operations read and write
at the rate of a measured copy.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from reference_recipe import ReferenceMAE, ReferenceStep
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from vismae.core.host_memory import keep_freed_memory, start_with_whole_blocks
from vismae.models import SwinMAE
from vismae.training.modules import compiled_step

KEYS_FROM = 10**6


@dataclass(frozen=True)
class Arm:
    """One way to compute a step; ``encoder_input`` None is the reference recipe."""

    encoder_input: str | None
    bf16: bool = False
    compiled: bool = False
    checkpointing: bool = False
    keeps_memory: bool = True


ARMS = {
    "reference": Arm(None, keeps_memory=False),
    "reference, memory kept": Arm(None),
    "dense fp32": Arm("dense"),
    "visible fp32": Arm("visible"),
    "dense bf16": Arm("dense", bf16=True),
    "visible bf16": Arm("visible", bf16=True),
    "dense fp32, checkpointing": Arm("dense", checkpointing=True),
    "dense bf16, checkpointing": Arm("dense", bf16=True, checkpointing=True),
    "dense fp32, compiled": Arm("dense", compiled=True),
    "dense bf16, compiled": Arm("dense", bf16=True, compiled=True),
    "visible bf16, compiled": Arm("visible", bf16=True, compiled=True),
}


def our_step(options: argparse.Namespace, arm: Arm) -> Callable[[Tensor], None]:
    """Return a step as ``vismae pretrain`` computes it."""
    model = SwinMAE.from_size(options.size, encoder_input=arm.encoder_input).to(options.device)
    model.set_checkpointing(arm.checkpointing)
    forward = model.forward
    if arm.compiled:
        forward = compiled_step(forward)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    keys = torch.arange(options.batch, device=options.device) + KEYS_FROM

    def step(images: Tensor) -> None:
        images = images.to(options.device, non_blocking=True)
        with torch.autocast(options.device, torch.bfloat16, enabled=arm.bf16):
            loss = forward(images, keys=keys).loss
        loss.backward()
        if options.optimizer:
            optimizer.step()
        optimizer.zero_grad()

    return step


def build_step(options: argparse.Namespace, arm: Arm) -> Callable[[Tensor], Any]:
    """Return the arm's step, with the same first weights for every arm of a network."""
    torch.manual_seed(0)
    if arm.encoder_input is not None:
        return our_step(options, arm)
    config = SwinMAE.from_size(options.size).config
    return ReferenceStep(ReferenceMAE(config).to(options.device), options.optimizer)


def batch_of(options: argparse.Namespace) -> Tensor:
    """Return noise images in the host's memory; the time does not depend on their content."""
    images = torch.randn(options.batch, 3, options.side_px, options.side_px)
    return images.pin_memory() if options.device == "cuda" else images


def run_arm(options: argparse.Namespace, arm: Arm) -> dict[str, float]:
    """Time an arm in this process: seconds of each step, median, and peak memory."""
    if arm.keeps_memory and options.device == "cpu":
        start_with_whole_blocks()
        keep_freed_memory()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    step, images = build_step(options, arm), batch_of(options)
    before_gib = peak_memory_gib(options.device)
    step(images)
    seconds = []
    for _ in range(options.steps):
        synchronise(options.device)
        start = clock()
        step(images)
        synchronise(options.device)
        seconds.append(clock() - start)
    peak_gib = peak_memory_gib(options.device)
    return {
        "seconds": statistics.median(seconds),
        "peak_gib": peak_gib,
        "step_gib": peak_gib - before_gib,
    }


def synchronise(device: str) -> None:
    """Wait for a GPU."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_memory_gib(device: str) -> float:
    """Largest memory in use so far: of the process, or of the GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class BytesMoved(TorchDispatchMode):
    """Adds up what every operation that is not a view reads and writes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            leaves = tree_leaves((args, kwargs, result))
            self.bytes += sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor))
        return result


def floors(options: argparse.Namespace, arm: Arm) -> dict[str, float]:
    """Return FLOPs of an arm's step, and images per second at which products or bytes stop it."""
    torch.set_num_threads(options.threads)
    step, images = build_step(options, arm), batch_of(options)
    with FlopCounterMode(display=False) as flops, BytesMoved() as moved:
        step(images)
    dtype = torch.bfloat16 if arm.bf16 else torch.float32
    side = 8192 if options.device == "cuda" else 1536
    product = torch.randn(side, side, device=options.device, dtype=dtype)
    source = torch.empty(2**28 if options.device == "cuda" else 2**26, device=options.device)
    target = torch.zeros_like(source)
    flops_a_second = 2 * side**3 / best_seconds(options, lambda: product @ product)
    bytes_a_second = 2 * source.nbytes / best_seconds(options, lambda: target.copy_(source))
    total = flops.get_total_flops()
    return {
        "gflop": total / options.batch / 1e9,
        "tflops": flops_a_second / 1e12,
        "products": options.batch * flops_a_second / total,
        "bytes": options.batch * bytes_a_second / moved.bytes,
    }


def best_seconds(options: argparse.Namespace, work: Callable[[], object]) -> float:
    """Time the fastest of several calls."""
    clock = time.process_time if options.threads == 1 else time.perf_counter
    work()
    found = []
    for _ in range(7):
        synchronise(options.device)
        start = clock()
        work()
        synchronise(options.device)
        found.append(clock() - start)
    return min(found)


def in_own_process(task: str, name: str) -> dict[str, float]:
    """Run a task on an arm in a fresh process with this one's options."""
    found = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], f"--{task}", name],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "TORCH_CPP_LOG_LEVEL": "ERROR"},
    )
    return json.loads(found.stdout)


def compare(options: argparse.Namespace, names: list[str]) -> None:
    """Let the arms take turns, then print rates, ratios, memory and floors."""
    rounds = [{name: in_own_process("arm", name) for name in names} for _ in range(options.rounds)]
    clock = "processor time" if options.threads == 1 else "clock"
    print(
        f"{options.size}, {options.side_px} px, batch {options.batch}, {options.device}, "
        f"{options.threads} threads ({clock}), torch {torch.__version__}, "
        f"{options.rounds} rounds of {options.steps} steps"
    )
    print(f"{'':28s}{'images/s':>9s}{'ratio':>8s}{'(range)':>14s}{'peak GiB':>10s}{'of ref.':>9s}")
    for name in names:
        ratios = [each["reference"]["seconds"] / each[name]["seconds"] for each in rounds]
        seconds = statistics.median(each[name]["seconds"] for each in rounds)
        peak = statistics.median(each[name]["peak_gib"] for each in rounds)
        share = statistics.median(
            each[name]["step_gib"] / each["reference"]["step_gib"] for each in rounds
        )
        span = f"({min(ratios):.2f}-{max(ratios):.2f})"
        print(
            f"{name:28s}{options.batch / seconds:9.2f}{statistics.median(ratios):8.2f}"
            f"{span:>14s}{peak:10.2f}{share:9.0%}"
        )
    for name in (name for name in names if name.endswith(("fp32", "bf16"))):
        floor = in_own_process("floor", name)
        seconds = statistics.median(each[name]["seconds"] for each in rounds)
        used = floor["gflop"] * options.batch / seconds / 1e3 / floor["tflops"]
        print(
            f"floors of {name}: {floor['products']:.2f} images/s by products "
            f"({floor['gflop']:.1f} GFLOP an image at {floor['tflops']:.3f} TFLOP/s), "
            f"{floor['bytes']:.2f} by bytes; {used:.0%} of the products' rate used"
        )


def main() -> None:
    """Read the options; without ``--arm`` or ``--floor`` compare all arms."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="vismae")
    parser.add_argument("--side-px", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--optimizer", action="store_true", help="count the optimiser's step too")
    parser.add_argument("--compiled", action="store_true", help="also compiled arms (minutes)")
    parser.add_argument("--only", nargs="*", choices=ARMS, help="the reference and these arms")
    parser.add_argument("--quick", action="store_true", help="nano at 64 px, two rounds")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--floor", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.size, options.side_px, options.batch, options.rounds = "nano", 64, 8, 2
    if options.arm:
        print(json.dumps(run_arm(options, ARMS[options.arm])))
    elif options.floor:
        print(json.dumps(floors(options, ARMS[options.floor])))
    else:
        names = options.only
        if names is None:
            names = [name for name in ARMS if options.compiled or not ARMS[name].compiled]
        compare(options, list(dict.fromkeys(["reference", *names])))


if __name__ == "__main__":
    main()
