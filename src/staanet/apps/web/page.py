"""The gradio page: its components, and the function behind each button."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from fastapi import FastAPI

from staanet.apps.web import level, page_html
from staanet.apps.web.example_voices import EXAMPLES
from staanet.apps.web.fooling import FoolingService, Request
from staanet.defences import DEFENCES
from staanet.errors import StaaNetError

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
INTRODUCTION = """# How easily is a voice misheard?

Record or upload a clip, or take an example, and press *Fool it*. The attack changes a few samples by a
little; you see and hear what changed, and what the classifiers answer before and after.
"""
NOTES = """Everything stays on this machine and is deleted within minutes. Use your own voice, or that of
somebody who has agreed. The classifiers name acted emotions: they do not know what anybody feels.
"""
SCROLL = """() => {
  const scroll = () => {
    const problem = document.querySelector(".staanet-problem");
    (problem || document.querySelector("#outcome")).scrollIntoView({ block: problem ? "center" : "start" });
  };
  for (const delay of [50, 400]) setTimeout(scroll, delay);  // again once all has its height
}"""


def application(service: FoolingService, private: Path, limits: Limits) -> App:
    """Returns the page as an ASGI application, mounted at ``/``."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    page = build_page(service, limits).queue(max_size=32, default_concurrency_limit=1)
    font = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Arial", "sans-serif"]
    mounted: App = gr.mount_gradio_app(
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
        css=_asset("page.css"),
        js=_asset("page.js"),
    )
    return mounted


def _asset(name: str) -> str:
    return files("staanet.apps.web").joinpath(name).read_text(encoding="utf-8")


def build_page(service: FoolingService, limits: Limits) -> gr.Blocks:
    """Returns the components and what they do."""
    victims = list(service.library.victims)
    first = service.first_source()
    with gr.Blocks(title="staanet", analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=2, min_width=300):
                clip, clip_problem = _clip_components(service, limits)
                settings = _setting_components(service, victims, first)
                button = gr.Button("Fool it", variant="primary", elem_id="fool")
            with gr.Column(scale=3, min_width=300, elem_id="outcome"):
                problem = gr.HTML("", visible=False, elem_id="problem")
                result = gr.HTML("", min_height=60, elem_id="result")
                download = gr.DownloadButton(
                    "Download the adversarial clip (WAV)", visible=False, elem_id="download"
                )
        gr.Markdown(NOTES)

        def fool(path: str | None, *values: Any) -> list[Any]:
            return _fool(service, path, _request(*values))

        button.click(
            fool,
            [clip, *settings],
            [clip_problem, problem, result, download],
            api_name="fool",
            show_progress_on=[result],
        ).then(None, js=SCROLL)
        button.click(None, js=SCROLL)
    return page


def _clip_components(service: FoolingService, limits: Limits) -> tuple[gr.Audio, gr.HTML]:
    """The clip, the message below it, and the examples."""
    clip = gr.Audio(
        label=f"Clip, up to {limits.seconds:g} s",
        elem_id="clip",
        sources=["upload", "microphone"],
        type="filepath",
        buttons=[],
        editable=True,
    )
    problem = gr.HTML("", visible=False, elem_id="clip-problem")

    def take_example(title: str) -> list[Any]:
        try:
            return [str(service.write_example(title)), _message()]
        except StaaNetError as error:
            return [None, _message(error)]

    gr.Markdown("Or a voice that the program makes:")
    with gr.Row(elem_id="examples"):
        for number, title in enumerate(EXAMPLES):
            button = gr.Button(title, size="sm", min_width=60, elem_id=f"example-{number}")
            button.click(
                lambda title=title: take_example(title), None, [clip, problem], api_name=False
            )
    if service.library.examples:
        titles = list(service.library.examples)
        choice = gr.Dropdown(titles, value=None, label="Or a clip of the run", elem_id="example")
        choice.input(take_example, [choice], [clip, problem], api_name="example")

    def check(path: str | None) -> gr.HTML:
        try:
            service.load_clip(Path(path) if path else None, next(iter(service.library.victims)))
        except StaaNetError as error:
            return _message(error)
        return _message()

    clip.upload(check, [clip], [problem], api_name=False, show_progress="hidden")
    clip.clear(_message, None, [problem], api_name=False, show_progress="hidden")
    return clip, problem


