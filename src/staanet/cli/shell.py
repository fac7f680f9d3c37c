"""What every command shares: options, errors and exit codes, progress, and printing. Only ``cli`` prints."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from staanet.cli import names
from staanet.cli.signals import STOPPED, Interrupted, Terminated, stoppable
from staanet.errors import InvalidInput, StaaNetError, StorageFault, printable, unknown_name

if TYPE_CHECKING:
    from staanet.core import Corpus, Victim
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

Seed = Annotated[
    int, typer.Option(help="Fixes the split, the weights and every draw.", min=0, max=2**32 - 1)
]
Protocol = Annotated[
    str | None,
    typer.Option(
        help="How speakers are split: a name that `staanet corpus` lists (such as paper of iemocap), "
        "manifest (its split column) or speakers:TEST,.../DEV,... [default: drawn by the seed]."
    ),
]
Classes = Annotated[
    str,
    typer.Option(
        metavar="label|speaker|sex",
        help="What is told apart: the corpus's own labels (emotions, say), its speakers or their sex.",
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Precision = Annotated[
    str,
    typer.Option(
        help="Of the networks: float32, bfloat16, or auto: bfloat16 on a GPU that has it."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result (or the error) as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Epsilon = Annotated[float, typer.Option(help="Largest change of a sample, of full scale 1.")]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Also log training curves to OUT/tensorboard.")
]
ShardOf = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Only this part of the clips; see staanet merge."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first unusable clip.")]
CorpusName = Annotated[
    str,
    typer.Argument(
        metavar="CORPUS",
        help="KIND:PATH, for example emodb:data/emodb.",
        autocompletion=names.corpora,
    ),
]

QUARANTINED, CHECK_FAILED, UNDECIDED = 4, 1, 7


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"staanet {version('staanet')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What stands before the command; ``help`` of the app is its text."""


