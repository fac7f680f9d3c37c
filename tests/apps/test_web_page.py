"""The whole page: the real command over HTTP, and in a headless browser."""

from __future__ import annotations

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
from tests.support import headless, speech
from tests.support.accessibility import serious_findings
from tests.support.web import request

from staanet import audio
from staanet.apps.web import read_library, serve
from staanet.core import Budget
from staanet.errors import InvalidInput

MIB = 2**20


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
        return request(self.port, method, path, body, {**self.headers, **more})

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
        data = [file, "emo18", ["emo18", "zhao19"], attack, -20, 0.1, 0, "off"]
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
    server = Served(run_folder, tmp_path_factory.mktemp("served"))
    yield server
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGINT)
        server.process.wait(60)


WAV = audio.encode(speech.tone(0.5, 250.0), speech.RATE)


def test_from_upload_to_the_adversarial_file_over_http(served: Served) -> None:
    told = served.told["victims"], served.told["generators"]
    assert told[0][:2] == ["emo18", "zhao19"] and told[1][0] == "emo18", "the run's own come first"
    status, text = served.upload(WAV)
    assert status == 200
    told = served.fool(json.loads(text)[0], "staa")
    assert "event: complete" in told and "samples changed" in told
    path = completed(told)[3]["value"]["path"]
    (served.where / "got.wav").write_bytes(served.fetch(path)[1])
    adversarial, rate = audio.read_int16(served.where / "got.wav")
    clean = speech.tone(0.5, 250.0)
    assert rate == speech.RATE and not np.array_equal(adversarial, clean)
    budget = Budget(epsilon="-20 dB", max_density=0.1)
    assert budget.violations(clean, adversarial, rate) == []


def test_d01_and_d02_at_the_real_page(served: Served) -> None:
    assert served.upload(bytes(2 * MIB))[0] == 413
    status, text = served.upload(b"PK\3\4" + bytes(500), "song.wav")
    assert status == 200
    told = served.fool(json.loads(text)[0])
    message, *others = completed(told)
    assert "staanet-problem" in message["value"] and str(served.where) not in told
    assert not others[0]["visible"] and others[1] == "" and not others[2]["visible"]
    assert served.ask("GET", "/gradio_api/file=/etc/passwd")[0] == 404
    assert request(served.port, "GET", "/", None, {})[0] == 403


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
        status, made = served.fetch(completed(told)[3]["value"]["path"])
        (served.where / f"{number}.wav").write_bytes(made)
        adversarial, rate = audio.read_int16(served.where / f"{number}.wav")
        budget = Budget(epsilon="-20 dB", max_density=0.1)
        broken = budget.violations(clips[number], adversarial, rate)
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


def give_clip(page: headless.Page, clip: Path) -> None:
    page.wait("document.querySelector('#clip input[type=file]')")
    page.give_file("#clip input[type=file]", clip)
    page.wait("document.querySelector('#clip .waveform-container, #clip audio, #clip #waveform')")


def press(page: headless.Page) -> None:
    page.run("document.querySelector('#fool').click()")


def test_in_a_browser_from_upload_to_download(served: Served, tmp_path: Path) -> None:
    clip = tmp_path / "voice.wav"
    clip.write_bytes(WAV)
    with headless.browser() as browser:
        browser.downloads_to(tmp_path / "down")
        page = browser.page()
        page.size(1440, 1000)
        page.open(served.url)
        give_clip(page, clip)
        press(page)
        page.wait("document.querySelector('.staanet-said')")
        text = page.run("document.querySelector('#result').innerText")
        assert "samples changed" in text and "at the same level fooled" in text
        assert page.run("document.querySelectorAll('#result table').length") == min(
            4, len(served.told["victims"])
        )
        assert page.run("document.querySelector('#result img.wide').naturalWidth") > 600
        page.wait("document.querySelector('#download')")
        page.run("document.querySelector('#download').click()")
        saved = _downloaded(tmp_path / "down")
        adversarial, _ = audio.read_int16(saved)
        clean = speech.tone(0.5, 250.0)
        assert len(adversarial) == len(clean) and not np.array_equal(adversarial, clean)
        assert page.errors == []
        home = f"http://127.0.0.1:{served.port}/"
        outside = [url for url in page.requests if not url.startswith((home, "data:", "blob:"))]
        assert outside == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(390, 844), (1440, 900)])
