"""The local page: its guard over real HTTP, the whole page through the real command and a browser."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import headless, speech

from staanet import attacks, audio, storage
from staanet.apps.web import Limits, read_library, serve
from staanet.apps.web.fooling import FoolingService, Request
from staanet.apps.web.http_filter import HttpFilter, delete_old_files
from staanet.apps.web.models import shipped_folders
from staanet.core import Budget, Victim
from staanet.errors import InvalidInput, StaaNetError, UnusableClip
from staanet.generators.registry import build_generator, save_generator
from staanet.victims import build_victim

MIB = 2**20


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two untrained victims, a generator that knows one of them, and four clean clips."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    torch.manual_seed(0)
    for name in ("emo18", "zhao19"):
        victim = build_victim(name, ("high", "low"))
        victim.save_pretrained(run / "victims" / name)
    sha256 = storage.read_card(run / "victims" / "emo18", "victim")["sha256"]
    generator = build_generator("small", density=0.1)
    save_generator(
        generator, run / "generators" / "emo18", source="emo18", source_sha256=sha256, epsilon=0.02
    )
    clips = [
        speech.clip(0.5, hz, seed, label="high" if hz > 500 else "low", speaker=f"s{seed}")
        for seed, hz in enumerate((200.0, 300.0, 1000.0, 1100.0))
    ]
    made = attacks.craft(attacks.Random(), _loaded(run, "emo18"), clips)
    made.save(run / "adversarial" / "random__emo18")
    return run


def _loaded(run: Path, name: str) -> Victim:
    from staanet.victims import load_victim

    return load_victim(run / "victims" / name)


# ---------------------------------------------------------------- models and fooling, without a page


def test_a_shelf_pairs_generators_with_the_weights_that_they_know(run_folder: Path) -> None:
    library = read_library([run_folder])
    assert list(library.victims) == ["emo18", "zhao19"]
    assert list(library.generators) == ["emo18"] and library.epsilons == {"emo18": 0.02}
    assert len(library.examples) == 4 and all(path.is_file() for path in library.examples.values())


def test_two_runs_keep_their_victims_apart(run_folder: Path) -> None:
    library = read_library([run_folder, run_folder])
    assert list(library.victims) == ["emo18", "zhao19", "emo18 of tiny", "zhao19 of tiny"]


def test_a_generator_of_other_weights_is_not_offered(run_folder: Path, tmp_path: Path) -> None:
    victim = build_victim("emo18", ("high", "low"))
    victim.save_pretrained(tmp_path / "run" / "victims" / "emo18")
    (tmp_path / "run" / "generators").symlink_to(run_folder / "generators")
    assert not read_library([tmp_path / "run"]).generators


def test_victims_whose_package_is_not_installed_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    library = read_library(shipped_folders())
    assert list(library.victims) == ["emo18", "zhao19"] == sorted(library.generators)
    assert "staanet[ssl]" in str(library.left_out["wav2vec2_tiny"])


def test_no_run_and_no_model_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such folder"):
        read_library([tmp_path / "missing"])
    with pytest.raises(InvalidInput, match="no victim to attack"):
        serve(read_library([tmp_path]), port=0)


@pytest.fixture
def service(run_folder: Path, tmp_path: Path) -> FoolingService:
    return FoolingService(
        read_library([run_folder]), tmp_path, device="cpu", limits=Limits(seconds=2.0)
    )


def _stored(folder: Path, seconds: float = 0.5, kind: str = "WAV") -> Path:
    path = folder / "mine"
    storage.write_bytes(path, audio.encode(speech.tone(seconds, 250.0), speech.RATE, kind))
    return path


@pytest.mark.parametrize("attack", ["staa", "pgd", "random"])
@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_the_file_to_take_home_keeps_the_budget(
    service: FoolingService, tmp_path: Path, attack: str, kind: str
) -> None:
    request = Request(
        source="emo18", targets=["emo18", "zhao19"], attack=attack, epsilon=0.01, density=0.05
    )
    made = service.fool(_stored(tmp_path, kind=kind), request)
    clean, rate = audio.read_int16(made.files["clean"])
    adversarial, _ = audio.read_int16(made.files["adversarial"])
    assert rate == speech.RATE and np.array_equal(clean, speech.tone(0.5, 250.0))
    assert Budget(epsilon=0.01, max_density=0.05).violations(clean, adversarial) == []
    assert [answer.victim for answer in made.answers] == ["emo18", "zhao19"]
    for answer in made.answers:  # the victims are asked about these very files
        with torch.inference_mode():
            x = torch.from_numpy(audio.to_float(np.stack([clean, adversarial])))
            with_eot = service.victim(answer.victim)(x).softmax(dim=1)
        assert np.allclose([answer.before, answer.after], with_eot.numpy(), atol=1e-5)


def test_a_defence_is_asked_beside_the_plain_victims(
    service: FoolingService, tmp_path: Path
) -> None:
    request = Request(source="emo18", targets=["emo18"], attack="random", defence="median")
    made = service.fool(_stored(tmp_path), request)
    plain, behind = made.answers
    assert (plain.victim, behind.victim) == ("emo18", "emo18+median")
    assert not np.allclose(plain.after, behind.after)


def test_what_is_no_clip_is_told_without_where_it_lies(
    service: FoolingService, tmp_path: Path
) -> None:
    request = Request(source="emo18", targets=["emo18"])
    bad = {"zip": b"PK\3\4" + bytes(99), "mp3": b"\xff\xfb\x90\0" + bytes(999), "empty": b""}
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UnusableClip, match="neither WAV nor FLAC") as told:
            service.fool(tmp_path / name, request)
        assert str(tmp_path) not in str(told.value)
    with pytest.raises(UnusableClip) as told:
        service.fool(_stored(tmp_path, seconds=3.0), request)
    assert str(tmp_path) not in str(told.value) and "2" in str(told.value)
    with pytest.raises(InvalidInput, match="no clip yet"):
        service.fool(None, request)
    with pytest.raises(InvalidInput, match="not a clip of this page"):
        service.fool(Path("/etc/passwd"), request)
    with pytest.raises(InvalidInput, match="unknown attack 'sparse_rs'"):
        service.fool(_stored(tmp_path), Request(source="emo18", targets=[], attack="sparse_rs"))


def test_staa_is_offered_where_a_generator_knows_the_source(service: FoolingService) -> None:
    assert "staa" in service.attacks("emo18") and "staa" not in service.attacks("zhao19")
    with pytest.raises(StaaNetError, match="unknown victim"):
        service.victim("emo19")


def test_names_are_text_on_the_page(service: FoolingService, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="extra web: pip install 'staanet[web]'")
    from staanet.apps.web import page
    from staanet.apps.web.fooling import Answer

    hostile = '<img src=x onerror="alert(1)">\u202e'
    html = page.answers([Answer(hostile, (hostile, "b"), (0.9, 0.1), (0.2, 0.8))])
    assert "<img" not in html and "\u202e" not in html and "&lt;img src=x" in html


def test_an_answer_behind_a_defence_says_that_the_attack_did_not_know_it(
    service: FoolingService, tmp_path: Path
) -> None:
    pytest.importorskip("gradio", reason="extra web: pip install 'staanet[web]'")
    from staanet.apps.web import page

    request = Request(source="emo18", targets=["emo18"], attack="random", defence="median")
    made = service.fool(_stored(tmp_path), request)
    assert "did not know of the defence, median." in page.sentence(made, behind="median")
    assert "defence" not in page.sentence(made)


def test_a_sweep_deletes_the_old_and_the_oldest_beyond_the_limit(tmp_path: Path) -> None:
    now = time.time()
    for number in range(10):
        place = tmp_path / f"d{number}"
        place.mkdir()
        (place / "f").write_bytes(bytes(1000))
        os.utime(place / "f", (now - 100 * number, now - 100 * number))
    delete_old_files(tmp_path, keep_s=450, stored_bytes=3000)
    assert sorted(path.parent.name for path in tmp_path.rglob("f")) == ["d0", "d1", "d2"]


# ---------------------------------------------------------------- the guard, over real HTTP


class Asked:
    """An application that remembers what the guard let through."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"let through"})