def command(name: str, example: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a command whose errors are one line (or JSON) and whose ``--help`` has an example."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                with stoppable():
                    return function(*args, **kwargs)
            except StaaNetError as error:
                if kwargs.get("debug"):
                    raise
                _complain(error, as_json=bool(kwargs.get("json_output")))
                raise typer.Exit(error.exit_code) from None
            except (typer.Exit, typer.Abort):
                raise
            except Exception as error:
                fault = fault_of(error)
                if kwargs.get("debug") or isinstance(error, BrokenPipeError):
                    raise
                fault = fault or bug_of(error)
                _complain(fault, as_json=bool(kwargs.get("json_output")))
                raise typer.Exit(fault.exit_code) from None
            except Terminated as stop:
                ended = Interrupted(
                    f"stopped by {stop}", remedy="Finished work is kept: run the same command again"
                )
                _complain(ended, as_json=bool(kwargs.get("json_output")))
                raise typer.Exit(ended.exit_code) from None
            except KeyboardInterrupt:
                say("staanet: stopped; finished work is kept: run the same command again")
                raise typer.Exit(STOPPED) from None

        guarded.__doc__ = f"{function.__doc__}\n\nExample: {example}"
        return app.command(name)(guarded)

    return register


def fault_of(error: Exception) -> StaaNetError | None:
    """What a fault of the machine, not of the input, is to the reader; None for a bug of ours.

    >>> print(fault_of(MemoryError("Unable to allocate 114. PiB")))
    out of memory (Unable to allocate 114. PiB). Give shorter clips or a smaller batch, run again
    """
    said = printable(" ".join(str(error).split()))[:200]
    memory = re.search(
        r"allocate (?:memory|.*\bGiB)|out of memory|bad_alloc|failed to map segment|array_new|create a primitive",
        str(error),
    )
    if isinstance(error, MemoryError) or memory:
        needed = re.search(r"tried to allocate ([0-9]+) bytes", str(error))
        need = f"needs about {int(needed[1]) / 2**30:.1f} GiB more" if needed else said
        return StorageFault(
            f"out of memory ({need})" if need else "out of memory",
            remedy="Give shorter clips or a smaller batch, run again",
        )
    if isinstance(error, OSError) and error.errno is not None:
        return StorageFault(
            f"the system failed ({os.strerror(error.errno)})",
            where=error.filename,
            remedy="Finished work is kept: mend it and run the same command again",
        )
    return None


class Bug(StaaNetError):
    """What no one foresaw: a mistake of ours, or a file damaged in a way that nothing checks."""

    exit_code = 70


def bug_of(error: Exception) -> Bug:
    """One line instead of a traceback, which ``--debug`` shows."""
    said = printable(" ".join(str(error).split()))[:200]
    return Bug(
        f"a bug in staanet, or a damaged file that it does not know ({type(error).__name__}: {said})",
        remedy="Run again with --debug, and report what it prints",
    )


def on_device(victim: Victim, device: str) -> Victim:
    """The victim on a device; ``InvalidInput`` where this machine has no such one."""
    return victim.to(checked_device(device))


def checked_device(device: str) -> str:
    """The device's name; ``InvalidInput`` where this machine has no such one."""
    import torch

    if device.startswith("cuda"):
        _repeatable()
    try:
        torch.zeros(1, device=device).item()
        return device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InvalidInput(
            f"no device '{printable(device)}' here ({printable(str(error).splitlines()[0])[:100]})",
            remedy="Write --device cpu, cuda or cuda:N",
        ) from error


def _repeatable() -> None:
    """The same kernels and sums on a GPU each time, wherever there are such; before CUDA begins."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")


def of_card(card: Mapping[str, Any], key: str, folder: Path | None) -> float | None:
    """A number of a card, or None; ``InvalidInput`` for anything else."""
    value = card.get(key)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise InvalidInput(
        f"its {key} is {printable(repr(value))[:40]}, no number",
        where=folder,
        remedy="Copy the folder again, or train again",
    )


def _complain(error: StaaNetError, *, as_json: bool) -> None:
    if as_json:
        with suppress(OSError):  # what cannot be written there is said here
            print(json.dumps(error.to_dict()), flush=True)
    say(f"staanet: error: {error}")


def say(text: str) -> None:
    """Write a line to standard error, in whatever the terminal can show; work goes on where nobody listens."""
    safe = text.encode(sys.stderr.encoding or "ascii", "backslashreplace")
    with suppress(OSError):
        sys.stderr.write(safe.decode(sys.stderr.encoding or "ascii") + "\n")


def show(text: str) -> None:
    """Write a result to standard output, in whatever the terminal can show."""
    safe = text.encode(sys.stdout.encoding or "ascii", "backslashreplace")
    sys.stdout.write(safe.decode(sys.stdout.encoding or "ascii") + "\n")


def warned(flags: Sequence[str]) -> dict[str, list[str]]:
    """Say each flag, and give them as a part of the result, if there are any."""
    for flag in flags:
        say(f"staanet: warning: {flag}")
    return {"flags": list(flags)} if flags else {}


def finish(result: Mapping[str, Any], quarantine: Quarantine, *, json_output: bool) -> None:
    """Print the result as JSON if asked, name what was put aside, and leave with the right code."""
    shown = list(result.get("flags") or ())
    new = [flag for flag in quarantine.flags if flag not in shown]
    for flag in new:
        say(f"staanet: warning: {printable(flag)}")
    for note in quarantine.notes:
        say(f"staanet: note: {printable(note)}")
    if new:
        result = {**result, "flags": [*shown, *new]}
    if json_output:
        print(json.dumps({**result, "quarantined": quarantine.rows}, allow_nan=False, default=str))
    for row in quarantine.rows[:20]:
        say(f"staanet: put aside: {printable(row['file'])}: {row['reason']}")
    if len(quarantine.rows) > 20:
        say(f"staanet: and {len(quarantine.rows) - 20} more")
    if quarantine.rows:
        raise typer.Exit(QUARANTINED)


# ---------------------------------------------------------------- inputs and tables


def inputs_of(
    inputs: Sequence[str],
    part: str,
    seed: int,
    out: Path,
    protocol: str | None = None,
    classes: str = "label",
) -> Corpus:
    """The corpus that INPUT... names: files and folders, or a part of ``KIND:PATH``."""
    from staanet import corpora
    from staanet.core.protocols import PARTS

    if len(inputs) == 1 and inputs[0].split(":")[0] in corpora.CORPORA:
        whole = corpora.load_corpus(inputs[0], classes=classes, out=out)
        if part == "all":
            return whole
        parts = {p.part: p for p in whole.split(seed, protocol)}
        if part not in parts:
            raise unknown_name("part", part, [*parts, "all"])
        return parts[part]
    if part not in (*PARTS, "all"):
        raise unknown_name("part", part, [*PARTS, "all"])
    if protocol is not None:
        raise InvalidInput("files have no split", remedy="Drop --protocol, or attack KIND:PATH")
    if classes != "label":
        raise InvalidInput("files have no classes", remedy="Drop --classes, or attack KIND:PATH")
    return corpora.unlabelled_corpus([Path(item) for item in inputs], leave_out=out)


def numbers(option: str, text: str) -> list[float]:
    """Comma-separated numbers of an option; InvalidInput names the option."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidInput(
            f"{option} '{printable(text)}' is not numbers with commas between them",
            remedy=f"Write, say, {option} 0.01,0.03",
        ) from None


