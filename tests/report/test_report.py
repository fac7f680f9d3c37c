"""The report: complete, self-contained, harmless, deterministic, and true to the files or not built."""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from tests.support import headless
from tests.support.accessibility import serious_findings
from tests.support.audit_facts import facts_of_run
from tests.support.forks import leave_undrawn
from tests.support.report_runs import (
    ATTACKS,
    HOSTILE,
    RATE,
    attacked,
    cell,
    fake_clips,
    make_run,
    voice,
)

from staanet import report, storage
from staanet.core import Clip, metrics
from staanet.errors import InvalidInput
from staanet.report import chart_style, clip_pictures, clip_view, tables, training_charts
from staanet.report.audit_pages import audit_page
from staanet.report.audit_verdict import audit_verdict
from staanet.report.audit_view import audit_view
from staanet.report.example_clips import choose_clips
from staanet.report.flags import run_flags, weak_victims
from staanet.report.headlines import hardest_hit, headlines
from staanet.report.verify import measure, verify
from staanet.results.adversarial_set import AdversarialClip
from staanet.results.cells import DISTANCES
from staanet.results.run_folder import RunFolder
from staanet.results.stored import StoredModel
from staanet.results.table import Table, TableCell
from staanet.results.transfer_matrix import TransferMatrix
from staanet.results.transfer_tables import effects_table, transfer_table

DRAWN = True
"""Of these tests the pictures are a part."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run with its report."""
    run = make_run(tmp_path_factory.mktemp("runs") / "emodb", fake_clips())
    assert report.build(run) == run / "report" / "index.html"
    return run


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test that reads words or files, not pictures."""
    leave_undrawn(monkeypatch.setattr)


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    """The same run, free to be damaged, its report not yet built."""
    run = tmp_path / "emodb"
    shutil.copytree(built, run, ignore=shutil.ignore_patterns("report"))
    return run


# ---------------------------------------------------------------- the page, parsed


class Page(HTMLParser):
    """Tags with their attributes, and the text that a reader sees."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_page_asks_nothing_of_the_outside(built: Path) -> None:
    page = Page(built / "report" / "index.html")
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in (
                "src",
                "href",
                "xlink:href",
                "data",
                "poster",
                "srcset",
                "action",
                "background",
            ):
                assert value.startswith(("data:", "#")), (tag, name, value[:80])
    assert not {tag for tag, _ in page.tags} & {"iframe", "object", "embed", "form", "base"}
    assert not re.search(r"@import|url\((?!#)", page.source)
    assert "http:" not in page.source and "https:" not in page.source
    assert not re.search(r"fetch\(|XMLHttp|WebSocket|import\(|eval|innerHTML", page.source)


def test_policy_stands_before_any_content(built: Path) -> None:
    page = Page(built / "report" / "index.html")
    policies = [
        m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    assert policies[0].startswith(
        "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
    )
    assert page.source.index("Content-Security-Policy") < page.source.index("<style")
    (script,) = re.findall(r"<script>(.*?)</script>", page.source, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    assert f"script-src 'sha256-{digest}';" in policies[0]  # this one script, and no other


def test_all_sections_and_figures_are_there_and_named(built: Path) -> None:
    page = Page(built / "report" / "index.html")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    sections = ["result", "matrix", "clips", "groups", "training", "limits", "repeat"]
    assert [i for i in ids if i in sections] == sections
    assert len(ids) == len(set(ids)), "an id stands for one place"
    targets = [a["href"][1:] for a in page.all("a")]
    assert targets and set(targets) <= set(ids)
    described = {
        attributes[key]
        for _, attributes in page.tags
        for key in attributes
        if key == "aria-labelledby"
    }
    assert described <= set(ids)
    assert all(image["alt"] for image in page.all("img")) and page.all("img")
    drawings = [a for tag, a in page.tags if tag == "div" and a.get("role") == "img"]
    assert len(drawings) == len(page.all("svg")) == 10 and all(d["aria-label"] for d in drawings)
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(headings, headings[1:], strict=False))
    assert page.all("html")[0]["lang"] == "en" and page.all("main")


def test_headline_tells_rate_interval_count_control_and_rival(built: Path) -> None:
    run = RunFolder.read(built)
    text = Page(built / "report" / "index.html").text
    lead = headlines(run)[0]
    assert lead.control and lead.rival
    assert (lead.cell.attack, lead.control.attack, lead.rival.attack) == (
        "staa",
        "random",
        "pgd_sparse",
    )
    for found in (lead.cell, lead.control, lead.rival):
        estimate = found.fooling_rate
        assert estimate.value is not None and estimate.low is not None and estimate.high is not None
        assert f"{100 * estimate.value:.1f} %" in text
        assert f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f} %" in text
    assert "of 10 clips" in text
    assert "at most 0.03 of full scale (983 of 32,768 steps) on at most 20 % of the samples" in text
    for fact in (
        "staanet run emodb --set corpus=emodb:PATH",
        "0123456789ab",
        "digital silence",
        "402.01227",
    ):
        assert fact in text