class Door:
    """A guard in front of ``Asked``, served by uvicorn on a port of its own."""

    def __init__(self, private: Path, **limits: Any) -> None:
        uvicorn = pytest.importorskip("uvicorn", reason="extra web: pip install 'staanet[web]'")
        self.asked, self.private = Asked(), private.resolve()
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        self.http_filter = HttpFilter(
            self.asked,
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
        return ask(
            self.port, method, path, body, {"Cookie": f"staanet-{self.port}=secret", **headers}
        )

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)


def ask(
    port: int, method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> tuple[int, str]:
    one = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
    one.putrequest(method, path, skip_host="Host" in headers)
    for key, value in headers.items():
        one.putheader(key, value)
    if body is not None and "Content-Length" not in headers:
        one.putheader("Content-Length", str(len(body)))
    with contextlib.suppress(
        BrokenPipeError
    ):  # refused before all of it was sent: the answer is there
        one.endheaders(body)
    told = one.getresponse()
    text = told.read().decode("utf-8", "replace")
    one.close()
    return told.status, text


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    one = Door(tmp_path)
    yield one
    one.close()


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
    assert status == 404 and "/etc" not in text and not door.asked.paths
    assert door.ask("POST", path, b"{}")[0] == 404 and not door.asked.paths


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
    assert len(door.asked.paths) == 2
    for cookie in (
        "",
        "staanet=secret",
        f"staanet-{door.port}=guess",
        f"staanet-{door.port + 1}=secret",
    ):
        assert door.ask("GET", "/", Cookie=cookie)[0] == 403
    assert ask(door.port, "GET", "/?token=guess", None, {})[0] == 403
    assert ask(door.port, "GET", "/?token=secret", None, {})[0] == 303
    assert len(door.asked.paths) == 2


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
        {"path": "/tmp/a\0b"},
        {"url": "http://169.254.169.254/"},
        {"url": "file:///etc/passwd"},
    ],
)
def test_d02_no_address_and_no_foreign_file_in_a_body(door: Door, told: dict[str, Any]) -> None:
    body = json.dumps({"data": [[{"deep": told}]]}).encode()
    for path in ("/gradio_api/queue/join", "/gradio_api/call/fool"):
        assert door.ask("POST", path, body)[0] == 403
    assert not door.asked.paths


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
    assert not door.asked.paths and not list(door.private.iterdir())


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
    assert not door.asked.paths


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


