"""Fused attention against plain products when training on a CPU, side by side in one run.

    python benchmarks/attention_paths.py

Prints images per second of both, forward and backward of the ``micro`` network at 112 px, and
their ratio; behind the choice in ``vismae.models.swin.attend``.
"""

import time

import torch
from torch.nn import functional as F

from vismae.models import SwinMAE, swin

BATCH, SIDE_PX, ROUNDS = 64, 112, 7


def seconds_per_step(model: SwinMAE, images: torch.Tensor, bf16: bool) -> float:
    """Time one forward and backward pass."""
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = model(images, keys=torch.arange(BATCH)).loss
    loss.backward()
    model.zero_grad()
    return time.perf_counter() - start


def fused(query, key, value, bias):
    """Attend through torch's fused function, whatever the device."""
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def main() -> None:
    """Interleave the two paths, so that a busy moment hits both."""
    torch.manual_seed(0)
    model = SwinMAE.from_size("micro", in_channels=1)
    images = torch.randn(BATCH, 1, SIDE_PX, SIDE_PX)
    paths = {"plain": swin.attend, "fused": fused}
    for bf16 in (False, True):
        best = dict.fromkeys(paths, float("inf"))
        for _ in range(ROUNDS):
            for name, path in paths.items():
                swin.attend = path
                best[name] = min(best[name], seconds_per_step(model, images, bf16))
        rates = {name: BATCH / seconds for name, seconds in best.items()}
        print(
            f"{'bf16' if bf16 else 'fp32'}: plain {rates['plain']:.1f} images/s, "
            f"fused {rates['fused']:.1f} images/s, ratio {rates['plain'] / rates['fused']:.2f}"
        )


if __name__ == "__main__":
    main()
