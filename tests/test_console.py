"""What a command says of errors of the system."""

import errno

import pytest
import typer

from vismae.console import run_command


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EROFS, "Name a place that may be written"),
        (errno.EACCES, "Name a place that may be written"),
    ],
)
def test_errors_of_the_disk_come_with_a_cure(
    number: int, cure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise OSError(number, "what the system says", "out/a.png")

    with pytest.raises(typer.Exit) as ended:
        run_command(work, verbose=False, quiet=False)
    assert ended.value.exit_code == 1
    assert f"vismae: out/a.png: what the system says. {cure}" in capsys.readouterr().err