def test_sounds_are_the_files_bit_by_bit(built: Path) -> None:
    run, page_ = RunFolder.read(built), Page(built / "report" / "index.html")
    clips = choose_clips(run, headlines(run)[0], 4)
    sounds = page_.all("audio")
    assert len(sounds) == 4 * len(clips) and all(
        "controls" in s and s["aria-label"] for s in sounds
    )
    folder = built / "adversarial" / "staa__emo18"
    for clip, original, adversarial in zip(clips, sounds[::4], sounds[1::4], strict=True):
        for part, sound in (("clean", original), ("adversarial", adversarial)):
            data = base64.b64decode(sound["src"].partition(",")[2])
            heard, rate = soundfile.read(io.BytesIO(data), dtype="int16")
            stored, _ = soundfile.read(folder / part / f"{clip.id}.wav", dtype="int16")
            assert rate == RATE and np.array_equal(heard, stored)
    labels = [s["aria-label"] for s in sounds[3::4]]
    assert all(re.match(r"perturbation, amplified by \d+ dB", label) for label in labels)


def test_files_beside_the_page(built: Path) -> None:
    out = built / "report"
    names = {path.name for path in (out / "figures").iterdir()}
    for chart in ("fooling-rates", "transfer-matrix", "training-victims", "training-generators"):
        assert {f"{chart}.png", f"{chart}.svg", f"{chart}.pdf"} <= names
        pdf = (out / "figures" / f"{chart}.pdf").read_bytes()
        assert pdf.startswith(b"%PDF") and b"CreationDate" not in pdf and b"Matplotlib" not in pdf
    assert sum(name.startswith("clip-") for name in names) == 5
    matrix = (out / "matrix.md").read_text(encoding="utf-8")
    assert "white box" in matrix and "control" in matrix and matrix.count("| STAA-Net |") == 3
    assert (out / "index.html").stat().st_size < 4 * 2**20


# ---------------------------------------------------------------- the same bytes, whatever is missing


def test_same_input_gives_same_bytes(built: Path, copied: Path) -> None:
    report.build(copied)
    first, second = built / "report", copied / "report"
    names = sorted(str(p.relative_to(first)) for p in first.rglob("*") if p.is_file())
    assert names == sorted(str(p.relative_to(second)) for p in second.rglob("*") if p.is_file())
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


@pytest.mark.usefixtures("without_pictures")
def test_clips_of_an_earlier_report_go(copied: Path) -> None:
    report.build(copied, clips=0)
    storage.write_bytes(copied / "report" / "figures" / "clip-gone.png", b"old")
    report.build(copied, clips=0)
    assert not (copied / "report" / "figures" / "clip-gone.png").exists()


@pytest.mark.usefixtures("without_pictures")
def test_results_and_sets_are_enough(copied: Path) -> None:
    for name in ("victims", "generators", "card.json", "recipe.toml"):
        path = copied / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = Page(report.build(copied, clips=0)).text
    assert "no training curves" in text and "STAA-Net changed the answer" in text


def test_results_alone_are_enough_and_marked(copied: Path) -> None:
    shutil.rmtree(copied / "adversarial")
    page = Page(report.build(copied))
    assert "40 adversarial clips of the results have no audio in this folder" in page.text
    assert not page.all("audio") and not page.all("img")


def test_no_results_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no results in it.*staanet evaluate"):
        report.build(tmp_path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.update(schema=2), "schema 2"),
        (lambda s: s["cells"].clear(), "no cells"),
        (lambda s: s["cells"][0].pop("title"), "lacks 'title'"),
        (lambda s: s["targets"].pop("zhao19"), "lacks 'zhao19'"),
        (lambda s: s["cells"][0].update(mean=3), "not as staanet writes it"),
    ],
)
def test_a_damaged_summary_is_named(
    copied: Path, edit: Callable[[dict[str, Any]], None], message: str
) -> None:
    edit_summary(edit)(copied)
    with pytest.raises(InvalidInput, match=message) as caught:
        report.build(copied)
    assert caught.value.where and caught.value.where.endswith("summary.json")


