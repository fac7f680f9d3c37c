"""Signals at awkward moments, and standard streams that are full, closed or read by nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest
from tests.support.commands import staanet
from tests.support.speech import RATE, tone

from staanet import audio, storage

SLOW_PARSER = """
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
signal.signal(signal.SIGINT, signal.default_int_handler)  # or in the background of a script
from staanet import cli
def app():
    print("ready", flush=True)
    time.sleep(60)
cli.app = app
cli.entry()
"""
INTERRUPTED_IMPORT = """
import sys, types
class Module(types.ModuleType):
    def __getattr__(self, name):
        raise KeyboardInterrupt
sys.modules["staanet.cli"] = Module("staanet.cli")
from staanet.__main__ import main
main()
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    for number, label in enumerate(("high", "low")):
        for speaker in range(3):
            sound = tone(0.1, 300.0 + 400 * number, speaker)
            storage.write_bytes(root / label / f"s{speaker}/0.wav", audio.encode(sound, RATE))
    return root


@pytest.mark.parametrize(
    "number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 5), (signal.SIGHUP, 5)]
)
def test_before_a_command_works_a_signal_ends_it_at_once(number, code):
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_PARSER],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        begun = time.monotonic()
        _, said = process.communicate(timeout=30)
    assert process.returncode == code and said == "staanet: stopped\n"
    assert time.monotonic() - begun < 10


def test_an_interrupt_while_the_command_line_is_imported_is_no_traceback():
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 130 and done.stderr == "staanet: stopped\n"


def test_what_nohup_ignores_stays_ignored():
    code = SLOW_PARSER.replace("signal.SIG_DFL", "signal.SIG_IGN")
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 5


@pytest.mark.parametrize("how", ["full", "closed", "nobody", "all closed"])
def test_work_goes_on_where_nobody_listens_to_its_progress(corpus, tmp_path, how):
    """A file that is opened where standard error was closed must not get what libraries say there."""
    command = [sys.executable, "-m", "staanet", "corpus", f"folder:{corpus}", "--out", "list.csv"]
    with ExitStack() as stack:
        out, err, before = subprocess.PIPE, None, None
        if how == "full":
            err = stack.enter_context(open("/dev/full", "w"))
        elif how == "nobody":
            read, err = os.pipe()
            os.close(read)
            stack.callback(os.close, err)
        elif how == "closed":
            before = lambda: os.close(2)  # noqa: E731
        else:
            out, before = None, lambda: [os.close(number) for number in (0, 1, 2)]
        done = subprocess.run(
            command, cwd=tmp_path, stdout=out, stderr=err, preexec_fn=before, check=False
        )
    assert done.returncode == 0
    assert (tmp_path / "list.csv").read_text().count("\n") == 7
    assert [path.name for path in tmp_path.iterdir()] == ["list.csv"]


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["corpus", "emo:x", "--json"]])
def test_a_full_disk_under_standard_output_is_told_in_a_line(words):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "staanet", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == (3 if "emo:x" in words else 5)
    assert done.stderr.startswith("staanet: error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "surroundings, said",
    [
        (
            {"WORLD_SIZE": "abc"},
            "WORLD_SIZE is 'abc' but RANK, MASTER_ADDR, MASTER_PORT is not set",
        ),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is '2' but RANK"),
        (
            {"WORLD_SIZE": "0", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
            "WORLD_SIZE is '0', no number",
        ),
    ],
)
@pytest.mark.usefixtures("commands")  # started before: it keeps the environment of its start
def test_processes_that_torchrun_did_not_start_are_told(
    corpus, tmp_path, surroundings, said, monkeypatch
):
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    done = staanet("train-victim", f"folder:{corpus}", "emo18", "--out", "o", cwd=tmp_path)
    assert done.returncode == 3 and said in done.stderr and "torchrun" in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


def test_a_working_folder_that_was_removed_is_told(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "staanet", "corpus", "synthetic:"],
        cwd=tmp_path,
        capture_output=True,
        preexec_fn=tmp_path.rmdir,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "the working folder was removed" in done.stderr


def test_a_wrong_backend_of_pictures_is_not_asked(corpus, tmp_path):
    code = "import os; from staanet import cli; cli.app = lambda: print(os.environ['MPLBACKEND']); cli.entry()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MPLBACKEND": "nonsense"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "agg\n"


def test_the_result_is_told_to_who_closed_standard_error(corpus):
    done = subprocess.run(
        [sys.executable, "-m", "staanet", "corpus", f"folder:{corpus}", "--json"],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.close(2),
        check=False,
    )
    assert done.returncode == 0 and json.loads(done.stdout)["clips"] == 6
