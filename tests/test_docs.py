"""The pages tell the truth: their code runs, their commands exist, the site asks nothing of outside."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import click
import pytest
import torch
import typer
from tests.support.audit_facts import audit_facts, row

from staanet import storage
from staanet.attacks import ATTACKS
from staanet.cli import app
from staanet.config import load_recipe
from staanet.corpora import CORPORA
from staanet.generators.registry import build_generator, save_generator
from staanet.report.audit_verdict import audit_verdict
from staanet.victims import build_victim
from staanet.victims.model_card import ModelCard

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def blocks(page: Path, language: str) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [code for name, code in found if name == language]


def hook(name: str) -> types.ModuleType:
    """A module of ``docs/hooks``."""
    path = ROOT / "docs" / "hooks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def place(tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the pages' code runs: ``my_corpus/`` and ``runs/quick/`` as they call them."""
    (tmp_path / "my_corpus").symlink_to(tiny_corpus)
    torch.manual_seed(0)
    run = tmp_path / "runs" / "quick"
    for name in ("emo18", "zhao19"):
        build_victim(name, ("high", "low")).save_pretrained(run / "victims" / name)
    sha256 = storage.read_card(run / "victims" / "emo18", "victim")["sha256"]
    save_generator(
        build_generator("small", density=0.2),
        run / "generators" / "emo18",
        source="emo18",
        source_folder="../../victims/emo18",
        source_sha256=sha256,
        epsilon=0.03,
        max_density=0.2,
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p, "python")], ids=lambda page: page.stem
)
def test_python_of_a_page_runs_from_top_to_bottom(
    page: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for registry in (ATTACKS, CORPORA):  # what a page registers goes with it
        for name in ("loudest", "mine"):
            monkeypatch.setitem(registry, name, None)
            monkeypatch.delitem(registry, name)
    namespace: dict[str, object] = {"__name__": page.stem}
    for number, code in enumerate(blocks(page, "python"), start=1):
        exec(compile(code, f"{page.name}, block {number}", "exec", dont_inherit=True), namespace)
    for registry in (ATTACKS, CORPORA):
        for name in ("loudest", "mine"):
            registry.pop(name, None)


def commands(page: Path) -> list[str]:
    text = "".join(blocks(page, "console")).replace("\\\n", " ")
    found = [line[2:].split("#")[0].strip() for line in text.splitlines() if line.startswith("$ ")]
    bare = [re.sub(r"^([A-Z_]+=\S+ )+", "", line).removeprefix(".venv/bin/") for line in found]
    return [line for line in bare if not line.startswith("python -c")]


@pytest.mark.parametrize(
    "page", [p for p in [*PAGES, ROOT / "README.md"] if commands(p)], ids=lambda page: page.stem
)
def test_commands_of_a_page_exist_with_their_options(page: Path) -> None:
    known = typer.main.get_command(app)
    assert isinstance(known, click.Group) or hasattr(known, "commands")
    for line in commands(page):
        words = shlex.split(line)
        if words[0] != "staanet":
            assert words[0] in ("make", "pip", "git", "docker", "cd", "python", "torchrun"), line
            continue
        assert words[1] in known.commands, f"{page.name}: no command {words[1]}"
        options = {o for p in known.commands[words[1]].params for o in p.opts}
        used = {word.split("=")[0] for word in words[2:] if word.startswith("--")}
        assert used <= options, f"{page.name}: {line}"


OTHER_PROGRAMS = {"--force-reinstall", "--head", "--no-deps"}  # of pip and Ray


def test_every_option_that_a_message_names_exists() -> None:
    commands = typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
    params = [param for command in commands for param in command.params]
    options = {name for param in params for name in (*param.opts, *param.secondary_opts)}
    for file in (ROOT / "src" / "staanet").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                prose = node.value if "torchrun" not in node.value else ""
                used = set(re.findall(r"(?<![\w(-])--[a-z][a-z0-9-]*", prose))
                assert used <= options | OTHER_PROGRAMS | {"--help", "--version"}, file


def test_the_sentences_that_a_page_explains_are_those_of_the_verdict() -> None:
    facts = audit_facts(0.5, 0.1, 0.4, 0.3)
    facts["victim"]["flags"] = ["its gradient is zero"]
    facts["corpus"]["speakers"] = 4
    facts["cells"] = [row(0.2, snr_db=42.0)]
    facts["channels"] = [row(0.1, channel="mp3:32")]
    facts["budgets"] *= 2
    facts["attackers"] |= {"queries": row(0.3), "white_box": row(0.9)}
    group = {"kind": "label", "name": "fear", "is_worse": True, "p": 0.01, "value": 1, "others": 0}
    facts["groups"] = [group]
    kept = {"value": 0.9, "low": None, "high": None, "count": 9}
    condition = {"name": "gain", "unchanged": kept, "passed": True}
    facts["everyday"] = {"passed": 5, "of": 6, "worst": {"unheard": condition}}
    verdict = audit_verdict(facts)
    page = (ROOT / "docs" / "audit-my-model.md").read_text(encoding="utf-8")
    explained = re.findall(
        r"^\| \*(.+?)\* \|", page.partition("## What the sentences mean")[2], re.M
    )
    assert len(explained) > 10
    for sentence in explained:
        parts = ".*".join(re.escape(part.strip()) for part in sentence.split("..."))
        assert any(re.match(parts, line) for line in verdict), sentence


def test_the_keys_of_a_model_card_are_explained() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    table = page.partition("| key | meaning |")[2].partition("\n\n")[0]
    keys = [
        key for row in table.splitlines() for key in re.findall(r"`(\w+)`", row.split(" | ")[0])
    ]
    assert sorted(keys) == sorted(field.name for field in dataclasses.fields(ModelCard))


def test_recipes_that_pages_name_are_shipped() -> None:
    shipped = {path.stem for path in (ROOT / "recipes").glob("*.toml")}
    for page in PAGES:
        for line in commands(page):
            words = shlex.split(line)
            if words[:2] == ["staanet", "run"]:
                assert words[2] in shipped, f"{page.name}: {line}"


def test_the_figures_of_the_first_page_are_those_that_the_bench_wrote() -> None:
    measured = (
        (ROOT / "bench" / "results.md").read_text(encoding="utf-8").partition("## quick\n")[2]
    )
    written = {
        cells[2].removesuffix(" (control)"): cells[3:]
        for line in measured.partition("\n## ")[0].splitlines()
        if len(cells := [cell.strip() for cell in line.split("|")]) == 13 and cells[1] == "emo18"
    }  # title -> on emo18, on zhao19, samples changed, l0, SNR, peak ratio, largest change, time, queries
    attacks = load_recipe("quick").attacks
    shown = re.findall(
        r"^(\w+) +emo18 +([\d.]+ %) of (\d+) +([\d.]+ %) of (\d+) +([\d.]+) +([\d.]+) +([\d.]+)$",
        (ROOT / "docs" / "start.md").read_text(encoding="utf-8"),
        re.M,
    )
    titles = {attack.title for attack in attacks.values()}
    assert shown and {attacks[row[0]].title for row in shown} == written.keys() <= titles
    for name, *rates, density, snr_db, seconds in shown:
        found = written[attacks[name].title]
        for rate, count, cell in zip(rates[::2], rates[1::2], found, strict=False):
            assert cell.startswith(f"{rate} (") and f"N {count})" in cell, (name, cell)
        assert (f"{100 * float(density):.1f} %", f"{snr_db} dB") == (found[2], found[4]), name
        second = float(found[7].removesuffix(" s"))
        assert abs(float(seconds) - second) <= 0.006, name  # two figures there, three places here


def navigation() -> list[str]:
    """The pages that the site lists, among them those that its hooks write."""
    return re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)