def test_the_result_is_in_sight_after_the_click_and_nothing_scrolls_sideways(
    served: Served, tmp_path: Path, width: int, height: int, scheme: str
) -> None:
    pytest.importorskip("espeakng_loader", reason="extra demo: pip install 'staanet[demo]'")
    with headless.browser() as browser:
        page = browser.page()
        page.size(width, height)
        page.scheme(scheme)
        page.open(served.url)
        page.wait("document.querySelector('#example-0')")
        assert page.run("document.body.classList.contains('dark')") == (scheme == "dark")
        assert page.run("document.documentElement.scrollWidth") <= width
        page.run("document.querySelector('#example-0').click()")  # one click, no recording
        page.wait(
            "document.querySelector('#clip .waveform-container, #clip audio, #clip #waveform')"
        )
        press(page)
        page.wait("document.querySelector('.staanet-said')")
        time.sleep(1.0)
        box = "document.querySelector('.staanet-said').getBoundingClientRect()"
        assert page.run(f"{box}.top") >= 0 and page.run(f"{box}.bottom") <= height
        below = "document.querySelector('#outcome').getBoundingClientRect().top"
        button = "document.querySelector('#fool').getBoundingClientRect().bottom"
        if width < 600:  # one column: nothing stands between the button and the result
            assert 0 <= page.run(f"{below} - {button}") < 40
        assert page.run("document.documentElement.scrollWidth") <= width
        assert page.run("document.querySelector('#result').scrollWidth") <= width
        shown = "wide" if width > 600 else "narrow"
        assert page.run(f"document.querySelector('#result img.{shown}').offsetWidth") > 300
        assert page.errors == []


@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_nothing_serious(served: Served, tmp_path: Path, width: int) -> None:
    clip = tmp_path / "voice.wav"
    clip.write_bytes(WAV)
    with headless.browser() as browser:
        page = browser.page()
        page.size(width, 900)
        for scheme in ("light", "dark"):
            page.scheme(scheme)
            page.open(served.url)
            give_clip(page, clip)
            press(page)
            page.wait("document.querySelector('.staanet-said')")
            assert serious_findings(page) == [], scheme


def test_one_message_stands_at_the_place_of_the_fault(served: Served, tmp_path: Path) -> None:
    bad = tmp_path / "song.wav"
    bad.write_bytes(b"PK\3\4" + bytes(500))
    with headless.browser() as browser:
        page = browser.page()
        page.size(390, 844)
        page.open(served.url)
        page.wait("document.querySelector('#fool')")
        press(page)
        page.wait("document.querySelector('.staanet-problem')")
        time.sleep(1.0)
        assert page.run("document.querySelectorAll('.staanet-problem').length") == 1
        assert "no clip yet" in page.run("document.querySelector('#clip-problem').innerText")
        box = "document.querySelector('.staanet-problem').getBoundingClientRect()"
        assert page.run(f"{box}.top") >= 0 and page.run(f"{box}.bottom") <= 844
        assert not page.run("document.body.innerText.includes('Error')")
        page.give_file("#clip input[type=file]", bad)
        page.wait(
            "document.querySelector('#clip-problem').innerText.includes('no clip yet') === false"
        )
        page.wait("document.querySelector('.staanet-problem')")
        assert page.run("document.querySelectorAll('.staanet-problem').length") == 1


def test_listening_switches_without_losing_the_position(served: Served, tmp_path: Path) -> None:
    clip = tmp_path / "voice.wav"
    clip.write_bytes(WAV)
    with headless.browser() as browser:
        page = browser.page()
        page.size(1440, 1000)
        page.open(served.url)
        give_clip(page, clip)
        press(page)
        page.wait("document.querySelector('.staanet-listen audio')?.duration > 0.4")
        page.run("document.querySelector('.staanet-listen audio').currentTime = 0.25")
        page.run("document.querySelector('.staanet-listen button[data-sound=adversarial]').click()")
        heard = "document.querySelector('.staanet-listen audio:not([hidden])')"
        assert page.run(f"{heard}.dataset.sound") == "adversarial"
        page.wait(f"Math.abs({heard}.currentTime - 0.25) < 0.01")
        pressed = "document.querySelector('.staanet-listen button[aria-pressed=true]')"
        assert page.run(f"{pressed}.dataset.sound") == "adversarial"


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