def test_a_number_where_there_is_none_reads_na(tmp_path: Path) -> None:
    tame = [replace(made, white_box=0.0, transfer=0.0) for made in ATTACKS]
    clips = [replace(clip, speaker="alone") for clip in fake_clips(3)]
    run = make_run(tmp_path / "run", clips, attacks=tame, parts=False)
    page = Page(report.build(run, clips=0))
    assert "n/a (0 of 3)" in page.text  # distances of fooled clips, of which there are none
    assert "no interval: 1 speaker" in page.text and "by one speaker" in page.text
    assert "fools nobody" in page.text
    assert not re.search(r"\bnan\b|\binf\b|None|∞", page.text)


# ---------------------------------------------------------------- figures are those of the files


def damage_wav(run: Path) -> None:
    path = run / "adversarial" / "staa__emo18" / "adversarial" / "clip03.wav"
    data = bytearray(path.read_bytes())
    data[44:46] = b"\x07\x00"
    path.write_bytes(bytes(data))


def edit_table(column: str, value: Callable[[str], str]) -> Callable[[Path], None]:
    def edit(run: Path) -> None:
        path = run / "adversarial" / "staa__emo18" / "metadata.csv"
        lines = path.read_text(encoding="utf-8").splitlines()
        at, cells = lines[0].split(",").index(column), lines[1].split(",")
        cells[at] = value(cells[at])
        path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n", encoding="utf-8")

    return edit


def edit_results(column: str, change: float) -> Callable[[Path], None]:
    def edit(run: Path) -> None:
        import pandas

        path = run / "results" / "results.parquet"
        frame = pandas.read_parquet(path)
        frame.loc[frame.index[0], column] += change
        frame.to_parquet(path, index=False)

    return edit


