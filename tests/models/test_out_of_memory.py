"""Memory that runs out is told from other errors."""

import pytest
import torch

from vismae.models.out_of_memory import is_out_of_memory


def test_errors_of_memory_are_told_from_others():
    with pytest.raises(RuntimeError) as found:
        torch.empty(1 << 50)
    assert is_out_of_memory(found.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(RuntimeError) as other:
        torch.ones(2, 3).matmul(torch.ones(2, 3))
    assert not is_out_of_memory(other.value)
    assert not is_out_of_memory(ValueError("can't allocate memory"))
