"""Memory of the device that trains: how much was used, and what to do when it was not enough."""

import sys

import torch


def peak_memory_gib(device: torch.device) -> float:
    """Return the most memory that training has held so far, in GiB; NaN where nobody tells.

    On CUDA what tensors held on this device; on a CPU all that the process held.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if device.type != "cpu" or sys.platform == "win32":
        return float("nan")
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20


def out_of_memory_advice(
    batch_size: int, accumulate: int, device: torch.device, compares: bool = False
) -> str:
    """Return the sentence for a user: what was too much, and the batch size to try.

    Args:
        batch_size: ``data.batch_size`` that was too large.
        accumulate: ``trainer.accumulate`` it went with.
        device: Where memory ran out.
        compares: The images of a batch are compared with each other, so that two halves are no
            whole.
    """
    found = f"Memory ran out at data.batch_size={batch_size}{_in_use(device)}."
    if batch_size == 1 or (compares and batch_size < 4):
        return (
            f"{found} There is no smaller batch: use model.checkpointing, trainer.precision=bf16, "
            "a smaller data.image_size or a smaller model.size."
        )
    smaller = batch_size // 2
    if compares:
        return (
            f"{found} model.checkpointing and trainer.precision=bf16 need less memory for the same "
            f"batch. Or start again with data.batch_size={smaller}: each image is then compared "
            "with half as many others, which trainer.accumulate does not make up for."
        )
    same = ", which learns the same" if batch_size % 2 == 0 else ""
    return (
        f"{found} Start again with data.batch_size={smaller} and trainer.accumulate="
        f"{2 * accumulate}{same}; trainer.precision=bf16 and, in pre-training, "
        "model.checkpointing also need less memory."
    )


def _in_use(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    total = torch.cuda.get_device_properties(device).total_memory / 2**30
    return f" ({peak_memory_gib(device):.1f} of the device's {total:.1f} GiB in use at most)"
