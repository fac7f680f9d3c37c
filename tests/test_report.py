"""The report: complete, self-contained, harmless, deterministic, and true to the files or not built."""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import math
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

import headless
from staanet import report, storage
from staanet.core import Clip, Samples, metrics
from staanet.errors import InvalidInput
from staanet.report import facts as facts_module
from staanet.report import figures, page, spectra, story, tables
from staanet.report.verify import measure, verify
from staanet.results import AdversarialClip, AdversarialSet, TransferMatrix

RATE = 16_000
LABELS = ("anger", "joy", "neutral", "sadness")
HOSTILE = '<img src=x onerror="alert(1)"></script>{{7*7}}\u202e\u200fevil'


# ---------------------------------------------------------------- a run folder without any model


@dataclass(frozen=True, kw_only=True)
class Made:
    """An attack of the fake run: how many samples it changes, how often it fools whom."""

    attack: str
    title: str
    density: float
    white_box: float
    transfer: float
    seconds: float
    matched: bool = False


ATTACKS = (
    Made(
        attack="staa", title="STAA-Net", density=0.18, white_box=0.85, transfer=0.35, seconds=0.031
    ),
    Made(
        attack="pgd",
        title="PGD, 20 steps, every sample",
        density=1.0,
        white_box=0.99,
        transfer=0.3,
        seconds=1.9,
    ),
    Made(
        attack="pgd_sparse",
        title="PGD, 20 steps, as many samples as STAA-Net",
        density=0.18,
        white_box=0.9,
        transfer=0.2,
        seconds=2.1,
        matched=True,
    ),
    Made(
        attack="random",
        title="random places and signs, as many samples as STAA-Net",
        density=0.18,
        white_box=0.06,
        transfer=0.05,
        seconds=0.0004,
        matched=True,
    ),
)


