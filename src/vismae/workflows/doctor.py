"""``vismae doctor``: what works here, what is missing, and what to do about it."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from vismae.inference.predictor import choose_device
from vismae.workflows.health.check import Check
from vismae.workflows.health.decoders import decoder_checks
from vismae.workflows.health.extras import extra_checks
from vismae.workflows.health.machine import machine_checks
from vismae.workflows.health.training import training_check

_MARKS = {"ok": "ok     ", "missing": "missing", "warning": "warning", "failed": "FAILED "}


@dataclass(frozen=True)
class DoctorResult:
    """What was looked at.

    Attributes:
        checks: In order.
        as_json: Whether the summary is JSON.
    """

    checks: tuple[Check, ...]
    as_json: bool = False

    @property
    def healthy(self) -> bool:
        """Whether everything that is needed works."""
        return all(check.state != "failed" for check in self.checks)

    def summary(self) -> str:
        """One line for each check, what to do below it, and the verdict last; or JSON."""
        if self.as_json:
            checks = [asdict(check) for check in self.checks]
            return json.dumps({"healthy": self.healthy, "checks": checks}, indent=2)
        lines: list[str] = []
        for check in self.checks:
            lines.append(f"{_MARKS[check.state]} {check.name}: {check.found}")
            if check.cure and check.state != "ok":
                lines.append(f"        -> {check.cure}")
        failed = sum(check.state == "failed" for check in self.checks)
        missing = sum(check.state == "missing" for check in self.checks)
        verdict = f"{failed} needed parts do not work." if failed else "Everything needed works."
        if missing:
            verdict += f" {missing} optional parts are not installed."
        return "\n".join([*lines, verdict])


def doctor(train: bool = True, as_json: bool = False) -> DoctorResult:
    """Look at machine, decoders and extras, and train for three steps.

    Args:
        train: Do the training too (some seconds).
        as_json: Whether the result's summary is JSON.
    """
    return DoctorResult(tuple(_checks(train)), as_json)


def _checks(train: bool) -> Iterator[Check]:
    yield from machine_checks(Path.cwd())
    yield from decoder_checks()
    yield from extra_checks()
    if train:
        yield training_check(choose_device("auto").type)
