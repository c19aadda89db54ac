"""The page ``docs/reason-codes.md``, made from the codes themselves so that it cannot be wrong."""

from collections.abc import Mapping
from typing import TypeVar

from vismae.core.types import KEEPABLE
from vismae.files.reasons import CURES, REASONS, Reason
from vismae.workflows.intake.work import INTAKE_CURES, INTAKE_REASONS, IntakeReason

Code = TypeVar("Code", Reason, IntakeReason)

_INTRODUCTION = """# Reason codes

Made by `make docs` from the code; do not edit. Every file that an ingest leaves out has one of
these codes, in `rejected.csv` of the store, in the private table of the same name (there with path
and message) and in the report; so has every file without a result in `failed.csv` of a prediction.
Codes stay the same from version to version, so scripts may count them. The message of a file says
what was found in it.
"""


def reason_page() -> str:
    """Return the whole page: codes of single files, and of files put together."""
    return "\n".join(
        (
            _INTRODUCTION,
            f"## Files by themselves\n\n{_table(REASONS, CURES)}",
            f"## Files put together and stored\n\n{_table(INTAKE_REASONS, INTAKE_CURES)}",
        )
    )


def _table(meanings: Mapping[Code, str], cures: Mapping[Code, str]) -> str:
    rows = [
        f"| `{code}` | {_cell(text)} | {_cell(cures[code])}{_keep(code)} |"
        for code, text in sorted(meanings.items())
    ]
    return "\n".join(["| code | meaning | what to do |", "|---|---|---|", *rows]) + "\n"


def _keep(code: str) -> str:
    # The codes of what --keep lets in are the words of the flags that then mark it.
    return f" `--keep {code}` reads it." if code in KEEPABLE else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