def voice(seed: int, seconds: float = 0.6) -> Samples:
    """Something voiced: harmonics of a gliding pitch under three formants, in syllables."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    pitch = rng.uniform(90, 240) * (1 + 0.15 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * t))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    formants = (rng.uniform(300, 800), rng.uniform(900, 2200), rng.uniform(2300, 3200))
    wave = np.zeros_like(t)
    for k in range(1, 40):
        gain = sum(np.exp(-(((k * pitch.mean() - f) / 180) ** 2)) for f in formants) + 0.02
        wave += gain * np.sin(k * phase) / math.sqrt(k)
    wave *= np.clip(np.sin(2 * np.pi * 3 * t + rng.uniform(0, 6)), 0.03, 1)
    return np.rint(wave / np.abs(wave).max() * 9000).astype(np.int16)


def fake_clips(count: int = 10) -> list[Clip]:
    return [
        Clip(f"clip{i:02d}", voice(i), RATE, LABELS[i % 4], f"speaker {1 + i % 3}")
        for i in range(count)
    ]


def attacked(clip: Clip, made: Made, rng: np.random.Generator, epsilon: float) -> Samples:
    steps, length = math.floor(epsilon * 32768), len(clip.samples)
    delta = rng.integers(-steps, steps + 1, length)
    if made.density < 1:
        bursts = np.convolve(rng.standard_normal(length), np.ones(40), mode="same")
        loudest = np.argsort(bursts if made.attack == "staa" else rng.random(length))
        delta[loudest[math.floor(made.density * length) :]] = 0
    return np.clip(clip.samples.astype(int) + delta, -32768, 32767).astype(np.int16)


def make_run(
    folder: Path,
    clips: Sequence[Clip],
    *,
    targets: Sequence[str] = ("emo18", "zhao19"),
    sources: Sequence[str] = ("emo18",),
    attacks: Sequence[Made] = ATTACKS,
    parts: bool = True,
    labels: Sequence[str] = LABELS,
    flags: Sequence[str] = (),
    epsilon: float = 0.03,
) -> Path:
    """Write ``adversarial/`` and ``results/`` and, with ``parts``, all that a whole run leaves."""
    rng, rows, cells = np.random.default_rng(0), [], []
    for source in sources:
        for made in attacks:
            pairs = [
                AdversarialClip(clip, attacked(clip, made, rng, epsilon), made.seconds, 20)
                for clip in clips
            ]
            sparse = None if made.density == 1 else 0.2
            budget = {"epsilon": epsilon, "max_density": sparse, "max_l0": None, "min_snr_db": None}
            card = {
                "attack": made.attack,
                "algorithm": made.attack.removesuffix("_sparse"),
                "title": made.title,
                "source": source,
                "goal": "untargeted",
                "budget": budget,
                "inputs": {
                    "recipe": {"settings": {"steps": 20} if "pgd" in made.attack else {}},
                    "seed": 0,
                },
                "matched": f"staa__{source}" if made.matched else None,
                "machine": "2 threads",
                "quarantined": [],
            }
            AdversarialSet(pairs, card).save(folder / "adversarial" / f"{made.attack}__{source}")
            for target in targets:
                chance = made.white_box if target == source else made.transfer
                own = [answers(pair, made, source, target, labels, chance, rng) for pair in pairs]
                rows += own
                cells.append(cell(own, made, source, target, budget))
    summary = {
        "schema": 1,
        "targets": {name: {"labels": list(labels)} for name in targets},
        "cells": cells,
        "machine": "2 threads, Intel Xeon",
        "quarantined": [{"id": "hum", "reason": "digital silence"}],
        "flags": list(flags),
    }
    TransferMatrix(rows, summary).save(folder / "results")
    if parts:
        rest_of_run(folder, targets, sources, labels, clips, epsilon)
    return folder


def answers(
    pair: AdversarialClip,
    made: Made,
    source: str,
    target: str,
    labels: Sequence[str],
    chance: float,
    rng: np.random.Generator,
) -> dict[str, Any]:
    own = np.random.default_rng([len(pair.adversarial), *target.encode(), *pair.clean.id.encode()])
    truth = labels.index(pair.clean.label or labels[0])
    before = own.dirichlet([0.4] * len(labels))
    top = truth if own.random() < 0.75 else int(own.integers(len(labels)))
    before[[top, int(before.argmax())]] = before[[int(before.argmax()), top]]
    after = 0.7 * before + 0.3 * rng.dirichlet([0.6] * len(labels))
    wanted = (
        top if rng.random() >= chance else (top + int(rng.integers(1, len(labels)))) % len(labels)
    )
    after[[wanted, int(after.argmax())]] = after[[int(after.argmax()), wanted]]
    return {
        "attack": made.attack,
        "source": source,
        "target": target,
        "id": pair.clean.id,
        "label": pair.clean.label,
        "speaker": pair.clean.speaker,
        "clean_prediction": labels[int(before.argmax())],
        "adversarial_prediction": labels[int(after.argmax())],
        "clean_probabilities": before.tolist(),
        "adversarial_probabilities": (after / after.sum()).tolist(),
        **pair.measurements(),
        "seconds_audio": len(pair.adversarial) / RATE,
        "sample_rate": RATE,
    }


def cell(
    rows: Sequence[dict[str, Any]], made: Made, source: str, target: str, budget: dict[str, Any]
) -> dict[str, Any]:
    speakers = [row["speaker"] for row in rows]
    truth, before, after = (
        np.array([row[key] for row in rows])
        for key in ("label", "clean_prediction", "adversarial_prediction")
    )
    right = truth == before
    figures = {
        "fooling_rate": metrics.rate(metrics.changed(before, after), speakers),
        "attack_success_rate": metrics.rate(
            (after != truth)[right], list(np.array(speakers)[right])
        ),
        "uar_before": metrics.jackknife(lambda i: metrics.uar(truth[i], before[i]), speakers),
        "uar_after": metrics.jackknife(lambda i: metrics.uar(truth[i], after[i]), speakers),
        "accuracy_before": metrics.rate(right, speakers),
        "accuracy_after": metrics.rate(truth == after, speakers),
    }
    return {
        "attack": made.attack,
        "title": made.title,
        "source": source,
        "target": target,
        "white_box": source == target,
        "control": made.attack in ("random", "uap"),
        "budget": budget,
        "count": len(rows),
        "speakers": len(set(speakers)),
        **{name: plain(figure) for name, figure in figures.items()},
        "mean": means(rows),
        "mean_fooled": means([r for r, hit in zip(rows, before != after) if hit]),
        "untouched": sum(row["l0"] == 0 for row in rows),
        "seconds_median": made.seconds,
    }


def plain(figure: metrics.Estimate) -> dict[str, Any]:
    names = ("value", "low", "high", "count", "clusters")
    return {name: getattr(figure, name) for name in names}


def means(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    finite = {
        name: [row[name] for row in rows if math.isfinite(row[name])]
        for name in facts_module.DISTANCES
    }
    return {name: float(np.mean(values)) if values else None for name, values in finite.items()}


def rest_of_run(
    folder: Path,
    targets: Sequence[str],
    sources: Sequence[str],
    labels: Sequence[str],
    clips: Sequence[Clip],
    epsilon: float,
) -> None:
    steps = np.arange(50, 1050, 50)
    for number, name in enumerate(targets):
        card = {"architecture": name, "name": name, "labels": list(labels), "sample_rate": RATE}
        scores = {
            "dev_uar": 0.71,
            "test_uar": 0.64 - 0.05 * number,
            "test_accuracy": 0.66,
            "epochs": 20,
        }
        storage.write_card(folder / "victims" / name, {"kind": "victim", **card, **scores})
        rise = 0.7 - 0.5 * np.exp(-steps / (250 + 90 * number))
        lines = [
            f"{i},{s},{2 - r},{r:.4f},{r:.4f},{s / 9:.1f}"
            for i, (s, r) in enumerate(zip(steps, rise), 1)
        ]
        write_csv(folder / "victims" / name, "epoch,step,loss,dev_uar,dev_accuracy,seconds", lines)
    for source in sources:
        card = {"network": "small", "source": source, "epsilon": epsilon, "max_density": 0.2}
        storage.write_card(
            folder / "generators" / source, {"kind": "generator", **card, "parameters": 201_332}
        )
        rise = 1 - np.exp(-steps / 300)
        lines = [
            f"{i},{s},{3 - 5 * r},{2 - 5 * r},0,0,0,{r:.3f},{0.9 * r:.4f},{0.5 - 0.3 * r},{12 + 5 * r},"
            f"{0.8 * r:.4f},{0.45 - 0.27 * r},{13 + 4 * r},{s / 3}"
            for i, (s, r) in enumerate(zip(steps, rise), 1)
        ]
        columns = (
            "epoch,step,loss,adversarial,magnitude,sparsity,quantisation,sparsity_weight,fooling_rate,"
            "density,snr_db,dev_fooling_rate,dev_density,dev_snr_db,seconds"
        )
        write_csv(folder / "generators" / source, columns, lines)
    speakers = sorted({clip.speaker for clip in clips})
    split = {
        "train": {"clips": 321, "speakers": ["09", "10", "11", "12", "14", "16"]},
        "dev": {"clips": 107, "speakers": ["13", "15"]},
        "test": {"clips": len(clips), "speakers": speakers},
    }
    corpus = {
        "name": "emodb",
        "clips": 535,
        "speakers": 10,
        "labels": list(labels),
        "split": split,
        "notes": [],
    }
    storage.write_card(
        folder,
        {
            "kind": "run",
            "command": "staanet run emodb --set corpus=emodb:PATH",
            "recipe": "emodb",
            "commit": "0123456789ab",
            "machine": "2 x Intel Xeon",
            "corpus": corpus,
            "seconds": {
                "train-victim emo18": 312.0,
                "train-generator emo18": 1604.5,
                "attack staa": 3.25,
            },
        },
    )
    storage.write_text(
        folder / "recipe.toml", 'corpus = "emodb:PATH"\nseed = 0\n\n[victims.emo18]\n'
    )


def write_csv(folder: Path, columns: str, lines: Sequence[str]) -> None:
    storage.write_text(folder / "training.csv", "\n".join([columns, *lines]) + "\n")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run with its report."""
    run = make_run(tmp_path_factory.mktemp("runs") / "emodb", fake_clips())
    assert report.build(run) == run / "report" / "index.html"
    return run


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
    assert len(drawings) == len(page.all("svg")) == 8 and all(d["aria-label"] for d in drawings)
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(headings, headings[1:], strict=False))
    assert page.all("html")[0]["lang"] == "en" and page.all("main")


