"""HTML of the web page's result: sentences, players, class probabilities and picture.

Each public function takes an ``Outcome`` or a part of it, and returns HTML text with values escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from staanet.apps.web.fooling import Answer, Outcome
from staanet.apps.web.http_filter import FILE
from staanet.apps.web.level import HIGHEST_DB, LOWEST_DB, MARKS
from staanet.errors import printable
from staanet.pipeline.control import CONTROL_DRAWS
from staanet.report.clip_pictures import waveform_picture
from staanet.results import formatting

SOUNDS = {"clean": "before", "adversarial": "after"}


def result_html(outcome: Outcome) -> str:
    """Returns everything that the page shows of a result."""
    parts = [sentence_html(outcome), listen_html(outcome), answers_html(outcome.answers)]
    return "".join([*parts, picture_html(outcome)])


def problem_html(problem: object) -> str:
    """Returns an error message, which the page shows beside the input at fault."""
    return f'<p class="staanet-problem" role="alert">{_text(problem)}</p>'


def marks_html() -> str:
    """Returns the labels below the level slider, each at its level."""
    words = "".join(
        f'<span style="left:{100 * (level - LOWEST_DB) / (HIGHEST_DB - LOWEST_DB):.0f}%">{text}</span>'
        for level, text in MARKS.items()
    )
    return f'<div class="staanet-marks">{words}</div>'


def sentence_html(outcome: Outcome) -> str:
    """Returns the result in sentences: victims that were fooled, effect of noise, cost."""
    answers, request = outcome.answers, outcome.request
    measured = outcome.pair.measurements()
    if not measured["l0"]:
        return '<p class="staanet-said" role="status">No sample changed.</p>'
    fooled = [answer for answer in answers if answer.fooled]
    others = [answer.victim for answer in answers if not answer.fooled]
    parts = []
    if fooled:
        names = formatting.join_words([answer.victim for answer in fooled])
        parts.append(f"Fooled: <b>{_text(names)}</b>.")
    if others:
        parts.append(f"Not fooled: {_text(formatting.join_words(others))}.")
    parts.append(_control_sentence(answers))
    density = formatting.percent(float(measured["density"]))
    cost = [
        f"{measured['l0']:,} of {len(outcome.pair.adversarial):,} samples changed ({density}), "
        f"{formatting.level_text(-measured['snr_db'])}, made in {formatting.seconds(outcome.pair.seconds)}."
    ]
    if request.defence:
        cost.append(f"The attack did not know of the defence, {_text(request.defence)}.")
    return f'<p class="staanet-said" role="status">{" ".join(parts)}</p><p>{" ".join(cost)}</p>'


def _control_sentence(answers: Sequence[Answer]) -> str:
    """Returns what random signs do at as many samples and at the same level: the control."""
    hits = {answer.victim: answer.control_hits for answer in answers}
    noise = "random signs at as many samples and at the same level"
    if not any(hits.values()):
        return f"{noise[0].upper()}{noise[1:]} fooled none of them in {CONTROL_DRAWS} draws."
    counts = [
        f"{_text(name)} in {count} of {CONTROL_DRAWS}" for name, count in hits.items() if count
    ]
    fact = f"{noise} fooled {formatting.join_words(counts)} draws"
    as_well = [a.victim for a in answers if a.fooled and a.control_hits > CONTROL_DRAWS // 2]
    if as_well:
        return f"<b>Noise fools {_text(formatting.join_words(as_well))} as well</b>: {fact}."
    return f"{fact[0].upper()}{fact[1:]}."


def answers_html(answers: Sequence[Answer]) -> str:
    """Returns a table per victim: the probability of each class before and after, with bars."""
    return f'<div class="staanet-answers">{"".join(map(_answer_html, answers))}</div>'


def _answer_html(answer: Answer) -> str:
    verdict = (
        f"<mark>{_text(answer.clean_label)} → {_text(answer.adversarial_label)}</mark>"
        if answer.fooled
        else f"{_text(answer.clean_label)}, unchanged"
    )
    rows = "".join(
        f'<tr><th scope="row">{_text(label)}</th><td aria-hidden="true">'
        f'<i style="width:{100 * p:.1f}%"></i><i class="after" style="width:{100 * q:.1f}%"></i></td>'
        f'<td class="figure">{100 * p:.1f} %</td><td class="figure">{100 * q:.1f} %</td></tr>'
        for label, p, q in zip(answer.labels, answer.before, answer.after, strict=True)
    )
    return (
        f"<table><caption>{_text(answer.victim)}: {verdict}</caption><thead><tr>"
        '<th scope="col">class</th><th scope="col" style="width:30%"><span hidden>bar</span></th>'
        '<th scope="col"><b></b>before</th><th scope="col"><b class="after"></b>after</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def listen_html(outcome: Outcome) -> str:
    """Returns three synchronised players, of which the visitor hears one; switching keeps the position."""
    titles = {**SOUNDS, "perturbation": f"the change alone, amplified by {outcome.gain_db} dB"}
    buttons = "".join(
        f'<button type="button" data-sound="{name}" aria-pressed="{str(name == "clean").lower()}">'
        f"{title}</button>"
        for name, title in titles.items()
    )
    sounds = "".join(
        f'<audio controls preload="auto" data-sound="{name}" aria-label="{title}" '
        f'src="{FILE}{quote(str(outcome.files[name]))}"{"" if name == "clean" else " hidden"}></audio>'
        for name, title in titles.items()
    )
    return (
        '<div class="staanet-listen" role="group" aria-label="Listen: switch while it plays">'
        f"<div>{buttons}</div>{sounds}</div>"
    )


def picture_html(outcome: Outcome) -> str:
    """Returns pictures of the waveform with its changed samples, and of the densest ten milliseconds."""
    pair = outcome.pair
    alt = (
        f"Waveform of the adversarial clip, its {len(pair.support):,} changed samples marked; below, "
        "the ten milliseconds in which most samples changed, one by one."
    )
    images = []
    for kind in ("wide", "narrow"):
        png = waveform_picture(
            pair.clean.pcm16, pair.adversarial, pair.clean.sample_rate, narrow=kind == "narrow"
        )
        data = base64.b64encode(png).decode("ascii")
        images.append(f'<img class="{kind}" alt="{alt}" src="data:image/png;base64,{data}">')
    return f'<div class="staanet-figure">{"".join(images)}</div>'


def _text(value: object) -> str:
    return escape(printable(str(value)))
