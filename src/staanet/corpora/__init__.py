"""Readers of speech corpora, one file each; ``CORPORA`` lists them by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from staanet.audio import AudioLimits
from staanet.core import Corpus
from staanet.corpora.audb import read_audb
from staanet.corpora.classes import CLASSES, with_classes
from staanet.corpora.crema_d import read_crema_d
from staanet.corpora.demos import read_demos
from staanet.corpora.description import (
    contents_entry,
    describe,
    description_text,
    small_test_warning,
)
from staanet.corpora.emodb import read_emodb
from staanet.corpora.files import UNKNOWN
from staanet.corpora.folder import read_folder, unlabelled_corpus
from staanet.corpora.iemocap import read_iemocap
from staanet.corpora.labels import few_clips_warning, relabel
from staanet.corpora.manifest import ManifestOptions
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
    "contents_entry",
    "small_test_warning",
    "describe",
    "description_text",
    "load_corpus",
    "plan_synthetic",
    "render_synthetic",
    "unlabelled_corpus",
    "with_classes",
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
    spec: str,
    limits: AudioLimits | None = None,
    *,
    classes: str = "label",
    label_map: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    root: Path | str | None = None,
    out: Path | None = None,
) -> Corpus:
    """Return the corpus named ``KIND:PATH``, such as ``emodb:data/emodb``; no audio is read.

    Args:
        spec: kind and path; ``synthetic:FOLDER`` is rendered into the folder if it is not there.
        limits: bounds of what is decoded later.
        classes: what the labels are: its own ``label``, the ``speaker`` or the ``sex`` of a clip.
        label_map: label -> class; a label without an entry stays, one that becomes a word for
            none (``none``, ``-``) is left out. Keys match by content: ``1`` is also ``01``.
        columns: of a manifest, which column holds the ``file``, ``label``, ``speaker``, ``sex``,
            ``start``, ``end``, ``split`` or ``content``; others are found by their names.
        root: of a manifest, the folder that its file names start from; by default its own.
        out: where results are to go, which must not be inside the corpus.

    Returns:
        The corpus, its utterances sorted by id.

    Raises:
        InvalidInput: for an unknown kind, a missing path, an empty corpus, number codes as labels
            without a map, a map that names no label, ``classes`` that the corpus does not tell, or
            ``out`` inside its folder.

    >>> load_corpus("emo-db:data")
    Traceback (most recent call last):
    staanet.errors.InvalidInput: unknown corpus 'emo-db'. Did you mean 'emodb'?
    """
    kind, path = _parse(spec)
    if classes not in CLASSES:  # before anything is read or rendered
        raise unknown_name("classes", classes, CLASSES)
    folder = _expand(path)
    if kind == "folder":
        options = ManifestOptions(root=_expand(str(root)) if root else None, columns=columns or {})
        corpus = read_folder(folder, label_map, options)
    elif columns or root:
        raise InvalidInput(
            f"the corpus '{kind}' has no manifest, whose columns or root could be named",
            remedy="Drop --column and --root, or give the manifest as folder:FILE",
        )
    elif kind == "audb":
        corpus = read_audb(folder, label_map)
    else:
        corpus = relabel(CORPORA[kind](folder), label_map)
    corpus = replace(corpus, warnings=(*corpus.warnings, *few_clips_warning(corpus)))
    corpus = with_classes(corpus, classes)
    if out is not None and kind not in ("synthetic", "audb"):
        for audio_folder in (folder, *([_expand(str(root))] if root else [])):
            _require_outside(out, audio_folder)
    return corpus if limits is None else replace(corpus, limits=limits)


def _parse(spec: str) -> tuple[str, str]:
    """Return kind and path of a corpus; ``InvalidInput`` names what is missing."""
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
    return kind, path


def _require_outside(out: Path, folder: Path) -> None:
    """Refuse results inside a corpus: they would be speech of it the next time."""
    inner, outer = (Path(os.path.realpath(path)) for path in (out, folder))
    if folder.is_dir() and inner.is_relative_to(outer):
        raise InvalidInput(
            f"lies inside the corpus {printable(str(folder))}, where nothing is ever written",
            where=out,
            remedy="Choose another folder with --out",
        )


def _expand(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~nobody: no such account, so it is an ordinary name
        return Path(path)
