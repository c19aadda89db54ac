"""The address of a DICOMweb server, as a user writes it among the sources; never with a secret."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from vismae.core.errors import SettingError

_SCHEME = re.compile(r"dicomweb\+(?P<scheme>[a-z]+):/{1,2}(?P<rest>.*)", re.IGNORECASE)


def parse_dicomweb(text: str) -> str | None:
    """Return the base URL of ``dicomweb+https://host[:port]/path``; None for any other source.

    One slash after the colon is enough, since paths lose the second.

    Raises:
        SettingError: The address holds an account, a query, or no host.
    """
    found = _SCHEME.fullmatch(text.strip())
    if found is None:
        return None
    url = f"{found['scheme'].lower()}://{found['rest'].rstrip('/')}"
    check_address(url)
    return url


def as_written(address: Path) -> str:
    """Return an address with both of its slashes, of which a path keeps one."""
    text = str(address)
    found = _SCHEME.fullmatch(text)
    return text if found is None else f"{text[: text.index(':')]}://{found['rest']}"


def check_address(url: str) -> None:
    """Require ``http(s)://host[:port]/path`` and nothing more.

    Raises:
        SettingError: It is something else; the message quotes no secret.
    """
    # None of the messages quotes the address before it is known to hold no secret.
    if "@" in url:
        raise SettingError(
            "The DICOMweb address holds a user or password, which would end in logs. Take it out "
            "and set VISMAE_DICOMWEB_USER and VISMAE_DICOMWEB_PASSWORD instead."
        )
    if "?" in url or "#" in url:
        raise SettingError(
            "The DICOMweb address holds a query. Take out what follows '?' or '#'; give what to "
            "search for as the setting query, a token as VISMAE_DICOMWEB_TOKEN."
        )
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SettingError(
            f"'{url}' is not the address of a DICOMweb server. Write dicomweb+http:// or "
            f"dicomweb+https://, host, port and path, as in dicomweb+https://pacs/dicom-web."
        )