def test_headline_tells_rate_interval_count_control_and_rival(built: Path) -> None:
    run = facts_module.read(built)
    text = Page(built / "report" / "index.html").text
    lead = story.headlines(run)[0]
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
    run, page_ = facts_module.read(built), Page(built / "report" / "index.html")
    clips = story.choose_clips(run, story.headlines(run)[0], 4)
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


def test_clips_of_an_earlier_report_go(copied: Path) -> None:
    storage.write_bytes(copied / "report" / "figures" / "clip-gone.png", b"old")
    report.build(copied, clips=0)
    assert not (copied / "report" / "figures" / "clip-gone.png").exists()


def test_results_and_sets_are_enough(copied: Path) -> None:
    for name in ("victims", "generators", "card.json", "recipe.toml"):
        path = copied / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = Page(report.build(copied, clips=0)).text
    assert "No training curves" in text and "STAA-Net changed the answer" in text


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
    page = Page(report.build(make_run(tmp_path / "run", clips, attacks=tame, parts=False)))
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
    assert verify(facts_module.read(copied), lambda *_: None) == 0


def test_measure_agrees_with_the_metrics() -> None:
    clip = fake_clips(1)[0]
    pair = AdversarialClip(clip, attacked(clip, ATTACKS[0], np.random.default_rng(1), 0.03), 0.0, 0)
    told, true = pair.measurements(), measure(clip.samples, pair.adversarial)
    for name in facts_module.DISTANCES:
        assert getattr(true, name) == pytest.approx(
            told[name], abs=1e-4 if name.endswith("db") else 1e-7
        )
    assert measure(clip.samples, clip.samples).snr_db is None


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
    found = facts_module.read(built)
    every = tables.every(found, [lead.cell for lead in story.headlines(found)])
    assert markdown.count("|---|") and len(every) >= 5
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == len(every)
    for table in every:
        (body,) = re.findall(
            rf"label{{tab:{re.escape(table.key)}}}.*?midrule\n(.*?)\\bottomrule", latex, re.S
        )
        lines = body.strip().split("\n")
        assert len(lines) == len(table.rows)
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(table.head) - 1}


