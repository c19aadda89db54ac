"""The weights of a study's starts."""

from pathlib import Path

import pytest

from vismae.core.errors import RunFolderError
from vismae.workflows.label_study.starts import require_same_weights


def test_weights_that_were_replaced_between_two_calls_are_told(tmp_path: Path) -> None:
    model, file = tmp_path / "model", tmp_path / "swin.pth"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"first")
    file.write_bytes(b"other")
    inits = {("ours", model), ("theirs", file)}
    require_same_weights(tmp_path, inits, set())
    require_same_weights(tmp_path, inits, inits)
    (model / "model.safetensors").write_bytes(b"again")
    with pytest.raises(RunFolderError, match=r"Start 'ours': .* other weights than when"):
        require_same_weights(tmp_path, inits, inits)
    # Nothing was computed with the first ones, so the new ones count from now on.
    require_same_weights(tmp_path, inits, {("theirs", file)})
    require_same_weights(tmp_path, inits, inits)