def _setting_components(
    service: FoolingService, victims: Sequence[str], first: str
) -> list[gr.components.Component]:
    """What ``_request`` takes, in its order."""
    attacks = service.attacks(first)
    loudness = gr.Slider(
        level.LOWEST_DB,
        level.HIGHEST_DB,
        value=level.DEFAULT_DB,
        step=1,
        label="Level of the change, dB relative to the speech",
        elem_id="level",
    )
    gr.HTML(page_html.marks_html())
    source = gr.Dropdown(victims, value=first, label="Attack this classifier", elem_id="source")
    attack = gr.Dropdown(
        attack_choices(attacks), value=attacks[0], label="Attack", elem_id="attack"
    )
    with gr.Accordion("More", open=False, elem_id="more"):
        targets = gr.CheckboxGroup(
            victims,
            value=service.first_targets(first),
            label="Ask these classifiers",
            elem_id="targets",
        )
        density = gr.Slider(
            0.01,
            1.0,
            value=0.2,
            step=0.01,
            label="Largest share of samples changed (density)",
            elem_id="density",
        )
        min_snr = gr.Slider(
            0, 60, value=0, step=1, label="Least SNR in dB; 0 sets no limit", elem_id="snr"
        )
        defence = gr.Dropdown(
            [NO_DEFENCE, *sorted(DEFENCES)],
            value=NO_DEFENCE,
            label="Defence in front of the classifiers",
            elem_id="defence",
        )

    def offer_attacks(name: str) -> gr.Dropdown:
        names = service.attacks(name)
        return gr.Dropdown(attack_choices(names), value=names[0])

    source.change(offer_attacks, [source], [attack], api_name="attacks", queue=False)
    return [source, targets, attack, loudness, density, min_snr, defence]


def _request(
    source: str,
    targets: Sequence[str],
    attack: str,
    level_db: float,
    density: float,
    min_snr_db: float,
    defence: str,
) -> Request:
    return Request(
        source=source,
        targets=targets,
        attack=attack,
        level_db=level_db,
        density=density,
        min_snr_db=min_snr_db or None,
        defence=None if defence == NO_DEFENCE else defence,
    )


def _fool(service: FoolingService, path: str | None, request: Request) -> list[Any]:
    """One message at the place of a fault, or the result: clip's message, message, result, file."""
    hidden = gr.DownloadButton(visible=False)
    try:
        clip = service.load_clip(Path(path) if path else None, request.source)
    except StaaNetError as error:
        return [_message(error), _message(), "", hidden]
    try:
        outcome = service.fool(clip, request)
    except StaaNetError as error:
        return [_message(), _message(error), "", hidden]
    except Exception as error:  # a fault of the program: one message, and the trace for its author
        traceback.print_exc(file=sys.stderr)
        text = (
            f"The page failed ({type(error).__name__}); the terminal of staanet serve has the trace"
        )
        return [_message(), _message(text), "", hidden]
    file = str(outcome.files["adversarial"])
    download = gr.DownloadButton(value=file, visible=True)
    return [_message(), _message(), page_html.result_html(outcome), download]


def _message(problem: object = "") -> gr.HTML:
    """A message at its place, or none."""
    text = page_html.problem_html(problem) if problem else ""
    return gr.HTML(text, visible=bool(text))


def attack_choices(attacks: Sequence[str]) -> list[tuple[str, str]]:
    """Returns attacks by the titles that a visitor reads, each with its registry name.

    >>> attack_choices(["staa", "random"])
    [('STAA-Net, one pass', 'staa'), ('random, the control', 'random')]
    """
    return [(TITLES.get(name, name), name) for name in attacks]
