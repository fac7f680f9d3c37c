"""ASGI middleware in front of gradio: refuses bad requests before gradio sees them.

Only the page's own routes exist. A request needs the right Host, no foreign Origin, and the token of
the printed address. Bodies are limited in size, number and time. Files must lie in the page's
folder. No URL is ever fetched.
"""

from __future__ import annotations

import asyncio
import http.cookies
import ipaddress
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

if TYPE_CHECKING:
    from staanet.apps.web import Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

READS = (
    "/assets/",
    "/static/",
    "/theme.css",
    "/favicon.ico",
    "/manifest.json",
    "/robots.txt",
    "/config",
    "/gradio_api/info",
    "/gradio_api/startup-events",
    "/gradio_api/app_id",
    "/gradio_api/heartbeat/",
    "/gradio_api/queue/data",
    "/gradio_api/upload_progress",
    "/gradio_api/theme.css",
    "/gradio_api/call/",
)
WRITES = (
    "/gradio_api/upload",
    "/gradio_api/queue/join",
    "/gradio_api/reset",
    "/gradio_api/cancel",
    "/gradio_api/call/",
)
FILE = "/gradio_api/file="
UPLOAD = "/gradio_api/upload"
MANIFEST = "/manifest.json"
"""Browsers fetch it without cookies; it holds the page's title alone."""
JSON_BYTES = 256 * 1024
POLICY = (
    # gradio builds the functions that render its HTML components from text, hence unsafe-eval
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)


class RefusedRequest(Exception):
    """A request that is refused with a status and one line."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class HttpFilter:
    """The application behind the filter; ``open_to_all`` is for a page that other machines may reach."""

    def __init__(
        self,
        app: App,
        *,
        private: Path,
        token: str,
        port: int,
        limits: Limits,
        open_to_all: bool = False,
    ) -> None:
        self.app, self.private, self.token, self.port = app, private, token, port
        self.limits, self.open_to_all = limits, open_to_all
        self.cookie = f"staanet-{port}"  # cookies know no port, so that two pages need two names
        self.uploads, self.recent = 0, deque[float]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] != "http":
            return  # which closes a websocket
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        try:
            await self._admit(scope, receive, send_with_headers)
        except RefusedRequest as refusal:
            if not started:
                await _answer(send_with_headers, refusal.status, f"{refusal.reason}\n")

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        self._check_origin(headers)
        path, method = str(scope["path"]), str(scope["method"])
        self._check_path(path, method)
        token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if path == "/" and token == self.token:
            cookie = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Lax"
            await _answer(send, 303, "", {"location": "/", "set-cookie": cookie})
            return
        if path != MANIFEST and _cookies(headers).get(self.cookie) != self.token:
            raise RefusedRequest(
                403, "Open the address that staanet serve has printed, with its token"
            )
        if method != "POST":
            await self.app(scope, receive, send)
        elif path == UPLOAD:
            await self._upload(scope, receive, send, headers)
        else:
            body = await self._body(receive, headers, JSON_BYTES)
            _check_json(body, self.private, headers["host"])
            await self.app(scope, _replay(body, receive), send)

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "")
        name, _, port = (
            host.rpartition(":") if host.rsplit("]")[-1].count(":") else (host, "", "80")
        )
        hosts = {"127.0.0.1", "localhost", "[::1]"}
        if self.open_to_all:
            hosts |= {socket.gethostname().lower(), *([name] if _is_address(name) else [])}
        if name.lower() not in hosts or (not self.open_to_all and port != str(self.port)):
            raise RefusedRequest(403, "This Host is not the one of this page")
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            raise RefusedRequest(403, "This Origin is not the one of this page")

    def _check_path(self, path: str, method: str) -> None:
        if "\0" in path or ".." in path or "\\" in path:
            raise RefusedRequest(404, "There is no such thing here")
        if path.startswith(FILE) and method in ("GET", "HEAD"):
            file = Path(path.removeprefix(FILE))
            if file.is_absolute() and file.resolve().is_relative_to(self.private):
                return
        elif method in ("GET", "HEAD"):
            if path == "/" or any(_matches(path, route) for route in READS):
                return
        elif method == "POST" and any(_matches(path, route) for route in WRITES):
            return
        raise RefusedRequest(404, "There is no such thing here")

    async def _upload(
        self, scope: Scope, receive: Receive, send: Send, headers: Mapping[str, str]
    ) -> None:
        limits, most = self.limits, self.limits.bytes + 64 * 1024  # what the form adds
        now = time.monotonic()
        while self.recent and now - self.recent[0] > 60:
            self.recent.popleft()
        if self.uploads >= limits.uploads_at_once or len(self.recent) >= limits.uploads_a_minute:
            raise RefusedRequest(429, "Too many uploads: wait a minute")
        declared = _content_length(headers)
        if declared is not None and declared > most:
            raise RefusedRequest(
                413, f"{declared} bytes; a clip may have {limits.bytes} (--max-mib)"
            )
        if _size(self.private) > limits.stored_bytes:
            raise RefusedRequest(429, "The page's folder is full: it is emptied within minutes")
        self.recent.append(now)
        self.uploads += 1
        try:  # whole, before gradio sees it: a cut, endless or slow body leaves no file behind
            body = await self._body(receive, headers, most)
            await self.app(scope, _replay(body, receive), send)
        finally:
            self.uploads -= 1

    async def _body(self, receive: Receive, headers: Mapping[str, str], most: int) -> bytes:
        declared = _content_length(headers)
        if declared is not None and declared > most:
            raise RefusedRequest(413, f"{declared} bytes; at most {most} are taken")
        parts, size = [], 0
        ends = time.monotonic() + 6 * self.limits.silence_s
        while True:
            try:
                patience = min(self.limits.silence_s, ends - time.monotonic())
                message = await asyncio.wait_for(receive(), max(patience, 0.01))
            except TimeoutError:
                raise RefusedRequest(408, "The upload was too slow") from None
            if message["type"] == "http.disconnect":
                raise RefusedRequest(400, "The client has gone")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most:
                raise RefusedRequest(413, f"More than the {most} bytes that are taken")
            if not message.get("more_body"):
                return b"".join(parts)


_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


async def _answer(
    send: Send, status: int, text: str, more: Mapping[str, str] | None = None
) -> None:
    body = text.encode()
    fields = {
        "content-type": "text/plain; charset=utf-8",
        "content-length": str(len(body)),
        "connection": "close",
        **(more or {}),
    }
    headers = [(key.encode(), value.encode("latin-1", "replace")) for key, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _check_json(body: bytes, private: Path, host: str) -> None:
    """Refuses a body that is not JSON, or names a file or address other than the page's own."""
    try:
        content = json.loads(body) if body else None
    except (ValueError, RecursionError):
        raise RefusedRequest(400, "Not JSON") from None
    stack: list[tuple[Any, int]] = [(content, 0)]
    while stack:
        value, depth = stack.pop()
        if depth > 20:
            raise RefusedRequest(400, "Nested too deeply")
        if isinstance(value, list):
            stack += [(item, depth + 1) for item in value]
        elif isinstance(value, dict):
            stack += [(item, depth + 1) for item in value.values()]
            _check_file(value, private, host)


