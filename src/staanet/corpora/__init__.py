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
from staanet.corpora.dimensions import CLASSIFICATION, check_task, refuse_dimensions
from staanet.corpora.emodb import read_emodb
from staanet.corpora.files import UNKNOWN
from staanet.corpora.folder import read_folder, unlabelled_corpus
from staanet.corpora.iemocap import read_iemocap
from staanet.corpora.labels import few_clips_warning, relabel
from staanet.corpora.manifest import MANIFEST_SUFFIXES, ManifestOptions
from staanet.corpora.meld import read_meld
from staanet.corpora.msp_podcast import read_msp_podcast
from staanet.corpora.ravdess import read_ravdess
from staanet.corpora.savee import read_savee
from staanet.corpora.synthetic import (
    plan_synthetic,
    read_synthetic,
    render_synthetic,
    spoken_numbers,
)
from staanet.corpora.tess import read_tess
from staanet.corpora.urdu import read_urdu
from staanet.errors import InvalidInput, printable, unknown_name

__all__ = [
    "CLASSES",
    "CORPORA",
    "NUMBERED",
    "UNKNOWN",
    "contents_entry",
    "small_test_warning",
    "choose_labels",
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

NUMBERED: dict[str, Callable[[Path, str], Corpus]] = {
    "audb": lambda path, task: read_audb(path, task=task),
    "iemocap": read_iemocap,
    "msp_podcast": read_msp_podcast,
    "synthetic": read_synthetic,
}
"""Corpora whose labels may also be numbers; their readers take the task."""


def load_corpus(
    spec: str,
    limits: AudioLimits | None = None,
    *,
    classes: str = "label",
    task: str = CLASSIFICATION,
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
        task: ``regression`` where labels are numbers such as arousal, one a column of a manifest.
        label_map: label -> class; a label without an entry stays, one that becomes a word for
            none (``none``, ``-``) is left out. Keys match by content: ``1`` is also ``01``.
        columns: of a manifest, which column holds the ``file``, ``label``, ``speaker``, ``sex``,
            ``start``, ``end``, ``split`` or ``content``; others are found by their names. In a regression
            any other word names a number.
        root: of a manifest, the folder that its file names start from; by default its own.
        out: where results are to go, which must not be inside the corpus.

    Returns:
        The corpus, its utterances sorted by id.

    Raises:
        InvalidInput: for an unknown kind, a missing path, an empty corpus, number codes as labels
            without a map, a map that names no label, ``classes`` or numbers that the corpus does not
            tell, or ``out`` inside its folder.

    >>> load_corpus("emo-db:data")
    Traceback (most recent call last):
    staanet.errors.InvalidInput: unknown corpus 'emo-db'. Did you mean 'emodb'?
    """
    kind, path = _parse(spec)
    if classes not in CLASSES:  # before anything is read or rendered
        raise unknown_name("classes", classes, CLASSES)
    _check_task(task, classes, label_map)
    folder = _expand(path)
    audio_root = _expand(str(root)) if root else None
    options = ManifestOptions(root=audio_root, columns=columns or {}, task=task)
    corpus = _read(kind, folder, label_map, options)
    corpus = replace(corpus, warnings=(*corpus.warnings, *few_clips_warning(corpus)))
    if task == "classification":
        corpus = with_classes(corpus, classes)
    if out is not None and kind not in ("synthetic", "audb"):
        for audio_folder in (folder, *([audio_root] if audio_root else [])):
            _require_outside(out, audio_folder)
    return corpus if limits is None else replace(corpus, limits=limits)


def _read(
    kind: str, folder: Path, label_map: Mapping[str, str] | None, options: ManifestOptions
) -> Corpus:
    """Read a corpus of a kind as it lies in its folder."""
    if kind == "folder":
        return read_folder(folder, label_map, options)
    if options.columns or options.root:
        raise InvalidInput(
            f"the corpus '{kind}' has no manifest, whose columns or root could be named",
            remedy="Drop --column and --root, or give the manifest as folder:FILE",
        )
    if options.task == "regression":
        if kind not in NUMBERED:
            refuse_dimensions(kind, sorted(NUMBERED))
        return NUMBERED[kind](folder, options.task)
    if kind == "audb":
        return read_audb(folder, label_map)
    return relabel(CORPORA[kind](folder), label_map)


def _check_task(task: str, classes: str, label_map: Mapping[str, str] | None) -> None:
    """Raise ``InvalidInput`` for a task that does not exist, or that the other settings contradict."""
    check_task(task)
    if task == "regression" and (classes != "label" or label_map):
        setting = f"classes by {classes}" if classes != "label" else "a label map"
        raise InvalidInput(
            f"the task is regression, and {setting} needs classes",
            remedy="Leave out one of the two",
        )


def choose_labels(corpus: Corpus, classes: str, task: str, folder: Path) -> Corpus:
    """Return a synthetic corpus below ``folder`` with the labels of a recipe.

    Raises ``InvalidInput`` as ``load_corpus`` does.
    """
    _check_task(task, classes, None)
    if task == "regression":
        return spoken_numbers(corpus, folder)
    return with_classes(corpus, classes)


def _parse(spec: str) -> tuple[str, str]:
    """Return kind and path of a corpus; ``InvalidInput`` names what is missing."""
    kind, colon, path = spec.partition(":")
    if kind not in CORPORA and (path or kind).lower().endswith(MANIFEST_SUFFIXES):
        raise InvalidInput(
            f"corpus '{printable(spec)}' is a manifest, and does not say so",
            remedy=f"Write folder:{printable(path or kind)}",
        )
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
