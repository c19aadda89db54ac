"""``vismae web``: the page and the REST routes on one address, until somebody stops it."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from vismae.core.config import WebConfig
from vismae.core.errors import SettingError
from vismae.core.guarded_process import GuardedProcess, Limits
from vismae.core.processes import available_cores

try:
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import Response
    from starlette.exceptions import HTTPException
except ImportError as error:
    raise SettingError(
        "The page needs packages that are not installed. Run: pip install 'vismae[web]'"
    ) from error

from vismae.web.answering import AnswerError, Answering, http_code
from vismae.web.folders import Clock, PrivateFolder
from vismae.web.gate import LOOPBACK, Gate, defect, new_token, problem
from vismae.web.jobs import JobQueue
from vismae.web.page_routes import STUDIES, page_routes
from vismae.web.rest import UPLOADS, rest_routes
from vismae.web.studies import Studies
from vismae.web.uploads import UploadGate
from vismae.web.work import Served

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "VISMAE_WEB_TOKEN"
_SWEEP_SECONDS = 1.0
# A child that waits keeps the models loaded; it ends with the server in any case.
_IDLE_SECONDS = 14 * 24 * 3600.0
_DESCRIPTION = """\
Use the models of this server from other programs. Files are read and prepared exactly as by
vismae predict. An upload is answered when its turn has come, and then deleted; while the queue is
full the answer is 503 with Retry-After. Fields that a route does not have are refused. Not a
medical device."""


@dataclass(frozen=True)
class WebResult:
    """How the server ended.

    Attributes:
        address: Where it was.
    """

    address: str

    def summary(self) -> str:
        """Say that it has stopped."""
        return f"{self.address} has stopped; uploads and results are deleted."


def serve(config: WebConfig) -> WebResult:
    """Serve the page and the REST routes until a signal to stop or ``stop_after``.

    Raises:
        SettingError: The address is taken or not this machine's, or a package is missing.
        ModelError: A folder holds no model.
    """
    token = os.environ.get(TOKEN_VARIABLE) or None
    if token is None and not _is_loopback(config.host):
        token = new_token()
    served = _served(config)
    with contextlib.ExitStack() as stack:
        stack.enter_context(orderly_end())
        listening = stack.enter_context(contextlib.closing(_listen(config.host, config.port)))
        address = _address(config.host, listening.getsockname()[1])
        home = PrivateFolder()
        stack.callback(home.remove)
        stack.enter_context(_temporary_files_in(home.incoming))
        limits = Limits(config.seconds, config.memory_gib)
        guard = GuardedProcess(limits, ("vismae.web.child",), _IDLE_SECONDS)
        queue = JobQueue(guard, config.waiting)
        stack.callback(queue.stop)
        # What it says of malformed bodies is in the answer to them.
        logging.getLogger("python_multipart").setLevel(logging.ERROR)
        logger.info("loading %d model(s)", len(served.models))
        described = _describe(queue, served)
        answering = Answering(
            served=served,
            described=described,
            queue=queue,
            home=home,
            studies=Studies(config.keep_minutes * 60.0, int(config.keep_gib * 2**30)),
            most_upload_bytes=config.max_upload_mib * 2**20,
            most_expanded_bytes=config.max_expanded_mib * 2**20,
            keep_seconds=config.keep_minutes * 60.0,
        )
        clock = Clock()
        server = _Server(_uvicorn_config(build_app(answering, config, token, clock)))
        _announce(config, address, token)
        server.run_until_stopped(listening, config.stop_after, clock, answering)
    return WebResult(address)


def build_app(answering: Answering, config: WebConfig, token: str | None, clock: Clock) -> Gate:
    """Return the whole application: gates outside, routes inside."""
    app = FastAPI(
        title="vismae",
        version=metadata.version("vismae"),
        description=_DESCRIPTION,
        docs_url=None,  # those pages of the framework load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(page_routes(answering))
    app.include_router(rest_routes(answering))
    app.add_exception_handler(AnswerError, _answer_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _field_error)
    app.add_exception_handler(Exception, _defect)
    uploads = (STUDIES, *UPLOADS)
    bounded = UploadGate(app, uploads, answering.most_upload_bytes, answering.queue)
    hosts = {*config.allow_host, config.host}
    if _is_loopback(config.host) or _is_any(config.host):
        hosts |= set(LOOPBACK)
    return Gate(bounded, hosts, token, clock)


async def _answer_error(_: Request, error: Exception) -> Response:
    found = cast(AnswerError, error)
    return problem(found.status, found.code, found.message)


async def _http_error(_: Request, error: Exception) -> Response:
    found = cast(HTTPException, error)
    answer = problem(found.status_code, http_code(found), str(found.detail))
    for name, value in (found.headers or {}).items():
        answer.headers[name] = value
    if found.status_code == 503:
        answer.headers["Retry-After"] = "2"
    return answer


async def _field_error(_: Request, error: Exception) -> Response:
    """Say which field is wrong; what it held may be anything and is not repeated."""
    issues = cast(RequestValidationError, error).errors()
    return problem(422, "field", "; ".join(map(_sentence, issues)))


def _sentence(issue: dict[str, Any]) -> str:
    name = ".".join(map(str, issue["loc"][1:]))
    if name == "file":
        # Text, or a part without a file name, is what the framework calls "no UploadFile".
        return "file: a file with its name is needed (as of curl -F file=@scan.nii.gz)"
    return f"{name}: {issue['msg']}"


async def _defect(_: Request, __: Exception) -> Response:
    """Answer to what should not happen; the framework hands it on to the gate, which logs it."""
    return defect()


# The second comes where a terminal is closed: then uploads must not stay either. Not on Windows.
_ENDINGS = tuple(signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_SIGNALS = (signal.SIGINT, *_ENDINGS)


@contextlib.contextmanager
def _handled(numbers: Iterable[signal.Signals], handler: Callable[..., None]) -> Iterator[None]:
    """Handle signals in one way for a while, save those that nohup had ignored."""
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def orderly_end() -> contextlib.AbstractContextManager[None]:
    """Have signals to stop end the process by way of its clean-up, also while models load."""

    def leave(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    return _handled(_ENDINGS, leave)


class _Server(uvicorn.Server):
    """uvicorn that ends without dying of the signal that ended it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        def stop(*_: Any) -> None:
            self.force_exit = self.should_exit
            self.should_exit = True

        with _handled(_SIGNALS, stop):
            yield

    def run_until_stopped(
        self,
        listening: socket.socket,
        stop_after: float | None,
        clock: Clock,
        answering: Answering,
    ) -> None:
        """Serve on a socket, delete what is due, and stop where nobody asks any more."""

        async def watch() -> None:
            while not self.should_exit:
                await asyncio.sleep(_SWEEP_SECONDS)
                await asyncio.to_thread(answering.studies.sweep)
                if stop_after is not None and answering.queue.idle:
                    self.should_exit |= clock.idle_seconds > stop_after

        async def both() -> None:
            watching = asyncio.create_task(watch())
            try:
                await self.serve(sockets=[listening])
            finally:
                watching.cancel()

        asyncio.run(both())