def test_links_between_pages_lead_somewhere() -> None:
    listed = navigation()
    for page in PAGES:
        prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", prose):
            if not target.startswith(("http:", "https:")) and target not in listed:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_a_page_includes_files_by_a_marker_that_the_site_reads() -> None:
    for page in PAGES:  # ruff reformats what it takes for Python, such as --8<-- in a py block
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith("--8"):
                marker = re.fullmatch(r'--8<-- "(\S+)"', line)
                assert marker and (ROOT / marker[1]).is_file(), f"{page.name}: {line}"


def test_each_gallery_script_compiles_tells_what_it_shows_and_is_listed() -> None:
    scripts = sorted((ROOT / "docs" / "gallery").glob("*.py"))
    assert len(scripts) >= 11
    for script in scripts:
        title, introduction, cells = hook("run_scripts").read_script(script)
        assert title and introduction and len(cells) > 2, script.name
        for cell in cells:
            assert cell.text and compile(cell.code, script.name, "exec"), script.name
        text = script.read_text(encoding="utf-8")
        assert re.search(r"\.(svg|png|wav)\"", text), f"{script.name} shows no picture and no sound"
        assert f"gallery/{script.stem}.md" in navigation()


def test_a_gallery_page_shows_what_its_script_printed_and_made(tmp_path: Path) -> None:
    script = tmp_path / "tones.py"
    script.write_text(
        '"""Tones\n\nTwo lines.\n"""\n\n# %%\n# Some text.\n\n'
        "from pathlib import Path\n\nprint('| a |\\n|---|\\n| 1 |')\n"
        "print('seen')\nPath('low.wav').write_bytes(b'sound')\n"
    )
    here = Path.cwd()
    hook("run_scripts").run_script(script, tmp_path / "out")
    assert Path.cwd() == here
    told = json.loads((tmp_path / "out" / "cells.json").read_text())
    assert told["cells"] == [{"printed": "| a |\n|---|\n| 1 |\nseen\n", "files": ["low.wav"]}]
    pytest.importorskip("mkdocs", reason="extra docs: pip install 'staanet[docs]'")
    content, assets = hook("gallery").page_of(script, (told, {"low.wav": b"sound"}))
    assert content.startswith("# Tones\n\nTwo lines.\n\nSome text.\n\n```python\nfrom pathlib")
    assert "| 1 |\n\n```text\nseen\n```" in content and assets == {"low.wav": b"sound"}
    assert '<audio controls preload="none" src="tones/low.wav"' in content