# ---------------------------------------------------------------- the whole page


class Served:
    """The real command, and the address that it prints."""

    def __init__(self, run: Path, where: Path) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "staanet",
                "serve",
                "--run",
                str(run),
                "--port",
                "0",
                "--json",
                "--max-seconds",
                "2",
                "--max-mib",
                "1",
            ],
            stdout=subprocess.PIPE,
            stderr=(where / "stderr").open("w"),
            text=True,
            env={**os.environ, "TMPDIR": str(where), "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (where / "stderr").read_text()
        self.told = json.loads(line)
        self.url = str(self.told["url"])
        self.port = int(self.url.split(":")[2].split("/")[0])
        self.headers = {"Cookie": f"staanet-{self.port}={self.url.split('=')[1]}"}
        self.where = where

    def ask(
        self, method: str, path: str, body: bytes | None = None, **more: str
    ) -> tuple[int, str]:
        return ask(self.port, method, path, body, {**self.headers, **more})

    def fetch(self, path: str) -> tuple[int, bytes]:
        """A file of the page."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        line.request("GET", f"/gradio_api/file={path}", headers=self.headers)
        answer = line.getresponse()
        return answer.status, answer.read()

    def upload(self, data: bytes, name: str = "mine.wav") -> tuple[int, str]:
        body = (
            (
                f'--X\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
                "Content-Type: audio/wav\r\n\r\n"
            ).encode()
            + data
            + b"\r\n--X--\r\n"
        )
        more = {"Content-Type": "multipart/form-data; boundary=X"}
        return self.ask("POST", "/gradio_api/upload", body, **more)

    def fool(self, path: str, attack: str = "random") -> str:
        """What the server's event stream tells of one press of the button."""
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        data = [file, "emo18", ["emo18", "zhao19"], attack, 0.02, 0.1, "off"]
        body = json.dumps({"data": data}).encode()
        status, text = self.ask(
            "POST", "/gradio_api/call/fool", body, **{"Content-Type": "application/json"}
        )
        assert status == 200, text
        return self.ask("GET", f"/gradio_api/call/fool/{json.loads(text)['event_id']}")[1]


def completed(told: str) -> list[Any]:
    """The outputs that an event stream ends with; before them it may only say that it lives."""
    outputs: list[Any] = json.loads(told.split("event: complete\ndata: ")[1].splitlines()[0])
    return outputs


@pytest.fixture(scope="module")
def served(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pytest.importorskip("uvicorn", reason="extra web: pip install 'staanet[web]'")
    one = Served(run_folder, tmp_path_factory.mktemp("served"))
    yield one
    if one.process.poll() is None:
        one.process.send_signal(signal.SIGINT)
        one.process.wait(60)


WAV = audio.encode(speech.tone(0.5, 250.0), speech.RATE)


def test_from_upload_to_the_adversarial_file_over_http(served: Served) -> None:
    told = served.told["victims"], served.told["generators"]
    assert told[0][:2] == ["emo18", "zhao19"] and told[1][0] == "emo18", "the run's own come first"
    status, text = served.upload(WAV)
    assert status == 200
    told = served.fool(json.loads(text)[0], "staa")
    assert "event: complete" in told and "samples changed" in told
    path = completed(told)[3]["path"]
    (served.where / "got.wav").write_bytes(served.fetch(path)[1])
    adversarial, rate = audio.read_int16(served.where / "got.wav")
    clean = speech.tone(0.5, 250.0)
    assert rate == speech.RATE and not np.array_equal(adversarial, clean)
    assert Budget(epsilon=0.02, max_density=0.1).violations(clean, adversarial) == []


def test_d01_and_d02_at_the_real_page(served: Served) -> None:
    assert served.upload(bytes(2 * MIB))[0] == 413
    status, text = served.upload(b"PK\3\4" + bytes(500), "song.wav")
    assert status == 200
    told = served.fool(json.loads(text)[0])
    assert "event: error" in told and str(served.where) not in told
    assert served.ask("GET", "/gradio_api/file=/etc/passwd")[0] == 404
    assert ask(served.port, "GET", "/", None, {})[0] == 403


def test_eight_clients_at_once_each_get_what_was_made_of_their_own_clip(served: Served) -> None:
    clips = [speech.tone(0.3 + 0.05 * n, 200.0 + 90 * n, seed=n) for n in range(8)]
    problems: list[str] = []

    def client(number: int) -> None:
        attack = ("random", "staa", "pgd")[number % 3]
        data = audio.encode(clips[number], speech.RATE)
        status, text = served.upload(data, "mine.wav")  # all under one name
        told = served.fool(json.loads(text)[0], attack) if status == 200 else text
        if "event: complete" not in told:
            problems.append(f"client {number}: {status} {told[:200]}")
            return
        status, made = served.fetch(completed(told)[3]["path"])
        (served.where / f"{number}.wav").write_bytes(made)
        adversarial, _ = audio.read_int16(served.where / f"{number}.wav")
        broken = Budget(epsilon=0.02, max_density=0.1).violations(clips[number], adversarial)
        if broken or np.array_equal(adversarial, clips[number]):
            problems.append(f"client {number}: not of its own clip: {broken}")

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not problems and not any(thread.is_alive() for thread in threads), problems
    assert len([*served.where.glob("?.wav")]) == 8


def test_d03_a_port_in_use_is_named(run_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            InvalidInput, match=f"port {port} of 127.0.0.1 is in use.*another --port"
        ):
            serve(read_library([run_folder]), port=port)


def test_in_a_browser_from_upload_to_download(served: Served, tmp_path: Path) -> None:
    clip = tmp_path / "voice.wav"
    clip.write_bytes(WAV)
    with headless.browser() as browser:
        browser.downloads_to(tmp_path / "down")
        page = browser.page()
        page.size(1440, 1000)
        page.open(served.url)
        page.wait("document.querySelector('#clip input[type=file]')")
        page.give_file("#clip input[type=file]", clip)
        page.wait(
            "document.querySelector('#clip .waveform-container, #clip audio, #clip #waveform')"
        )
        page.run("document.querySelector('#fool').click()")
        page.wait("document.querySelector('.staanet-said')")
        assert "samples changed" in page.run("document.querySelector('#said').innerText")
        assert page.run("document.querySelectorAll('#answers table').length") == min(
            4, len(served.told["victims"])
        )
        assert page.run("document.querySelector('#figure img').naturalWidth") > 600
        page.wait("!document.querySelector('#download').disabled")
        page.run("document.querySelector('#download').click()")
        saved = _downloaded(tmp_path / "down")
        adversarial, _ = audio.read_int16(saved)
        clean = speech.tone(0.5, 250.0)
        assert len(adversarial) == len(clean) and not np.array_equal(adversarial, clean)
        assert page.errors == []
        own = f"http://127.0.0.1:{served.port}/"
        outside = [url for url in page.requests if not url.startswith((own, "data:", "blob:"))]
        assert outside == []


def _downloaded(folder: Path) -> Path:
    for _ in range(200):
        found = [path for path in folder.glob("*") if path.suffix == ".wav"]
        if found:
            return found[0]
        time.sleep(0.1)
    raise AssertionError("nothing was downloaded")


def test_its_files_go_with_it(served: Served) -> None:
    assert list(served.where.glob("staanet-*"))
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(60) == 0
    assert not list(served.where.glob("staanet-*"))
    assert "Traceback" not in (served.where / "stderr").read_text()


def test_a_shipped_generator_of_several_victims_serves_each_of_them():
    library = read_library(shipped_folders())
    assert {"emo18", "zhao19"} <= set(library.generators) and "wav2vec2_tiny" in library.victims
    assert library.epsilons["emo18"] == 0.03
