"""``python -m bench fuzz | kill | load | mutate``: each measures, and writes its section of results.md."""

from __future__ import annotations

import argparse
import math
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench import sections

HERE = Path(__file__).parent


def main(arguments: Sequence[str]) -> bool:
    """Run the named measurement; False where the arguments name none."""
    if not arguments or arguments[0] not in ("fuzz", "kill", "load", "mutate"):
        return False
    told = _parser().parse_args(arguments)
    name = told.what
    if name == "fuzz":
        from tests.support import fuzz

        section = fuzz.main(told.n, told.seed, told.kind or list(fuzz.KINDS), told.workers)
    elif name == "kill":
        from tests.support import kill

        name = f"kill {told.command}"
        section = kill.main(told.command, told.n, told.seed, told.minutes)
    elif name == "load":
        from bench import load

        section = load.main(told.rows, told.clips, told.hours)
    else:
        from bench import mutate

        name = f"mutate {told.module}"
        section = mutate.main(told.module, told.n, told.seed)
    record(name, f"{section}\n\nThe commit is `{commit()}`.")
    print(section)
    return True


def record(name: str, text: str) -> None:
    """Write a section of results.md, in the place of its older self."""
    sections.write(
        f"reliability-{name.replace(' ', '-')}", f"## Reliability: {name}\n\n{text.strip()}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench")
    commands = parser.add_subparsers(dest="what", required=True)
    fuzz = commands.add_parser("fuzz", help="mutants of every kind of file")
    fuzz.add_argument("--n", type=int, default=10_000)
    fuzz.add_argument("--kind", action="append")
    fuzz.add_argument("--workers", type=int, default=1)
    kill = commands.add_parser("kill", help="killed anywhere, resumed, compared")
    kill.add_argument("--command", required=True)
    kill.add_argument("--n", type=int, default=50)
    kill.add_argument("--minutes", type=float, default=math.inf, help="of kills, at most")
    load = commands.add_parser("load", help="a large manifest, many clips, a long recording")
    load.add_argument("--rows", type=int, default=1_000_000)
    load.add_argument("--clips", type=int, default=20_000)
    load.add_argument("--hours", type=float, default=2, help="of a recording")
    mutate = commands.add_parser(
        "mutate", help="faults planted in the code that its tests must find"
    )
    mutate.add_argument("--module", required=True, help="storage, audio, metrics or budget")
    mutate.add_argument("--n", type=int, default=100)
    for one in (fuzz, kill, mutate):
        one.add_argument("--seed", type=int, default=0)
    return parser


def commit() -> str:
    """The commit that was measured; ``-dirty`` where anything but the results differs from it."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["git", "-C", str(HERE.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    found = git("rev-parse", "--short=12", "HEAD").stdout.strip() or "unknown"
    changed = git(
        "status", "--porcelain", "--", ".", f":!{sections.RESULTS.relative_to(HERE.parent)}"
    )
    return f"{found}-dirty" if changed.stdout.strip() else found