def test_who_is_hit_harder_is_who_the_rows_say(built: Path) -> None:
    found = facts_module.read(built)
    lead = story.headlines(found)[0]
    told = story.harder(found, lead)
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


def test_in_a_browser(built: Path, tmp_path: Path) -> None:
    """No complaint, no request, no scrolling sideways; sound plays; the slider speaks and is louder."""
    with headless.browser() as browser:
        page = browser.page()
        for width in (1440, 360):
            page.size(width, 800)
            page.open((built / "report" / "index.html").as_uri())
            assert page.run("document.documentElement.scrollWidth") <= width
            page.screenshot(tmp_path / f"{width}.png")
            assert (tmp_path / f"{width}.png").stat().st_size > 10_000
        page.run("document.querySelector('audio').play()")
        page.wait("document.querySelector('audio').currentTime > 0")
        top = page.run("Number(document.querySelector('.amplify input').max)")
        page.run("document.querySelector('.amplify input').focus()")
        for _ in range(3):
            for kind in ("keyDown", "keyUp"):
                page.call(
                    "Input.dispatchKeyEvent",
                    type=kind,
                    key="ArrowLeft",
                    code="ArrowLeft",
                    windowsVirtualKeyCode=37,
                )
        assert page.run("Number(document.querySelector('.amplify output').textContent)") == top - 3
        volume = page.run("document.querySelector('[data-gain] audio').volume")
        assert volume == pytest.approx(10 ** (-3 / 20))
        assert page.errors == []
        assert all(url.startswith(("file:", "data:")) for url in page.requests)


def test_markdown_keeps_its_columns() -> None:
    table = tables.Table(
        key="t",
        caption="A *b*",
        head=["a|b", "c"],
        rows=[[tables.Entry("x|y\n"), tables.Entry("z")]],
    )
    lines = tables.to_markdown(table).splitlines()
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines[2:5]] == [3, 3, 3]