def settings(words: Sequence[str]) -> dict[str, int | float | bool]:
    """``NAME=VALUE`` of an attack, the values numbers, ``true`` or ``false``."""
    found: dict[str, int | float | bool] = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name] = json.loads(value, parse_constant=float)
        except ValueError:
            raise InvalidInput(
                f"--set '{printable(word)}' is not NAME=NUMBER", remedy="Write, say, --set steps=50"
            ) from None
    return found


def twice(names: Sequence[str]) -> str:
    """The first name that stands there twice."""
    return next(name for name in names if names.count(name) > 1)


def percent(value: float | None) -> str:
    """A share as per cent; None is any."""
    return "any" if value is None else f"{100 * value:.3g} %"


def findings(summary: Mapping[str, Any]) -> str:
    """The whole matrix as tables for a terminal."""
    targets = list(summary["targets"])
    plain = [c for c in summary["cells"] if c["channel"] == "pcm16"]
    cells = {(c["attack"], c["source"], c["target"]): c for c in plain}
    rows = []
    for attack, source in dict.fromkeys((c["attack"], c["source"]) for c in plain):
        some = cells[attack, source, targets[0]]
        rows.append(
            [
                attack,
                source,
                *(_rate(cells[attack, source, t]) for t in targets),
                number(some["mean"]["density"], ".3f"),
                number(some["mean"]["snr_db"], ".1f"),
                number(some["seconds_median"], ".3f"),
            ]
        )
    head = ["attack", "source", *(f"fools {t}" for t in targets), "density", "SNR dB", "s/clip"]
    if any("targeted_success_rate" in cell for cell in plain):
        head[2:2] = [f"reaches, {t}" for t in targets]
        for row in rows:
            row[2:2] = [_rate(cells[row[0], row[1], t], "targeted_success_rate") for t in targets]
    flags = "".join(f"\nwarning: {flag}" for flag in summary["flags"])
    disjoint_by = _abstentions(plain)
    return table(head, rows) + disjoint_by + _after_channels(summary) + _sounds(summary) + flags


def _abstentions(cells: Sequence[Mapping[str, Any]]) -> str:
    """Of targets with a detector: how often they abstain, and are fooled and answer."""
    rows = [
        [
            c["attack"],
            c["source"],
            c["target"],
            *(
                percent(c["abstention"][key]["value"])
                for key in ("clean", "adversarial", "fooling_rate_answered")
            ),
        ]
        for c in cells
        if "abstention" in c
    ]
    head = ["attack", "source", "target", "abstains: clean", "attacked", "fooled and answered"]
    return f"\n\n{table(head, rows)}" if rows else ""


def _after_channels(summary: Mapping[str, Any]) -> str:
    targets = list(summary["targets"])
    cells = {(c["channel"], c["attack"], c["source"], c["target"]): c for c in summary["cells"]}
    rows = [
        [*key, *(_rate(cells[*key, t]) for t in targets)]
        for key in dict.fromkeys(key[:3] for key in cells if key[0] != "pcm16")
    ]
    head = ["after channel", "attack", "source", *(f"fools {t}" for t in targets)]
    return f"\n\n{table(head, rows)}" if rows else ""


def _sounds(summary: Mapping[str, Any]) -> str:
    rows = [
        [
            one["attack"],
            one["source"],
            name,
            number(score["value"], ".3f"),
            f"{score['count']} of {score['of']}",
            "; ".join(score["missing"]),
        ]
        for one in summary.get("sets", [])
        for name, score in one["perceptual"].items()
    ]
    head = ["attack", "source", "sounds like", "mean", "clips", "others"]
    return f"\n\n{table(head, rows)}" if rows else ""


def _rate(cell: Mapping[str, Any], metric: str = "fooling_rate") -> str:
    if metric not in cell:
        return "untargeted"
    value, count = cell[metric]["value"], cell[metric]["count"]
    knew = f", {cell['defence']}" if cell.get("defence") else ""  # static or adaptive
    if value is None:
        return f"n/a (0 of {cell['count']})"
    return f"{100 * value:.1f} % of {count}{knew}"


def number(value: float | None, form: str) -> str:
    """A value in a format; None is n/a."""
    return "n/a" if value is None else format(value, form)


def decibels(value: float | None) -> str:
    """An SNR; None means that nothing was changed."""
    return "untouched" if value is None else f"{value:.1f}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows under a head, in columns."""
    cells = [list(head), *([printable(str(value)) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(value.ljust(w) for value, w in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])
