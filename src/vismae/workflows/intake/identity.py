"""Pseudonyms: what may enter a store instead of the names that files and headers hold.

Every id is an HMAC-SHA256 with a secret that stays with the user, cut to 64 bits. The same secret
gives the same pseudonyms, so stores made with one salt can be compared; without it nobody can try
out names against them.
"""

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from vismae.core.errors import DataError
from vismae.core.rundir import write_text

_SALT_BYTES = 32
_PSEUDONYM_DIGITS = 16


@dataclass(frozen=True)
class Identity:
    """Makes pseudonyms of one store.

    Attributes:
        salt: The secret.
        keep_ids: Patient and volume ids of csv tables are pseudonyms already and stay as
            written.
    """

    salt: bytes
    keep_ids: bool = False

    def __repr__(self) -> str:
        return "Identity(...)"

    def pseudonym(self, kind: str, *words: object) -> str:
        """Return 16 hexadecimal digits for what the words name.

        Args:
            kind: What they name (``patient``, ``image``), so that equal words of different kinds
                do not meet.
            words: Identifiers, in a fixed order.
        """
        text = "\x00".join([kind, *map(str, words)])
        digest = hmac.new(self.salt, os.fsencode(text), hashlib.sha256)
        return digest.hexdigest()[:_PSEUDONYM_DIGITS]

    def of_table(self, kind: str, written: str) -> str:
        """Return the pseudonym of an id that a csv table gives, or the id if it may stay."""
        return written if self.keep_ids else self.pseudonym(kind, written)


def private_folder(store: Path, salt: Path | None = None) -> Path:
    """Return the folder of what must not leave the house: beside the store, or the salt."""
    # "." and ".." name no folder: what belongs beside the store would lie within it.
    named = store if store.name not in ("", "..") else Path(os.path.abspath(store))
    home = named if salt is None else salt
    return home.parent / f"{named.name}.private"


def make_private_folder(folder: Path) -> Path:
    """Make a folder that only its owner may enter."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    return folder


def write_private(path: Path, text: str) -> None:
    """Write a text file that only its owner may read."""
    write_text(path, text)
    path.chmod(0o600)


def read_salt(path: Path) -> bytes:
    """Return the secret in a file, made on first use (readable for its owner only).

    Raises:
        DataError: The file holds something else.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(_SALT_BYTES) + "\n")
    try:
        salt = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is no salt ({error}). Expected {2 * _SALT_BYTES} hexadecimal digits. Name "
            "the file of an earlier ingest, or one that does not exist yet."
        ) from error
    if len(salt) < 16:
        raise DataError(
            f"{path} holds a salt of {len(salt)} bytes, at least 16 are needed. Name the file of "
            "an earlier ingest, or one that does not exist yet."
        )
    return salt
