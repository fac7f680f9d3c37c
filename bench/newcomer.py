"""``python -m bench newcomer emodb:PATH``: from nothing to a fooled clip, and from a folder to a report.

What someone does who has never seen the project, each step timed and checked: a wheel into a fresh
environment; the page, from the upload of a clip of 44.1 kHz to the download of its adversarial twin,
over the page's own HTTP; the same on the command line; then class folders of clips under names of
their own and one command that ends with a report. ``--only page`` or ``corpus`` walks a part of it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import soundfile
import soxr

from bench import sections
from bench.reliability import commit
from staanet import audio, corpora
from staanet.apps.doctor.machine import allowed_cpus
from staanet.core import Budget, Corpus

ROOT = Path(__file__).parent.parent
VOICE_HZ = 44_100
EPSILON, DENSITY = 0.03, 0.2
CLASSES = {"anger": "Ärger", "neutral": "sachlich", "sadness": "Trauer"}
"""Which labels of the corpus become class folders, and their names there."""
COMMANDS = ("staanet attack", "staanet corpus", "staanet run")
INSTALLING = ("python -m venv", "pip install")
RECORDINGS = "meine Aufnahmen"
"""A folder's name as people give them: with a space."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """What was done, how long it took by the clock and of processors, and what came of it."""

    what: str
    seconds: float
    cpu_s: float
    """Of the commands that ended within the step; on a busy machine the clock runs on without them."""
    found: str


@dataclass
class Walk:
    """The steps so far, in a folder ``home`` with an environment ``bin`` beside it."""

    work: Path
    steps: list[Step] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.work / "home"

    @property
    def bin(self) -> Path:
        return self.work / "fresh" / "bin"

    def take(self, what: str, do: Callable[[], tuple[T, str]]) -> T:
        """Do one step and remember it."""
        print(f"newcomer: {what}", file=sys.stderr, flush=True)
        begun, worked = time.perf_counter(), children_s()
        value, found = do()
        took = time.perf_counter() - begun
        self.steps.append(Step(what, took, children_s() - worked, found))
        return value

    def run(self, *words: str | Path) -> str:
        """A command in ``home`` as a person's shell would run it; its output, or an error with it."""
        done = subprocess.run(
            list(map(str, words)),
            cwd=self.home,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{words}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout


def environment() -> dict[str, str]:
    """This process's, without what would lead to the source tree."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


def children_s() -> float:
    """Seconds of processors that this process's ended children took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(arguments: Sequence[str]) -> None:
    """Walk, and write the section of ``results.md``."""
    parser = argparse.ArgumentParser(prog="python -m bench newcomer")
    parser.add_argument(
        "corpus", help="KIND:PATH of real speech with the labels " + str([*CLASSES])
    )
    parser.add_argument("--only", choices=["page", "corpus"])
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="values",
        help="of the recipe folder, such as victims.emo18.steps=20",
    )
    told = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="newcomer-") as work:
        walk = Walk(Path(work))
        walk.home.mkdir()
        corpus = corpora.load_corpus(told.corpus)
        install(walk)
        if told.only != "corpus":
            fool_a_clip(walk, corpus)
            tell(walk, "page", load)
        if told.only != "page":
            judge_a_folder(walk, corpus, told.values)
            tell(walk, "corpus", load)


def tell(walk: Walk, part: str, load: float) -> None:
    """Write the section of ``results.md`` on the steps since the last one."""
    body = section(part, walk.steps, versions(walk), load)
    sections.write(f"newcomer-{part}", body)
    print(body, flush=True)
    walk.steps.clear()


# ---------------------------------------------------------------- from nothing


