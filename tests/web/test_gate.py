"""Who is let in, and what every answer tells the browser."""

import asyncio
import logging
from collections.abc import Callable

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from vismae.web.folders import Clock
from vismae.web.gate import LOOPBACK, Gate, cookie_name

TOKEN = "a-token-for-tests"


async def behind(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/defect":
        raise RuntimeError("patient Mueller")
    await PlainTextResponse("in")(scope, receive, send)


Ask = Callable[..., httpx.Response]


COOKIE = cookie_name("127.0.0.1:8080")


@pytest.fixture
def ask() -> Ask:
    """Ask a gate once: ``ask("/", token=..., method=..., **headers)``."""

    def request(
        path: str = "/", token: str | None = None, method: str = "GET", **headers: str
    ) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(Gate(behind, LOOPBACK, token, Clock()))
            plain = {name.replace("_", "-"): value for name, value in headers.items()}
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1:8080"
            ) as client:
                return await client.request(method, path, headers=plain)

        return asyncio.run(once())

    return request


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080"])
def test_loopback_names_are_let_in(ask: Ask, host: str) -> None:
    assert ask(host=host).text == "in"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "192.168.0.7:8080"])
def test_a_name_that_was_turned_to_this_address_is_refused(ask: Ask, host: str) -> None:
    answer = ask(host=host)
    assert answer.status_code == 421
    assert answer.json()["error"]["code"] == "host"
    assert "--allow-host" in answer.json()["error"]["message"]


def test_only_the_own_origin_may_ask(ask: Ask) -> None:
    assert ask(origin="http://127.0.0.1:8080").text == "in"
    strange = ("null", "", "http://[", "127.0.0.1:8080", "://evil.example")
    for origin in ("http://evil.example", "http://127.0.0.1:9", "http://localhost:8080", *strange):
        assert ask(origin=origin, method="POST").status_code == 403, origin


def test_other_sites_may_link_here_but_not_load_from_here(ask: Ask) -> None:
    foreign = {"sec_fetch_site": "cross-site"}
    assert ask(**foreign, sec_fetch_mode="no-cors").status_code == 403
    assert ask(**foreign, sec_fetch_mode="navigate").text == "in"
    assert ask(**foreign, sec_fetch_mode="navigate", method="POST").status_code == 403
    assert ask(sec_fetch_site="same-origin", sec_fetch_mode="cors").text == "in"


def test_with_a_token_nothing_is_answered_without_it(ask: Ask) -> None:
    for path in ("/", "/docs", "/v1/model", "/page/files/main.js"):
        answer = ask(path, token=TOKEN)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert ask("/v1/model", token=TOKEN, authorization="Bearer wrong").status_code == 401
    assert ask("/v1/model", token=TOKEN, cookie=f"{COOKIE}=wrong").status_code == 401
    assert ask("/v1/model", token=TOKEN, authorization=f"Bearer {TOKEN}").text == "in"
    assert ask("/v1/model", token=TOKEN, cookie=f"other=1; {COOKIE}={TOKEN}").text == "in"


@pytest.mark.parametrize(
    "foreign", ['layout={"x": 1}', "flag", "x[1]=3", 'k={"a":1,"b":2}', "a=b c", "_xsrf=2|a|b|c"]
)
def test_cookies_of_other_programs_on_this_machine_do_not_hide_the_token(
    ask: Ask, foreign: str
) -> None:
    for cookie in (f"{foreign}; {COOKIE}={TOKEN}", f"{COOKIE}={TOKEN}; {foreign}"):
        assert ask("/v1/model", token=TOKEN, cookie=cookie).text == "in"
    assert ask("/v1/model", token=TOKEN, cookie=foreign).status_code == 401


def test_the_link_with_the_token_leaves_it_in_a_cookie_that_scripts_cannot_read(ask: Ask) -> None:
    answer = ask(f"/?token={TOKEN}", token=TOKEN)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert ask("/?token=wrong", token=TOKEN).status_code == 401


def test_servers_on_one_machine_do_not_take_each_others_token(ask: Ask) -> None:
    servers = {"127.0.0.1:8080": "first", "127.0.0.1:8081": "second", "127.0.0.1": "third"}
    kept: dict[str, str] = {}
    for host, token in servers.items():
        kept |= dict(ask(f"/?token={token}", token=token, host=host).cookies)
    together = "; ".join(f"{name}={value}" for name, value in kept.items())
    for host, token in servers.items():
        assert ask("/v1/model", token=token, host=host, cookie=together).text == "in"
    assert cookie_name("[::1]:8080") == cookie_name("localhost:8080")
    assert cookie_name("[::1]") == cookie_name("localhost:x") == cookie_name("localhost")


@pytest.mark.parametrize("path", ["/", "/defect"])
def test_every_answer_forbids_what_the_page_does_not_need(ask: Ask, path: str) -> None:
    for answer in (ask(path), ask(path, host="evil.example")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_a_defect_is_logged_by_place_and_says_nothing_of_the_file(
    ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = ask("/defect")
    assert answer.status_code == 500
    assert "Mueller" not in answer.text + caplog.text
    assert "RuntimeError at " in caplog.text
    assert "test_gate.py" in caplog.text
