"""Who may come in, by Host, Origin and token; and what every answer tells the browser.

A page of another site that this machine's browser shows must not reach the server, neither by its
name turned to this address (DNS rebinding: the Host is then wrong) nor by a request from there (the
Origin is). Fetch metadata (Sec-Fetch-Site) closes what older rules leave open.
"""

import hmac
import json
import logging
import secrets
import traceback
from collections.abc import Iterable
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vismae.web.folders import Clock

logger = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), usb=()",
    # Nothing of a patient stays in a browser's cache.
    "Cache-Control": "no-store",
}


class Gate:
    """Lets in what comes from the own page, or from a program with the token.

    Args:
        app: What lies behind.
        hosts: Names and addresses under which the server may be asked for, without port.
        token: That every request must carry; None asks for none.
        clock: Told of every request that came in.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], token: str | None, clock: Clock) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        self._token = token
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(scope)
        try:
            if refusal is not None:
                await refusal(scope, receive, send_with_headers)
                return
            self._clock.touch()
            await self._app(scope, receive, send_with_headers)
            self._clock.touch()
        except Exception as error:
            _log_defect(error)
            if not started:
                await defect()(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _without_port(host) not in self._hosts:
            return problem(
                421,
                "host",
                "This server is not known under that name. Ask for it by the address that vismae "
                "web printed, or start it with --allow-host and the name or address used here.",
            )
        origin = headers.get("origin")
        # Compared as text: an Origin may be no address at all.
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return problem(403, "origin", "Requests from other sites are not answered.")
        site = headers.get("sec-fetch-site", "none")
        navigates = headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET"
        if site in ("cross-site", "same-site") and not navigates:
            return problem(403, "origin", "Requests from other sites are not answered.")
        return self._token_refusal(scope, headers)

    def _token_refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """Ask for the token; a link that carries it puts it into a cookie."""
        if self._token is None:
            return None
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        if scope["path"] == "/" and self._matches(query.get("token", [""])[0]):
            answer = RedirectResponse("/", status_code=303)
            name = cookie_name(headers.get("host", ""))
            answer.set_cookie(name, self._token, httponly=True, samesite="strict", path="/")
            return answer
        word, _, bearer = headers.get("authorization", "").partition(" ")
        if word.lower() == "bearer" and self._matches(bearer.strip()):
            return None
        # Other programs on this machine set cookies too, and not all keep to the standard.
        cookies = cookie_parser(headers.get("cookie", ""))
        if self._matches(cookies.get(cookie_name(headers.get("host", "")), "")):
            return None
        if scope["path"] == "/":
            text = "Open the address that vismae web printed, with its token."
            return PlainTextResponse(text, 401, {"WWW-Authenticate": "Bearer"})
        answer = problem(401, "token", "The access token is missing or wrong.")
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer

    def _matches(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(
            given.encode("utf-8", "surrogateescape"), self._token.encode()
        )


def new_token() -> str:
    """Return a token that cannot be guessed."""
    return secrets.token_urlsafe(32)


def cookie_name(host: str) -> str:
    """Name the cookie that carries the token, as of a Host header.

    Browsers keep cookies by name and address, whatever the port: servers on one machine would take
    each other's place.
    """
    port = host.rpartition(":")[2]
    return f"vismae_token_{port}" if port.isascii() and port.isdigit() else "vismae_token"


def problem(status: int, code: str, message: str, **headers: str) -> Response:
    """Return an error as every route gives it."""
    content = json.dumps({"error": {"code": code, "message": message}})
    return Response(content, status, headers, media_type="application/json")


def defect() -> Response:
    """Return the answer to a request that met a defect."""
    return problem(500, "defect", "A defect in vismae; the log says where.")


def _without_port(host: str) -> str:
    host = host.lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _log_defect(error: Exception) -> None:
    """Say where a defect is; its message may quote a file's name, so it is not said."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    places = ", ".join(f"{frame.filename}:{frame.lineno}" for frame in frames)
    logger.error("%s at %s", type(error).__name__, places)
