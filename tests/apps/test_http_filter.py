"""The HTTP filter of the page, over real HTTP: nothing leads out, nothing is too large or too slow."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.web import request

from staanet.apps.web import Limits
from staanet.apps.web.http_filter import HttpFilter, delete_old_files

MIB = 2**20


class Recorder:
    """An application that records the paths that the filter let through."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"let through"})


class Door:
    """A filter in front of ``Recorder``, served by uvicorn on a port of its own."""

    def __init__(self, private: Path, **limits: Any) -> None:
        uvicorn = pytest.importorskip("uvicorn", reason="extra web: pip install 'staanet[web]'")
        self.recorder, self.private = Recorder(), private.resolve()
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        self.http_filter = HttpFilter(
            self.recorder,
            private=self.private,
            token="secret",
            port=self.port,
            limits=Limits(**{"bytes": MIB, "silence_s": 1.0, **limits}),
        )
        config = uvicorn.Config(self.http_filter, log_level="critical", lifespan="off", ws="none")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(
            target=lambda: asyncio.run(self.server.serve(sockets=[listening])), daemon=True
        )
        self.thread.start()

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, str]:
        return request(
            self.port, method, path, body, {"Cookie": f"staanet-{self.port}=secret", **headers}
        )

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    server = Door(tmp_path)
    yield server
    server.close()


@pytest.mark.parametrize(
    "path",
    [
        "/../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=/etc/pass%00wd",
        "/gradio_api/file=%2e%2e/%2e%2e/etc/passwd",
        "/gradio_api/file=http://169.254.169.254/",
        "/gradio_api/proxy=http://169.254.169.254/",
        "/gradio_api/file=",
        "/gradio_api/file=relative.wav",
        "/monitoring",
        "/login",
        "/docs",
        "/gradio_api/runs",
        "/gradio_api/openapi.json",
        "/..%5c..%5cwindows",
        "/gradio_api/mcp/",
    ],
)
def test_d02_no_path_leads_out(door: Door, path: str) -> None:
    status, text = door.ask("GET", path)
    assert status == 404 and "/etc" not in text and not door.recorder.paths
    assert door.ask("POST", path, b"{}")[0] == 404 and not door.recorder.paths


def test_d02_the_pages_own_files_are_let_through(door: Door) -> None:
    (door.private / "a.wav").write_bytes(b"x")
    assert door.ask("GET", f"/gradio_api/file={door.private}/a.wav")[0] == 200
    (door.private / "link").symlink_to("/etc/passwd")
    assert door.ask("GET", f"/gradio_api/file={door.private}/link")[0] == 404


def test_d02_foreign_host_or_origin_or_no_token(door: Door) -> None:
    own = f"127.0.0.1:{door.port}"
    assert door.ask("GET", "/", Host=own, Origin=f"http://{own}")[0] == 200
    assert door.ask("GET", "/", Host=f"localhost:{door.port}")[0] == 200
    for host in ("evil.example", f"evil.example:{door.port}", f"127.0.0.1:{door.port + 1}", ""):
        assert door.ask("GET", "/", Host=host)[0] == 403
    for origin in ("http://evil.example", "null", f"https://{own}", "http://127.0.0.1:1"):
        assert door.ask("POST", "/gradio_api/queue/join", b"{}", Host=own, Origin=origin)[0] == 403
    assert len(door.recorder.paths) == 2
    for cookie in (
        "",
        "staanet=secret",
        f"staanet-{door.port}=guess",
        f"staanet-{door.port + 1}=secret",
    ):
        assert door.ask("GET", "/", Cookie=cookie)[0] == 403
    assert request(door.port, "GET", "/?token=guess", None, {})[0] == 403
    assert request(door.port, "GET", "/?token=secret", None, {})[0] == 303
    assert len(door.recorder.paths) == 2


def test_d03_an_open_page_takes_addresses_but_no_foreign_name(tmp_path: Path) -> None:
    door = Door(tmp_path)
    door.http_filter.open_to_all = True
    try:
        assert door.ask("GET", "/", Host="192.0.2.7:7860", Origin="http://192.0.2.7:7860")[0] == 200
        assert door.ask("GET", "/", Host="192.0.2.7:7860", Origin="http://evil.example")[0] == 403
        assert door.ask("GET", "/", Host="evil.example")[0] == 403  # DNS rebinding
    finally:
        door.close()