def edit_summary(edit: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(run: Path) -> None:
        summary = storage.read_json(run / "results" / "summary.json")
        edit(summary)
        storage.write_json(run / "results" / "summary.json", summary)

    return apply


def better_rate(summary: dict[str, Any]) -> None:
    summary["cells"][0]["fooling_rate"]["value"] = 0.999


def tighter_budget(run: Path) -> None:
    folder = run / "adversarial" / "staa__emo18"
    card = storage.read_card(folder, "adversarial")
    storage.write_json(
        folder / "card.json", {**card, "budget": {**card["budget"], "epsilon": 0.02}}
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_wav, r"clip03\.wav: .* is .* in the file and .* in metadata\.csv"),
        (
            edit_table("l0", lambda v: str(int(v) + 1)),
            r"clip00\.wav: l0 is 1727 in the file and 1728",
        ),
        (edit_table("linf", lambda v: str(float(v) + 1 / 32768)), r"clip00\.wav: linf is"),
        (edit_table("snr_db", lambda v: str(float(v) + 0.02)), r"clip00\.wav: snr_db is"),
        (
            edit_results("snr_db", 0.02),
            r"mean snr_db of .* by its rows|clip00\.wav: snr_db .*parquet",
        ),
        (edit_summary(better_rate), r"fooling_rate of STAA-Net from emo18 on emo18 is 0\.999, but"),
        (tighter_budget, r"beyond its budget: a sample moved by \d+ steps"),
    ],
    ids=["wav", "l0", "linf", "snr", "parquet", "summary", "budget"],
)
def test_a_figure_that_is_not_the_files_is_refused(
    copied: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(copied)
    with pytest.raises(InvalidInput, match=message):
        report.build(copied)
    assert not (copied / "report").exists(), "nothing is written"


def test_a_hundredth_of_a_decibel_is_rounding(copied: Path) -> None:
    edit_table("snr_db", lambda v: f"{float(v):.2f}")(copied)
    assert verify(RunFolder.read(copied), lambda *_: None) == 0


def test_measure_agrees_with_the_metrics() -> None:
    clip = fake_clips(1)[0]
    pair = AdversarialClip(clip, attacked(clip, ATTACKS[0], np.random.default_rng(1), 0.03), 0.0, 0)
    told, true = pair.measurements(), measure(clip.pcm16, pair.adversarial)
    for name in DISTANCES:
        assert getattr(true, name) == pytest.approx(
            told[name], abs=1e-4 if name.endswith("db") else 1e-7
        )
    assert measure(clip.pcm16, clip.pcm16).snr_db is None


def test_a_table_may_not_lead_out_of_its_folder(copied: Path) -> None:
    edit_table("file_name", lambda _: "../../../secret.wav")(copied)
    with pytest.raises(InvalidInput, match="outside the folder"):
        report.build(copied)


# ---------------------------------------------------------------- names are shown, never obeyed


def test_hostile_names_are_text(tmp_path: Path) -> None:
    labels = (HOSTILE, "=cmd()", "$\\frac{", "`|`")
    clips = [Clip(f"c{i}", voice(i), RATE, labels[i % 4], f"{HOSTILE} {i // 4}") for i in range(8)]
    made = replace(ATTACKS[0], title=HOSTILE, white_box=1.0)
    run = make_run(
        tmp_path / "run",
        clips,
        targets=("emo18",),
        attacks=[made, ATTACKS[3]],
        labels=labels,
        flags=[HOSTILE],
    )
    card = storage.read_card(run, "run")
    card |= {"command": HOSTILE, "recipe": HOSTILE, "commit": HOSTILE, "machine": HOSTILE}
    card["corpus"] |= {"notes": [HOSTILE], "name": HOSTILE}
    card["seconds"] = {HOSTILE: 1.0}
    storage.write_json(run / "card.json", card)
    storage.write_text(run / "recipe.toml", f"# {HOSTILE}\n")
    storage.write_card(
        run / "generators" / "emo18", {"kind": "generator", "network": HOSTILE, "source": HOSTILE}
    )
    page = Page(report.build(run, clips=1))
    assert not [
        attributes for tag, attributes in page.tags if tag == "img" and "onerror" in attributes
    ]
    assert page.all("script") == [{}] and page.source.count("<script") == 1  # our own
    assert page.text.count('<img src=x onerror="alert(1)"></script>{{7*7}}') > 12
    assert "49" not in re.findall(r"script>(\d+)", page.text)
    assert "\u202e" not in page.source and "\u200f" not in page.source and "\\u202e" in page.text
    matrix = (run / "report" / "matrix.md").read_text(encoding="utf-8")
    assert "\\<img" in matrix and "<img" not in matrix.replace("\\<img", "")


def test_every_table_is_also_markdown_and_latex(built: Path) -> None:
    out = built / "report"
    markdown, latex = (
        (out / f"tables.{kind}").read_text(encoding="utf-8") for kind in ("md", "tex")
    )
    found = RunFolder.read(built)
    every = tables.result_tables(found, [lead.cell for lead in headlines(found)])
    assert markdown.count("|---|") and len(every) >= 5
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == len(every)
    for table in every:
        (body,) = re.findall(
            rf"label{{tab:{re.escape(table.key)}}}.*?midrule\n(.*?)\\bottomrule", latex, re.S
        )
        lines = body.strip().split("\n")
        assert len(lines) == len(table.rows)
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(table.columns) - 1}


def test_who_is_hit_harder_is_who_the_rows_say(built: Path) -> None:
    found = RunFolder.read(built)
    lead = headlines(found)[0]
    told = hardest_hit(found, lead)
    rows = [
        r
        for r in found.rows
        if (r.attack, r.source) == lead.cell.key and r.target == lead.cell.target
    ]
    rates = {
        label: np.mean([r.fooled for r in rows if r.label == label])
        for label in {r.label for r in rows}
    }
    most, least = re.findall(r"the class (\S+) \(", told)
    assert rates[most] == max(rates.values()) and rates[least] == min(rates.values())
    assert told in Page(built / "report" / "index.html").text


@pytest.fixture(scope="module")
def pages(built: Path) -> dict[str, str]:
    """The addresses of a report and of an audit page."""
    run = RunFolder.read(built)
    facts = facts_of_run(run)
    facts |= {"verdict": audit_verdict(facts), "commands": ["staanet audit " + "--defence x " * 90]}
    audit = built / "audit.html"
    view = audit_view(run, facts, lambda *_: None, number=2)
    audit.write_text(audit_page(facts, view), encoding="utf-8")
    return {"report": (built / "report" / "index.html").as_uri(), "audit": audit.as_uri()}


@pytest.fixture(scope="module")
def tab() -> Iterator[headless.Page]:
    with headless.browser() as browser:
        yield browser.page()