def test_a_gallery_script_that_fails_stops(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text('"""Broken\n\nIt fails.\n"""\n\n# %%\n# Text.\n\nraise KeyError("here")\n')
    with pytest.raises(KeyError, match="here"):
        hook("run_scripts").run_script(script, tmp_path / "out")


def test_results_are_split_whole_and_its_opening_is_read_from_them() -> None:
    pytest.importorskip("mkdocs", reason="extra docs: pip install 'staanet[docs]'")
    results = hook("results")
    text = results.RESULTS.read_text(encoding="utf-8")
    found = dict(results.sections(text, "## "))
    assert {results.page_of(title) for title in found} == set(results.PAGES)
    table = results.headline_table(found["emodb_full"]).splitlines()
    assert len(table) == 2 + len(results.HEADLINE) and "STAA-Net" in table[2] and "[" in table[2]
    assert len(results.runs_table(found).splitlines()) > 5
    assert "emodb_full.toml" in results.about_table(found["emodb_full"])
    assert re.match(r"Random signs fool \d+ to \d+ %", results.about_control(found["emodb_full"]))
    assert "`python -m bench strength" in results.about_figure(found["Strength"])
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert {*re.findall(r"<!-- (.*?) -->", page)} <= {*results.FRAGMENTS}
    assert "%" not in re.sub(r"<!-- .*? -->", "", page), "a figure was typed by hand"
    assert "<svg" in results.strength_figure(found["Strength"])
    levels = (
        "| corpus | source | dB | samples | random | STAA-Net |\n|---|---|---|---|---|---|\n"
        "| c | a | -40 | 1 % | 0 | 3 (+1 [-2, +4] FGSM) |\n| c | a | -40 | 100 % | 1 | 5 |\n"
        "| c | a | -30 | 100 % | 2 | 50 (+9 PGD 4) |\n| seconds a clip | a |  |  | 0.1 | 0.2 |\n"
    )
    curves = results.level_curves(results.tables(levels)[0])
    assert curves == {"random": [(-40, 1), (-30, 2)], "STAA-Net": [(-40, 5), (-30, 50)]}


def test_a_formula_is_drawn_in_the_colour_of_the_text_and_described_by_its_source() -> None:
    page = hook("formulas").on_page_markdown("a\n\n$$\nx + \\epsilon\n$$\n\nb")
    assert page.startswith('a\n\n<div class="formula" role="math" aria-label="x + \\epsilon"><svg')
    assert page.endswith("</svg></div>\n\nb") and "#ffffff" not in page


def test_the_site_is_built_without_a_warning_and_asks_nothing_of_outside(tmp_path: Path) -> None:
    for module in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(module) is None:
            pytest.skip("extra docs: pip install 'staanet[docs]'")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--quiet",
            "--site-dir",
            tmp_path / "site",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "GALLERY": "0"},  # make docs runs the scripts
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert {page.stem for page in PAGES} <= {page.stem for page in pages}
    for page in pages:
        loaded = re.findall(
            r"<(?:script|img|iframe|source|audio)\b[^>]*?\bsrc=[\"']?([^\"'\s>]+)"
            r"|<link\b(?![^>]*rel=[\"']?canonical)[^>]*?\bhref=[\"']?([^\"'\s>]+)",
            page.read_text(encoding="utf-8"),
        )
        outside = [url for pair in loaded for url in pair if re.match(r"(https?:)?//", url)]
        assert outside == [], f"{page.name} asks {outside}"


def test_the_notebook_runs_from_top_to_bottom(monkeypatch, tmp_path) -> None:
    pytest.importorskip("espeakng_loader", reason="the voice of the synthetic corpus")
    shown = []
    display = types.ModuleType("IPython.display")
    for kind in ("Audio", "Image", "Markdown", "display"):
        setattr(display, kind, lambda content, kind=kind: shown.append((kind, content)))
    library = types.ModuleType("IPython")
    library.version_info = (9, 0)  # type: ignore[attr-defined]  # matplotlib asks for it
    monkeypatch.setitem(sys.modules, "IPython", library)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cells = json.loads((ROOT / "docs" / "story.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for number, cell in enumerate(c for c in cells if c["cell_type"] == "code"):
        source = "".join(cell["source"]).replace("steps=120", "steps=30")
        assert cell["outputs"] or number in (0, 5), "it is stored executed; two cells show nothing"
        exec(compile(source, f"story.ipynb, code cell {number}", "exec"), names)
    kinds = [kind for kind, _ in shown]
    assert kinds.count("Markdown") == 2 and kinds.count("Image") == 1 and kinds.count("Audio") == 2
    assert all("random" in content for kind, content in shown[:1] if kind == "Markdown")
