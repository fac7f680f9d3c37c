"""Bad input and faults through the real command line: exit code, wording, and nothing torn or lost.

The commands run in forked children (``tests.support.forks``), so that hundreds of them cost one import of torch.
A case is a row: what is wrong, the exit code, and words that its one line of error must hold.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests.support import kill
from tests.support.forks import Commands, Fault, Outcome, tree
from tests.support.speech import RATE, tone

from staanet import audio, storage
from staanet.cli import signals

UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def refused(done: Outcome, code: int, *said: str) -> None:
    """One line (of at most three) that says what is wrong, no traceback, nothing a terminal obeys."""
    assert done.code == code, done.err
    assert done.is_clean and not UNSAFE.search(done.err + done.out), done.err
    lines = [
        line for line in done.err.splitlines() if not re.match(r"[a-z].*: \d+/\d+, about", line)
    ]
    assert code == 2 or (len(lines) <= 3 and lines[-1].startswith("staanet: error: ")), done.err
    for words in said:
        assert words in done.err, done.err


def attack(
    commands: Commands, world: kill.World, inputs: object, out: Path, *more: object, **how
) -> Outcome:
    victim = world.root / "run" / "victims" / "emo18"
    return commands.run(
        "attack", inputs, "--attack", "random", "--source", victim, "--out", out, *more, **how
    )


# ---------------------------------------------------------------- audio

WAVE = tone(0.3, 300)
GOOD = audio.encode(WAVE, RATE)


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def form(coding=1, channels=1, rate=RATE, bits=16, block=None, more=b"") -> bytes:
    block = channels * bits // 8 if block is None else block
    return chunk(
        b"fmt ",
        struct.pack("<HHIIHH", coding, channels, rate, rate * block & 0xFFFFFFFF, block, bits)
        + more,
    )


def riff(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def coded(form: str, subtype: str, **how) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, WAVE / 32768, RATE, format=form, subtype=subtype, **how)
    return out.getvalue()


DATA = chunk(b"data", WAVE.astype("<i2").tobytes())
SOUND = {
    "rifx": coded("WAV", "PCM_16", endian="BIG"),
    "rf64": coded("RF64", "PCM_16"),
    "extensible": coded("WAVEX", "PCM_16"),
    "24 bit": coded("WAV", "PCM_24"),
    "8 bit": coded("WAV", "PCM_U8"),
    "float64": coded("WAV", "DOUBLE"),
    "mulaw": coded("WAV", "ULAW"),
    "gsm": coded("WAV", "GSM610"),
    "adpcm": coded("WAV", "IMA_ADPCM"),
    "mp3 named wav": coded("MP3", "MPEG_LAYER_III"),
    "opus": coded("OGG", "OPUS"),
    "junk first": riff(chunk(b"JUNK", bytes(999)), form(), DATA),
    "id3 first": b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + coded("MP3", "MPEG_LAYER_III"),
}
BROKEN = {
    "data of 0 bytes": (GOOD[:40] + bytes(4) + GOOD[44:], "declares 0 frames"),
    "data of 4 GiB": (GOOD[:40] + b"\xff" * 4 + GOOD[44:], "holds 4800 of 2147483647"),
    "format of 0 bytes": (riff(chunk(b"fmt ", b""), DATA), "no WAV format"),
    "format of 4 GiB": (GOOD[:16] + b"\xff" * 4 + GOOD[20:], "no audio data found"),
    "no format": (riff(DATA), "no WAV format"),
    "two data chunks": (riff(form(), DATA, DATA), "no chunk"),
    "mp3 in wav": (riff(form(0x55, block=1, bits=0), DATA), "MP3 in a WAV container"),
    "coding 0": (riff(form(0), DATA), "cannot be decoded"),
    "extensible cut": (riff(form(0xFFFE), DATA), "cannot be decoded"),
    "0 channels": (riff(form(channels=0), DATA), "0 channels"),
    "65535 channels": (
        riff(form(channels=65535, block=0xFFFE), DATA),
        "65535 channels, the limit is 8",
    ),
    "0 bits": (riff(form(bits=0, block=2), DATA), "contradicts itself"),
    "0 Hz": (riff(form(rate=0), DATA), "0 Hz"),
    "2^31-1 Hz": (riff(form(rate=2**31 - 1), DATA), "the limit is 192000 Hz"),
    "an odd byte less": (GOOD[:-1], "holds 4799 of 4800"),
    "20000 chunks": (riff(*[chunk(b"JUNK", b"")] * 20_000, form(), DATA), "1000 chunks"),
    "rf64 that lies": (
        coded("RF64", "PCM_16")[:20] + b"\xff" * 16 + coded("RF64", "PCM_16")[36:],
        "holds 4800 of",
    ),
    "id3 of 256 MiB": (b"ID3\4\0\0\x7f\x7f\x7f\x7f" + bytes(99), "not audio"),
    "50000 id3 tags": (b"ID3\4\0\0\0\0\0\0" * 50_000 + GOOD[:40], "no audio data found"),
    "chained ogg": (coded("OGG", "VORBIS") * 2, "OGG page"),
    "cut ogg": (coded("OGG", "VORBIS")[:-50], "cut in OGG page"),
    "cut opus": (coded("OGG", "OPUS")[:-50], "cut in OGG page"),
    "cut mp3": (coded("MP3", "MPEG_LAYER_III")[:700], "cut in MP3 frame"),
    "flac without frames": (coded("FLAC", "PCM_16")[:42], "holds 0 of 4800"),
    "zip": (b"PK\3\4" + bytes(99), "a ZIP archive"),
    "html": (b"<html><script>alert(1)</script>", "an HTML page, not audio"),
    "an infinity": (coded("WAV", "DOUBLE")[:-8] + struct.pack("<d", np.inf), "1 non-finite sample"),
    "1e300": (coded("WAV", "DOUBLE")[:-8] + struct.pack("<d", 1e300), "1 non-finite sample"),
}
SPECIAL = {
    "fifo": "not a regular file",
    "socket": "not a regular file",
    "device": "not a regular file",
    "loop": "not a regular file",
    "dangling": "cannot be read",
    "passwd": "not audio",
}


@pytest.fixture(scope="module")
def heard(commands, world, tmp_path_factory):
    root = tmp_path_factory.mktemp("audio")
    for name, data in {**SOUND, "aiff": coded("AIFF", "PCM_16")}.items():
        (root / f"good {name}.wav").write_bytes(data)
    for name, (data, _) in BROKEN.items():
        (root / f"bad {name}.wav").write_bytes(data)
    os.mkfifo(root / "bad fifo.wav")
    bound = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(root)  # the name of a socket is short
    bound.bind("bad socket.wav")
    os.chdir(here)
    for name, target in (
        ("device", "/dev/zero"),
        ("loop", "bad loop.wav"),
        ("dangling", "no"),
        ("passwd", "/etc/passwd"),
    ):
        (root / f"bad {name}.wav").symlink_to(target)
    (root / "good \u202egpj\x1b[31m\n<img src=x onerror=alert(1)>.wav").write_bytes(
        GOOD[:-2] + b"\1\1"
    )
    done = attack(commands, world, root, root.parent / "heard", timeout=300)
    bound.close()
    return done, root.parent / "heard", root


def test_what_is_sound_is_attacked_and_what_is_not_is_put_aside(heard):
    done, out, root = heard
    assert done.code == 4 and done.is_clean and not UNSAFE.search(done.err + done.out)
    made = len(list((out / "adversarial").glob("*.wav")))
    assert made == sum(path.name.startswith("good") for path in root.iterdir())
    rows = storage.Journal(out / "quarantine.jsonl").records()
    assert all(Path(row["file"]).name.startswith("bad") for row in rows)


@pytest.mark.parametrize("name", [*BROKEN, *SPECIAL])
def test_each_broken_file_is_named_with_its_reason(heard, name):
    _, out, _ = heard
    rows = storage.Journal(out / "quarantine.jsonl").records()
    (row,) = [row for row in rows if Path(row["file"]).name == f"bad {name}.wav"]
    assert (BROKEN[name][1] if name in BROKEN else SPECIAL[name]) in row["reason"]


# ---------------------------------------------------------------- manifests

HEAD = b"file,label,speaker\n"
ROWS = b"".join(b"a%d.wav,%s,s%d\n" % (n, (b"joy", b"fear")[n % 2], n // 2) for n in range(6))
MANIFESTS = {
    "good": (HEAD + ROWS, 0, ""),
    "bom": (b"\xef\xbb\xbf" + HEAD + ROWS, 0, ""),
    "cr only": ((HEAD + ROWS).replace(b"\n", b"\r"), 0, ""),
    "upper case": (HEAD.upper() + ROWS, 0, ""),
    "utf-16": ((HEAD + ROWS).decode().encode("utf-16"), 3, "row 1 not UTF-8"),
    "utf-32": ((HEAD + ROWS).decode().encode("utf-32"), 3, "row 1 not UTF-8"),
    "latin-1": (HEAD + ROWS + b"\xe9.wav,joy,s\n", 3, "row 8 not UTF-8"),
    "a surrogate": (HEAD + ROWS + b"\xed\xa0\x80.wav,joy,s\n", 3, "row 8 not UTF-8"),
    "bom and ;": ((b"\xef\xbb\xbf" + HEAD + ROWS).replace(b",", b";"), 3, "separated by ';'"),
    "tabs": ((HEAD + ROWS).replace(b",", b"\t"), 3, "separated by '\\t'"),
    "an open quote": (HEAD + ROWS + b'"b.wav,joy,s\n', 3, "Mend its quotes"),
    "a huge field": (HEAD + ROWS + b"b.wav," + b"x" * 200_000 + b",s\n", 3, "list.csv:8"),
    "a long label": (
        HEAD + ROWS + b"b.wav," + b"x" * 300 + b",s\n",
        4,
        "the label has 300 characters",
    ),
    "a long speaker": (HEAD + ROWS + b"b.wav,joy," + b"s" * 300 + b"\n", 4, "the speaker has 300"),
    "a column twice": (b"file,label,speaker,Label\n" + ROWS, 3, "twice"),
    "nothing": (b"", 3, "holds no rows"),
    "a header": (HEAD, 3, "holds no rows"),
    "only NUL": (bytes(999), 3, "not UTF-8"),
    "20000 columns": (b",".join(b"c%d" % n for n in range(20_000)) + b"\n", 3, "no column 'file'"),
    "a long column": (b"x" * 9_000 + b"\n1\n", 3, "no column 'file'"),
    "..": (HEAD + b"../../x.wav,joy,s\n", 3, "outside the corpus root"),
    "/etc": (HEAD + b"/etc/x,joy,s\n", 3, "outside the corpus root"),
    "..\\": (HEAD + b"..\\x.wav,joy,s\n", 3, "outside the corpus root"),
    "C:\\": (HEAD + b"C:\\x,joy,s\n", 3, "outside the corpus root"),
    "~": (HEAD + b"~/x,joy,s\n", 3, "outside the corpus root"),
    "a number": (HEAD + b"a0.wav,3,s\n", 3, "is a number"),
    "an empty label": (HEAD + b"a0.wav,,s\n", 3, "the label is empty"),
    "a case": (HEAD + ROWS + b"b.wav,Joy,s\n", 3, "by upper and lower case alone"),
    "accents put together": (
        HEAD + ROWS + "a0.wav,f\u00e9ar,s\na1.wav,fe\u0301ar,s\n".encode(),
        3,
        "by signs that are not seen",
    ),
    "a space of no width": (
        HEAD + ROWS + "b.wav,joy\u200b,s\n".encode(),
        3,
        "by signs that are not seen ('joy",
    ),
    "a negative start": (b"file,label,start,end\na0.wav,joy,-1,2\n", 3, "no time"),
    "an endless end": (b"file,label,start,end\na0.wav,joy,0,inf\n", 3, "no time"),
    "NUL in a name": (HEAD + ROWS + b"a\0.wav,joy,s\n", 4, ""),
    "a newline in a name": (HEAD + ROWS + b'"b\nc.wav",joy,s\n', 4, ""),
    "a long name": (HEAD + ROWS + b"x" * 300 + b".wav,joy,s\n", 4, ""),
    "controls": (HEAD + ROWS + "b.wav,jo\x1b[31my\u202e,s\x07\n".encode(), 4, ""),
}
LINES = {
    "a key twice": (b'{"file":"a0.wav","file":"a1.wav","label":"joy"}\n', "a key stands twice"),
    "too deep": (b"[" * 200_000, "is not JSON"),
    "NaN": (b'{"file":"a0.wav","label":NaN}\n', "the label is empty"),
    "5000 digits": (
        b'{"file":"a0.wav","label":"joy","start":' + b"9" * 5000 + b"}\n",
        "a number of 5000 digits",
    ),
    "an array": (b"[1]\n", "is not a JSON object"),
    "a list": (b'{"file":["a"],"label":"joy"}\n', "Write a word there"),
}


def corpus_folder(folder: Path, name: str, data: bytes) -> Path:
    for n in range(6):
        storage.write_bytes(folder / f"a{n}.wav", audio.encode(tone(0.1, 300 + 10 * n, n), RATE))
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_read_or_refused_by_its_row(commands, tmp_path, name):
    data, code, said = MANIFESTS[name]
    path = corpus_folder(tmp_path / "m", "list.csv", data)
    done = commands.run("corpus", f"folder:{path}", "--out", tmp_path / "out.csv")
    if code == 3:
        refused(done, 3, said, "list.csv")
        assert len(done.err) < 1500 and not (tmp_path / "out.csv").exists()
    else:
        assert done.code == code and done.is_clean and not UNSAFE.search(done.out + done.err), (
            done.err
        )
        assert said in done.out


def test_speakers_that_look_alike_or_are_of_two_sexes_are_flagged(commands, tmp_path):
    """They may be one in two parts of a split; a class that is told two ways is none."""
    rows = b"".join(
        b"a%d.wav,%s,%s,%s\n" % (n, (b"joy", b"fear")[n % 2], who, sex)
        for n, (who, sex) in enumerate(
            [
                (b"eva", b"f"),
                (b"Eva", b"f"),
                (b"max", b"m"),
                (b"max", b"f"),
                (b"ida", b"f"),
                (b"ida", b""),
            ]
        )
    )
    path = corpus_folder(tmp_path / "m", "list.csv", b"file,label,speaker,sex\n" + rows)
    done = commands.run("corpus", f"folder:{path}", "--json")
    notes = json.loads(done.out)["notes"]
    assert "speakers that look alike are taken for different ones: 'Eva', 'eva'" in notes
    assert "speakers of two sexes, by their rows: max" in notes
    refused(
        commands.run("corpus", f"folder:{path}", "--classes", "sex"),
        3,
        "the speaker max is male in one row and female in another",
        "column 'sex'",
    )


@pytest.mark.parametrize("name", LINES)
def test_json_lines_are_refused_by_their_row(commands, tmp_path, name):
    data, said = LINES[name]
    path = corpus_folder(tmp_path / "m", "list.jsonl", data)
    refused(commands.run("corpus", f"folder:{path}"), 3, said, "list.jsonl:1")


# ---------------------------------------------------------------- recipes

RECIPE = kill.RECIPE.format(corpus="CORPUS")
RECIPES = {
    "nothing": ("", "name: field required"),
    "NUL": (b'name = "a\0b"', "TOML"),
    "bytes": (bytes(range(256)), "not UTF-8"),
    "utf-16": (RECIPE.encode("utf-16"), "not UTF-8"),
    "too deep": ("a = " + "[" * 100_000, "TOML"),
    "a key of 50000 parts": (".".join("a" * 50_000) + " = 1", "dots"),
    "5000 digits": (RECIPE.replace("steps = 4", "steps = " + "9" * 5000), "TOML"),
    "20 digits": (RECIPE.replace("steps = 4", "steps = " + "9" * 20), "victims.emo18.steps"),
    "negative": (RECIPE.replace("steps = 4", "steps = -1"), "greater than or equal to 1"),
    "a word for a number": (RECIPE.replace("steps = 4", 'steps = "4"'), "valid integer"),
    "true for a number": (RECIPE.replace("steps = 4", "steps = true"), "valid integer"),
    "nan": (RECIPE.replace("seconds = 0.2", "seconds = nan", 1), "seconds"),
    "1e300 seconds": (RECIPE.replace("seconds = 0.2", "seconds = 1e300", 1), "3600"),
    "1e-300 seconds": (RECIPE.replace("seconds = 0.2", "seconds = 1e-300", 1), "0.01"),
    "a key of the top": ("naem = 1\n" + RECIPE, "unknown key 'naem'. Did you mean 'name'"),
    "a key of a victim": (RECIPE.replace("steps = 4", "stepz = 4"), "victims.emo18.steps"),
    "a key of an attack": (RECIPE.replace("max_density", "max_dens"), "attacks.staa.max_density"),
    "a setting": (RECIPE + "[attacks.pgd]\nsettings = { stepz = 2 }", "unknown setting of pgd"),
    "a negative setting": (
        RECIPE + "[attacks.pgd]\nsettings = { steps = -3 }",
        "steps of pgd is -3",
    ),
    "a huge setting": (
        RECIPE + "[attacks.pgd]\nsettings = { steps = 99999999999 }",
        "steps of pgd",
    ),
    "a circle": (
        RECIPE.replace("[attacks.staa]", '[attacks.staa]\nmatch = "random"'),
        "in a circle",
    ),
    "no source": (RECIPE.replace('sources = ["emo18"]', "sources = []"), "generator.sources"),
    "a source twice": (RECIPE.replace('["emo18"]', '["emo18", "emo18"]'), "twice"),
    "a name that is a path": (RECIPE.replace('"tiny"', '"../x"'), "a name has 1 to 64 letters"),
    "a victim that is a path": (
        RECIPE.replace("victims.emo18", 'victims."../x"'),
        "a name has 1 to 64",
    ),
    "a hidden direction": (RECIPE.replace('"tiny"', '"t\u202eny"'), "a name has 1 to 64 letters"),
    "an unknown corpus": (RECIPE.replace("folder:", "foldr:"), "Did you mean 'folder'"),
    "no corpus": (RECIPE.replace("CORPUS", "/nowhere"), "no such folder"),
    "an unknown channel": ('channels = ["mp9"]\n' + RECIPE, "Did you mean 'mp3'"),
    "a huge rate": ('channels = ["resample:99999999"]\n' + RECIPE, "resample"),
    "an unknown protocol": ('protocol = "x"\n' + RECIPE, "unknown protocol"),
}


@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "device"])
def test_a_recipe_that_is_no_file_is_refused_at_once(commands, tmp_path, kind):
    path = tmp_path / "r.toml"
    {
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "loop": lambda: path.symlink_to("r.toml"),
        "device": lambda: path.symlink_to("/dev/zero"),
    }[kind]()
    done = commands.run("run", path, "--out", tmp_path / "o", timeout=20)
    refused(done, 3, "cannot be read" if kind == "loop" else "not a regular file", "r.toml")


@pytest.mark.parametrize("name", RECIPES)
def test_a_wrong_recipe_is_refused_and_nothing_is_written(commands, world, tmp_path, name):
    text, said = RECIPES[name]
    data = (
        text
        if isinstance(text, bytes)
        else text.replace("CORPUS", str(world.root / "corpus")).encode()
    )
    (tmp_path / "r.toml").write_bytes(data)
    begun = time.monotonic()
    done = commands.run("run", tmp_path / "r.toml", "--out", tmp_path / "out")
    refused(done, 3, said)
    assert not (tmp_path / "out").exists() and time.monotonic() - begun < 60


def test_a_recipe_with_a_byte_order_mark_and_crlf_is_read(tmp_path):
    from staanet import config

    text = RECIPE.replace("\n", "\r\n")
    (tmp_path / "r.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert config.load_recipe(str(tmp_path / "r.toml")) == config.parse_recipe(
        __import__("tomllib").loads(RECIPE)
    )


# ---------------------------------------------------------------- cards, weights, sets

CARDS = {
    "labels that are lists": ({"labels": [["a"], ["b"]]}, "no list of words"),
    "labels that are numbers": ({"labels": [1, 2]}, "no list of words"),
    "a label twice": ({"labels": ["high", "high"]}, "1 different labels, of 2"),
    "no labels": ({"labels": None}, "no list of words"),
    "three labels": ({"labels": ["a", "b", "c"]}, "do not fit the network"),
    "0 Hz": ({"sample_rate": 0}, "its sample rate is 0"),
    "a rate in words": ({"sample_rate": "16000"}, "its sample rate is '16000'"),
    "a broken rate": ({"sample_rate": 16000.5}, "its sample rate is 16000.5"),
    "a name that leads out": ({"name": "../../x"}, "its name"),
    "a hidden name": ({"name": ".x"}, "its name"),
    "a name that is a path": ({"name": "a\\b"}, "its name"),
    "a name turned round": ({"name": "\u202e"}, "its name"),
    "a name of 5000": ({"name": "x" * 5000}, "its name"),
    "a number for a name": ({"name": 3}, "its name"),
    "another kind": ({"kind": "generator"}, "holds a generator, not a victim"),
    "a kind that is obeyed": ({"kind": "\x1b[31m"}, "\\x1b[31m"),
    "a newer schema": ({"schema": 99}, "Install a newer staanet"),
    "another network": ({"architecture": [1]}, "unknown victim"),
    "no hash": ({"sha256": None}, "sha256 differs"),
}


def victim_with(
    world: kill.World, folder: Path, card: dict | None = None, weights: bytes | None = None
) -> Path:
    shutil.copytree(world.root / "run" / "victims" / "emo18", folder)
    if card is not None:
        told = json.loads((folder / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps({**told, **card}))
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
    return folder


@pytest.mark.parametrize("name", CARDS)
def test_a_false_card_is_refused(commands, world, tmp_path, name):
    from safetensors.torch import load, save

    change, said = CARDS[name]
    weights = save(load((world.root / "run/victims/emo18/model.safetensors").read_bytes()))
    bare = {
        "sha256": hashlib.sha256(weights).hexdigest()
    }  # weights that repeat nothing of the card
    folder = victim_with(world, tmp_path / "v", {**bare, **change}, weights)
    made = commands.run(
        "attack",
        world.root / "corpus/low/s0",
        "--attack",
        "random",
        "--source",
        folder,
        "--out",
        tmp_path / "o",
    )
    refused(made, 3, said, str(folder))


@pytest.mark.parametrize("command", ["attack", "evaluate", "audit"])
def test_weights_that_are_no_numbers_never_give_figures(commands, world, tmp_path, command):
    """All answers of a NaN are the first class: such a model would pass for one that nothing fools."""
    import torch
    from safetensors.torch import load_file, save

    folder = victim_with(world, tmp_path / "v")
    tensors = load_file(folder / "model.safetensors")
    next(t for t in tensors.values() if t.is_floating_point()).view(-1)[0] = torch.nan
    data = save(tensors)
    (folder / "model.safetensors").write_bytes(data)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(
        json.dumps({**card, "sha256": hashlib.sha256(data).hexdigest()})
    )
    corpus = f"folder:{world.root / 'corpus'}"
    words = {
        "attack": [corpus, "--attack", "random", "--source", folder],
        "evaluate": [world.root / "run/adversarial/random__emo18", "--target", folder],
        "audit": ["--victim", folder, "--corpus", corpus],
    }[command]
    refused(commands.run(command, *words, "--out", tmp_path / "o"), 3, "no finite number")
    assert not (tmp_path / "o").exists()


class _Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("kind", ["pickle", "zip", "html", "empty", "header of 2^63", "flipped"])
def test_weights_that_are_none_are_refused_and_never_run(commands, world, tmp_path, kind):
    import pickle

    good = (world.root / "run/victims/emo18/model.safetensors").read_bytes()
    data = {
        "pickle": pickle.dumps(_Payload(tmp_path / "ran")),
        "zip": b"PK\3\4" + good,
        "html": b"<html>",
        "empty": b"",
        "header of 2^63": struct.pack("<Q", 2**63) + good[8:],
        "flipped": good[:-1] + bytes([good[-1] ^ 1]),
    }[kind]
    folder = victim_with(world, tmp_path / "v", weights=data)
    done = commands.run(
        "attack",
        world.root / "corpus/low/s0",
        "--attack",
        "random",
        "--source",
        folder,
        "--out",
        tmp_path / "o",
    )
    refused(done, 3, "model.safetensors")
    assert "weights_only" not in done.err and not (tmp_path / "ran").exists()


def damage(path: Path, change) -> None:
    path.write_bytes(change(path.read_bytes()))


SETS = {
    "no table": (lambda d: (d / "metadata.csv").unlink(), "metadata.csv"),
    "a pipe for a table": (
        lambda d: ((d / "metadata.csv").unlink(), os.mkfifo(d / "metadata.csv")),
        "not a regular file",
    ),
    "a table without a heading": (
        lambda d: damage(d / "metadata.csv", lambda b: b"\n" + b),
        "lacks the columns file_name",
    ),
    "a path that leaves": (
        lambda d: damage(d / "metadata.csv", lambda b: b.replace(b"adversarial/", b"../x/")),
        "outside the folder",
    ),
    "a row twice": (
        lambda d: damage(d / "metadata.csv", lambda b: b + b.splitlines(True)[-1]),
        "is in two rows",
    ),
    "half a clip": (
        lambda d: [damage(p, lambda b: b[:500]) for p in d.glob("adversarial/*.wav")],
        "frames",
    ),
    "no clip": (lambda d: [p.unlink() for p in d.glob("adversarial/*.wav")], "cannot be read"),
    "another clip": (
        lambda d: [
            damage(p, lambda b: b[:44] + bytes(len(b) - 44)) for p in d.glob("adversarial/*.wav")
        ],
        "differ from its original",
    ),
    "a budget that is none": (
        lambda d: damage(
            d / "card.json", lambda b: b.replace(b'"budget": {', b'"budget": 3, "b": {')
        ),
        "its budget is 3",
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_a_damaged_set_is_never_evaluated(commands, world, tmp_path, name):
    change, said = SETS[name]
    shutil.copytree(world.root / "run/adversarial/random__emo18", tmp_path / "s")
    change(tmp_path / "s")
    done = commands.run(
        "evaluate",
        tmp_path / "s",
        "--target",
        world.root / "run/victims/emo18",
        "--out",
        tmp_path / "o",
    )
    refused(done, 3, said)
    assert not (tmp_path / "o" / "summary.json").exists()


# ---------------------------------------------------------------- options, folders, limits of the system

OPTIONS = {
    "epsilon nan": (["--epsilon", "nan"], 3, "epsilon is nan"),
    "density 0": (
        ["--max-density", "0"],
        3,
        "max_density: input should be greater than 0 (got 0.0)",
    ),
    "seed 2^64": (["--seed", 2**64], 3, "seed: input should be less than"),
    "device": (["--device", "cud"], 3, "no device 'cud'"),
    "no device": (["--device", " "], 3, "no device ' '"),
    "meta": (["--device", "meta"], 3, "no device 'meta'"),
    "class": (["--label", "nope"], 3, "unknown class 'nope'. Known: each, high, low"),
    "part": (["--part", "nope"], 3, "unknown part 'nope'"),
    "match": (["--match", "nowhere"], 3, "nowhere"),
    "protocol": (["--protocol", "x"], 3, "--protocol is for a corpus, and files have none"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_wrong_option_is_told(commands, world, tmp_path, name):
    more, code, said = OPTIONS[name]
    refused(
        attack(commands, world, world.root / "corpus/low/s0", tmp_path / "o", *more), code, said
    )


TRAINED = ["--steps", 1, "--seconds", 0.2, "--batch-size", 2]
MISTAKES = {
    "a target twice": (
        ["evaluate", "{set}", "--target", "{victim}", "--target", "{victim}"],
        3,
        "2 targets are called 'emo18'",
    ),
    "two targets of one name": (
        ["evaluate", "{set}", "--target", "{victim}", "--target", "shipped:emo18"],
        3,
        "2 targets are called 'emo18'",
    ),
    "a set twice": (
        ["evaluate", "{set}", "{set}", "--target", "{victim}"],
        3,
        "2 sets are of 'random from emo18'",
    ),
    "a false-positive rate that is no number": (
        ["detect", "{corpus}", "--victim", "{victim}", "--false-positive-rate", "nan"],
        3,
        "false_positive_rate: input should be less than 1",
    ),
    "an endless SNR": (
        ["train-generator", "{corpus}", "--source", "{victim}", "--min-snr-db", "inf", *TRAINED],
        3,
        "min_snr_db",
    ),
    "a huge batch": (
        ["train-victim", "{corpus}", "emo18", *TRAINED, "--batch-size", 10**8],
        3,
        "less than or equal to 65536",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_that_would_give_wrong_figures_or_none_is_told(commands, world, tmp_path, name):
    words, code, said = MISTAKES[name]
    places = {
        "set": world.root / "run/adversarial/random__emo18",
        "victim": world.root / "run/victims/emo18",
        "corpus": f"folder:{world.root / 'corpus'}",
    }
    done = commands.run(*(str(w).format(**places) for w in words), "--out", tmp_path / "o")
    refused(done, code, said)
    assert not list(tmp_path.rglob("*.json"))


def test_a_model_of_another_split_is_warned_of(commands, world, tmp_path):
    corpus, run = f"folder:{world.root / 'corpus'}", world.root / "run"
    said = "was trained on"  # these clips, by their audio, or another split
    by_source = ["attack", corpus, "--attack", "random", "--source", run / "victims/emo18"]
    ways = {
        "attack": by_source,
        "generator": ["attack", corpus, "--generator", run / "generators/emo18"],
        "detect": ["detect", corpus, "--victim", run / "victims/emo18"],
        "sweep": [
            "sweep",
            corpus,
            "--attack",
            "random",
            "--source",
            run / "victims/emo18",
            "--epsilon",
            0.01,
            "--density",
            1,
        ],
    }
    for name, words in ways.items():
        for seed in (0, 1):
            out = tmp_path / f"{name}{seed}"
            done = commands.run(*words, "--seed", seed, "--out", out, "--json", undrawn=True)
            assert done.code == 0 and (said in done.err) == (seed == 1), done.err
            flags = json.loads(done.out).get("flags", [])
            assert any(said in flag for flag in flags) == (seed == 1)
    for sets in ([0], [1], [0, 1]):
        made = [tmp_path / name for name in ("attack0", "generator1") if int(name[-1]) in sets]
        done = commands.run(
            "evaluate",
            *made,
            "--target",
            run / "victims/emo18",
            "--json",
            "--out",
            tmp_path / f"judged{sets}",
        )
        flags = json.loads(done.out)["flags"]
        assert done.code == 0 and [said in flag for flag in flags].count(True) == (1 in sets)
        assert done.err.count(said) == (1 in sets)
    whole = commands.run(*by_source, "--seed", 1, "--part", "all", "--out", tmp_path / "whole")
    assert whole.code == 0 and "another split" not in whole.err


@pytest.mark.parametrize("place", ["", "low", "new/folder"])
@pytest.mark.parametrize("command", ["attack", "train-victim", "run"])
def test_nothing_is_written_inside_a_corpus(commands, world, command, place):
    corpus = world.root / "corpus"
    before = tree(corpus)
    done = commands.run(*world.arguments(command, corpus / place))
    refused(done, 3, "lies inside the corpus", "Choose another folder with --out")
    assert tree(corpus) == before and not (corpus / "new").exists()


def test_a_manifest_replaces_nothing_but_a_manifest(commands, world, tmp_path):
    corpus = f"folder:{world.root / 'corpus'}"
    (tmp_path / "precious.csv").write_bytes(b"my,own,table\n")
    (tmp_path / "voice.wav").write_bytes(GOOD)
    before = tree(tmp_path)
    for name in before:
        done = commands.run("corpus", corpus, "--out", tmp_path / name)
        refused(done, 3, f"{name}: exists, and staanet did not write it")
    assert tree(tmp_path) == before
    for _ in range(2):
        assert commands.run("corpus", corpus, "--out", tmp_path / "list.csv").code == 0
    assert (tmp_path / "list.csv").read_text().startswith("file,id,label,speaker,sex")


@pytest.mark.parametrize(
    "spec, said",
    [
        ("onnx:", "no such file"),
        ("onnx:nowhere", "no such file"),
        ("emo18", "untrained"),
        ("a:b", "no such folder"),
    ],
)
def test_a_victim_that_is_none_is_told(commands, world, tmp_path, spec, said):
    done = commands.run(
        "attack",
        world.root / "corpus/low/s0",
        "--attack",
        "random",
        "--source",
        spec,
        "--out",
        tmp_path / "o",
    )
    refused(done, 3, said)


@pytest.mark.parametrize("place", ["file", "file/x", "loop", "/dev/null"])
@pytest.mark.parametrize("command", ["attack", "evaluate", "train-victim", "run"])
def test_a_file_where_a_folder_is_due(commands, world, tmp_path, command, place):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "loop").symlink_to("loop")
    out = tmp_path / place
    refused(commands.run(*world.arguments(command, out)), 3, "a file stands where a folder is due")
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_folder_that_nobody_may_write_is_told(commands, world, tmp_path):
    places = [Path(sys.prefix), *Path(sys.prefix).parents]
    if os.getuid() == 0 and not all(place.stat().st_mode & 0o001 for place in places):
        pytest.skip(f"another user may not read {sys.prefix}")
    import tempfile

    place = Path(tempfile.mkdtemp())  # not below pytest's folder, which nobody else may enter
    place.chmod(0o755)
    shutil.copytree(world.root / "run/victims/emo18", place / "v")
    (place / "in.wav").write_bytes(GOOD)
    (place / "closed").mkdir(mode=0o555)
    done = commands.run(
        "attack",
        place / "in.wav",
        "--attack",
        "random",
        "--source",
        place / "v",
        "--out",
        place / "closed/o",
        user=65534 if os.getuid() == 0 else None,
        cwd=place,
    )
    shutil.rmtree(place)
    refused(done, 5, "no permission to write", "--out")


def test_a_limit_on_the_size_of_files_is_a_fault_and_the_command_resumes(commands, world, tmp_path):
    done = attack(
        commands, world, world.root / "corpus/low", tmp_path / "o", limits={"fsize": 3000}
    )
    refused(done, 5, "the file-size limit is reached", "ulimit")
    assert not list(tmp_path.rglob("*.part"))
    assert attack(commands, world, world.root / "corpus/low", tmp_path / "o").code == 0


def test_a_full_disk_is_a_fault_and_the_command_resumes(commands, world, tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs privileges")
    try:
        done = attack(commands, world, world.root / "corpus", tmp_path / "o")
        refused(done, 5, "disk full", "Free space, run again")
        assert not list(tmp_path.rglob("*.part"))
        subprocess.run(["mount", "-o", "remount,size=8m", str(tmp_path)], check=True)
        assert attack(commands, world, world.root / "corpus", tmp_path / "o").code == 0
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_standard_output_on_a_full_disk_is_told(commands, world, tmp_path):
    done = attack(commands, world, world.root / "corpus/low/s0", tmp_path / "o", stdout="/dev/full")
    assert done.code == 5 and done.is_clean and "No space left" in done.err.splitlines()[-1]
    assert storage.read_card(tmp_path / "o", "adversarial")["clips"] == 1


def test_what_no_one_foresaw_is_one_line_too_and_debug_shows_it(monkeypatch):
    from typer.testing import CliRunner

    from staanet import report
    from staanet.cli import app

    monkeypatch.setattr(report, "build", lambda *_, **__: {}["nothing"])
    said = CliRunner().invoke(app, ["report", "x"])
    assert (
        said.exit_code == 70
        and "a bug in staanet" in said.output
        and "Traceback" not in said.output
    )
    with pytest.raises(KeyError):
        CliRunner().invoke(app, ["report", "x", "--debug"], catch_exceptions=False)


# ---------------------------------------------------------------- interrupted work


def test_unfinished_work_never_goes_on_with_other_inputs(commands, world, tmp_path):
    for command, change in (("attack", ["--epsilon", "0.2"]), ("train-victim", ["--seed", 5])):
        out = tmp_path / command
        arguments = world.arguments(command, out)
        if command == "attack":  # pictures are drawn of a finished set
            arguments = [*arguments, "--pictures", 0]
        whole = commands.run(*arguments, still=True)
        shutil.rmtree(out)
        cut = commands.run(*arguments, still=True, fault=Fault(whole.calls - 6))
        assert cut.code == -9 and (out / "unfinished.json").exists()
        refused(commands.run(*arguments, *change, still=True), 3, "was begun with", "--out")
        assert commands.run(*arguments, still=True).code == 0
        refused(commands.run(*arguments, *change, still=True), 3, "was made with")


@pytest.mark.parametrize("command, n", [("attack", 8), ("train-victim", 3), ("evaluate", 3)])
def test_a_killed_command_resumes_to_the_same_folder(commands, world, command, n):
    tally = kill.kill_loop(world, command, n, commands, seed=1)
    assert not tally.wrong, tally.wrong
    assert tally.resumed == n <= tally.kills["at a named point"] + tally.kills["at a random moment"]


@pytest.mark.parametrize("command, n", [("attack", 15), ("train-victim", 4), ("evaluate", 6)])
def test_a_write_that_fails_leaves_nothing_torn_and_the_command_resumes(
    commands, world, command, n
):
    tally = kill.fault_loop(world, command, commands, at_most=n)
    assert not tally.wrong, tally.wrong
    assert set(tally.kills) <= {errno.errorcode[code] for code in kill.ERRORS} and tally.kills


def test_the_kill_loop_notices_what_is_torn(world, tmp_path):
    shutil.copytree(world.root / "run/adversarial/random__emo18", tmp_path / "s")
    wanted = tree(tmp_path / "s")
    (made, *_) = (tmp_path / "s" / "adversarial").glob("*.wav")
    made.write_bytes(made.read_bytes()[:-2])
    assert kill.torn(tmp_path / "s", wanted, "attack") == [f"adversarial/{made.name} is torn"]


def test_two_runs_at_once_and_signals(commands, world, tmp_path):
    out = tmp_path / "o"
    arguments = world.arguments("train-victim", out)
    arguments[arguments.index("--steps") + 1] = 100_000
    for number, code, said in (
        (signal.SIGINT, 130, "run the same command again"),
        (signal.SIGTERM, 5, "SIGTERM"),
    ):
        pid = commands.start(*arguments)
        for _ in range(600):
            if (out / "unfinished.json").exists() and (out / ".lock").read_bytes():
                break
            time.sleep(0.05)
        refused(commands.run(*arguments), 6, str(pid), "another run holds the folder")
        os.kill(pid, number)
        done = commands.wait(pid, timeout=60)
        assert done.code == code and done.is_clean and said in done.err, done.err


def test_no_library_swallows_a_signal():
    """torch's imports and a judge of perception are in ``except Exception``: the signal passes."""
    before = signal.getsignal(signal.SIGTERM)
    stopped = pytest.raises(KeyboardInterrupt, match="SIGTERM")
    with stopped, signals.stoppable(), contextlib.suppress(Exception):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_folder_may_be_moved(commands, world, tmp_path):
    shutil.copytree(world.root / "run", tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert commands.run("report", tmp_path / "new").code == 0
    moved = attack(
        commands,
        world,
        world.root / "corpus/low/s0",
        tmp_path / "o",
        "--generator",
        tmp_path / "new/generators/emo18",
    )
    assert moved.code == 0, moved.err


@pytest.mark.parametrize("year", [1970, 2100])
def test_no_clock_is_believed(commands, world, tmp_path, year):
    """What was written before the clock was set back, or long ago, is as finished as what is new."""
    run, moment = tmp_path / "run", (year - 1970) * 365.25 * 86400
    shutil.copytree(world.root / "run", run)
    (run / "report" / "index.html").unlink(missing_ok=True)
    assert commands.run("report", run).code == 0
    told = tree(run)
    for path in (run, *run.rglob("*")):
        os.utime(path, (moment, moment))
    assert commands.run("report", run).code == 0
    assert tree(run) == told


# ---------------------------------------------------------------- the same bits everywhere


def test_the_surroundings_never_change_a_bit(world, tmp_path):
    """Hash seed, locale, time zone and the order of a folder: the same attack, byte by byte."""
    plain = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    other = {
        "PYTHONHASHSEED": "12345",
        "LC_ALL": "C",
        "LANG": "C",
        "TZ": "Pacific/Chatham",
        "PYTHONUTF8": "0",
    }
    code = "import time; time.perf_counter = lambda: 0.0; from staanet.cli import entry; entry()"
    names = sorted((world.root / "corpus").rglob("*.wav"))
    found = []
    for number, environment in enumerate((plain, other)):
        inputs = tmp_path / f"in{number}" / "x"
        for path in (
            names if number else reversed(names)
        ):  # made in another order, listed in another
            target = inputs / path.relative_to(world.root / "corpus")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                code,
                "attack",
                "folder:x",
                "--part",
                "all",
                "--attack",
                "random",
                "--max-density",
                "0.1",
                "--source",
                str(world.root / "run/victims/emo18"),
                "--out",
                str(tmp_path / f"out{number}"),
            ],
            cwd=tmp_path / f"in{number}",
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        metadata = tmp_path / f"out{number}" / "metadata.csv"
        text = metadata.read_text(encoding="utf-8")
        assert text.count(str(inputs)) == len(names)  # each clip leads back to its file
        metadata.write_text(text.replace(str(inputs), "x"), encoding="utf-8")
        found.append(tree(tmp_path / f"out{number}"))
    assert found[0] == found[1]


def test_a_whole_run_gives_the_same_bits_twice(commands, world):
    again = world.root / "again"
    done = commands.run(
        *world.arguments("run", again), **kill.QUIET, environment={"TZ": "Asia/Tokyo"}, timeout=900
    )
    assert done.code == 0
    first, second = (kill.state(folder, "run") for folder in (world.root / "run", again))
    differing = {
        name for name in first.keys() | second.keys() if first.get(name) != second.get(name)
    }
    assert differing <= {"card.json", "report/index.html"}, (
        "the card names the command, with its folder"
    )
    assert commands.run(*world.arguments("run", again), **kill.QUIET, timeout=900).code == 0
    assert kill.state(again, "run") == second, "a finished run given again is left as it is"
