"""The command line as a user meets it: in a subprocess, by exit code, message and files."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests.support.commands import staanet, staanet_process
from tests.support.recipes import TINY_RECIPE
from tests.support.speech import RATE, tone

from staanet import audio, storage

COMMANDS = [
    "run",
    "corpus",
    "train-victim",
    "train-generator",
    "train-uap",
    "attack",
    "evaluate",
    "sweep",
    "budget",
    "merge",
    "defend",
    "export",
    "harden",
    "detect",
    "certify",
    "audit",
    "report",
    "selfcheck",
    "doctor",
    "to-audformat",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A corpus, and a run of the tiny recipe on it made by the command itself."""
    root = tmp_path_factory.mktemp("cli")
    for number, label in enumerate(("high", "low")):
        for speaker in range(6):
            folder = root / "tiny" / label / f"s{speaker}"
            folder.mkdir(parents=True)
            hz = (1200.0, 200.0)[number] * (1 + 0.02 * speaker)
            storage.write_bytes(
                folder / "0.wav", audio.encode(tone(0.3, hz, 10 * number + speaker), RATE)
            )
    (root / "tiny.toml").write_text(TINY_RECIPE.format(corpus=(root / "tiny").as_posix()))
    done = staanet("run", "tiny.toml", "--out", "run", cwd=root)
    assert done.returncode == 0, done.stderr
    root.joinpath("said.txt").write_text(done.stdout)
    return root


def test_a_run_ends_with_what_was_found_and_where_the_report_is(world):
    said = (world / "said.txt").read_text()
    assert "fools emo18" in said and "fools zhao19" in said and "staa" in said
    page = Path(said.split("Report: ")[1].strip())
    assert (world / page).is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command, tmp_path):
    done = staanet(command, "--help", cwd=tmp_path)
    assert done.returncode == 0 and f"staanet {command}" in done.stdout.split("Example:")[1]


def test_a_universal_vector_is_learned_and_swept_beside_other_attacks(world, tmp_path):
    corpus, victims = f"folder:{world / 'tiny'}", world / "run" / "victims"
    done = staanet(
        "train-uap",
        corpus,
        "--source",
        victims / "emo18",
        "--out",
        "v",
        "--steps",
        2,
        "--batch-size",
        2,
        "--seconds",
        0.1,
        cwd=tmp_path,
    )
    assert done.returncode == 0 and "fooling rate on dev" in done.stdout, done.stderr
    done = staanet("attack", corpus, "--attack", "uap", "--vector", "v", "--out", "a", cwd=tmp_path)
    assert done.returncode == 0 and "answers changed" in done.stdout, done.stderr
    done = staanet(
        "sweep",
        corpus,
        "--source",
        victims / "emo18",
        "--target",
        victims / "zhao19",
        "--attack",
        "uap",
        "--attack",
        "random",
        "--attack",
        "staa",
        "--vector",
        "v",
        "--generator",
        world / "run" / "generators" / "emo18",
        "--epsilon",
        "0.01,0.03",
        "--density",
        "0.1,1",
        "--clips",
        1,
        "--out",
        "s",
        "--json",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told["points"]) == 3 * 3 * 2 and (tmp_path / "s" / "sweep.pdf").is_file()
    assert {point["target"] for point in told["points"]} == {"emo18", "zhao19"}


@pytest.mark.parametrize(
    "option, value, said",
    [
        ("--epsilon", "0.01;0.02", "is not numbers with commas between them"),
        ("--density", "0.1,2", "less than or equal to 1"),
        ("--attack", "pdg", "Did you mean 'pgd'"),
        ("--attack", "uap", "Pass --vector DIR"),
    ],
)
def test_a_mistake_in_a_sweep_is_told(world, tmp_path, option, value, said):
    done = staanet(
        "sweep",
        f"folder:{world / 'tiny'}",
        "--source",
        world / "run/victims/emo18",
        "--attack",
        "random",
        option,
        value,
        "--out",
        "s",
        cwd=tmp_path,
    )
    assert done.returncode == 3 and said in done.stderr and "Traceback" not in done.stderr


def test_help_and_import_are_quick(tmp_path):
    def best(*code):
        seconds = []
        for _ in range(3):  # of the processor: a busy machine changes only how long one waits
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *code], cwd=tmp_path, check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(seconds)

    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, staanet, staanet.cli; print('torch' in sys.modules)"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert loaded.stdout.strip() == "False"
    assert best("-m", "staanet", "--help") < best("-c", "pass") + 2  # bench/ measures the figure


