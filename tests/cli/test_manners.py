"""How the command line behaves: options that every command has, near names, completion, colours."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from tests.support.commands import staanet
from tests.support.recipes import TINY_RECIPE
from tests.support.speech import RATE, tone
from typer.testing import CliRunner

from staanet import audio, storage
from staanet.cli import app, listing, names, progress

COMMANDS = sorted(typer.main.get_command(app).commands.items())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A corpus, a recipe for it, and a victim that is quickly trained."""
    root = tmp_path_factory.mktemp("manners")
    for number, label in enumerate(("high", "low")):
        for speaker in range(6):
            folder = root / "tiny" / label / f"s{speaker}"
            folder.mkdir(parents=True)
            hz = (1200.0, 200.0)[number] * (1 + 0.02 * speaker)
            sound = tone(0.3, hz, 10 * number + speaker)
            storage.write_bytes(folder / "0.wav", audio.encode(sound, RATE))
    (root / "tiny.toml").write_text(TINY_RECIPE.format(corpus=(root / "tiny").as_posix()))
    return root


def tree(folder):
    return sorted(str(path) for path in folder.rglob("*"))


# ---------------------------------------------------------------- every command


@pytest.mark.parametrize("name, command", COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_command_takes_json_and_debug_and_explains_each_option(name, command):
    options = {option for one in command.params for option in one.opts}
    assert {"--json", "--debug"} <= options
    assert f"Example: staanet {name}" in command.help


def test_the_version_is_that_of_the_package(tmp_path):
    from importlib.metadata import version

    done = staanet("--version", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == f"staanet {version('staanet')}\n"


# ---------------------------------------------------------------- mistyped


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["swep"], "'sweep'"),
        (["run", "quick", "--dryrun"], "--dry-run"),
        (["attack", "x", "--epsilom", "1"], "--epsilon"),
    ],
)
def test_a_mistyped_command_or_option_gets_the_near_one_also_as_json(arguments, said, tmp_path):
    done = staanet(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr
    done = staanet(*arguments, "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert done.returncode == 2 == told["exit_code"] and said in told["what"]


@pytest.mark.parametrize(
    "arguments, near",
    [
        (["run", "quik"], "quick"),
        (["corpus", "emdb:x"], "emodb"),
        (["train-victim", "folder:{tiny}", "emo81", "--out", "o"], "emo18"),
        (["train-victim", "folder:{tiny}", "wavlm", "--config", "tinny", "--out", "o"], "tiny"),
        (["run", "{root}/tiny.toml", "--set", "attacks.pdg.epsilon=0.1", "--out", "o"], "pgd"),
        (
            ["run", "{root}/tiny.toml", "--set", "attacks.pgd.settings.stepz=1", "--out", "o"],
            "steps",
        ),
        (["run", "{root}/tiny.toml", "--set", "channels=['mp4']", "--out", "o"], "mp3"),
        (
            [
                "run",
                "{root}/tiny.toml",
                "--set",
                "victims.emo81.steps=2",
                "--out",
                "o",
                "--dry-run",
            ],
            "emo18",
        ),
        (
            ["run", "{root}/tiny.toml", "--set", "generator.network='compat'", "--out", "o"],
            "compact",
        ),
    ],
)
def test_a_mistyped_name_gets_the_near_one(world, arguments, near, tmp_path, monkeypatch):
    filled = [word.format(tiny=world / "tiny", root=world) for word in arguments]
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, filled)
    assert done.exit_code == 3 and f"Did you mean '{near}'" in done.stderr, done.output
    assert not list(tmp_path.rglob("*.safetensors"))


# ---------------------------------------------------------------- before it is done


def test_a_dry_run_tells_what_is_to_do_then_what_is_done_and_writes_nothing(world, tmp_path):
    command = ["run", world / "tiny.toml", "--out", tmp_path / "run"]
    before = staanet(*command, "--dry-run", "--json", cwd=tmp_path)
    assert before.returncode == 0, before.stderr
    told = json.loads(before.stdout)
    states = {stage["name"]: stage["state"] for stage in told["stages"]}
    assert states.pop("corpus") == "done" and set(states.values()) == {"to do"}
    assert not tree(tmp_path)
    done = staanet(*command, "--tensorboard", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    files = tree(tmp_path)
    after = staanet(*command, "--dry-run", cwd=tmp_path)
    assert after.returncode == 0 and "0 of" in after.stdout and tree(tmp_path) == files
    told = json.loads(staanet(*command, "--dry-run", "--json", cwd=tmp_path).stdout)
    journal = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()
    assert {json.loads(line)["stage"] for line in journal} == {s["name"] for s in told["stages"]}
    made = sum(one.stat().st_size for one in (tmp_path / "run" / "adversarial").rglob("*.wav"))
    assert abs(told["audio_mib"] - made / 2**20) < 0.1 + 0.1 * made / 2**20
    other = staanet(*command, "--dry-run", "--seed", 5, cwd=tmp_path)
    assert other.returncode == 3 and "with seed = 0, now it is 5" in other.stderr
    (tmp_path / "run" / "victims" / "zhao19" / "card.json").unlink()
    again = staanet(*command, "--dry-run", cwd=tmp_path)
    assert again.returncode == 0 and "1 of" in again.stdout
    events = list((tmp_path / "run" / "tensorboard").glob("*/events*"))
    assert {one.parent.name for one in events} == {
        "train_emo18",
        "train_zhao19",
        "train_generator_on_emo18",
    }


def test_a_dry_run_of_speech_that_is_not_there_yet_speaks_nothing(tmp_path):
    done = staanet("run", "quick", "--dry-run", "--out", "r", cwd=tmp_path)
    assert done.returncode == 0 and "320 clips of 16 speakers" in done.stdout, done.stderr
    assert "to be spoken" in done.stdout and not tree(tmp_path)


# ---------------------------------------------------------------- completion


@pytest.mark.parametrize(
    "words, wanted",
    [
        ("staanet sel", "selfcheck"),
        ("staanet run qu", "quick"),
        ("staanet run quick --dr", "--dry-run"),
        ("staanet corpus emo", "emodb:"),
        ("staanet corpus folder:ti", "folder:tiny"),
        ("staanet attack x --attack sparse_", "sparse_rs"),
        ("staanet train-victim emodb:x zh", "zhao19"),
        ("staanet evaluate x --channel op", "opus"),
        ("staanet sweep x --part de", "dev"),
        ("staanet attack x --source sh", "shipped:emo18"),
        ("staanet audit --victim shipped:zh", "shipped:zhao19"),
        ("staanet attack x --generator sh", "shipped:emo18-zhao19"),
        ("staanet list mo", "models"),
        ("staanet\nattack\nx\n--source\nshipped\n:\nem", "emo18"),
        ("staanet\ncorpus\nfolder\n:\nti", "tiny"),
        ("staanet\naudit\n--victim\nshipped\n:", "zhao19"),
    ],
)
def test_bash_completes(world, words, wanted):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.argv = ['staanet']; import staanet.cli as c; c.entry()",
        ],
        cwd=world,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "_STAANET_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
    )
    assert wanted in done.stdout.split("\n"), done.stdout + done.stderr