# ---------------------------------------------------------------- what stands beside the headline


def test_a_control_that_equals_the_attack_stands_beside_it(tmp_path: Path) -> None:
    weak = [replace(ATTACKS[0], white_box=0.0), replace(ATTACKS[3], white_box=1.0)]
    page = Page(
        report.build(make_run(tmp_path / "run", fake_clips(), attacks=weak, parts=False), clips=0)
    )
    before_matrix = page.text[: page.text.index("Each attack was crafted")]
    assert "no more often than the random control (0.0 % against 100.0 %)" in before_matrix


def test_a_universal_vector_is_a_control_and_never_the_headline_s(tmp_path: Path) -> None:
    uap = replace(ATTACKS[3], attack="uap", title="one universal vector", white_box=0.3)
    made = [uap, ATTACKS[0], ATTACKS[3]]
    run = make_run(tmp_path / "run", fake_clips(), attacks=made, parts=False)
    (lead,) = story.headlines(facts_module.read(run))
    assert lead.cell.attack == "staa" and lead.control and lead.control.attack == "random"
    page = Page(report.build(run, clips=0))
    assert "one universal vector control" in page.text


def test_an_empty_mask_stands_beside_it_and_is_no_success(tmp_path: Path) -> None:
    empty = [replace(ATTACKS[0], density=0.0, white_box=0.0, transfer=0.0), ATTACKS[3]]
    page = Page(
        report.build(make_run(tmp_path / "run", fake_clips(), attacks=empty, parts=False), clips=0)
    )
    assert "mask empty in every clip: SNR undefined" in page.text
    assert "SNR n/a" in page.text


def test_a_missing_control_and_a_weak_victim_are_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", fake_clips(), attacks=ATTACKS[:1], parts=False)
    found = facts_module.read(run)
    assert any(
        "no random control" in flag for flag in story.flags(found, story.headlines(found), 0)
    )
    poor = replace(found.cells[0], uar_before=metrics.Estimate(0.3, 0.2, 0.4, 8, 2))
    (warning,) = story.weak_victims(replace(found, cells=[poor]))
    assert "hardly better than chance" in warning


def test_a_rate_whose_interval_reaches_into_the_control_s_is_doubted_until_it_is_clear_of_it(
    built: Path,
) -> None:
    run = facts_module.read(built)
    (lead,) = story.headlines(run)[:1]
    assert lead.control is not None

    def told(low: float, high: float) -> list[str]:
        control = replace(lead.control, fooling_rate=metrics.Estimate(0.2, 0.1, 0.4, 8, 2))
        cell = replace(lead.cell, fooling_rate=metrics.Estimate(0.7, low, high, 8, 2))
        found = story.flags(run, [replace(lead, cell=cell, control=control)], 0)
        return [flag for flag in found if "overlap" in flag]

    (doubt,) = told(0.3, 0.9)
    assert "30.0 to 90.0 % and 10.0 to 40.0 %" in doubt and "2 speakers" in doubt
    assert told(0.5, 0.9) == []


def test_a_curve_of_one_point_begins_at_step_0_and_counts_from_no_offset() -> None:
    curve = {"step": [40.0], "density": [0.2], "dev_density": [0.19999]}
    drawn = figures.generator_curves([facts_module.Model(name="emo18", card={}, curve=curve)])
    assert drawn is not None
    written = re.findall(r"<text[^>]*>([^<]*)", drawn.wide)
    assert "0" in written and "20.0" in written
    assert not any(text.startswith(("+", "1e")) for text in written)


def test_a_collapsed_generator_is_told(built: Path) -> None:
    run = facts_module.read(built)
    collapsed = replace(run.generators[0], card={"flags": ["mask empty at the end of training"]})
    told = story.flags(replace(run, generators=[collapsed]), [], 0)
    assert "generator on emo18: mask empty at the end of training" in told


def test_a_speaker_in_two_parts_is_told(built: Path) -> None:
    run = facts_module.read(built)
    assert not any("more than one part" in flag for flag in story.flags(run, [], 0))
    run.card["corpus"]["split"]["dev"]["speakers"].append("09")
    assert "speakers 09 are in more than one part of the split" in story.flags(run, [], 0)


