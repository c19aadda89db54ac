"""Requests to a DICOMweb server (DICOM PS3.18): searches, streams of files, uploads.

On requests directly, and not on dicomweb-client, which holds whole answers in memory, hands out
objects written anew instead of their bytes, sends an upload again without asking, logs addresses
with identifiers in them, and escapes ``*`` and ``?`` in searches, which some servers do not undo.

Importing this module needs the extra ``pacs``.
"""

import logging
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import requests
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3.exceptions import HTTPError as TransportError
from urllib3.exceptions import MaxRetryError, NewConnectionError, ReadTimeoutError

from vismae.core.errors import SettingError
from vismae.files.dicomweb_failures import CHUNK_BYTES, Failure, failure_of_status
from vismae.files.dicomweb_query import Level

_CONNECT_SECONDS = 10.0
_AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'

# It writes the addresses asked for into the log, and with them identifiers of patients' images.
logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)


class EnvironmentCredentials(AuthBase):
    """Account of the environment, read anew for each request: no object ever holds a secret."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the header ``Authorization``, if the environment names an account.

        Raises:
            SettingError: The variables contradict or lack each other; no value is quoted.
        """
        user = os.environ.get("VISMAE_DICOMWEB_USER")
        password = os.environ.get("VISMAE_DICOMWEB_PASSWORD")
        token = (os.environ.get("VISMAE_DICOMWEB_TOKEN") or "").strip()
        if token and (user or password):
            raise SettingError(
                "VISMAE_DICOMWEB_TOKEN is set together with VISMAE_DICOMWEB_USER or _PASSWORD. A "
                "server takes one or the other. Unset one."
            )
        if bool(user) != bool(password):
            raise SettingError(
                "Only one of VISMAE_DICOMWEB_USER and VISMAE_DICOMWEB_PASSWORD is set. Set both."
            )
        if token and not (token.isascii() and token.isprintable()):
            raise SettingError(
                "VISMAE_DICOMWEB_TOKEN holds characters that no HTTP header may have. Copy the "
                "token again."
            )
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        elif user and password:
            return HTTPBasicAuth(user.encode(), password.encode())(request)
        return request


class Connection:
    """A session with one server. Every method asks once and raises ``Failure``."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self._url = url.rstrip("/")
        self._timeout = (min(_CONNECT_SECONDS, timeout_seconds), timeout_seconds)
        self._session = requests.Session()
        # Also keeps requests from sending what a .netrc file says.
        self._session.auth = EnvironmentCredentials()

    def search(
        self,
        level: Level,
        parents: Sequence[str],
        keys: Mapping[str, str],
        fields: Sequence[str],
        page: tuple[int, int],
    ) -> list[dict[str, Any]]:
        """Search by QIDO-RS and return one page of results in the DICOM JSON model.

        Args:
            level: What is searched for.
            parents: UIDs of the study, and the series, to search in; may be empty.
            keys: DICOM keyword to value to match.
            fields: Further attributes the results are to hold.
            page: How many results to leave out, and how many to return at most.
        """
        folders = zip(("studies", "series"), parents, strict=False)
        path = "".join(f"/{folder}/{_as_path(uid)}" for folder, uid in folders)
        offset, limit = page
        query = [*keys.items(), *(("includefield", name) for name in fields)]
        query += [("offset", str(offset)), ("limit", str(limit))]
        # Wildcards and lists as they are: RFC 3986 allows it, and servers are known to take an
        # escaped asterisk for itself and find nothing.
        text = "&".join(f"{key}={quote(value, safe='*?,:')}" for key, value in query)
        with _failures():
            response = self._session.get(
                f"{self._url}{path}/{level}?{text}",
                headers={"Accept": "application/dicom+json"},
                timeout=self._timeout,
            )
            _require_success(response)
            found = response.json() if response.content else []
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise Failure("foreign", "the answer is not a list of DICOM data sets")
        return found

    @contextmanager
    def retrieve(
        self, study: str, series: str, sop: str | None = None
    ) -> Generator[tuple[str, Iterator[bytes]]]:
        """Open the stream of a series, or of one instance, by WADO-RS, as the server stores it.

        Yields:
            The content type of the answer, and its body in pieces.
        """
        address = f"{self._url}/studies/{_as_path(study)}/series/{_as_path(series)}"
        if sop is not None:
            address += f"/instances/{_as_path(sop)}"
        # Pixels are packed already, or do not pack well: a second packing costs time only.
        headers = {"Accept": _AS_STORED, "Accept-Encoding": "identity"}
        with _failures():
            response = self._session.get(
                address, headers=headers, stream=True, timeout=self._timeout
            )
        with response:
            _require_success(response)
            yield response.headers.get("Content-Type", ""), _chunks(response)

    def store(self, body: Iterable[bytes], content_type: str) -> dict[str, Any]:
        """Send a multipart body by STOW-RS and return the answer in the DICOM JSON model.

        It is empty where a server answers in another model. An answer with status 409 that says
        which objects were not stored is returned too.
        """
        headers = {"Content-Type": content_type, "Accept": "application/dicom+json"}
        with _failures():
            response = self._session.post(
                f"{self._url}/studies",
                data=body,
                headers=headers,
                timeout=self._timeout,
                # A redirected upload would become a search.
                allow_redirects=False,
            )
        try:
            answer = response.json()
        except ValueError:
            answer = {}
        if isinstance(answer, list) and len(answer) == 1:
            answer = answer[0]
        if not isinstance(answer, dict):
            answer = {}
        if response.status_code != requests.codes.conflict or not answer:
            _require_success(response)
        return answer


def _as_path(uid: str) -> str:
    """Return a UID for use in an address, where none of its characters may have a meaning."""
    return quote(uid, safe="")


def _chunks(response: requests.Response) -> Iterator[bytes]:
    with _failures():
        yield from response.iter_content(CHUNK_BYTES)


def _require_success(response: requests.Response) -> None:
    if not 200 <= response.status_code < 300:
        raise failure_of_status(response.status_code, response.headers.get("Retry-After"))


@contextmanager
def _failures() -> Generator[None]:
    """Turn what the network libraries raise into ``Failure``, without their words."""
    try:
        yield
    except requests.exceptions.SSLError:
        raise Failure("untrusted", "no trusted encryption") from None
    except requests.exceptions.InvalidJSONError:
        raise Failure("foreign", "the answer is not JSON") from None
    except (requests.ConnectTimeout, requests.ConnectionError) as error:
        raise _connection_failure(error) from None
    except requests.Timeout:
        raise Failure("silent", "no answer in time") from None
    except (
        requests.exceptions.ChunkedEncodingError,
        requests.exceptions.ContentDecodingError,
        TransportError,
    ):
        raise Failure("broken", "the connection broke off") from None
    except requests.RequestException as error:
        raise Failure("rejected", f"no valid request ({type(error).__name__})") from None


def _connection_failure(error: requests.RequestException) -> Failure:
    """Tell a server that was never reached from a connection that was lost on the way."""
    cause = error.args[0] if error.args else None
    if isinstance(cause, MaxRetryError):
        cause = cause.reason
    if isinstance(error, requests.ConnectTimeout) or isinstance(cause, NewConnectionError):
        return Failure("unreachable", "no connection could be made")
    if isinstance(cause, ReadTimeoutError):
        return Failure("silent", "no answer in time")
    return Failure("broken", "the connection broke off")
