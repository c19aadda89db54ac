"""The page of settings is what the code says."""

from pathlib import Path

from vismae.core.config import FinetuneConfig
from vismae.core.settings import setting_names
from vismae.core.settings_table import COMMANDS, settings_page, settings_table


def test_the_page_of_settings_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8") == settings_page(), "run: make docs"


def test_every_setting_of_every_command_has_a_row() -> None:
    for kind in COMMANDS.values():
        table = settings_table(kind)
        assert all(f"| `{name}` |" in table for name in setting_names(kind))


def test_the_default_shown_is_the_command_s_own() -> None:
    rows = {line.split("`")[1]: line for line in settings_table(FinetuneConfig).splitlines()[2:]}
    assert "| whole number ≥ 1 | 16 |" in rows["data.batch_size"]
    assert "| needed |" in rows["task.kind"]
    assert "| 2 × number | 0.9, 0.999 |" in rows["optimizer.betas"]
