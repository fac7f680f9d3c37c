"""A subprocess that runs eSpeak NG: requests on standard input, 16-bit samples on standard output.

    python -I espeak_server.py LIBRARY DATA

It first writes a line ``{"rate": 22050, "version": "1.52.0"}``. Each request is a line
``{"voice": "en+f2", "ssml": "<speak>Hello.</speak>"}``. Each answer is a line ``{"samples": N}``
followed by N native 16-bit samples, or a line ``{"error": "..."}``.

eSpeak NG runs in a process of its own because it may print or crash. It also keeps state from one
call to the next, so that two equal calls differ. Each request is therefore spoken by a fresh fork
of the process that has just started eSpeak: equal requests give equal samples in any order.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

SYNCHRONOUS, DONT_EXIT = 2, 0x8000  # espeak_AUDIO_OUTPUT, espeakINITIALIZE_DONT_EXIT
UTF8, SSML, END_PAUSE = 0x01, 0x10, 0x1000  # flags of espeak_Synth
ON_SAMPLES = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def main(library: str, data: str) -> None:
    """Start eSpeak NG, then answer requests until the input ends."""
    speech = ctypes.CDLL(library)
    folder = Path(data)
    os.chdir(folder.parent)  # eSpeak cuts off paths beyond 160 characters, so it gets a short one
    speech.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    speech.espeak_Info.argtypes, speech.espeak_Info.restype = [ctypes.c_void_p], ctypes.c_char_p
    speech.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    speech.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
    speech.espeak_Synth.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    rate = speech.espeak_Initialize(SYNCHRONOUS, 0, os.fsencode(folder.name), DONT_EXIT)
    version = speech.espeak_Info(None).decode("ascii", "replace")
    reply({"rate": rate, "version": version.split()[0]})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            speak(speech, request["voice"], request["ssml"])
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if status:
            reply({"error": f"eSpeak NG ended with status {status}"})


def speak(speech: ctypes.CDLL, voice: str, ssml: str) -> None:
    """Answer one request. Nothing is written before all of it is spoken."""
    spoken = bytearray()

    def collect(samples: ctypes._Pointer[ctypes.c_short], count: int, _: int | None) -> int:
        if samples and count > 0:
            spoken.extend(ctypes.string_at(samples, 2 * count))
        return 0

    on_samples = ON_SAMPLES(collect)  # a name of its own keeps it alive while C calls it
    if speech.espeak_SetVoiceByName(voice.encode()):
        reply({"error": f"eSpeak NG has no voice '{voice}'"})
        return
    speech.espeak_ng_SetRandSeed(1)  # else seeded by the clock
    speech.espeak_SetSynthCallback(on_samples)
    text = ssml.encode() + b"\0"
    failed = speech.espeak_Synth(text, len(text), 0, 0, 0, UTF8 | SSML | END_PAUSE, None, None)
    if failed or not spoken:
        reply({"error": f"eSpeak NG could not speak (status {failed})"})
    else:
        reply({"samples": len(spoken) // 2}, bytes(spoken))


def reply(head: dict[str, object], samples: bytes = b"") -> None:
    """Write one answer past all buffers, so that a fork never repeats what its parent buffered."""
    rest = memoryview(json.dumps(head).encode("ascii") + b"\n" + samples)
    while rest:
        rest = rest[os.write(1, rest) :]


if __name__ == "__main__":
    main(*sys.argv[1:])