def test_the_runs_own_flags_are_not_told_twice(tmp_path: Path) -> None:
    own = "STAA-Net from emo18 fools emo18 no more often than the random control"
    weak = [replace(ATTACKS[0], white_box=0.0), replace(ATTACKS[3], white_box=1.0)]
    run = facts_module.read(
        make_run(tmp_path / "run", fake_clips(), attacks=weak, parts=False, flags=[own])
    )
    told = story.flags(run, story.headlines(run), 0)
    assert sum("random control" in flag for flag in told) == 1


def test_clips_are_chosen_by_rule(built: Path) -> None:
    run = facts_module.read(built)
    lead = story.headlines(run)[0]
    chosen = story.choose_clips(run, lead, 4)
    assert chosen == story.choose_clips(run, lead, 4)
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
    leads = story.headlines(facts_module.read(run))
    assert [(lead.cell.source, lead.cell.target) for lead in leads] == [
        ("emo18",) * 2,
        ("zhao19",) * 2,
    ]
    assert all(lead.cell.white_box and lead.control for lead in leads)


# ---------------------------------------------------------------- figures


def test_mel_filters_cover_every_band_and_find_a_tone() -> None:
    filters = spectra.mel_filters(RATE, 512)
    assert (
        filters.shape == (64, 257) and np.allclose(filters.sum(axis=1), 1) and (filters >= 0).all()
    )
    tone: NDArray[np.float64] = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    band = int(spectra.log_mel(tone, RATE)[:, 20:80].mean(axis=1).argmax())
    centres = spectra.mel_to_hz(np.linspace(0, spectra.hz_to_mel(RATE / 2), 66))[1:-1]
    assert abs(centres[band] - 1000) < 60


def test_a_short_clip_and_an_untouched_one_can_be_drawn() -> None:
    clip = voice(0, 0.005)
    assert spectra.triptych(clip, clip, RATE).startswith(b"\x89PNG")
    assert page.amplify(np.zeros(4, np.int32))[0] == 0


def test_svg_follows_the_theme_and_carries_no_date(built: Path) -> None:
    svg = (built / "report" / "figures" / "fooling-rates.svg").read_text(encoding="utf-8")
    assert "dc:date" not in svg and "Matplotlib" not in svg
    inline = figures.inline(svg.encode(), "p")
    assert figures.INK in svg and figures.INK not in inline and "currentColor" in inline
    assert all(i.startswith("p-") for i in re.findall(r'\bid="([^"]+)"', inline))


# ---------------------------------------------------------------- the wall


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_report_knows_no_model_and_no_attack() -> None:
    allowed = {"errors", "audio", "storage", "metrics", "tables", "core", "results", "report"}
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
        row["unheard"] = "pesq_wb: too short" if short else ""
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
    report.build(copied)
    before, page = Page(built / "report" / "index.html"), Page(copied / "report" / "index.html")
    assert "After the channel" not in before.text and "How it sounds" not in before.text
    assert "tested through a codec" in before.text and "tested through a codec" not in page.text
    found, plain = facts_module.read(copied), facts_module.read(built)
    assert found.cells == plain.cells and len(found.rows) == len(plain.rows)
    assert tables.matrix(found) == tables.matrix(plain)
    assert tables.effects(found) == tables.effects(plain)
    assert story.headlines(found) == story.headlines(plain)
    assert not tables.channels(plain).rows and not tables.sounds(plain).rows
    table = tables.channels(found)
    ways = [(row[1].text, row[2].text, row[3].text) for row in table.rows]
    assert len(ways) == 2 * len(ATTACKS)
    assert all(rate == "0.0 %" for _, way, rate in ways if way == "mp3:32")
    assert ways[0][1] == "the file as it is" and ways[0][2] != "0.0 %"
    assert [row[1].mark for row in table.rows].count("control") == 2
    heard = tables.sounds(found)
    assert heard.rows[0][2].text == "3.54" and heard.rows[0][2].sub == "N 9 of 10; too short"
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
    assert verify(facts_module.read(copied), lambda *_: None) == 0
    edit_summary(edit)(copied)
    with pytest.raises(InvalidInput, match=re.escape(message)):
        report.build(copied)