def _check_file(entry: Mapping[str, Any], private: Path, host: str) -> None:
    path, url = entry.get("path"), entry.get("url")
    if path is not None and not (
        isinstance(path, str)
        and "\0" not in path
        and Path(path).is_absolute()
        and Path(path).resolve().is_relative_to(private)
    ):
        raise RefusedRequest(403, "That file is not one of this page")
    address = f"http://{host}{FILE}{path}"
    if url is not None and url not in (address, f"http://{host}{FILE}{quote(str(path))}"):
        raise RefusedRequest(403, "Addresses are not fetched")


def _matches(path: str, route: str) -> bool:
    return path.startswith(route) if route.endswith("/") else path == route


def _content_length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _cookies(headers: Mapping[str, str]) -> dict[str, str]:
    try:
        jar = http.cookies.SimpleCookie(headers.get("cookie", ""))
    except http.cookies.CookieError:
        return {}
    return {key: morsel.value for key, morsel in jar.items()}


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------- the folder


def _size(folder: Path) -> int:
    return sum(size for _, size, _ in _files(folder))


def _files(folder: Path) -> Iterator[tuple[Path, int, float]]:
    for path in folder.rglob("*"):
        try:
            about = path.lstat()
        except OSError:  # gone meanwhile
            continue
        if not path.is_dir():
            yield path, about.st_size, about.st_mtime


def delete_old_files(folder: Path, keep_s: float, stored_bytes: int) -> None:
    """Deletes files older than ``keep_s``, and the oldest until the rest takes ``stored_bytes``."""
    files = sorted(_files(folder), key=lambda file: file[2])
    total = sum(size for _, size, _ in files)
    for path, size, changed in files:
        if time.time() - changed > keep_s or total > stored_bytes:
            path.unlink(missing_ok=True)
            total -= size
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and time.time() - path.stat().st_mtime > keep_s:
            _remove_if_empty(path)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # something lies in it
        return


@contextmanager
def keep_clean(folder: Path, limits: Limits) -> Iterator[None]:
    """Deletes old files of ``folder`` while the page runs."""
    ended = threading.Event()

    def delete_at_times() -> None:
        while not ended.wait(min(30.0, limits.keep_s)):
            delete_old_files(folder, limits.keep_s, limits.stored_bytes)

    thread = threading.Thread(target=delete_at_times, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5)
