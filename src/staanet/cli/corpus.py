"""The commands ``corpus`` (describes a corpus) and ``to-audformat`` (converts adversarial sets)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from staanet.cli.app import command
from staanet.cli.options import CorpusArgument, Output, SetsArgument
from staanet.cli.printing import QUARANTINED, finish, show, show_json
from staanet.cli.progress import Bars
from staanet.cli.session import load_corpus
from staanet.config import SplitRecipe

if TYPE_CHECKING:
    from staanet.core import Corpus


@command("corpus", "staanet corpus emodb:data/emodb --out manifest.csv")
def corpus(
    name: CorpusArgument,
    split: SplitRecipe,
    output: Output,
    out: Annotated[
        Path | None, typer.Option(help="Also write a manifest to this CSV file.")
    ] = None,
) -> None:
    """Describe a corpus: clips, classes, split and problems."""
    from staanet import corpora, storage
    from staanet.results import row_files

    data = load_corpus(name, split)
    with Bars.shown() as progress:
        description = corpora.describe(data, split.seed, progress=progress, protocol=split.protocol)
    if out is not None:
        columns, rows = _manifest(data, out.parent, split)
        storage.refuse_foreign(out, b"file,id,label,speaker,sex")
        storage.write_text(out, row_files.csv_text(columns, rows))
    if output.json:
        show_json(description)
    else:
        show(_with_red_warnings(corpora.description_text(description)))
    if description["problems"]:
        raise typer.Exit(QUARANTINED)


def _with_red_warnings(text: str) -> str:
    """Colours the lines of warnings where a terminal shows them."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return "\n".join(
        typer.style(line, fg="red") if line.startswith("warning ") else line
        for line in text.split("\n")
    )


def _manifest(
    corpus: Corpus, folder: Path, split: SplitRecipe
) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of a corpus's manifest in ``folder``, from which its files are named.

    It has times where the corpus has parts of files, and the split of the protocol or else its own.
    """
    top = folder.absolute()
    parts = {u.id: u.part for u in corpus.utterances if u.part}
    if split.protocol is not None:
        parts = {
            u.id: p.part for p in corpus.split(split.seed, split.protocol) for u in p.utterances
        }
    rows = [
        {
            "file": str(path.relative_to(top) if path.is_relative_to(top) else path),
            "id": u.id,
            "label": u.label or "",
            "speaker": u.speaker,
            "sex": u.sex or "",
            "content": u.content or "",
            "start": u.start_s,
            "end": "" if u.end_s is None else u.end_s,
            "split": parts.get(u.id, ""),
        }
        for u in corpus.utterances
        for path in [u.path.absolute()]
    ]
    times = ["start", "end"] if any(u.is_segment for u in corpus.utterances) else []
    content = ["content"] if any(u.content for u in corpus.utterances) else []
    last = ["split"] if parts else []
    return ["file", "id", "label", "speaker", "sex", *content, *times, *last], rows


@command("to-audformat", "staanet to-audformat runs/quick/adversarial/*")
def to_audformat(adversarial: SetsArgument, output: Output) -> None:
    """Convert adversarial sets to audformat databases.

    Writes db.yaml and a table beside the audio of each set.
    """
    from staanet.apps.interop.audformat import write_table

    databases = []
    with Bars.shown() as progress:
        for number, folder in enumerate(adversarial, start=1):
            databases.append(str(write_table(folder)))
            progress("to-audformat", number, len(adversarial), folder.name)
    finish(output, {"databases": databases}, databases)