def _uvicorn_config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,  # addresses hold names of results
        server_header=False,
        proxy_headers=False,
        limit_concurrency=256,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=5,
    )


def _served(config: WebConfig) -> Served:
    folders = [folder.resolve() for folder in config.model]
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return Served(
        models=tuple(zip(_names(folders), folders, strict=True)),
        device=config.device,
        batch_size=config.batch_size,
        threads=int(threads) if threads.isdecimal() else available_cores(),
        uncertainty=config.uncertainty,
        evaluations=tuple(folder.resolve() for folder in config.evaluation),
    )


def _names(folders: list[Path]) -> list[str]:
    """Name models after their folders: ``runs/liver/model`` is liver; no name comes twice."""
    names: list[str] = []
    for folder in folders:
        name = folder.parent.name if folder.name == "model" else folder.name
        name = (name or "model").replace(",", " ")
        number = 2
        unique = name
        while unique in names:
            unique, number = f"{name}-{number}", number + 1
        names.append(unique)
    return names


def _describe(queue: JobQueue, served: Served) -> tuple[dict[str, Any], ...]:
    slot = queue.reserve()
    if slot is None:
        raise RuntimeError("a new queue has a place")
    return tuple(slot.start(served).outcome.result())


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise SettingError(
            f"{host}, port {port}: cannot be listened on ({error.strerror or error}). Choose "
            "another --port (0 takes a free one), or an address of this machine."
        ) from error
    listening.listen(128)
    return listening


@contextlib.contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Have bodies that are being received lie in the private folder too."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _announce(config: WebConfig, address: str, token: str | None) -> None:
    link = address if token is None else f"{address}?token={token}"
    if not _is_loopback(config.host):
        logger.warning(
            "listening on %s: other machines can reach this server, and what they send is not "
            "encrypted. Put a proxy with TLS before it. Only those with the token get an answer.",
            config.host,
        )
    if _is_any(config.host) and not config.allow_host:
        logger.warning(
            "%s is no address that a browser can ask for: give --allow-host with the name or "
            "address of this machine, or only this machine gets an answer.",
            config.host,
        )
    logger.info("open %s (Ctrl-C stops)", link)


def _address(host: str, port: int) -> str:
    shown = "127.0.0.1" if _is_any(host) else host
    return f"http://[{shown}]:{port}/" if ":" in shown else f"http://{shown}:{port}/"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_any(host: str) -> bool:
    return host in ("0.0.0.0", "::")