CUT = """[...document.querySelectorAll('body *')].filter(e =>
    e.clientWidth > 0 && e.scrollWidth > e.clientWidth + 1 && !e.closest('.hidden, .table thead') && !(innerWidth > 640 && e.matches('.table .scroll'))
    && getComputedStyle(e).overflowX !== 'visible').map(e => e.outerHTML.slice(0, 200))"""
"""Boxes whose content is wider than they are; on a screen a wide table may scroll in its own region."""


def in_each_scheme(tab: headless.Page, address: str, width: int) -> Iterator[str]:
    """Opens a page at a width, light and then dark, and yields the scheme."""
    tab.size(width, 844)
    for scheme in ("light", "dark"):
        tab.scheme(scheme)
        tab.open(address)
        yield scheme


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", ["report", "audit"])
def test_nothing_is_cut_or_scrolls_sideways(
    tab: headless.Page, pages: dict[str, str], name: str, width: int
) -> None:
    for scheme in in_each_scheme(tab, pages[name], width):
        assert tab.run("document.documentElement.scrollWidth") <= width, scheme
        assert tab.run(CUT) == [], scheme
    assert tab.errors == []


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", ["report", "audit"])
def test_axe_finds_nothing_serious(
    tab: headless.Page, pages: dict[str, str], name: str, width: int
) -> None:
    for scheme in in_each_scheme(tab, pages[name], width):
        assert serious_findings(tab) == [], scheme


def test_an_audit_shows_the_figures_and_clips_of_its_worst_attack(
    built: Path, pages: dict[str, str]
) -> None:
    page = Page(built / "audit.html")
    ids = [attributes.get("id", "") for _, attributes in page.tags]
    assert {"verdict", "figures", "clips", "tables", "repeat"} <= {*ids}
    charts = [a["aria-label"] for a in page.all("div") if a.get("role") == "img"]
    begins = (
        "Fooling rates with 95",
        "Fooling rate against SNR",
        "Fooling rate on emo18 against sec",
    )
    assert len(charts) == 2 * 3 and all(c.startswith(begins) for c in charts)
    assert "noise" in charts[2] and "white box" in charts[2]
    run = RunFolder.read(built)
    worst = facts_of_run(run)["worst"]
    stored = run.sets[worst["attack"], worst["source"]]
    sounds = [a["src"] for a in page.all("audio")]
    assert len(sounds) == 4 * 3 and all(s.startswith("data:audio/flac;base64,") for s in sounds)
    samples, _ = soundfile.read(
        io.BytesIO(base64.b64decode(sounds[1].partition(",")[2])), dtype="int16"
    )
    assert any(np.array_equal(samples, stored.pair(i).adversarial) for i in stored.rows)
    assert "script-src 'sha256-" in page.source and worst["title"] in page.text


@pytest.mark.parametrize("name", ["report", "audit"])
def test_sound_plays_and_the_slider_makes_it_louder(
    tab: headless.Page, pages: dict[str, str], name: str
) -> None:
    tab.size(1440, 800)
    tab.open(pages[name])
    tab.run("document.querySelector('audio').play()")
    tab.wait("document.querySelector('audio').currentTime > 0")
    top = tab.run("Number(document.querySelector('.amplify input').max)")
    tab.run("document.querySelector('.amplify input').focus()")
    for _ in range(3):
        for kind in ("keyDown", "keyUp"):
            tab.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key="ArrowLeft",
                code="ArrowLeft",
                windowsVirtualKeyCode=37,
            )
    assert tab.run("Number(document.querySelector('.amplify output').textContent)") == top - 3
    volume = tab.run("document.querySelector('[data-gain] audio').volume")
    assert volume == pytest.approx(10 ** (-3 / 20))
    assert tab.errors == []
    assert all(url.startswith(("file:", "data:")) for url in tab.requests)


def test_markdown_keeps_its_columns() -> None:
    table = Table(
        key="t", caption="A *b*", columns=["a|b", "c"], rows=[[TableCell("x|y\n"), TableCell("z")]]
    )
    lines = table.to_markdown().splitlines()
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines[2:5]] == [3, 3, 3]


# ---------------------------------------------------------------- what stands beside the headline


@pytest.mark.usefixtures("without_pictures")
def test_a_control_that_equals_the_attack_stands_beside_it(tmp_path: Path) -> None:
    weak = [replace(ATTACKS[0], white_box=0.0), replace(ATTACKS[3], white_box=1.0)]
    page = Page(
        report.build(make_run(tmp_path / "run", fake_clips(), attacks=weak, parts=False), clips=0)
    )
    before_matrix = page.text[: page.text.index("Each attack was crafted")]
    assert "no more often than the random control (0.0 % against 100.0 %)" in before_matrix


