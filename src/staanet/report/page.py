"""Puts facts, tables and figures into one HTML page that needs nothing but itself.

Autoescape is always on and every text is made printable on its way out, so that a name is shown and
never obeyed. Only SVG that this package drew and its own style sheet are trusted.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from staanet import audio
from staanet.core import Samples
from staanet.errors import printable
from staanet.report import story, tables
from staanet.report.figures import Picture
from staanet.report.story import Headline, Shown
from staanet.results import formatting
from staanet.results.cells import Distances
from staanet.results.run_folder import RunFolder, StoredModel
from staanet.results.transfer_tables import effects_table, transfer_table

EXCERPT_S = 8.0
"""Longer clips are shown and played from their start up to here."""
AMPLIFIED_PEAK = 0.5
"""Peak of the amplified perturbation, on a full scale of 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipView:
    """A clip ready to be shown: its picture, its sounds, the victims' answers."""

    shown: Shown
    clean: Samples
    adversarial: Samples
    sample_rate: int
    whole_seconds: float
    distances: Distances
    png: bytes
    answers: Mapping[str, tuple[Sequence[float], Sequence[float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """All charts of the page."""

    forest: Picture
    heat: Picture
    victims: Picture | None
    generators: Picture | None
    sweeps: Sequence[Picture] = ()


def render(
    run: RunFolder,
    leads: Sequence[Headline],
    clips: Sequence[ClipView],
    drawn: Drawn,
    unverified: int,
) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("staanet.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalise,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": formatting.percent,
        "seconds": formatting.seconds,
        "interval": formatting.interval,
    }
    environment.globals |= {
        "rate": formatting.rate,
        "number": formatting.number,
        "quantity": formatting.quantity,
        "markup": Markup,
    }
    script = files(__package__).joinpath("templates/amplify.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    facts = {
        "run": run,
        "leads": [_lead(run, lead) for lead in leads],
        "flags": story.flags(run, leads, unverified) + story.weak_victims(run),
        "matrix": transfer_table(run.cells),
        "effects": effects_table(run.cells),
        "channels": tables.channels(run),
        "defences": tables.defences(run),
        "sounds": tables.sounds(run),
        "harder": [line for lead in leads if (line := story.harder(run, lead))],
        "groups": [
            tables.by_group(run, lead.cell, g) for lead in leads for g in ("label", "speaker")
        ],
        "clips": [_clip(run, clip, number) for number, clip in enumerate(clips, start=1)],
        "selfcheck": tables.selfcheck(run),
        "drawn": drawn,
        "victims": tables.victims(run),
        "how": _how(run),
        "unverified": unverified,
        "script": Markup(script),
        "script_hash": Markup(f"sha256-{digest}"),
    }
    return environment.get_template("page.html.j2").render(facts)


def _finalise(value: object) -> object:
    """Names may hold control and bidirectional characters; our own markup may not be touched."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def data_uri(kind: str, data: bytes) -> Markup:
    """
    >>> str(data_uri("image/png", b"abc"))
    'data:image/png;base64,YWJj'
    """
    return Markup(f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}")


# ---------------------------------------------------------------- the first screen


def _lead(run: RunFolder, lead: Headline) -> dict[str, Any]:
    cell = lead.cell
    transfer = [c for c in run.cells if c.key == cell.key and c.target != cell.target]
    return {
        "cell": cell,
        "control": lead.control,
        "as_many": lead.control is not None and story.matched(run, lead.control, cell),
        "rival": lead.rival,
        "rival_name": lead.rival.title.split(",")[0] if lead.rival else "",
        "right": formatting.right_to_change(cell.budget),
        "transfer": transfer,
    }


# ---------------------------------------------------------------- clips


def _clip(run: RunFolder, clip: ClipView, number: int) -> dict[str, Any]:
    shown, whole = clip.shown, clip.whole_seconds
    length = len(clip.clean) / clip.sample_rate
    fooled = [row.target for row in shown.rows if row.fooled]
    alt = (
        f"Original, adversarial clip and perturbation of {shown.id}, waveform above log-mel spectrogram; "
        f"{formatting.number(clip.distances.l0, 0)} samples changed, SNR "
        f"{formatting.number(clip.distances.snr_db, 1, 'dB')}. Below, ten milliseconds sample by sample."
    )
    return {
        "number": number,
        "shown": shown,
        "fooled": formatting.join_words(fooled),
        "seconds": f"{whole:.1f} s",
        "excerpt": f"first {length:.0f} s" if length < whole else "",
        "distances": clip.distances,
        "image": data_uri("image/png", clip.png),
        "alt": alt,
        "gain_db": amplify(clip.adversarial.astype(np.int32) - clip.clean)[0],
        "sounds": list(_sounds(clip)),
        "answers": [
            _answers(run, clip, row.target) for row in shown.rows if row.target in clip.answers
        ],
    }


def _sounds(clip: ClipView) -> list[tuple[str, str]]:
    delta = clip.adversarial.astype(np.int32) - clip.clean
    gain_db, amplified = amplify(delta)
    sounds = [
        ("original", clip.clean),
        ("adversarial", clip.adversarial),
        ("perturbation", _int16(delta)),
        (f"perturbation, amplified by {gain_db} dB", amplified),
    ]
    return [
        (label, data_uri("audio/flac", audio.encode(samples, clip.sample_rate, "FLAC")))
        for label, samples in sounds
    ]


def amplify(delta: np.ndarray[Any, np.dtype[np.int32]]) -> tuple[int, Samples]:
    """A perturbation ``[T]`` raised by whole dB to a peak of at most ``AMPLIFIED_PEAK``.

    >>> amplify(np.array([0, 983, -100]))
    (24, array([    0, 15580, -1585], dtype=int16))
    """
    peak = int(np.abs(delta).max(initial=0))
    if peak == 0:
        return 0, _int16(delta)
    gain_db = max(0, math.floor(20 * math.log10(AMPLIFIED_PEAK * audio.FULL_SCALE / peak)))
    return gain_db, _int16(delta * 10 ** (gain_db / 20))


def _int16(samples: np.ndarray[Any, Any]) -> Samples:
    limits = np.iinfo(np.int16)
    rounded: Samples = np.clip(np.rint(samples), limits.min, limits.max).astype(np.int16)
    return rounded


def _answers(run: RunFolder, clip: ClipView, target: str) -> dict[str, Any]:
    row = next(row for row in clip.shown.rows if row.target == target)
    before, after = clip.answers[target]
    return {
        "target": target,
        "row": row,
        "bars": [
            {"label": label, "before": 100 * p, "after": 100 * q}
            for label, p, q in zip(run.labels.get(target, ()), before, after, strict=False)
        ],
    }


# ---------------------------------------------------------------- how to repeat


def _how(run: RunFolder) -> dict[str, Any]:
    card, corpus = run.card, run.card.get("corpus") or {}
    made_by = [run.card, *(one.card for one in run.sets.values())]
    versions = next((c for c in made_by if c.get("staanet")), {})
    facts = {
        "recipe": card.get("recipe"),
        "corpus": corpus.get("name"),
        "clips": corpus.get("clips"),
        "speakers": _length(corpus.get("speakers")),
        "commit": card.get("commit"),
        "machine": card.get("machine") or run.machine,
        **{name: versions.get(name) for name in ("staanet", "python", "torch", "numpy")},
    }
    return {
        "command": str(card.get("command") or ""),
        "facts": {key: str(value) for key, value in facts.items() if value not in (None, "")},
        "notes": [str(note) for note in corpus.get("notes") or ()],
        "attacks": tables.attacks(list(run.sets.values())),
        "split": tables.split(run),
        "stages": tables.stages(card),
        "recipe": run.recipe.expandtabs(4).splitlines(),
        "generators": [_generator(model) for model in run.generators],
    }


def _generator(model: StoredModel) -> str:
    known = ("network", "source", "epsilon", "max_density")
    told = [f"{key.replace('_', ' ')} {model.card[key]}" for key in known if key in model.card]
    if isinstance(size := model.card.get("parameters"), int):
        told.append(formatting.quantity(size, "parameter"))
    return ", ".join(told) or model.name


def _length(value: object) -> object:
    return len(value) if isinstance(value, list | tuple) else value