def test_d03_an_open_page_is_warned_of(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from staanet.apps import web
    from staanet.cli import app

    monkeypatch.setattr(web, "serve", lambda library, **told: told["ready"]("http://x/?token=t"))
    words = ["serve", "--run", str(run_folder)]
    told = CliRunner().invoke(app, [*words, "--host", "0.0.0.0"])
    assert told.exit_code == 0 and "warning: on 0.0.0.0 everyone" in told.stderr
    assert "warning" not in CliRunner().invoke(app, words).stderr


@pytest.mark.parametrize(
    "told",
    [
        {"path": "/etc/passwd"},
        {"path": "../up"},
        {"path": "http://169.254.169.254/x.wav"},
        {"path": 5},
        {"path": "/etc/a\0b"},
        {"url": "http://169.254.169.254/"},
        {"url": "file:///etc/passwd"},
    ],
)
def test_d02_no_address_and_no_foreign_file_in_a_body(door: Door, told: dict[str, Any]) -> None:
    body = json.dumps({"data": [[{"deep": told}]]}).encode()
    for path in ("/gradio_api/queue/join", "/gradio_api/call/fool"):
        assert door.ask("POST", path, body)[0] == 403
    assert not door.recorder.paths


def test_bodies_that_are_not_json_or_nest_without_end_are_refused(door: Door) -> None:
    for body in (b"{", b"\xff", b"[" * 100_000, json.dumps([[[[[[[[[[[[1]]]]]]]]]]]] * 2).encode()):
        status, _ = door.ask("POST", "/gradio_api/queue/join", body)
        assert status == (200 if body.startswith(b"[[[[[[[[[[[[1") else 400)
    assert door.ask("POST", "/gradio_api/queue/join", b" " * (300 * 1024))[0] == 413


def test_d01_too_large_is_413_whether_declared_or_not(door: Door) -> None:
    began = time.monotonic()
    lie = {"Content-Length": str(2 * 2**30)}
    assert door.ask("POST", "/gradio_api/upload", b"", **lie)[0] == 413
    assert time.monotonic() - began < 10
    chunk = b"%x\r\n" % MIB + bytes(MIB) + b"\r\n"
    with socket.create_connection(("127.0.0.1", door.port), timeout=30) as one:
        head = (
            f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:{door.port}\r\n"
            f"Cookie: staanet-{door.port}=secret\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        one.sendall(head.encode() + chunk + chunk)
        assert b" 413 " in one.recv(4096).split(b"\r\n")[0]
    assert not door.recorder.paths and not list(door.private.iterdir())


def test_d01_a_slow_upload_is_ended(door: Door) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=30) as one:
        head = (
            f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:{door.port}\r\n"
            f"Cookie: staanet-{door.port}=secret\r\nContent-Length: 1000\r\n\r\nabc"
        )
        began = time.monotonic()
        one.sendall(head.encode())
        assert b" 408 " in one.recv(4096).split(b"\r\n")[0]
        assert 0.5 < time.monotonic() - began < 20
    assert not door.recorder.paths


def test_d01_many_tiny_uploads_and_a_full_folder_are_429(tmp_path: Path) -> None:
    door = Door(tmp_path, uploads_a_minute=10, stored_bytes=5000)
    try:
        codes = [door.ask("POST", "/gradio_api/upload", b"x")[0] for _ in range(15)]
        assert codes == [200] * 10 + [429] * 5
    finally:
        door.close()
    full = Door(tmp_path, stored_bytes=5000)
    try:
        (tmp_path / "big").write_bytes(bytes(6000))
        status, text = full.ask("POST", "/gradio_api/upload", b"x")
        assert status == 429 and "full" in text
    finally:
        full.close()


def test_every_answer_carries_the_policy_that_keeps_requests_at_home(door: Door) -> None:
    one = http.client.HTTPConnection("127.0.0.1", door.port, timeout=30)
    one.request("GET", "/", headers={"Cookie": f"staanet-{door.port}=secret"})
    policy = one.getresponse().getheader("content-security-policy") or ""
    assert "default-src 'self'" in policy and "http" not in policy and "*" not in policy


def test_the_old_and_the_oldest_beyond_the_limit_are_deleted(tmp_path: Path) -> None:
    now = time.time()
    for number in range(10):
        folder = tmp_path / f"d{number}"
        folder.mkdir()
        (folder / "f").write_bytes(bytes(1000))
        os.utime(folder / "f", (now - 100 * number, now - 100 * number))
    delete_old_files(tmp_path, keep_s=450, stored_bytes=3000)
    assert sorted(path.parent.name for path in tmp_path.rglob("f")) == ["d0", "d1", "d2"]