@pytest.mark.parametrize("kind", listing.KINDS)
def test_what_there_is_is_listed_a_line_each_without_torch(kind, tmp_path):
    code = "import sys, staanet.cli.listing as l; print(sum(map(bool, l.KINDS[sys.argv[1]]().values())), 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, kind], capture_output=True, text=True, check=True
    )
    count, has_torch = done.stdout.split()
    assert int(count) == len(listing.KINDS[kind]()) and has_torch == "False"
    told = staanet("list", kind, cwd=tmp_path)
    assert told.returncode == 0 and len(told.stdout.splitlines()) == int(count)
    assert all(len(line) < 200 for line in told.stdout.splitlines())


def test_what_is_completed_is_what_there_is():
    from staanet.attacks import ATTACKS
    from staanet.corpora import CORPORA
    from staanet.generators.registry import GENERATORS
    from staanet.transforms import TRANSFORMS
    from staanet.victims import VICTIMS

    assert names.attacks("") == sorted(ATTACKS) and names.victims("") == sorted(VICTIMS)
    assert names.kinds("") == sorted(f"{name}:" for name in CORPORA)
    assert names.generators("") == sorted(GENERATORS)
    assert {*names.transforms("")} == {*TRANSFORMS}


# ---------------------------------------------------------------- colours and bars


def on_a_terminal(arguments, cwd, **environment):
    """Standard error of a command that sees a terminal there."""
    ours, theirs = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    env |= {"TERM": "xterm-256color", **environment}
    with subprocess.Popen(
        [sys.executable, "-m", "staanet", *map(str, arguments)],
        cwd=cwd,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        stdin=subprocess.DEVNULL,
    ):
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(ours, 4096):
                seen += part
        except OSError:  # Linux: the other side has gone
            pass
    os.close(ours)
    return seen.decode("utf-8", "replace")


COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|9[0-7])(?:;[0-9;]*)?m")


def test_colours_are_for_terminals_that_want_them(world, tmp_path):
    command = ["corpus", f"folder:{world / 'tiny'}"]
    seen = on_a_terminal(command, tmp_path)
    assert COLOUR.search(seen) and "12/12" in seen, "a bar, in colour"
    plain = on_a_terminal(command, tmp_path, NO_COLOR="1")
    assert not COLOUR.search(plain) and "12/12" in plain
    done = staanet(*command, cwd=tmp_path)
    assert "\x1b" not in done.stdout + done.stderr


def test_each_command_that_may_be_long_shows_progress():
    """A command function that trains, attacks, reads or judges does so inside bars."""
    folder = Path(__file__).parents[2] / "src" / "staanet" / "cli"
    without = []
    for file in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and any(
                isinstance(d, ast.Call) and getattr(d.func, "id", "") == "command"
                for d in node.decorator_list
            ):
                called = ast.unparse(node)
                if not any(bars in called for bars in ("Bars.shown", "log_progress(", "_session(")):
                    without.append(node.name)
    assert without == ["list_names", "serve"], "one is quick, the page waits for people"


def test_the_time_that_is_left_is_not_flattered_by_what_a_killed_command_did(monkeypatch, capsys):
    clock = iter([0.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    bars = progress.Bars()
    bars.line("train", 200, 600)  # 200 steps were there already
    bars.line("train", 210, 600)
    assert "train: 210/600, about 780 s left" in capsys.readouterr().err