def test_a_corpus_is_described_and_its_manifest_written(world, tmp_path):
    done = staanet("corpus", f"folder:{world / 'tiny'}", "--out", tmp_path / "m.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("12", "high", "low", "s0", "test"):
        assert word in done.stdout
    assert len((tmp_path / "m.csv").read_text().splitlines()) == 13
    told = json.loads(staanet("corpus", f"folder:{world / 'tiny'}", "--json", cwd=tmp_path).stdout)
    assert told["clips"] == 12


def generator(world):
    return world / "run" / "generators" / "emo18"


@pytest.mark.parametrize(
    "rate, channels, seconds, format_",
    [
        (16000, 1, 0.3, "WAV"),
        (48000, 2, 0.5, "WAV"),
        (22050, 1, 1.3, "FLAC"),
        (8000, 1, 0.2, "OGG"),
    ],
)
def test_one_file_of_any_rate_length_and_channels_can_be_attacked(
    world, tmp_path, rate, channels, seconds, format_
):
    frames = round(seconds * rate)
    wave = 0.3 * np.sin(np.arange(frames) / rate * 2 * np.pi * 220)[:, None].repeat(channels, 1)
    name = f"my voice.{format_.lower()}"
    soundfile.write(tmp_path / name, wave, rate, format=format_)
    done = staanet("attack", name, "--generator", generator(world), "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (made,) = (tmp_path / "out" / "adversarial").glob("*.wav")
    info = soundfile.info(made)
    assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
    assert abs(info.frames - seconds * 16000) <= 1
    assert "answers changed" in done.stdout


def test_a_folder_and_a_corpus_split_can_be_attacked(world, tmp_path):
    done = staanet(
        "attack",
        world / "tiny" / "high",
        "--attack",
        "random",
        "--max-density",
        "0.1",
        "--source",
        world / "run" / "victims" / "zhao19",
        "--out",
        "a",
        cwd=tmp_path,
    )
    assert done.returncode == 0 and "of 6 answers changed" in done.stdout, done.stderr
    done = staanet(
        "attack",
        f"folder:{world / 'tiny'}",
        "--part",
        "dev",
        "--attack",
        "pgd",
        "--source",
        world / "run" / "victims" / "zhao19",
        "--out",
        "b",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    done = staanet(
        "evaluate",
        "a",
        "b",
        "--target",
        world / "run" / "victims" / "emo18",
        "--out",
        "c",
        "--json",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert {cell["attack"] for cell in json.loads(done.stdout)["cells"]} == {"random", "pgd"}
    assert (tmp_path / "c" / "results.parquet").is_file()


def test_a_targeted_attack_aims_at_a_class(world, tmp_path):
    victim = world / "run" / "victims" / "zhao19"
    done = staanet(
        "attack",
        world / "tiny" / "low",
        "--attack",
        "pgd",
        "--epsilon",
        "0.2",
        "--label",
        "high",
        "--source",
        victim,
        "--out",
        "a",
        "--json",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "a" / "card.json").read_text())
    assert card["goal"] == "targeted: high"


def test_every_stage_can_be_run_by_itself(world, tmp_path):
    corpus = f"folder:{world / 'tiny'}"
    done = staanet(
        "train-victim",
        corpus,
        "zhao19",
        "--out",
        "v",
        "--steps",
        "3",
        "--seconds",
        "0.2",
        "--batch-size",
        "4",
        cwd=tmp_path,
    )
    assert done.returncode == 0 and "UAR" in done.stdout, done.stderr
    done = staanet(
        "train-generator",
        corpus,
        "--source",
        "v",
        "--out",
        "g",
        "--steps",
        "2",
        "--seconds",
        "0.2",
        "--batch-size",
        "2",
        cwd=tmp_path,
    )
    assert done.returncode == 0 and "fooling rate" in done.stdout, done.stderr
    done = staanet("report", world / "run", cwd=tmp_path)
    assert done.returncode == 0 and "index.html" in done.stdout, done.stderr


def test_a_set_is_evaluated_after_channels_and_by_ear(world, tmp_path):
    made = world / "run" / "adversarial" / "random__emo18"
    victim = world / "run" / "victims" / "emo18"
    done = staanet(
        "evaluate",
        made,
        "--target",
        victim,
        "--channel",
        "mp3",
        "--channel",
        "resample:8000",
        "--perceptual",
        "--out",
        "r",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    for said in ("after channel", "resample:8000", "sounds like", "pesq_wb", "masked_excess_db"):
        assert said in done.stdout
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert [c["channel"] for c in summary["cells"]] == ["pcm16", "mp3", "resample:8000"]
    assert (tmp_path / "r" / "perception.jsonl").exists()
    done = staanet(
        "evaluate", made, "--target", victim, "--channel", "mp4", "--out", "q", cwd=tmp_path
    )
    assert done.returncode == 3 and "Did you mean 'mp3'" in done.stderr
    assert not (tmp_path / "q").exists(), "nothing is written"


# ---------------------------------------------------------------- what goes wrong


def wav(samples=tone(0.3, 300), rate=RATE) -> bytes:
    return audio.encode(samples, rate)


def flac_claiming(frames: int) -> bytes:
    """A FLAC file whose header claims ``frames`` samples."""
    made = bytearray(audio.encode(tone(0.3, 300), RATE, "FLAC"))
    made[21] = (made[21] & 0xF0) | (frames >> 32)
    made[22:26] = (frames & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(made)


def float_wav(values) -> bytes:
    import io

    out = io.BytesIO()
    soundfile.write(out, np.asarray(values, dtype=np.float32), RATE, format="WAV", subtype="FLOAT")
    return out.getvalue()


def many_channels(channels: int) -> bytes:
    import io

    out = io.BytesIO()
    soundfile.write(out, np.zeros((4000, channels)) + 0.01, RATE, format="WAV")
    return out.getvalue()


BAD = {
    "A01 empty": (b"", "not audio (0 bytes)"),
    "A01 RIFF": (b"RIFF", "not audio"),
    "A01 text": (b"this is not audio at all, only text", "not audio"),
    "A02 header only": (wav(np.zeros(0, np.int16)), "0 samples"),
    "A03 one sample": (wav(np.array([500], np.int16)), ""),
    "A03 too short": (wav(tone(0.01, 300)), "shorter than the"),
    "A04 half": (wav()[: 44 + 4801], "of 4800 declared frames"),
    "A07 cut flac": (audio.encode(tone(0.3, 300), RATE, "FLAC")[:-2000], ""),
    "A08 flac claims 2^36-1": (flac_claiming(2**36 - 1), ""),
    "A11 nine channels": (many_channels(9), "channels"),
    "A12 one Hz": (wav(rate=1), "1 Hz"),
    "A12 768 kHz": (wav(rate=768_000), "768000 Hz"),
    "A13 not a number": (
        float_wav([0.1] * 10 + [np.nan, np.inf, np.nan] + [0.1] * 5000),
        "3 non-finite samples, first at 10",
    ),
    "A15 silence": (wav(np.zeros(5000, np.int16)), "silence"),
    "A15 constant": (wav(np.full(5000, 100, np.int16)), "constant"),
    "A15 one click": (wav(np.eye(1, 5000, 99, dtype=np.int16)[0] * 9000), "click"),
}


@pytest.fixture(scope="module")
def judged(world, tmp_path_factory):
    """All bad files in one folder with one good neighbour, attacked by one command."""
    root = tmp_path_factory.mktemp("bad")
    for name, (content, _) in BAD.items():
        (root / f"{name.replace(' ', '_')}.wav").write_bytes(content)
    (root / "good.wav").write_bytes(wav())
    os.mkfifo(root / "pipe.wav")
    done = staanet(
        "attack",
        root,
        "--generator",
        generator(world),
        "--out",
        root.parent / "out",
        cwd=root.parent,
        timeout=120,
    )
    return done, root.parent / "out"


def test_bad_files_are_put_aside_and_the_good_neighbour_is_attacked(judged):
    done, out = judged
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    assert [path.stem for path in (out / "adversarial").glob("*.wav")] == ["good"]


@pytest.mark.parametrize("name", sorted(BAD))
def test_each_bad_file_is_named_with_its_reason(judged, name):
    _, out = judged
    rows = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if f"{name.replace(' ', '_')}.wav" in row["file"]]
    assert BAD[name][1] in row["reason"]


def test_a_strict_attack_stops_at_the_first_bad_file(world, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"")
    done = staanet(
        "attack", "bad.wav", "--generator", generator(world), "--out", "o", "--strict", cwd=tmp_path
    )
    assert done.returncode == 3
    assert done.stderr.startswith("staanet: error: ") and "bad.wav" in done.stderr
    assert not list(tmp_path.glob("o/adversarial/*"))


@pytest.mark.parametrize(
    "arguments, code, said",
    [
        (["corpus", "emo:x"], 3, "Did you mean 'emodb'"),
        (["corpus", "emodb:nowhere"], 3, "nowhere"),
        (["run", "quik"], 3, "Did you mean 'quick'"),
        (["run", "quick", "--set", "victims.emo18.stepz=3"], 3, "victims.emo18.steps"),
        (["attack", "x.wav", "--out", "o"], 3, "x.wav: no such file or folder"),
        (["attack", "x.wav"], 2, "--out"),
        (["evaluate", "nowhere", "--target", "nowhere", "--out", "o"], 3, "nowhere"),
        (["report", "nowhere"], 3, "nowhere"),
        (["atack"], 2, "attack"),
    ],
)
def test_a_mistake_gets_one_line_an_exit_code_and_no_traceback(arguments, code, said, tmp_path):
    done = staanet(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
    if code == 3:
        assert done.stderr.startswith("staanet: error: ") and done.stderr.count("\n") <= 3


def test_an_error_can_be_read_by_a_machine(tmp_path):
    told = json.loads(staanet("corpus", "emodb:nowhere", "--json", cwd=tmp_path).stdout)
    assert told["exit_code"] == 3 and told["remedy"]


def test_a_damaged_victim_is_refused_by_its_hash(world, tmp_path):
    import shutil

    shutil.copytree(world / "run" / "victims" / "emo18", tmp_path / "v")
    weights = tmp_path / "v" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    done = staanet(
        "attack",
        world / "tiny" / "low",
        "--attack",
        "random",
        "--source",
        "v",
        "--out",
        "o",
        cwd=tmp_path,
    )
    assert done.returncode == 3 and "sha256" in done.stderr


def test_a_folder_in_use_is_locked(world, tmp_path):
    folder = tmp_path / "o"
    folder.mkdir()
    with storage.FolderLock(folder):
        done = staanet(
            "attack",
            world / "tiny" / "low",
            "--attack",
            "random",
            "--out",
            folder,
            "--source",
            world / "run" / "victims" / "emo18",
            cwd=tmp_path,
        )
    assert done.returncode == 6 and str(os.getpid()) in done.stderr


def test_names_that_a_terminal_cannot_show_are_escaped(world, tmp_path):
    hostile = tmp_path / "in"
    hostile.mkdir()
    (hostile / "a\u202egnp\x1b[31m.wav").write_bytes(b"")
    (hostile / "good.wav").write_bytes(wav())
    done = staanet_process(
        "attack",
        hostile,
        "--generator",
        generator(world),
        "--out",
        "o",
        cwd=tmp_path,
        LC_ALL="C",
        PYTHONIOENCODING="ascii",
    )
    assert done.returncode == 4, done.stderr
    assert "\x1b" not in done.stderr and "\u202e" not in done.stderr and "\\x1b" in done.stderr


def test_a_killed_attack_resumes_and_leaves_no_torn_file(world, tmp_path):
    inputs = tmp_path / "in"
    inputs.mkdir()
    for number in range(40):
        (inputs / f"{number:02}.wav").write_bytes(wav(tone(0.3, 200 + 10 * number, number)))
    command = ["attack", inputs, "--generator", generator(world), "--out"]
    whole = staanet(*command, "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    running = subprocess.Popen(
        [sys.executable, "-m", "staanet", *map(str, command), "cut"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    journal = tmp_path / "cut" / "journal.jsonl"
    for _ in range(3000):
        if journal.exists() and journal.read_bytes().count(b"\n") >= 5:
            break
        time.sleep(0.01)
    running.kill()
    running.wait()
    assert not (tmp_path / "cut" / "card.json").exists()
    assert staanet(*command, "cut", cwd=tmp_path).returncode == 0
    made = {
        p.relative_to(tmp_path / "whole"): p.read_bytes()
        for p in (tmp_path / "whole").rglob("*.wav")
    }
    again = {
        p.relative_to(tmp_path / "cut"): p.read_bytes() for p in (tmp_path / "cut").rglob("*.wav")
    }
    assert made == again and not list((tmp_path / "cut").rglob("*.part"))


def test_real_speech_of_two_corpora_is_described(tmp_path):
    from tests.support.speech import real_speech

    emodb = json.loads(
        staanet("corpus", f"emodb:{real_speech('emodb')}", "--json", cwd=tmp_path).stdout
    )
    assert emodb["clips"] == 535 and len(emodb["classes"]) == 7 and emodb["problems"] == []
    done = staanet("corpus", f"ravdess:{real_speech('ravdess')}", cwd=tmp_path)
    assert "48000" in done.stdout and "2 channels" in done.stdout
