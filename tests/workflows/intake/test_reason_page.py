"""The page of reason codes is what the code says."""

from pathlib import Path

from vismae.core.types import KEEPABLE
from vismae.files.reasons import REASONS, Reason
from vismae.workflows.intake.reason_page import reason_page
from vismae.workflows.intake.work import INTAKE_REASONS, IntakeReason, meanings


def test_the_page_of_reason_codes_is_up_to_date() -> None:
    page = Path(__file__).parents[3] / "docs" / "reason-codes.md"
    assert page.read_text(encoding="utf-8") == reason_page(), "run: make docs"


def test_every_code_has_a_meaning_and_one_row() -> None:
    assert set(REASONS) == set(Reason)
    assert set(INTAKE_REASONS) == set(IntakeReason)
    rows = [line for line in reason_page().splitlines() if line.startswith("| `")]
    assert len(rows) == len(meanings()) == len(Reason) + len(IntakeReason)
    for code, text in meanings().items():
        assert any(row.startswith(f"| `{code}` | {text}") for row in rows)


def test_what_can_be_kept_says_how() -> None:
    page = reason_page()
    assert all(f"`--keep {flag.value}` reads it." in page for flag in KEEPABLE)
    assert page.count("--keep") == len(KEEPABLE)