@pytest.mark.usefixtures("without_pictures")
def test_a_universal_vector_is_a_control_and_never_the_headline_s(tmp_path: Path) -> None:
    uap = replace(ATTACKS[3], attack="uap", title="one universal vector", white_box=0.3)
    made = [uap, ATTACKS[0], ATTACKS[3]]
    run = make_run(tmp_path / "run", fake_clips(), attacks=made, parts=False)
    (lead,) = headlines(RunFolder.read(run))
    assert lead.cell.attack == "staa" and lead.control and lead.control.attack == "random"
    page = Page(report.build(run, clips=0))
    assert "one universal vector control" in page.text


def test_an_empty_mask_stands_beside_it_and_is_no_success(tmp_path: Path) -> None:
    empty = [replace(ATTACKS[0], density=0.0, white_box=0.0, transfer=0.0), ATTACKS[3]]
    page = Page(
        report.build(make_run(tmp_path / "run", fake_clips(), attacks=empty, parts=False), clips=0)
    )
    assert "changed no sample of any clip, so the SNR is undefined" in page.text
    assert "SNR n/a" in page.text


def test_a_missing_control_and_a_weak_victim_are_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", fake_clips(), attacks=ATTACKS[:1], parts=False)
    found = RunFolder.read(run)
    assert any("no random control" in flag for flag in run_flags(found, headlines(found), 0))
    poor = replace(found.cells[0], uar_before=metrics.Estimate(0.3, 0.2, 0.4, 8, 2))
    (warning,) = weak_victims(replace(found, cells=[poor]))
    assert "hardly better than chance" in warning


def test_a_rate_whose_interval_reaches_into_the_control_s_is_doubted_until_it_is_clear_of_it(
    built: Path,
) -> None:
    run = RunFolder.read(built)
    (lead,) = headlines(run)[:1]
    assert lead.control is not None

    def told(low: float, high: float) -> list[str]:
        control = replace(lead.control, fooling_rate=metrics.Estimate(0.2, 0.1, 0.4, 8, 2))
        cell = replace(lead.cell, fooling_rate=metrics.Estimate(0.7, low, high, 8, 2))
        found = run_flags(run, [replace(lead, cell=cell, control=control)], 0)
        return [flag for flag in found if "overlap" in flag]

    (doubt,) = told(0.3, 0.9)
    assert "30.0 to 90.0 % and 10.0 to 40.0 %" in doubt and "2 speakers" in doubt
    assert told(0.5, 0.9) == []


def test_a_curve_of_one_point_begins_at_step_0_and_counts_from_no_offset() -> None:
    curve = {"step": [40.0], "density": [0.2], "dev_density": [0.19999]}
    drawn = training_charts.generator_curves([StoredModel(name="emo18", card={}, curve=curve)])
    assert drawn is not None
    written = re.findall(r"<text[^>]*>([^<]*)", drawn.wide)
    assert "0" in written and "20.0" in written
    assert not any(text.startswith(("+", "1e")) for text in written)


def test_a_collapsed_generator_is_told(built: Path) -> None:
    run = RunFolder.read(built)
    collapsed = replace(run.generators[0], card={"flags": ["mask empty at the end of training"]})
    told = run_flags(replace(run, generators=[collapsed]), [], 0)
    assert "generator on emo18: mask empty at the end of training" in told


def test_a_speaker_in_two_parts_is_told(built: Path) -> None:
    run = RunFolder.read(built)
    assert not any("more than one part" in flag for flag in run_flags(run, [], 0))
    run.card["corpus"]["split"]["dev"]["speakers"].append("09")
    assert "speakers 09 are in more than one part of the split" in run_flags(run, [], 0)


def test_the_runs_own_flags_are_not_told_twice(tmp_path: Path) -> None:
    own = "STAA-Net from emo18 fools emo18 no more often than the random control"
    weak = [replace(ATTACKS[0], white_box=0.0), replace(ATTACKS[3], white_box=1.0)]
    run = RunFolder.read(
        make_run(tmp_path / "run", fake_clips(), attacks=weak, parts=False, flags=[own])
    )
    told = run_flags(run, headlines(run), 0)
    assert sum("random control" in flag for flag in told) == 1


