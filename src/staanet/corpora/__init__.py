"""Labelled speech on disk: one small file per corpus, all in ``CORPORA``."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from staanet.audio import AudioLimits
from staanet.core import Corpus
from staanet.corpora.audb import read_audb
from staanet.corpora.classes import CLASSES, with_classes
from staanet.corpora.crema_d import read_crema_d
from staanet.corpora.demos import read_demos
from staanet.corpora.description import contents_entry, describe, description_text
from staanet.corpora.emodb import read_emodb
from staanet.corpora.files import UNKNOWN
from staanet.corpora.folder import read_folder, unlabelled_corpus
from staanet.corpora.iemocap import read_iemocap
from staanet.corpora.meld import read_meld
from staanet.corpora.msp_podcast import read_msp_podcast
from staanet.corpora.ravdess import read_ravdess
from staanet.corpora.savee import read_savee
from staanet.corpora.synthetic import plan_synthetic, read_synthetic, render_synthetic
from staanet.corpora.tess import read_tess
from staanet.corpora.urdu import read_urdu
from staanet.errors import InvalidInput, printable, unknown_name

__all__ = [
    "CLASSES",
    "CORPORA",
    "UNKNOWN",
    "description_text",
    "with_classes",
    "describe",
    "load_corpus",
    "plan_synthetic",
    "render_synthetic",
    "contents_entry",
    "unlabelled_corpus",
]

CORPORA: dict[str, Callable[[Path], Corpus]] = {
    "audb": read_audb,
    "crema_d": read_crema_d,
    "demos": read_demos,
    "emodb": read_emodb,
    "folder": read_folder,
    "iemocap": read_iemocap,
    "meld": read_meld,
    "msp_podcast": read_msp_podcast,
    "ravdess": read_ravdess,
    "savee": read_savee,
    "synthetic": read_synthetic,
    "tess": read_tess,
    "urdu": read_urdu,
}


def load_corpus(
    spec: str, limits: AudioLimits | None = None, *, classes: str = "label", out: Path | None = None
) -> Corpus:
    """The corpus named ``KIND:PATH``, such as ``emodb:data/emodb``; only names are read, no audio.

    ``synthetic:FOLDER`` is rendered into the folder if it is not there yet. ``limits`` bound what
    is decoded later. ``classes`` is what its labels tell: its own ``label``, the ``speaker`` or the
    ``sex``. Raises ``InvalidInput`` for an unknown kind, a missing path, an empty corpus, one
    that does not tell its ``classes``, or one whose folder holds ``out``, where results are to go.

    >>> load_corpus("emo-db:data")
    Traceback (most recent call last):
    staanet.errors.InvalidInput: unknown corpus 'emo-db'. Did you mean 'emodb'?
    """
    kind, colon, path = spec.partition(":")
    if not colon:
        raise InvalidInput(
            f"corpus '{printable(spec)}' does not say its kind",
            remedy=f"Write KIND:PATH, such as folder:PATH; kinds: {', '.join(sorted(CORPORA))}",
        )
    if kind not in CORPORA:
        raise unknown_name("corpus", kind, CORPORA)
    if not path:
        raise InvalidInput(
            f"corpus '{kind}:' does not say where it is",
            remedy=f"Pass {kind}:FOLDER, to a recipe as --set corpus={kind}:FOLDER",
        )
    if classes not in CLASSES:  # before anything is read or rendered
        raise unknown_name("classes", classes, CLASSES)
    corpus = with_classes(CORPORA[kind](_expanded(path)), classes)
    if out is not None and kind not in ("synthetic", "audb"):
        _keep_out(out, _expanded(path))
    return corpus if limits is None else replace(corpus, limits=limits)


def _keep_out(out: Path, folder: Path) -> None:
    """What is written into a corpus would be speech of it the next time."""
    inner, outer = (Path(os.path.realpath(one)) for one in (out, folder))  # may be a link to itself
    if folder.is_dir() and inner.is_relative_to(outer):
        raise InvalidInput(
            f"lies inside the corpus {printable(str(folder))}, where nothing is ever written",
            where=out,
            remedy="Choose another folder with --out",
        )


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~nobody: no such account, so it is an ordinary name
        return Path(path)
