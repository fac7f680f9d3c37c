"""Calls eSpeak NG: text in, samples out."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from staanet import audio
from staanet.config import SAMPLE_RATE
from staanet.corpora import espeak_server
from staanet.errors import InvalidInput

REINSTALL = "Install it anew: pip install --force-reinstall espeakng-loader"
Say = Callable[[str, str], NDArray[np.float32]]
"""(eSpeak voice, SSML) -> float samples ``[T]`` at 16 kHz."""


def speak(sentence: str, voice: str = "en") -> tuple[str, NDArray[np.float32]]:
    """Return the version of eSpeak NG and the samples of a spoken sentence: ``[T]`` in [-1, 1] at 16 kHz.

    Raises ``InvalidInput`` where the package is absent or does not work.
    """
    with start_espeak() as (version, say):
        return version, say(voice, f"<speak>{escape(sentence)}</speak>")


@contextlib.contextmanager
def start_espeak() -> Iterator[tuple[str, Say]]:
    """Start eSpeak NG in a process; return its version and a function from text to samples.

    Raises ``InvalidInput`` where the package is absent or does not work.
    """
    try:
        import espeakng_loader as wheel

        program = [sys.executable, "-I", espeak_server.__file__]
        command = [*program, wheel.get_library_path(), wheel.get_data_path()]
    except (ImportError, RuntimeError) as problem:
        raise InvalidInput(
            "synthetic speech needs the package espeakng-loader",
            remedy='Install it: pip install "staanet[demo]"',
        ) from problem
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us; the end of its input ends eSpeak
    ) as process:
        assert process.stdin and process.stdout
        requests, answers = process.stdin.fileno(), process.stdout

        def read_answer() -> dict[str, Any]:
            line = answers.readline()
            answer: dict[str, Any] = json.loads(line) if line else {"error": "eSpeak NG ended"}
            if "error" in answer:
                raise InvalidInput(str(answer["error"]), remedy=REINSTALL)
            return answer

        def say(voice: str, text: str) -> NDArray[np.float32]:
            request = json.dumps({"voice": voice, "ssml": text}).encode() + b"\n"
            with contextlib.suppress(BrokenPipeError):  # then there is no answer either
                os.write(requests, request)  # unbuffered, so that nothing is left to be flushed
            size = 2 * int(read_answer()["samples"])
            samples = answers.read(size)
            if len(samples) < size:
                raise InvalidInput("eSpeak NG ended while it spoke", remedy=REINSTALL)
            speech = audio.to_float(np.frombuffer(samples, np.int16))
            return audio.resample(speech, rate, SAMPLE_RATE)

        start = read_answer()
        rate = int(start["rate"])
        if rate <= 0:
            raise InvalidInput(
                "eSpeak NG does not start with its data", where=command[-1], remedy=REINSTALL
            )
        yield str(start["version"]), say
