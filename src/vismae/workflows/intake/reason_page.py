"""The page ``docs/reason-codes.md``, made from the codes themselves so that it cannot be wrong."""

from vismae.core.types import KEEPABLE
from vismae.files.reasons import REASONS, Reason
from vismae.workflows.intake.work import INTAKE_REASONS, IntakeReason

_INTRODUCTION = """# Reason codes

Made by `make docs` from the code; do not edit. Every file that an ingest leaves out has one of
these codes, in `rejected.csv` of the store, in the private table of the same name (there with path
and message) and in the report. Codes stay the same from version to version, so scripts may count
them.
"""


def reason_page() -> str:
    """Return the whole page: codes of single files, and of files put together."""
    return "\n".join(
        (
            _INTRODUCTION,
            f"## Files by themselves\n\n{_table(REASONS)}",
            f"## Files put together and stored\n\n{_table(INTAKE_REASONS)}",
        )
    )


def _table(reasons: dict[Reason, str] | dict[IntakeReason, str]) -> str:
    rows = [f"| `{code}` | {_meaning(code, text)} |" for code, text in sorted(reasons.items())]
    return "\n".join(["| code | meaning |", "|---|---|", *rows]) + "\n"


def _meaning(code: str, text: str) -> str:
    # The codes of what --keep lets in are the words of the flags that then mark it.
    kept = f" `--keep {code}` reads it." if code in KEEPABLE else ""
    return (text + kept).replace("|", "\\|")
