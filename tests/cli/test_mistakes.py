"""A mistake in the command line leaves nothing behind: every option of every command that writes, given wrong.

The commands run in forked children (``tests.support.forks``). A wrong value is told in words with exit code 2 or
3, and no folder is there that was not there before; what is right after all ends as it should.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import typer
from tests.support.commands import staanet

from staanet.cli import app

WRITING = {
    name: command.params
    for name, command in typer.main.get_command(app).commands.items()
    if any("--out" in one.opts for one in command.params)
}
TINY = ["--steps", 1, "--batch-size", 2, "--seconds", 0.2]
SOUND = {
    "run": ["{root}/tiny.toml"],
    "corpus": ["{corpus}"],
    "train-victim": ["{corpus}", "emo18", *TINY],
    "train-generator": ["{corpus}", "--source", "{victim}", *TINY],
    "train-uap": ["{corpus}", "--source", "{victim}", *TINY],
    "export": ["{run}/generators/emo18"],
    "attack": ["{corpus}", "--attack", "random", "--source", "{victim}", "--pictures", 0],
    "evaluate": ["{set}", "--target", "{victim}"],
    "sweep": [
        "{corpus}",
        "--source",
        "{victim}",
        "--attack",
        "random",
        "--epsilon",
        0.01,
        "--density",
        1,
        "--clips",
        1,
    ],
    "tune": ["{corpus}", "--source", "{victim}", *TINY, "--trials", 1],
    "merge": ["{set}"],
    "defend": ["--victim", "{victim}", "--with", "median:3"],
    "harden": ["{corpus}", "--victim", "{victim}", *TINY, "--inner-steps", 1],
    "detect": ["{corpus}", "--victim", "{victim}"],
    "everyday": ["--victim", "{victim}", "--corpus", "{corpus}", "--clips", 1],
    "certify": ["{corpus}", "--victim", "{victim}", "--votes", 4, "--guesses", 2, "--clips", 1],
    "audit": [
        "--victim",
        "{victim}",
        "--corpus",
        "{corpus}",
        "--clips",
        1,
        "--query-clips",
        0,
        "--surrogate",
        "emo18",
        "--surrogate-steps",
        1,
        "--generator-steps",
        1,
        "--channel",
        "mulaw",
        "--defence",
        "quantise:8",
        "--epsilon",
        0.01,
        "--density",
        1,
    ],
}
"""What each command would do, but for one wrong option behind it."""
WRONG = {int: ["-1", "1" + 30 * "0"], float: ["nan", "1e300"]}
WORD = ["nope"]
RIGHT = {
    ("audit", "--query-clips"),
    ("attack", "--eot"),
    ("attack", "--max-l0"),
    ("attack", "--max-bytes"),
    ("attack", "--pictures"),
    ("attack", "--max-seconds"),
    ("defend", "--name"),
    ("harden", "--name"),
}
"""Of these the largest number, or any word, is one that can be."""
FOUND = {
    "an unknown network": ("train-victim", ["{corpus}", "emo81", *TINY], "unknown victim 'emo81'"),
    "shards that are none": ("merge", ["nowhere"], "no such folder"),
    "a set of no kind": ("merge", ["{victim}"], "holds a victim, not an adversarial set"),
    "alarms in a verdict": (
        "audit",
        [*SOUND["audit"], "--fail-above", "nan"],
        "fail_above: input should be less than or equal to 1 (got nan)",
    ),
    "a surrogate twice": (
        "audit",
        [*SOUND["audit"], "--surrogate", "emo18"],
        "surrogates names a value twice",
    ),
    "half a step": (
        "attack",
        ["{corpus}", "--attack", "pgd", "--source", "{victim}", "--set", "steps=2.5"],
        "steps of pgd is 2.5. Give a whole number from 1",
    ),
    "a step that is true": (
        "attack",
        ["{corpus}", "--attack", "pgd", "--source", "{victim}", "--set", "steps=true"],
        "steps of pgd is True",
    ),
    "no step": (
        "attack",
        ["{corpus}", "--attack", "pgd", "--source", "{victim}", "--set", "steps=0"],
        "steps of pgd is 0",
    ),
    "nobody": (
        "attack",
        ["{corpus}", "--attack", "one_pixel", "--source", "{victim}", "--set", "population=0"],
        "population of one_pixel is 0",
    ),
    "a million iterations": (
        "train-generator",
        [*SOUND["train-generator"], "--iterations", 10**6],
        "less than or equal to 64",
    ),
    "a loud limit": ("attack", [*SOUND["attack"], "--min-snr-db", "1e300"], "min_snr_db"),
    "an endless crop": (
        "harden",
        [*SOUND["harden"], "--seconds", "1e300"],
        "less than or equal to 3600",
    ),
}


def filled(words, world):
    run = world.root / "run"
    places = {
        "root": world.root,
        "run": run,
        "corpus": f"folder:{world.root / 'corpus'}",
        "victim": run / "victims/emo18",
        "set": run / "adversarial/random__emo18",
    }
    return [str(word).format(**places) for word in words]


def wrong_options(name):
    for one in WRITING[name]:
        option = one.opts[0]
        if option.startswith("--") and not one.is_flag and option not in ("--out", "--help"):
            kind = one.type_descriptor.annotation
            for value in WRONG.get(kind, WORD):
                if not ((name, option) in RIGHT and value[:1] != "-"):
                    yield option, value


def test_every_command_that_writes_is_tried():
    assert set(SOUND) == set(WRITING)


@pytest.mark.parametrize("name", SOUND)
def test_a_wrong_option_is_refused_and_leaves_nothing(commands, world, tmp_path, name):
    for option, value in wrong_options(name):
        words = filled([*SOUND[name], option, value], world)
        done = commands.run(name, *words, "--out", tmp_path / "new" / "out.csv", undrawn=True)
        told = f"{option} {value}: {done.code} {done.err}"
        assert done.is_clean and done.code in (0, 2, 3), told
        if done.code:
            assert not list(tmp_path.iterdir()), told
        else:  # a number that is large, and right
            shutil.rmtree(tmp_path / "new")


@pytest.mark.parametrize("name", FOUND)
def test_what_cannot_be_is_refused_and_leaves_nothing(commands, world, tmp_path, name):
    command, words, said = FOUND[name]
    (tmp_path / "mine").mkdir()
    for out in (tmp_path / "new" / "out", tmp_path / "mine"):
        done = commands.run(command, *filled(words, world), "--out", out)
        assert done.code in (2, 3) and done.is_clean and said in done.err, done.err
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


@pytest.mark.parametrize(
    "words, said",
    [
        (["attack", "", "--out", "o"], "an argument is given nothing"),
        (["attack", "x.wav", "--shard", "", "--out", "o"], "--shard is given nothing"),
        (["attack", "x.wav", "--out="], "--out is given nothing"),
        (
            ["train-generator", "synthetic:", "--unlabelled", "", "--out", "o"],
            "--unlabelled is given nothing",
        ),
    ],
)
def test_a_variable_that_is_not_set_is_no_value(commands, tmp_path, words, said):
    """Else all of a folder would be attacked, or one be trained on all that lies below the working one."""
    done = commands.run(*words, cwd=tmp_path)
    assert done.code == 2 and said in done.err and not list(tmp_path.iterdir())
    told = json.loads(commands.run(*words, "--json", cwd=tmp_path).out)
    assert told["exit_code"] == 2 and said in told["what"]


def test_a_device_that_is_none_is_told_by_every_command(commands, world, tmp_path):
    for name in ("run", "train-victim", "train-generator", "attack", "evaluate", "certify"):
        words = filled([*SOUND[name], "--device", "cud"], world)
        done = commands.run(name, *words, "--out", tmp_path / "o")
        assert done.code == 3 and "no device 'cud' here" in done.err, done.err
    assert not list(tmp_path.iterdir())


def test_a_number_of_samples_is_at_least_one(commands, world, tmp_path):
    words = filled(
        [*SOUND["harden"], "--method", "ablation", "--keep", "1e-9", "--out", tmp_path / "o"], world
    )
    done = commands.run("harden", *words)
    assert done.code == 0, done.err


def test_two_processes_take_turns_at_a_folder_that_comes_and_goes(tmp_path):
    """The one that ends removes lock and folder while another waits for them: never do both hold it."""
    code = """
import sys, time
from pathlib import Path
from staanet.errors import FolderLocked
from staanet.storage import FolderLock
out, inside, held = Path(sys.argv[1]), Path(sys.argv[2]), 0
end = time.monotonic() + 3
while time.monotonic() < end:
    try:
        with FolderLock(out):
            inside.mkdir()  # fails where another is inside
            held += 1
            inside.rmdir()
    except FolderLocked:
        pass
print(held)
"""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "new" / "out"), str(tmp_path / "inside")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    told = [process.communicate(timeout=60) for process in running]
    assert all(process.returncode == 0 for process in running), told
    assert sum(int(out) for out, _ in told) > 10
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("attack, option", [("staa", "--generator DIR"), ("uap", "--vector DIR")])
def test_a_missing_generator_or_vector_is_told_before_a_clip_is_read(attack, option, tmp_path):
    words = ["attack", "folder:absent", "--source", "absent", "--attack", attack, "--out", "out"]
    done = staanet(*words, cwd=tmp_path)
    assert done.returncode == 3 and option in done.stderr and "absent" not in done.stderr
