"""The command line: parses, calls one function, prints one table. Only this module prints or exits.

Heavy libraries are imported inside the commands, so that ``staanet --help`` answers at once.
"""

from __future__ import annotations

import functools
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from staanet.errors import InvalidInput, StaaNetError, printable, unknown_name

if TYPE_CHECKING:
    from staanet.core import Corpus
    from staanet.pipeline import Quarantine

app = typer.Typer(
    name="staanet",
    help="Measure how easily an audio classifier is fooled by sparse adversarial changes "
    "(STAA-Net, arXiv 2402.01227), on your own models and data.\n\n"
    "Start with: staanet run quick --out runs/quick",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Seed = Annotated[int, typer.Option(help="Fixes the split, the weights and every draw.", min=0)]
Protocol = Annotated[
    str | None,
    typer.Option(
        help="How speakers are split: a name that `staanet corpus` lists (such as paper of iemocap), "
        "manifest (its split column) or speakers:TEST,.../DEV,... [default: drawn by the seed]."
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result (or the error) as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Epsilon = Annotated[float, typer.Option(help="Largest change of a sample, of full scale 1.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first unusable clip.")]
CorpusName = Annotated[
    str, typer.Argument(metavar="CORPUS", help="KIND:PATH, for example emodb:data/emodb.")
]

STOPPED, QUARANTINED, CHECK_FAILED = 130, 4, 1


class Interrupted(StaaNetError):
    """A signal asked the command to end; finished work is valid."""

    exit_code = 5


def entry() -> NoReturn:
    """The console script."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve an LSTM's own
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except BrokenPipeError:  # the reader of a pipe has gone: nothing left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(
        "stopped by SIGTERM", remedy="Finished work is kept: run the same command again"
    )


def command(name: str, example: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a command whose errors are one line (or JSON) and whose ``--help`` has an example."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except StaaNetError as error:
                if kwargs.get("debug"):
                    raise
                _complain(error, as_json=bool(kwargs.get("json_output")))
                raise typer.Exit(error.exit_code) from None
            except KeyboardInterrupt:
                _say("staanet: stopped; finished work is kept: run the same command again")
                raise typer.Exit(STOPPED) from None

        guarded.__doc__ = f"{function.__doc__}\n\nExample: {example}"
        return app.command(name)(guarded)

    return register


def _complain(error: StaaNetError, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(error.to_dict()))
    _say(f"staanet: error: {error}")


def _say(text: str) -> None:
    safe = text.encode(sys.stderr.encoding or "ascii", "backslashreplace")
    sys.stderr.write(safe.decode(sys.stderr.encoding or "ascii") + "\n")


def _show(text: str) -> None:
    safe = text.encode(sys.stdout.encoding or "ascii", "backslashreplace")
    sys.stdout.write(safe.decode(sys.stdout.encoding or "ascii") + "\n")


def _finish(result: Mapping[str, Any], quarantine: Quarantine, *, json_output: bool) -> None:
    """Print the result as JSON if asked, name what was put aside, and leave with the right code."""
    if json_output:
        print(json.dumps({**result, "quarantined": quarantine.rows}, allow_nan=False, default=str))
    for row in quarantine.rows[:20]:
        _say(f"staanet: put aside: {printable(row['file'])}: {row['reason']}")
    if len(quarantine.rows) > 20:
        _say(f"staanet: and {len(quarantine.rows) - 20} more")
    if quarantine.rows:
        raise typer.Exit(QUARANTINED)


# ---------------------------------------------------------------- progress


@dataclass
class Bars:
    """Progress on standard error: a bar with remaining time on a terminal, else a line at times."""

    begun: dict[str, float] = field(default_factory=dict)
    said: float = 0.0

    @classmethod
    @contextmanager
    def shown(cls) -> Iterator[Callable[[str, int, int, str], None]]:
        if not sys.stderr.isatty():
            yield cls().line
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        with Progress(
            TextColumn("{task.description:<28.28}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[figures]}"),
            console=Console(stderr=True),
        ) as bars:  # fmt: skip
            tasks: dict[str, Any] = {}

            def bar(what: str, done: int, total: int, figures: str = "") -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(printable(what), total=total, figures="")
                bars.update(tasks[what], completed=done, total=total, figures=figures)

            yield bar

    def line(self, what: str, done: int, total: int, figures: str = "") -> None:
        now = time.monotonic()
        begun = self.begun.setdefault(what, now)
        if now - self.said < 10 and (done < total or now - begun < 2):
            return
        self.said = now
        left = (now - begun) / max(done, 1) * (total - done)
        tail = f", {figures}" if figures else ""
        _say(f"{what}: {done}/{total}, about {left:.0f} s left{tail}")


# ---------------------------------------------------------------- commands


@command("run", "staanet run emodb --set corpus=emodb:data/emodb --out runs/emodb")
def run(
    recipe: Annotated[str, typer.Argument(help="A shipped name (quick, emodb) or a TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Run folder [default: runs/RECIPE].")] = None,
    set_: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Replace a value.")
    ] = [],  # noqa: B006
    seed: Annotated[int | None, typer.Option(help="Replaces the recipe's seed.", min=0)] = None,
    device: Device = "cpu",
    strict: Strict = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """A whole experiment: corpus, victims, generator, attacks, evaluation, report; resumable."""
    from staanet import config, pipeline

    overrides = [*set_, *([f"seed={seed}"] if seed is not None else [])]
    loaded = config.load_recipe(recipe, overrides)
    folder = out or Path("runs") / loaded.name
    words = ["staanet", "run", recipe, *(w for o in overrides for w in ("--set", o))]
    with Bars.shown() as progress:
        matrix, quarantine = pipeline.run(
            loaded, folder, command=shlex.join([*words, "--out", str(folder)]), device=device,
            strict=strict, progress=progress,
        )  # fmt: skip
    if not json_output:
        _show(_findings(matrix.summary))
        _show(f"\nReport: {folder / 'report' / 'index.html'}")
    _finish(
        {"run": str(folder), "summary": dict(matrix.summary)}, quarantine, json_output=json_output
    )


@command("corpus", "staanet corpus emodb:data/emodb --out manifest.csv")
def corpus(
    name: CorpusName,
    out: Annotated[Path | None, typer.Option(help="Also write a manifest as CSV.")] = None,
    seed: Seed = 0,
    protocol: Protocol = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """What a corpus holds: clips, classes, speakers, lengths, split, problems."""
    from staanet import corpora, results, storage

    loaded = corpora.load_corpus(name)
    with Bars.shown() as progress:
        described = corpora.describe(loaded, seed, progress=progress, protocol=protocol)
    if out is not None:
        storage.write_text(out, results.table(*_manifest(loaded, out.parent, seed, protocol)))
    if json_output:
        print(json.dumps(described, allow_nan=False, default=str))
    else:
        _show(corpora.as_text(described))
    if described["problems"]:
        raise typer.Exit(QUARANTINED)


@command(
    "train-victim", "staanet train-victim emodb:data/emodb emo18 --out runs/emodb/victims/emo18"
)
def train_victim(
    corpus: CorpusName,
    name: Annotated[str, typer.Argument(help="emo18, zhao19, wav2vec2, wavlm or hubert.")],
    out: Annotated[Path, typer.Option(help="Victim folder to write.")],
    pretrained: Annotated[
        str | None,
        typer.Option(
            help="Hub name or folder to fine-tune wav2vec2, wavlm or hubert from "
            "[default: the published model]."
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="Small configuration of those, from scratch: tiny.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 1500,
    batch_size: Annotated[int, typer.Option(min=2)] = 16,
    seconds: Annotated[float, typer.Option(min=0.05, help="Length of a training crop.")] = 2.0,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-9, help="[default: 1e-3, for fine-tuning 3e-5]")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Judgements without progress.")
    ] = None,
    seed: Seed = 0,
    protocol: Protocol = None,
    device: Device = "cpu",
    strict: Strict = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Train a victim on the speaker-disjoint train part; prints UAR on dev and test."""
    from staanet import corpora, pipeline, storage
    from staanet.config import VictimRecipe

    recipe = VictimRecipe(
        pretrained=pretrained, config=config, steps=steps, batch_size=batch_size,
        seconds=seconds, learning_rate=learning_rate, patience=patience,
    )  # fmt: skip
    loaded, quarantine = corpora.load_corpus(corpus), pipeline.Quarantine(strict)
    with storage.FolderLock(_made(out)), Bars.shown() as progress:
        pipeline.train_victim(
            loaded, name, out, recipe=recipe, seed=seed, protocol=protocol, device=device,
            quarantine=quarantine, progress=progress,
        )  # fmt: skip
        quarantine.save(out)
    card = storage.read_card(out, "victim")
    if not json_output:
        _show(f"{name}: UAR {card['dev_uar']:.3f} on dev, {card['test_uar']:.3f} on test -> {out}")
    _finish(card, quarantine, json_output=json_output)


@command(
    "train-generator",
    "staanet train-generator emodb:data/emodb --source runs/emodb/victims/emo18 --out gen",
)
def train_generator(
    corpus: CorpusName,
    source: Annotated[
        str, typer.Option(help="The victim to train against: a folder, or hf:NAME-OR-FOLDER.")
    ],
    out: Annotated[Path, typer.Option(help="Generator folder to write.")],
    network: Annotated[str, typer.Option(help="mirror, compact, small or paper.")] = "mirror",
    epsilon: Epsilon = 0.03,
    max_density: Annotated[float, typer.Option(help="Largest share of samples changed.")] = 0.2,
    steps: Annotated[int, typer.Option(min=1)] = 1000,
    looks: Annotated[
        int, typer.Option(min=1, help="Stages of a mirror: more are stronger, and slower.")
    ] = 1,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    seconds: Annotated[float, typer.Option(min=0.05, help="Length of a training crop.")] = 1.5,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Adam's [default: 3e-4 for a mirror of its source, 2e-3 otherwise]."),
    ] = None,
    seed: Seed = 0,
    protocol: Protocol = None,
    device: Device = "cpu",
    strict: Strict = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Train STAA-Net against a victim, on the corpus's train part; no labels are used."""
    from staanet import corpora, pipeline, storage, victims
    from staanet.config import GeneratorRecipe

    recipe = GeneratorRecipe(
        network=network, epsilon=epsilon, max_density=max_density, steps=steps,
        looks=looks, batch_size=batch_size, seconds=seconds, learning_rate=learning_rate,
    )  # fmt: skip
    loaded, quarantine = corpora.load_corpus(corpus), pipeline.Quarantine(strict)
    victim = victims.load_victim(source).to(device)
    with storage.FolderLock(_made(out)), Bars.shown() as progress:
        pipeline.train_generator(
            loaded, victim, source, out, recipe=recipe, seed=seed, protocol=protocol, device=device,
            quarantine=quarantine, progress=progress,
        )  # fmt: skip
        quarantine.save(out)
    card = storage.read_card(out, "generator")
    if not json_output:
        _show(
            f"fooling rate on dev {card['dev_fooling_rate']:.3f} at density <= {max_density}, "
            f"epsilon {epsilon} -> {out}"
        )
        for flag in card["flags"]:
            _say(f"staanet: warning: {flag}")
    _finish(card, quarantine, json_output=json_output)


@command(
    "train-uap",
    "staanet train-uap emodb:data/emodb --source runs/emodb/victims/emo18 --out vector",
)
def train_uap(
    corpus: CorpusName,
    source: Annotated[
        str, typer.Option(help="The victim to learn against: a folder, or hf:NAME-OR-FOLDER.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the vector.")],
    epsilon: Epsilon = 0.03,
    max_density: Annotated[
        float | None, typer.Option(help="Largest share of samples changed [default: all].")
    ] = None,
    steps: Annotated[int, typer.Option(min=1)] = 200,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    seconds: Annotated[float, typer.Option(min=0.05, help="Length of the vector.")] = 1.0,
    label: Annotated[str | None, typer.Option(help="Aim at this class.")] = None,
    seed: Seed = 0,
    protocol: Protocol = None,
    device: Device = "cpu",
    strict: Strict = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Learn one universal vector against a victim: the control that needs no look at a clip."""
    from staanet import config, corpora, pipeline, storage, victims

    recipe = config.checked(
        config.VectorRecipe,
        {
            "epsilon": epsilon, "max_density": max_density, "steps": steps,
            "batch_size": batch_size, "seconds": seconds,
        },
        where="train-uap",
    )  # fmt: skip
    loaded, quarantine = corpora.load_corpus(corpus), pipeline.Quarantine(strict)
    victim = victims.load_victim(source).to(device)
    with storage.FolderLock(_made(out)), Bars.shown() as progress:
        pipeline.train_uap(
            loaded, victim, source, out, recipe=recipe, label=label, seed=seed, protocol=protocol,
            quarantine=quarantine, progress=progress,
        )  # fmt: skip
        quarantine.save(out)
    card = storage.read_card(out, "vector")
    if not json_output:
        _show(f"fooling rate on dev {card['dev_fooling_rate']:.3f}, epsilon {epsilon} -> {out}")
    _finish(card, quarantine, json_output=json_output)


@command("attack", "staanet attack speech.wav --generator runs/quick/generators/emo18 --out fooled")
def attack(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Files, folders, or KIND:PATH.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the adversarial set.")],
    attack: Annotated[str, typer.Option(help="staa, pgd, uap, random or another.")] = "staa",
    generator: Annotated[Path | None, typer.Option(help="Generator folder (for staa).")] = None,
    vector: Annotated[Path | None, typer.Option(help="Folder of a vector (for uap).")] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="Victim folder, hf:NAME-OR-FOLDER or onnx:FILE [default: the generator's]."
        ),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(
            help="Largest change of a sample, of full scale 1 [default: the generator's]."
        ),
    ] = None,
    max_density: Annotated[
        float | None,
        typer.Option(help="Largest share of samples changed [default: the generator's]."),
    ] = None,
    match: Annotated[
        Path | None, typer.Option(help="Change as many samples as this set did.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Aim at this class instead of any other.")
    ] = None,
    part: Annotated[str, typer.Option(help="Of a corpus: train, dev, test or all.")] = "test",
    seed: Seed = 0,
    protocol: Protocol = None,
    device: Device = "cpu",
    strict: Strict = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Adversarial audio from files, folders or a corpus split, as 16-bit WAV with its metrics."""
    from staanet import pipeline, storage, victims
    from staanet.config import AttackRecipe

    kind, learned = ("generator", generator) if generator else ("vector", vector)
    if source is None and learned is None:
        raise InvalidInput(
            "no victim to attack", remedy="Pass --source VICTIM, --generator DIR or --vector DIR"
        )
    victim = victims.load_victim(source) if source else pipeline.source_of(learned or Path(), kind)
    victim = victim.to(device)
    trained = storage.read_card(learned, kind) if learned else {}
    if epsilon is None:
        epsilon = float(trained.get("epsilon", 0.03))
    if max_density is None and attack in ("staa", "uap"):
        max_density = trained.get("max_density")
    quarantine = pipeline.Quarantine(strict)
    corpus = _inputs(inputs, part, seed, out, protocol)
    with storage.FolderLock(_made(out)), Bars.shown() as progress:
        clips = pipeline.load_clips(corpus, victim, quarantine, progress)
        plan = pipeline.plan_attack(
            attack, AttackRecipe(attack=attack, epsilon=epsilon, max_density=max_density), victim,
            generator=generator, vector=vector, matched=match, label=label, seed=seed, device=device,
        )  # fmt: skip
        made = pipeline.attack(plan, clips, out, quarantine=quarantine, progress=progress)
        quarantine.save(out)
        rows = pipeline.answers(made, victim)
    if not json_output:
        _show(_table(
            ["clip", f"{victim.name} before", "after", "changed", "of samples", "SNR dB"],
            [[r["id"], r["before"], r["after"], r["l0"], f"{100 * r['density']:.2f} %", _db(r["snr_db"])]
             for r in rows[:40]],
        ))  # fmt: skip
        fooled = sum(r["before"] != r["after"] for r in rows)
        _show(f"\n{fooled} of {len(rows)} answers changed -> {out}")
    _finish({"out": str(out), "clips": rows}, quarantine, json_output=json_output)


@command(
    "evaluate",
    "staanet evaluate runs/emodb/adversarial/* --target runs/emodb/victims/zhao19 --out check",
)
def evaluate(
    adversarial: Annotated[
        list[Path], typer.Argument(metavar="ADVERSARIAL...", help="Adversarial sets.")
    ],
    target: Annotated[
        list[str],
        typer.Option(help="Victim folder, hf:NAME-OR-FOLDER or onnx:FILE; repeat for several."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for results.parquet and summary.json.")],
    channel: Annotated[
        list[str],
        typer.Option(
            metavar="NAME[:SETTING]",
            help="Also after this channel, such as mp3, opus:24, gsm, mulaw, vorbis, resample:8000, "
            "gain:-6, rir:0.5, noise:20; repeat for several.",
        ),
    ] = [],  # noqa: B006
    perceptual: Annotated[
        bool,
        typer.Option(
            "--perceptual", help="Also how it sounds: PESQ, STOI, Zimtohrli, DNSMOS; slow."
        ),
    ] = False,
    seed: Seed = 0,
    device: Device = "cpu",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """The transfer matrix, computed from the audio files on disk."""
    from staanet import channels, pipeline, storage, victims

    for name in channel:
        channels.parse_channel(name)
    targets = [victims.load_victim(spec).to(device) for spec in target]
    with storage.FolderLock(_made(out)), Bars.shown() as progress:
        matrix = pipeline.evaluate(
            adversarial, targets, out, channels=channel, perceptual=perceptual, progress=progress
        )
    if not json_output:
        _show(_findings(matrix.summary))
        _show(f"\n-> {out}")
    _finish(dict(matrix.summary), pipeline.Quarantine(), json_output=json_output)


@command(
    "sweep",
    "staanet sweep emodb:data/emodb --source runs/emodb/victims/emo18 --attack pgd --attack random "
    "--epsilon 0.003,0.01,0.03 --density 0.05,0.2,1 --out sweep",
)
def sweep(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Files, folders, or KIND:PATH.")
    ],
    source: Annotated[str, typer.Option(help="Victim to craft on: folder, hf: or onnx:FILE.")],
    out: Annotated[Path, typer.Option(help="Folder for tables and the figure.")],
    attack: Annotated[list[str], typer.Option(help="Registry name; repeat for several.")],
    target: Annotated[
        list[str], typer.Option(help="Another victim to transfer to; repeat for several.")
    ] = [],  # noqa: B006
    generator: Annotated[Path | None, typer.Option(help="Generator folder (for staa).")] = None,
    vector: Annotated[Path | None, typer.Option(help="Folder of a vector (for uap).")] = None,
    epsilon: Annotated[str, typer.Option(help="Comma-separated.")] = "0.003,0.01,0.03",
    density: Annotated[str, typer.Option(help="Comma-separated.")] = "0.01,0.05,0.2,1",
    grid: Annotated[bool, typer.Option("--grid", help="Every epsilon with every density.")] = False,
    clips: Annotated[int, typer.Option(min=1, help="At most so many, spread over labels.")] = 50,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the audio of every point.")] = False,
    part: Annotated[str, typer.Option(help="Of a corpus: train, dev, test or all.")] = "test",
    seed: Seed = 0,
    device: Device = "cpu",
    strict: Strict = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Success against epsilon, density and SNR for several attacks, in one figure; resumable."""
    from staanet import config, pipeline, storage, victims

    recipe = config.checked(
        config.SweepRecipe,
        {
            "attacks": list(dict.fromkeys(attack)), "epsilons": _numbers("--epsilon", epsilon),
            "densities": _numbers("--density", density), "clips": clips, "grid": grid,
        },
        where="sweep",
    )  # fmt: skip
    specs = list(dict.fromkeys([source, *target]))
    loaded = [victims.load_victim(spec).to(device) for spec in specs]
    named = dict(zip((victim.name for victim in loaded), specs, strict=True))
    if len(named) < len(specs):
        raise InvalidInput(
            f"two victims are called {_twice([victim.name for victim in loaded])}",
            remedy="Give each victim a name of its own",
        )
    plan = pipeline.SweepPlan(
        recipe=recipe, attacks={name: config.AttackRecipe(attack=name) for name in recipe.attacks},
        source=loaded[0], targets=loaded,
        sha256={v.name: victims.fingerprint(v, spec) for v, spec in zip(loaded, specs, strict=True)},
        generator=generator, vectors={"uap": vector} if vector else {}, seed=seed, device=device,
    )  # fmt: skip
    quarantine = pipeline.Quarantine(strict)
    corpus = _inputs(inputs, part, seed, out)
    with storage.FolderLock(_made(out)), Bars.shown() as progress:
        usable = pipeline.load_clips(corpus, loaded[0], quarantine, progress)
        found = pipeline.sweep(
            plan, usable, out, keep=keep, quarantine=quarantine, progress=progress
        )
        quarantine.save(out)
    if not json_output:
        _show(_table(
            ["attack", "target", "epsilon", "at most", "fools", "changed", "SNR dB", "s/clip", "queries"],
            [[r["attack"], r["target"], f"{r['epsilon']:g}", _percent(r["max_density"]),
              f"{_percent(r['fooling_rate'])} of {r['count']}", _percent(r["density_mean"]),
              _db(r["snr_db_mean"]), f"{r['seconds_median']:.3f}", f"{r['queries_mean']:.0f}"]
             for r in found],
        ))  # fmt: skip
        _show(f"\n-> {out / 'sweep.png'}")
    _finish({"out": str(out), "points": found}, quarantine, json_output=json_output)


@command("export", "staanet export runs/quick/victims/emo18 --out emo18.onnx")
def export(
    victim: Annotated[Path, typer.Argument(metavar="VICTIM", help="Folder of an emo18 or zhao19.")],
    out: Annotated[Path, typer.Option(help="ONNX file to write; its card is FILE.toml.")],
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """A victim as an ONNX file for any runtime, proven equal; name it onnx:FILE elsewhere."""
    from staanet import pipeline, victims
    from staanet.victims.export import export_onnx

    difference = export_onnx(victims.load_victim(victim), out)
    if not json_output:
        _show(f"logits differ by at most {difference:.1e} -> {out}")
    _finish(
        {"out": str(out), "difference": difference}, pipeline.Quarantine(), json_output=json_output
    )


@command("report", "staanet report runs/quick")
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run folder.")],
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Tables, figures and one page with sound, from a run's files."""
    from staanet import pipeline
    from staanet import report as pages

    with Bars.shown() as progress:
        page = pages.build(folder, progress=progress)
    if not json_output:
        _show(f"Report: {page}")
    _finish({"report": str(page)}, pipeline.Quarantine(), json_output=json_output)


@command("selfcheck", "staanet selfcheck runs/quick")
def selfcheck(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    clips: Annotated[int, typer.Option(min=1, help="Test clips on which victims are tried.")] = 24,
    corpus: Annotated[
        str | None, typer.Option(metavar="KIND:PATH", help="Where the corpus is now.")
    ] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Is this evaluation honest? Tries its victims, recomputes its files, split and figures.

    Writes RUN/selfcheck.json, which staanet report shows. Exit code 1 when a check fails, else 0;
    warnings and skipped checks do not count as failures.
    """
    from staanet import selfcheck as checks
    from staanet import storage

    checks.require_finished(folder)
    with storage.FolderLock(folder), Bars.shown() as progress:
        found = checks.selfcheck(
            folder, clips=clips, seed=seed, corpus=corpus, device=device, progress=progress
        )
    failures = checks.failed(found)
    if json_output:
        print(json.dumps(checks.as_json(found), allow_nan=False))
    else:
        _show(_table(
            ["verdict", "check", "about", "found"],
            [[c.verdict, c.name, c.subject or "run", c.explanation] for c in found],
        ))  # fmt: skip
        for check in found:
            if check.remedy and check.verdict in ("fail", "warn"):
                _show(f"\n{check.verdict}: {check.name} {check.subject}: {check.remedy}")
        _show(f"\n{len(failures)} of {len(found)} checks failed -> {folder / checks.FILE}")
    if failures:
        raise typer.Exit(CHECK_FAILED)


# ---------------------------------------------------------------- helpers


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _manifest(
    corpus: Corpus, folder: Path, seed: int, protocol: str | None
) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of a corpus's manifest in ``folder``, from where its files are named; times
    where it has parts of files, and the split that was asked for, or else its own."""
    top = folder.absolute()
    split = {u.id: u.part for u in corpus.utterances if u.part}
    if protocol is not None:
        split = {u.id: p.part for p in corpus.split(seed, protocol) for u in p.utterances}
    rows = [
        {
            "file": str(path.relative_to(top) if path.is_relative_to(top) else path),
            "id": u.id,
            "label": u.label or "",
            "speaker": u.speaker,
            "sex": u.sex or "",
            "start": u.start_s,
            "end": "" if u.end_s is None else u.end_s,
            "split": split.get(u.id, ""),
        }
        for u in corpus.utterances
        for path in [u.path.absolute()]
    ]
    times = ["start", "end"] if any(u.is_segment for u in corpus.utterances) else []
    return ["file", "id", "label", "speaker", "sex", *times, *(["split"] if split else [])], rows


def _inputs(
    inputs: Sequence[str], part: str, seed: int, out: Path, protocol: str | None = None
) -> Corpus:
    from staanet import corpora

    if len(inputs) == 1 and inputs[0].split(":")[0] in corpora.CORPORA:
        whole = corpora.load_corpus(inputs[0])
        if part == "all":
            return whole
        parts = {p.part: p for p in whole.split(seed, protocol)}
        if part not in parts:
            raise unknown_name("part", part, [*parts, "all"])
        return parts[part]
    if protocol is not None:
        raise InvalidInput("files have no split", remedy="Drop --protocol, or attack KIND:PATH")
    return corpora.unlabelled([Path(item) for item in inputs], leave_out=out)


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidInput(
            f"{option} '{printable(text)}' is not numbers with commas between them",
            remedy=f"Write, say, {option} 0.01,0.03",
        ) from None


def _twice(names: Sequence[str]) -> str:
    return next(name for name in names if names.count(name) > 1)


def _percent(value: float | None) -> str:
    return "any" if value is None else f"{100 * value:.3g} %"


def _findings(summary: Mapping[str, Any]) -> str:
    targets = list(summary["targets"])
    plain = [c for c in summary["cells"] if c["channel"] == "pcm16"]
    cells = {(c["attack"], c["source"], c["target"]): c for c in plain}
    rows = []
    for attack, source in dict.fromkeys((c["attack"], c["source"]) for c in plain):
        some = cells[attack, source, targets[0]]
        rows.append([
            attack, source, *(_rate(cells[attack, source, t]) for t in targets),
            _number(some["mean"]["density"], ".3f"), _number(some["mean"]["snr_db"], ".1f"),
            _number(some["seconds_median"], ".3f"),
        ])  # fmt: skip
    head = ["attack", "source", *(f"fools {t}" for t in targets), "density", "SNR dB", "s/clip"]
    flags = "".join(f"\nwarning: {flag}" for flag in summary["flags"])
    return _table(head, rows) + _after_channels(summary) + _sounds(summary) + flags


def _after_channels(summary: Mapping[str, Any]) -> str:
    targets = list(summary["targets"])
    cells = {(c["channel"], c["attack"], c["source"], c["target"]): c for c in summary["cells"]}
    rows = [
        [*key, *(_rate(cells[*key, t]) for t in targets)]
        for key in dict.fromkeys(key[:3] for key in cells if key[0] != "pcm16")
    ]
    head = ["after channel", "attack", "source", *(f"fools {t}" for t in targets)]
    return f"\n\n{_table(head, rows)}" if rows else ""


def _sounds(summary: Mapping[str, Any]) -> str:
    rows = [
        [one["attack"], one["source"], name, _number(score["value"], ".3f"),
         f"{score['count']} of {score['of']}", "; ".join(score["missing"])]
        for one in summary.get("sets", []) for name, score in one["perceptual"].items()
    ]  # fmt: skip
    head = ["attack", "source", "sounds like", "mean", "clips", "others"]
    return f"\n\n{_table(head, rows)}" if rows else ""


def _rate(cell: Mapping[str, Any]) -> str:
    value = cell["fooling_rate"]["value"]
    return (
        f"n/a (0 of {cell['count']})"
        if value is None
        else f"{100 * value:.1f} % of {cell['count']}"
    )


def _number(value: float | None, form: str) -> str:
    return "n/a" if value is None else format(value, form)


def _db(value: float | None) -> str:
    return "untouched" if value is None else f"{value:.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cells = [list(head), *([printable(str(value)) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(value.ljust(w) for value, w in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])
