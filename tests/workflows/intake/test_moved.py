from pathlib import Path

import pytest

from vismae.workflows.intake.moved import moved_beside


@pytest.mark.parametrize(
    ("path", "before", "now", "expected"),
    [
        (
            "/m1/arc/labels/a.png",
            "/m1/arc/images/a.png",
            "/m2/arc/images/a.png",
            "/m2/arc/labels/a.png",
        ),
        ("in/l.png", "in/a.png", "/home/x/in/a.png", "/home/x/in/l.png"),
        ("/elsewhere/l.png", "/m1/a.png", "/m2/a.png", "/elsewhere/l.png"),
    ],
)
def test_what_lies_beside_a_moved_file_went_with_it(
    path: str, before: str, now: str, expected: str
) -> None:
    assert moved_beside(Path(path), Path(before), Path(now)) == Path(expected)
