"""Memory that runs out is answered with what to try."""

import torch

from vismae.training.memory import out_of_memory_advice, peak_memory_gib

CPU = torch.device("cpu")


def test_half_the_batch_is_advised_and_said_to_learn_the_same_where_it_does():
    even = out_of_memory_advice(64, 2, CPU)
    assert "data.batch_size=32 and trainer.accumulate=4, which learns the same" in even
    odd = out_of_memory_advice(5, 1, CPU)
    assert "data.batch_size=2 and trainer.accumulate=2;" in odd


def test_a_batch_of_one_cannot_be_halved():
    advice = out_of_memory_advice(1, 8, CPU)
    assert "no smaller batch" in advice
    assert "model.checkpointing" in advice


def test_images_that_are_compared_with_each_other_are_not_told_to_come_in_halves():
    advice = out_of_memory_advice(64, 1, CPU, compares=True)
    assert "data.batch_size=32: each image is then compared with half as many" in advice
    assert "learns the same" not in advice
    # A batch of one image would be refused.
    assert "no smaller batch" in out_of_memory_advice(3, 1, CPU, compares=True)


def test_the_peak_of_a_cpu_grows_with_what_was_held():
    held = torch.ones(32 * 2**20)  # 128 MiB
    assert peak_memory_gib(CPU) > held.nbytes / 2**30
