"""What the page iterations like: gradio components, and the few pieces of HTML that show a result."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from fastapi import FastAPI

from staanet.apps.web.fooling import Answer, Fooled, FoolingService, Request
from staanet.errors import StaaNetError, printable
from staanet.report.clip_pictures import waveform_picture
from staanet.results import formatting
from staanet.transforms import TRANSFORMS

if TYPE_CHECKING:
    from staanet.apps.web import Limits
    from staanet.apps.web.http_filter import App

NO_DEFENCE = "off"
TITLES = {
    "staa": "STAA-Net, one pass",
    "pgd": "PGD, 20 steps",
    "mi_fgsm": "MI-FGSM, 10 steps",
    "fgsm": "FGSM, 1 step",
    "random": "random, the control",
}
STYLE = """
.staanet-answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr));
  gap: 1rem 2rem; }
.staanet-answers table { width: 100%; border-collapse: collapse; font-size: .9rem; }
.staanet-answers caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
.staanet-answers :is(table, tr, thead, tbody) { border: 0 !important; }
.staanet-answers th, .staanet-answers td { text-align: left; font-weight: 400; padding: .12rem .4rem .12rem 0 !important; border: 0 !important; }
.staanet-answers td.figure { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.staanet-answers i { display: block; height: .42rem; min-width: 1px; background: #8a8a87; }
.staanet-answers i.after { background: #d55e00; margin-top: 1px; }
.staanet-answers thead b { display: inline-block; width: .55rem; height: .55rem; margin-right: .3rem; background: #8a8a87; }
.staanet-answers thead b.after { background: #d55e00; }
.staanet-answers mark { background: none; color: inherit; border-bottom: 3px solid #d55e00; }
.staanet-figure { overflow-x: auto; }
.staanet-figure img { width: 100%; min-width: 34rem; height: auto; background: #fff; border-radius: 4px; }
.staanet-said { font-size: 1.15rem; line-height: 1.4; }
"""
INTRODUCTION = """# How easily is a voice misheard?

Record or upload a clip, or take an example. The attack changes a few of its samples by a little; below you
see and hear what it did, and what the classifiers answer before and after.

Everything stays on this machine and is deleted within minutes. Use your own voice, or that of somebody who
has agreed. The classifiers name acted emotions: they do not know what anybody feels.
"""


def application(service: FoolingService, private: Path, limits: Limits) -> App:
    """The page as an ASGI application, mounted at ``/``."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    page = blocks(service, limits).queue(max_size=32, default_concurrency_limit=1)
    font = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Arial", "sans-serif"]
    made: App = gr.mount_gradio_app(
        app,
        page,
        path="/",
        allowed_paths=[str(private)],
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=False,
        max_file_size=limits.bytes,
        theme=gr.themes.Default(font=font, font_mono=["monospace"]),
        css=STYLE,
    )
    return made


def blocks(service: FoolingService, limits: Limits) -> gr.Blocks:
    """The components and what they do."""
    victims = list(service.library.victims)
    known = [name for name in victims if name in service.library.generators] or victims
    first = known[0]
    offered = service.attacks(first)
    with gr.Blocks(title="staanet", analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                clip = gr.Audio(
                    label=f"Clip (WAV or FLAC, up to {limits.seconds:g} s)",
                    elem_id="clip",
                    sources=["upload", "microphone"],
                    type="filepath",
                    buttons=[],
                    editable=True,
                )
                example = gr.Dropdown(
                    list(service.library.examples),
                    value=None,
                    label="Or an example",
                    visible=bool(service.library.examples),
                    elem_id="example",
                )
                button = gr.Button("Fool it", variant="primary", elem_id="fool")
                source = gr.Dropdown(
                    victims, value=first, label="Attack this classifier", elem_id="source"
                )
                targets = gr.CheckboxGroup(
                    victims, value=victims[:4], label="Ask these classifiers", elem_id="targets"
                )
                attack = gr.Radio(
                    named(offered), value=offered[0], label="Attack", elem_id="attack"
                )
                epsilon = gr.Slider(
                    0.001,
                    0.2,
                    value=service.library.epsilons.get(first, 0.03),
                    step=0.001,
                    label="Largest change of a sample, of full scale 1 (epsilon)",
                    elem_id="epsilon",
                )
                density = gr.Slider(
                    0.01,
                    1.0,
                    value=0.2,
                    step=0.01,
                    elem_id="density",
                    label="Largest share of samples changed (density)",
                )
                defence = gr.Dropdown(
                    [NO_DEFENCE, *sorted(TRANSFORMS)],
                    value=NO_DEFENCE,
                    elem_id="defence",
                    label="Defence in front of them",
                )
            with gr.Column(scale=3, min_width=320):
                said = gr.HTML("", elem_id="said")
                told = gr.HTML("", elem_id="answers")
                with gr.Row():
                    sounds = [
                        gr.Audio(
                            label=label,
                            type="filepath",
                            interactive=False,
                            buttons=[],
                            elem_id=f"sound-{key}",
                        )
                        for key, label in (
                            ("before", "before"),
                            ("after", "after"),
                            ("change", "the change alone, amplified"),
                        )
                    ]
                download = gr.DownloadButton(
                    "Download the adversarial clip (WAV)", interactive=False, elem_id="download"
                )
                figure = gr.HTML("", elem_id="figure")

        def fool(
            path: str | None,
            chosen: str,
            judges: list[str],
            how: str,
            much: float,
            many: float,
            behind: str,
        ) -> list[Any]:
            request = Request(
                source=chosen,
                targets=judges,
                attack=how,
                epsilon=much,
                density=many,
                defence=None if behind == NO_DEFENCE else behind,
            )
            made = _told(lambda: service.fool(Path(path) if path else None, request))
            return [
                sentence(made, behind=request.defence),
                answers(made.answers),
                str(made.files["clean"]),
                str(made.files["adversarial"]),
                gr.Audio(
                    str(made.files["perturbation"]),
                    label=f"the change alone, amplified by {made.gain_db} dB",
                ),
                portrait(made),
                gr.DownloadButton(value=str(made.files["adversarial"]), interactive=True),
            ]

        def choose(name: str) -> list[Any]:
            possible = service.attacks(name)
            return [
                gr.Radio(named(possible), value=possible[0]),
                gr.Slider(value=service.library.epsilons.get(name, 0.03)),
            ]

        button.click(
            fool,
            [clip, source, targets, attack, epsilon, density, defence],
            [said, told, *sounds, figure, download],
            api_name="fool",
            scroll_to_output=True,
        )
        source.change(choose, [source], [attack, epsilon], api_name="choose", queue=False)
        example.input(
            lambda name: str(_told(lambda: service.example(name))),
            [example],
            [clip],
            api_name="example",
        )
    return page


def named(attacks: Sequence[str]) -> list[tuple[str, str]]:
    """Attacks as a visitor reads them, each with its registry name.

    >>> named(["staa", "random"])
    [('STAA-Net, one pass', 'staa'), ('random, the control', 'random')]
    """
    return [(TITLES.get(name, name), name) for name in attacks]


def _told(make: Any) -> Any:
    """What ``make`` returns; an error a visitor can cause becomes a message on the page."""
    try:
        return make()
    except StaaNetError as problem:
        raise gr.Error(escape(str(problem)), duration=None, print_exception=False) from None


# ---------------------------------------------------------------- pieces of HTML


def _text(value: object) -> str:
    return escape(printable(str(value)))


def sentence(made: Fooled, behind: str | None = None) -> str:
    """The answer in one sentence, and that the attack did not know the defence where there was one."""
    changed = [one.victim for one in made.answers if one.fooled]
    held = [one.victim for one in made.answers if not one.fooled]
    parts = []
    if changed:
        parts.append(f"Fooled: <b>{_text(formatting.join_words(changed))}</b>.")
    if held:
        parts.append(f"Not fooled: {_text(formatting.join_words(held))}.")
    told = made.pair.measurements()
    if told["l0"]:
        parts.append(
            f"{told['l0']:,} of {len(made.pair.adversarial):,} samples changed "
            f"({formatting.percent(float(told['density']))}), SNR {told['snr_db']:.1f} dB, made in "
            f"{formatting.seconds(made.pair.seconds)}."
        )
    else:
        parts.append("No sample changed.")
    if behind:
        parts.append(f"The attack did not know of the defence, {_text(behind)}.")
    return f'<p class="staanet-said" role="status">{" ".join(parts)}</p>'


def answers(found: Sequence[Answer]) -> str:
    """A table per victim, its classes with bars."""
    return f'<div class="staanet-answers">{"".join(_answer(one) for one in found)}</div>'


def _answer(one: Answer) -> str:
    verdict = (
        f"<mark>{_text(one.was)} → {_text(one.became)}</mark>"
        if one.fooled
        else (f"{_text(one.was)}, unchanged")
    )
    rows = "".join(
        f'<tr><th scope="row">{_text(label)}</th><td aria-hidden="true">'
        f'<i style="width:{100 * p:.1f}%"></i><i class="after" style="width:{100 * q:.1f}%"></i></td>'
        f'<td class="figure">{100 * p:.1f} %</td><td class="figure">{100 * q:.1f} %</td></tr>'
        for label, p, q in zip(one.labels, one.before, one.after, strict=True)
    )
    return (
        f"<table><caption>{_text(one.victim)}: {verdict}</caption><thead><tr>"
        '<th scope="col">class</th><th scope="col" style="width:38%"></th>'
        '<th scope="col"><b></b>before</th><th scope="col"><b class="after"></b>after</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def portrait(made: Fooled) -> str:
    """The waveform with its changed samples, and the densest ten milliseconds."""
    pair = made.pair
    png = waveform_picture(pair.clean.pcm16, pair.adversarial, pair.clean.sample_rate)
    alt = (
        f"Waveform of the adversarial clip, its {len(pair.support):,} changed samples marked; below, the "
        "ten milliseconds in which most samples changed, one by one."
    )
    data = base64.b64encode(png).decode("ascii")
    return f'<div class="staanet-figure"><img alt="{alt}" src="data:image/png;base64,{data}"></div>'