def test_clips_are_chosen_by_rule(built: Path) -> None:
    run = RunFolder.read(built)
    lead = headlines(run)[0]
    chosen = choose_clips(run, lead, 4)
    assert chosen == choose_clips(run, lead, 4)
    fooled = [clip.fooled for clip in chosen[:4]]
    assert fooled == sorted(fooled, reverse=True) and fooled[0] == 2
    assert len({clip.id for clip in chosen}) == 5
    assert not any(row.fooled for row in chosen[-1].rows if row.target == "emo18")


def test_every_source_gets_its_headline(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run",
        fake_clips(4),
        sources=("emo18", "zhao19"),
        attacks=ATTACKS[::3],
        parts=False,
    )
    leads = headlines(RunFolder.read(run))
    assert [(lead.cell.source, lead.cell.target) for lead in leads] == [
        ("emo18",) * 2,
        ("zhao19",) * 2,
    ]
    assert all(lead.cell.white_box and lead.control for lead in leads)


# ---------------------------------------------------------------- figures


def test_mel_filters_cover_every_band_and_find_a_tone() -> None:
    filters = clip_pictures.mel_filters(RATE, 512)
    assert (
        filters.shape == (64, 257) and np.allclose(filters.sum(axis=1), 1) and (filters >= 0).all()
    )
    tone: NDArray[np.float64] = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    band = int(clip_pictures.log_mel(tone, RATE)[:, 20:80].mean(axis=1).argmax())
    centres = clip_pictures.mel_to_hz(np.linspace(0, clip_pictures.hz_to_mel(RATE / 2), 66))[1:-1]
    assert abs(centres[band] - 1000) < 60


def test_a_short_clip_and_an_untouched_one_can_be_drawn() -> None:
    clip = voice(0, 0.005)
    assert clip_pictures.triptych_picture(clip, clip, RATE).startswith(b"\x89PNG")
    assert clip_view.amplify(np.zeros(4, np.int32))[0] == 0


@pytest.mark.parametrize("narrow", [False, True], ids=["wide", "narrow"])
@pytest.mark.parametrize("step, start_s, seconds", [(1, 0.0, 0.5), (300, 14.5, 15.0)])
def test_nothing_of_a_waveform_picture_is_cut(narrow, step, start_s, seconds):
    clean = (8000 * np.sin(np.arange(round(seconds * RATE)) / 9)).astype(np.int16)
    adversarial, first = clean.copy(), round(start_s * RATE)
    adversarial[first : first + 160] += np.int16(step)
    with matplotlib.rc_context(chart_style.STYLE):
        figure = clip_pictures.draw_waveform(clean, adversarial, RATE, narrow=narrow)
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def test_svg_follows_the_theme_and_carries_no_date(built: Path) -> None:
    svg = (built / "report" / "figures" / "fooling-rates.svg").read_text(encoding="utf-8")
    assert "dc:date" not in svg and "Matplotlib" not in svg
    inline = chart_style.inline_svg(svg.encode(), "p")
    assert chart_style.INK in svg and chart_style.INK not in inline and "currentColor" in inline
    assert all(i.startswith("p-") for i in re.findall(r'\bid="([^"]+)"', inline))


# ---------------------------------------------------------------- the wall


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_report_knows_no_model_and_no_attack() -> None:
    allowed = {
        "errors",
        "config",
        "audio",
        "storage",
        "metrics",
        "tables",
        "core",
        "results",
        "report",
    }
    for path in Path(report.__file__).parent.glob("*.py"):
        names = [
            n
            for n in imported(ast.parse(path.read_text(encoding="utf-8")))
            if n.startswith("staanet")
        ]
        assert {name.split(".")[1] for name in names} <= allowed, path.name


# ---------------------------------------------------------------- after a channel, and to the ear


def after_a_channel(run: Path) -> None:
    """Adds an ``mp3:32`` after which nobody is fooled, and PESQ of all clips but one."""
    import pandas

    matrix = run / "results" / "results.parquet"
    rows = pandas.read_parquet(matrix).to_dict("records")
    for row in rows:
        short = row["id"] == "clip03"
        row |= {"channel": "pcm16", "pesq_wb": None if short else 3.5 + len(row["attack"]) / 100}
        row["perceptual_missing"] = "pesq_wb: too short" if short else ""
    held = [
        row | {"channel": "mp3:32", "adversarial_prediction": row["clean_prediction"]}
        for row in rows
    ]
    summary = storage.read_json(run / "results" / "summary.json")
    after = []
    for told in summary["cells"]:
        made = next(one for one in ATTACKS if one.attack == told["attack"])
        keys = ("attack", "source", "target")
        own = [row for row in held if all(row[key] == told[key] for key in keys)]
        after.append(
            cell(own, made, told["source"], told["target"], told["budget"]) | {"channel": "mp3:32"}
        )
    summary["cells"] = [one | {"channel": "pcm16"} for one in summary["cells"]] + after
    summary["sets"] = [
        {
            "attack": made.attack,
            "source": "emo18",
            "perceptual": {
                "pesq_wb": {
                    "value": 3.5 + len(made.attack) / 100,
                    "count": 9,
                    "of": 10,
                    "missing": {"too short": 1},
                }
            },
        }
        for made in ATTACKS
    ]
    TransferMatrix([*rows, *held], summary).save(run / "results")