def install(walk: Walk) -> None:
    """A wheel of this tree, a fresh environment, the wheel with its page in it."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(walk.work / "dist"), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = (walk.work / "dist").glob("*.whl")

    def made() -> tuple[None, str]:
        subprocess.run([sys.executable, "-m", "venv", str(walk.work / "fresh")], check=True)
        return None, "an empty environment"

    def filled() -> tuple[None, str]:
        walk.run(
            walk.bin / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--constraint",
            ROOT / "constraints.txt",
            f"{wheel}[web]",
        )
        listed = walk.run(walk.bin / "python", "-m", "pip", "list", "--format", "json")
        return None, f"{len(json.loads(listed))} packages"

    def sound() -> tuple[None, str]:
        told = json.loads(walk.run(walk.bin / "staanet", "doctor", "--json"))
        return None, f"{len(told['findings'])} checks, none failed"

    walk.take("python -m venv", made)
    walk.take("pip install 'staanet[web]'", filled)
    walk.take("staanet doctor", sound)


def fool_a_clip(walk: Walk, corpus: Corpus) -> None:
    """The page, then the command line, on one clip at the rate of a sound card."""
    voice = walk.home / "my voice.wav"
    record(corpus.utterances[0].path, voice)
    with Page.served(walk) as page:
        place = walk.take("upload a clip of 44.1 kHz", lambda: page.upload(voice))
        result = walk.take("Fool it", lambda: page.fool(place))
        walk.take("download the adversarial clip", lambda: page.download(result, walk.home))

    def attacked() -> tuple[None, str]:
        told = json.loads(
            walk.run(walk.bin / "staanet", "attack", voice, "--out", "fooled", "--json")
        )
        (clip,) = told["clips"]
        before, after = audio_of(walk.home / "fooled")
        return None, f"{kept(before, after)}; {turned(clip['answers'])}"

    walk.take("staanet attack 'my voice.wav' --out fooled", attacked)


def record(source: Path, target: Path) -> None:
    """A clip as a sound card would have recorded it: 44.1 kHz, two channels, 16 bit."""
    samples, rate = audio.read_int16(source)
    at_card = soxr.resample(audio.to_float(samples), rate, VOICE_HZ)
    soundfile.write(target, np.stack([at_card, at_card], axis=1), VOICE_HZ, subtype="PCM_16")


def audio_of(folder: Path) -> tuple[Path, Path]:
    """The one clip of an adversarial set, before and after."""
    (before,), (after,) = (list((folder / part).iterdir()) for part in ("clean", "adversarial"))
    return before, after


def kept(
    before: Path, after: Path, budget: Budget = Budget(epsilon=EPSILON, max_density=DENSITY)
) -> str:
    """How many samples of two files differ; ``AssertionError`` where none does or the budget is broken."""
    clean, adversarial = audio.read_int16(before)[0], audio.read_int16(after)[0]
    broken = budget.violations(clean, adversarial)
    assert not broken, broken
    changed = int((clean != adversarial).sum())
    assert changed, "the adversarial clip is the clean one"
    return f"{changed:,} of {len(clean):,} samples changed, within the budget"


def turned(answers: dict[str, Sequence[str]]) -> str:
    """Which victims changed their answer; ``AssertionError`` where none did.

    >>> turned({"emo18": ["fear", "anger"], "zhao19": ["fear", "fear"]})
    'fooled 1 of 2: emo18 (fear to anger)'
    """
    fooled = [
        f"{name} ({was} to {became})" for name, (was, became) in answers.items() if was != became
    ]
    assert fooled, answers
    return f"fooled {len(fooled)} of {len(answers)}: {', '.join(fooled)}"


# ---------------------------------------------------------------- the page, as its own browser asks it


@dataclass
class Page:
    """A running ``staanet serve`` and the secret of its address."""

    process: subprocess.Popen[str]
    port: int
    token: str

    @classmethod
    @contextmanager
    def served(cls, walk: Walk) -> Iterator[Page]:
        """Served until the block ends, then stopped; what it wrote must be gone."""
        temporary = walk.work / "tmp"
        temporary.mkdir()
        process = subprocess.Popen(
            [str(walk.bin / "staanet"), "serve", "--port", "0", "--json"],
            cwd=walk.home,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**environment(), "TMPDIR": str(temporary)},
        )

        def opened() -> tuple[Page, str]:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=(.+)", told["url"])
            assert found, told
            page = cls(process, int(found[1]), found[2])
            assert page.ask("GET", "/")[0] == 200
            return page, f"offers {', '.join(told['victims'])}"

        try:
            yield walk.take("staanet serve, until the page is there", opened)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0 and not any(temporary.iterdir())
        finally:
            process.kill()
            process.wait()

    def ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = ""
    ) -> tuple[int, bytes]:
        """The status and body that the page answers a request with."""
        one = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        headers = {"Cookie": f"staanet-{self.port}={self.token}"}
        one.request(method, path, body, headers | ({"Content-Type": kind} if kind else {}))
        told = one.getresponse()
        return told.status, told.read()

    def upload(self, clip: Path) -> tuple[str, str]:
        head = f'--X\r\nContent-Disposition: form-data; name="files"; filename="{clip.name}"\r\n'
        body = (
            head.encode()
            + b"Content-Type: audio/wav\r\n\r\n"
            + clip.read_bytes()
            + b"\r\n--X--\r\n"
        )
        status, told = self.ask(
            "POST", "/gradio_api/upload", body, "multipart/form-data; boundary=X"
        )
        assert status == 200, told
        return json.loads(told)[0], f"{clip.stat().st_size / 1024:.0f} KiB"

    def fool(self, place: str) -> tuple[list[Any], str]:
        """Press the button, and wait for what the page then shows."""
        file = {"path": place, "meta": {"_type": "gradio.FileData"}}
        wish = [file, "emo18", ["emo18", "zhao19"], "staa", EPSILON, DENSITY, "off"]
        status, told = self.ask(
            "POST", "/gradio_api/call/fool", json.dumps({"data": wish}).encode(), "application/json"
        )
        assert status == 200, told
        stream = self.ask("GET", f"/gradio_api/call/fool/{json.loads(told)['event_id']}")[
            1
        ].decode()
        assert "event: complete" in stream, stream
        result = json.loads(stream.rsplit("data: ", 1)[1])
        said = words(result[0])
        assert said.startswith("Fooled: "), said
        return result, said

    def download(self, result: list[Any], home: Path) -> tuple[None, str]:
        """The clip before and after, as the page's players have them."""
        for name, file in (("before.wav", result[2]), ("after.wav", result[3])):
            status, data = self.ask("GET", f"/gradio_api/file={file['path']}")
            assert status == 200, data
            (home / name).write_bytes(data)
        return None, kept(home / "before.wav", home / "after.wav")


