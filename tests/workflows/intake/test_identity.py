import pickle
import stat
from pathlib import Path

import pytest

from vismae.core.errors import DataError
from vismae.workflows.intake.identity import (
    Identity,
    make_private_folder,
    private_folder,
    read_salt,
)


def test_a_pseudonym_depends_on_salt_kind_and_every_word() -> None:
    identity = Identity(b"s" * 32)

    assert identity.pseudonym("patient", "Doe") == Identity(b"s" * 32).pseudonym("patient", "Doe")
    different = {
        identity.pseudonym("patient", "Doe"),
        Identity(b"t" * 32).pseudonym("patient", "Doe"),
        identity.pseudonym("study", "Doe"),
        identity.pseudonym("patient", "Doe", "1"),
        identity.pseudonym("patient", "Doe1"),
    }
    assert len(different) == 5
    assert all(len(text) == 16 and int(text, 16) >= 0 for text in different)


def test_names_that_are_not_utf8_have_pseudonyms_too() -> None:
    assert len(Identity(b"s" * 32).pseudonym("file", "caf\udce9.png")) == 16


def test_ids_of_tables_stay_only_where_asked_for() -> None:
    assert Identity(b"s" * 32, keep_ids=True).of_table("patient", "P1") == "P1"
    assert Identity(b"s" * 32).of_table("patient", "P1") != "P1"


def test_the_salt_shows_in_no_printed_form_but_travels_to_workers() -> None:
    identity = Identity(bytes.fromhex("ab" * 32))

    assert "ab" * 4 not in repr(identity)
    assert pickle.loads(pickle.dumps(identity)) == identity


def test_a_salt_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "salt"

    first = read_salt(path)

    assert len(first) == 32
    assert read_salt(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "not hexadecimal", "abcd"])
def test_a_file_that_is_no_salt_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    path = tmp_path / "salt"
    path.write_text(content)

    with pytest.raises(DataError, match="salt"):
        read_salt(path)
    assert path.read_text() == content


def test_the_private_folder_lies_beside_the_store_or_the_salt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert private_folder(tmp_path / "store") == tmp_path / "store.private"
    assert private_folder(Path("a/store"), Path("b/salt")) == Path("b/store.private")
    monkeypatch.chdir(tmp_path)
    assert private_folder(Path(".")) == tmp_path.with_name(f"{tmp_path.name}.private")
    assert private_folder(Path("a/..")) == private_folder(Path("."))
    made = make_private_folder(tmp_path / "x.private")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