def test_a_channel_and_sound_stand_apart_and_leave_the_rest_as_it_was(
    built: Path, copied: Path
) -> None:
    after_a_channel(copied)
    report.build(copied, clips=0)
    before, page = Page(built / "report" / "index.html"), Page(copied / "report" / "index.html")
    assert "After the channel" not in before.text and "How it sounds" not in before.text
    assert (
        "air or passed through a codec" in before.text
        and "air or passed through a codec" not in page.text
    )
    found, plain = RunFolder.read(copied), RunFolder.read(built)
    assert found.cells == plain.cells and len(found.rows) == len(plain.rows)
    assert transfer_table(found.cells) == transfer_table(plain.cells)
    assert effects_table(found.cells) == effects_table(plain.cells)
    assert headlines(found) == headlines(plain)
    assert not tables.channel_table(plain).rows and not tables.perceptual_table(plain).rows
    table = tables.channel_table(found)
    ways = [(row[1].text, row[2].text, row[3].text) for row in table.cells]
    assert len(ways) == 2 * len(ATTACKS)
    assert all(rate == "0.0 %" for _, way, rate in ways if way == "mp3:32")
    assert ways[0][1] == "the file as it is" and ways[0][2] != "0.0 %"
    assert [row[1].mark for row in table.cells].count("control") == 2
    heard = tables.perceptual_table(found)
    assert heard.cells[0][2].text == "3.54" and heard.cells[0][2].detail == "N 9 of 10; too short"
    for said in ("After the channel", "mp3:32", "How it sounds", "PESQ (1 to 4.64)", "N 9 of 10"):
        assert said in page.text
    markdown = (copied / "report" / "matrix.md").read_text(encoding="utf-8")
    assert "mp3:32" in markdown and "PESQ" in markdown


def false_rate_after(summary: dict[str, Any]) -> None:
    summary["cells"][-1]["fooling_rate"]["value"] = 0.5


def false_sound(summary: dict[str, Any]) -> None:
    summary["sets"][0]["perceptual"]["pesq_wb"]["value"] = 4.5


def all_heard(summary: dict[str, Any]) -> None:
    summary["sets"][0]["perceptual"]["pesq_wb"]["count"] = 10


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (false_rate_after, "on zhao19 after mp3:32 is 0.5, but 0 by its rows"),
        (false_sound, "mean pesq_wb of staa from emo18 is 4.5 over 9 of 10 clips, but 3.54 over 9"),
        (all_heard, "over 10 of 10 clips, but 3.54 over 9 of 10"),
    ],
)
def test_a_figure_of_a_channel_or_of_sound_is_checked_too(
    copied: Path, edit: Callable[[dict[str, Any]], None], message: str
) -> None:
    after_a_channel(copied)
    assert verify(RunFolder.read(copied), lambda *_: None) == 0
    edit_summary(edit)(copied)
    with pytest.raises(InvalidInput, match=re.escape(message)):
        report.build(copied)


@pytest.mark.usefixtures("without_pictures")
def test_a_report_older_than_its_results_says_so(copied: Path) -> None:
    page = report.build(copied, clips=0)
    assert not report.mark_if_stale(copied) and report.STALE not in page.read_text("utf-8")
    summary = copied / "results" / "summary.json"
    summary.write_text(summary.read_text("utf-8") + "\n", encoding="utf-8")
    for _ in range(2):  # it is said once
        assert report.mark_if_stale(copied)
        assert page.read_text("utf-8").count("older than the results beside it") == 1
    report.build(copied, clips=0)
    assert not report.mark_if_stale(copied) and report.STALE not in page.read_text("utf-8")
    assert not report.mark_if_stale(copied / "no such run")