def words(html: str) -> str:
    """The text of a piece of HTML.

    >>> words("<p>Fooled: <b>emo18 &amp; zhao19</b>.</p>")
    'Fooled: emo18 & zhao19.'
    """
    return " ".join(unescape(re.sub(r"<[^>]*>", "", html)).split())


# ---------------------------------------------------------------- from a folder


def judge_a_folder(walk: Walk, corpus: Corpus, values: Sequence[str] = ()) -> None:
    """Class folders of a person's own, one command, a report; ``values`` replace some of the recipe's."""
    clips = copied(corpus, walk.home / RECORDINGS)
    name = f"folder:{RECORDINGS}"

    def looked() -> tuple[None, str]:
        told = walk.run(walk.bin / "staanet", "corpus", name)
        assert all(label in told for label in CLASSES.values()), told
        return None, f"{clips} clips in {len(CLASSES)} classes"

    out = Path("runs") / "mine"
    replaced = [w for value in (f"corpus={name}", *values) for w in ("--set", value)]
    words = ["staanet", "run", "folder", *replaced, "--out", str(out)]

    def ran() -> tuple[None, str]:
        told = json.loads(walk.run(walk.bin / words[0], *words[1:], "--json"))
        size = (walk.home / out / "report" / "index.html").stat().st_size
        assert size > 100_000 and not told["quarantined"]
        return None, f"{rates(told['summary']['cells'])}; a report of {size / 2**20:.1f} MiB"

    walk.take(f"staanet corpus '{name}'", looked)
    walk.take(shlex.join(words), ran)


def copied(corpus: Corpus, root: Path) -> int:
    """``root/CLASS/SPEAKER/take N.wav`` of every clip with one of ``CLASSES``; how many."""
    takes: dict[Path, int] = {}
    for utterance in corpus.utterances:
        if utterance.label not in CLASSES:
            continue
        folder = root / CLASSES[utterance.label] / f"voice {utterance.speaker}"
        folder.mkdir(parents=True, exist_ok=True)
        takes[folder] = takes.get(folder, 0) + 1
        shutil.copy(utterance.path, folder / f"take {takes[folder]}.wav")
    return sum(takes.values())


def rates(cells: Sequence[dict[str, Any]]) -> str:
    """White-box fooling rates of a run, in words.

    >>> cell = {"attack": "staa", "source": "a", "target": "a", "fooling_rate": {"value": 0.5, "count": 8}}
    >>> rates([cell, {**cell, "target": "b"}])
    'staa fooled a on 50.0 % of 8'
    """
    told = (
        f"{c['attack']} fooled {c['target']} on {100 * c['fooling_rate']['value']:.1f} % of {c['fooling_rate']['count']}"
        for c in cells
        if c["source"] == c["target"]
    )
    return ", ".join(told)


# ---------------------------------------------------------------- what is written


def versions(walk: Walk) -> str:
    """Of the interpreter, the packages that weigh most, and the machine."""
    asked = (
        "import torch, staanet; print(f'staanet {staanet.__version__}, torch {torch.__version__}')"
    )
    told = walk.run(walk.bin / "python", "-c", asked).strip()
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    return (
        f"Python {platform.python_version()}, {told}, {platform.system()} {platform.machine()}, "
        f"{allowed_cpus()} CPUs, threads: {threads}"
    )


TITLES = {
    "page": "from nothing to a fooled clip\n\nThe command was `python -m bench newcomer emodb:PATH --only page`. It "
    "installs a wheel into a fresh environment. It then attacks one clip with the local page and on the command line. "
    "The clip is from EMO-DB, resampled to 44.1 kHz with two channels.",
    "corpus": "from a folder to a report\n\nThe command was `python -m bench newcomer emodb:PATH --only corpus`. It runs "
    "one command on class folders with new names.",
}


def section(part: str, steps: Sequence[Step], machine: str, load: float) -> str:
    """The steps of a part as a table, and the sums that matter."""
    rows = "\n".join(
        f"| `{s.what}` | {s.seconds:.1f} | {f'{s.cpu_s:.1f}' if s.cpu_s > 0.05 else ''} | {s.found} |"
        for s in steps
    )
    installing = sum(s.seconds for s in steps if s.what.startswith(INSTALLING))
    used = sum(s.seconds for s in steps if not s.what.startswith((*INSTALLING, *COMMANDS)))
    told = sum(s.seconds for s in steps if s.what.startswith(COMMANDS[1:])) / 60
    sums = {
        "page": f"The installation took {installing:.0f} s. The steps up to the downloaded clip took {used:.0f} s.",
        "corpus": f"The way from the folder to the report took {told:.1f} minutes.",
    }
    return (
        f"## A newcomer's walk: {TITLES[part]} The test checks the exit codes, the files, the change and the budget "
        f"of every step.\n\n| step | seconds | processor seconds | result |\n|---|---:|---:|---|\n{rows}\n\n{sums[part]}\n\n"
        f"The commit is `{commit()}`. The machine has {machine}. The load at the start was {load:.1f}."
    )
