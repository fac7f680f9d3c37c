"""``python -m bench defences``: what defences are worth against who knows them, into results.md.

Attacks a plain victim and hardened ones on the same test clips, at the same budgets, each attack made
anew on the very victim that it is judged on: PGD, STAA-Net with a generator trained through it, and the
random control. Beside that it tells what ``staanet detect``, ``certify``, ``audit`` and ``run
emodb_defences`` left in their folders. A stopped command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import sections
from staanet import load_corpus, load_victim, pipeline, storage
from staanet.config import AttackRecipe, GeneratorRecipe
from staanet.core import NO_CHANNEL, Clip, Corpus, Victim
from staanet.evaluation import machine, spread, transfer_matrix
from staanet.pipeline.recipe import commit
from staanet.results import AdversarialSet
from staanet.victims import place_of

DENSITY = 0.2
EPSILONS = (0.01, 0.03)
ATTACKS = ("pgd", "staa", "random")
Told = Mapping[str, Any]


def main(arguments: list[str]) -> None:
    """Attack what is not attacked yet, read the rest, and write the section."""
    chosen = _parser().parse_args(arguments)
    corpus = load_corpus(chosen.corpus)
    parts = [f"{made_by(chosen)}. Fooled: the share of test clips whose answer changed, with its 95 % "
             "interval clustered by speaker."]  # fmt: skip
    if chosen.victim:
        rows = [
            row
            for spec in [chosen.victim, *chosen.hardened]
            for row in trained(spec, corpus, chosen)
        ]
        parts += hardened(rows)
    parts += detectors([read(folder / "detector.json") for folder in chosen.detector])
    parts += certificates([read(folder / "certificate.json") for folder in chosen.certificate])
    if chosen.run:
        parts += transformations(read(chosen.run / "results" / "summary.json"))
    if chosen.audit:
        parts += audited(read(chosen.audit / "audit.json"))
    sections.write("defences", "\n\n".join(["## Defences against who knows them", *parts]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench defences", description=__doc__,
        epilog="example: python -m bench defences emodb:PATH --victim shipped:emo18 --hardened hard "
        "--detector guarded --certificate certificates --audit audit --run runs/emodb_defences",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    folder: dict[str, Any] = {"type": Path, "default": [], "action": "append", "metavar": "FOLDER"}
    parser.add_argument("corpus", help="KIND:PATH")
    parser.add_argument("--victim", help="the plain victim")
    parser.add_argument("--hardened", default=[], action="append", help="of staanet harden; repeat")
    parser.add_argument("--detector", help="of staanet detect; repeat", **folder)
    parser.add_argument("--certificate", help="of staanet certify; repeat", **folder)
    parser.add_argument("--audit", type=Path, help="of staanet audit")
    parser.add_argument("--run", type=Path, help="of staanet run emodb_defences")
    parser.add_argument("--clips", type=int, default=40, help="test clips (default: 40)")
    parser.add_argument(
        "--epsilon", type=float, choices=EPSILONS, action="append", help="default: both; repeat"
    )
    parser.add_argument(
        "--generator-steps", type=int, default=300, help="default: 300; 0 leaves STAA-Net out"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/defences"), help="folder of the audio"
    )
    return parser


def made_by(chosen: argparse.Namespace) -> str:
    """The command, wherever its folders lay, and where it ran."""
    given = [f"--victim {_name(chosen.victim)}"] if chosen.victim else []
    given += [f"--epsilon {one:g}" for one in chosen.epsilon or ()]
    for key in ("hardened", "detector", "certificate"):
        given += [f"--{key} {_name(one)}" for one in getattr(chosen, key)]
    given += [
        f"--{key} {getattr(chosen, key).name}" for key in ("audit", "run") if getattr(chosen, key)
    ]
    command = " ".join([f"{chosen.corpus.partition(':')[0]}:PATH", *given,
                        f"--clips {chosen.clips} --generator-steps {chosen.generator_steps}"])  # fmt: skip
    return f"`python -m bench defences {command}`, commit `{commit()}`, {machine()}"


def _name(spec: object) -> str:
    return str(spec) if ":" in str(spec) else Path(str(spec)).name


def read(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told


# ---------------------------------------------------------------- trained defences


def trained(spec: str, corpus: Corpus, chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each attack on the victim of ``spec``, made on itself."""
    victim = load_victim(spec)
    victim.name = Path(spec.rpartition(":")[2]).name  # two hardened ones may be called alike
    card = storage.read_card(Path(place_of(spec)), "victim")
    test = corpus.split(seed=chosen.seed)[2]
    clips = spread(pipeline.load_clips(test, victim, pipeline.Quarantine()), chosen.clips)
    generator = _generator(victim, spec, corpus, chosen) if chosen.generator_steps else None
    for epsilon in chosen.epsilon or EPSILONS:
        for attack in ATTACKS:
            if attack == "staa" and generator is None:
                continue
            made = _attacked(victim, attack, epsilon, clips, generator, chosen.out)
            cell = transfer_matrix([made], [victim]).summary["cells"][0]
            yield {
                "victim": victim.name, "test_uar": card["test_uar"], "attack": attack,
                "epsilon": epsilon, "fooled": cell["fooling_rate"], "uar": cell["uar_before"]["value"],
                "uar_after": cell["uar_after"]["value"], "hardened": card.get("hardened"),
            }  # fmt: skip


def _generator(victim: Victim, spec: str, corpus: Corpus, chosen: argparse.Namespace) -> Path:
    recipe = GeneratorRecipe(
        epsilon=max(EPSILONS), max_density=DENSITY, steps=chosen.generator_steps, batch_size=8,
        seconds=1.0,
    )  # fmt: skip
    folder: Path = chosen.out / "generators" / victim.name
    pipeline.train_generator(
        corpus, victim, spec, folder, recipe=recipe, seed=chosen.seed, progress=told
    )
    return folder


def _attacked(
    victim: Victim,
    attack: str,
    epsilon: float,
    clips: Sequence[Clip],
    generator: Path | None,
    out: Path,
) -> AdversarialSet:
    key = f"{attack}-e{epsilon:g}"
    recipe = AttackRecipe(attack=attack, title=key, epsilon=epsilon, max_density=DENSITY)
    plan = pipeline.plan_attack(key, recipe, victim, generator=generator)
    folder = out / "adversarial" / f"{key}__{victim.name}"
    pipeline.attack(plan, clips, folder, quarantine=pipeline.Quarantine(), progress=told)
    return AdversarialSet.load(folder)


def hardened(rows: Sequence[Told]) -> list[str]:
    """Fooling rates of each victim by attack and epsilon, and what hardening cost and halved."""
    lines = [
        "### Trained defences",
        f"Every attack made on the victim that it is judged on, at most {100 * DENSITY:g} % of the "
        "samples, PGD of 20 steps.",
    ]
    table = ["| victim | test UAR | " + " | ".join(
        f"{attack}, epsilon {epsilon:g}" for attack in ATTACKS for epsilon in EPSILONS
    ) + " |", "|---|---|" + 6 * "---|"]  # fmt: skip
    names = list(dict.fromkeys(row["victim"] for row in rows))
    for name in names:
        own = {(row["attack"], row["epsilon"]): row for row in rows if row["victim"] == name}
        cells = [share(own[attack, epsilon]["fooled"]) if (attack, epsilon) in own else "not tried"
                 for attack in ATTACKS for epsilon in EPSILONS]  # fmt: skip
        uar = next(iter(own.values()))["test_uar"]
        table.append(f"| {name} | {uar:.3f} | " + " | ".join(cells) + " |")
    lines.append("\n".join(table))
    plain = [row for row in rows if row["victim"] == names[0] and row["attack"] == "pgd"]
    for name in names[1:]:
        own_rows = [row for row in rows if row["victim"] == name and row["attack"] == "pgd"]
        ratios = [f"{_ratio(b, a)} of the plain victim's at epsilon {a['epsilon']:g}"
                  for a, b in zip(plain, own_rows, strict=True)]  # fmt: skip
        lost = 100 * (plain[0]["test_uar"] - own_rows[0]["test_uar"])
        how = own_rows[0]["hardened"] or {}
        cost = f"; a step takes {how['cost']['times']:.1f} x a plain one" if "cost" in how else ""
        lines.append(
            f"* {name}: PGD that knows it fools {' and '.join(ratios)}; {lost:.1f} points of UAR less{cost}."
        )
    return lines


def _ratio(row: Told, plain: Told) -> str:
    before = plain["fooled"]["value"]
    return f"{row['fooled']['value'] / before:.2f}" if before else "n/a"


def share(estimate: Told) -> str:
    """A rate in per cent with its interval and count.

    >>> share({"value": 0.5, "low": 0.25, "high": None, "count": 4})
    '50.0 % of 4'
    """
    if estimate["value"] is None:
        return "n/a"
    told = f"{100 * estimate['value']:.1f} % of {estimate['count']}"
    if None in (estimate["low"], estimate["high"]):
        return told
    return f"{told} ({100 * estimate['low']:.0f} to {100 * estimate['high']:.0f})"


# ---------------------------------------------------------------- what other commands left


def detectors(found: Sequence[Told]) -> list[str]:
    """A table of every detector and every attack on it."""
    if not found:
        return []
    rows = [
        f"| {one['detector']} before {one['victim']} | {a['attack']} | {a['auroc']:.3f} "
        f"| {share(a['false_alarms'])} | {share(a['detected'])} | {share(a['fooled'])} "
        f"| {share(a['fooled_undetected'])} |"
        for one in found for a in one["attacks"]
    ]  # fmt: skip
    head = (
        "| detector | attack | AUROC | false alarms | detected | fooled | fooled and undetected |"
    )
    return [
        "### Detectors",
        "Thresholds chosen on clean dev clips, before any attack was seen.",
        "\n".join([head, "|---|---|---|---|---|---|---|", *rows]),
    ]


def certificates(found: Sequence[Told]) -> list[str]:
    """What was certified, and how many attacks inside the radius succeeded: none should."""
    if not found:
        return []
    rows = [
        f"| {one['victim']} | {one['method']} | {', '.join(f'{k} {v:g}' for k, v in one['noise'].items())} "
        f"| {one['right']} of {one['clips']} | {one['abstained']} | {one['median_radius']:.4g} "
        f"| {one['largest_radius']:.4g} {one['unit']} | {one['broken']} of {one['attacked']} |"
        for one in found
    ]  # fmt: skip
    head = (
        "| victim | method | noise | right | abstained | median radius | largest radius "
        "| attacks inside the radius that succeeded |"
    )
    votes = found[0]["votes"]
    return [
        "### Certificates",
        f"Test clips, {votes['votes']} votes, each certificate wrong with probability at most "
        f"{votes['alpha']:g}; attacks by gradients through the mean of 16 draws.",
        "\n".join([head, "|---|---|---|---|---|---|---|---|", *rows]),
    ]


def transformations(summary: Told) -> list[str]:
    """The strongest attack on each defended victim by one who does not know the defence, and who does."""
    rows = []
    for name, about in summary["targets"].items():
        if "defended" not in about:
            continue
        inner = about["defended"]["inner"]
        own = [c for c in summary["cells"] if c["target"] == name and c["channel"] == NO_CHANNEL
               and not c["control"]]  # fmt: skip
        static = _strongest([c for c in own if c["source"] == inner])
        adaptive = _strongest([c for c in own if c["source"] == name])
        plain = _strongest([
            c for c in summary["cells"]
            if c["target"] == c["source"] == inner and c["channel"] == NO_CHANNEL and not c["control"]
        ])  # fmt: skip
        rows.append(
            f"| {name} | {(static or adaptive)['uar_before']['value']:.3f} | {_cell(plain)} | {_cell(static)} "
            f"| {_cell(adaptive)} | {_gap(static, adaptive)} |"
        )
    if not rows:
        return []
    head = "| victim | UAR | undefended | static | adaptive | gap in points |"
    return ["### Transformations", "The attack that fools most often, each.",
            "\n".join([head, "|---|---|---|---|---|---|", *rows])]  # fmt: skip


def _strongest(cells: Sequence[Told]) -> Told:
    usable = [c for c in cells if c["fooling_rate"]["value"] is not None]
    return max(usable, key=lambda c: c["fooling_rate"]["value"]) if usable else {}


def _cell(cell: Told) -> str:
    return f"{share(cell['fooling_rate'])}: {cell['title']}" if cell else "not tried"


def _gap(static: Told, adaptive: Told) -> str:
    if not (static and adaptive):
        return "n/a"
    return f"{100 * (adaptive['fooling_rate']['value'] - static['fooling_rate']['value']):+.1f}"


def audited(told: Told) -> list[str]:
    """The verdict of an audit, and how long its stages took."""
    seconds = told["seconds"]
    longest = sorted(seconds.items(), key=lambda one: -one[1])[:5]
    stages = ", ".join(f"{name} {took:.0f} s" for name, took in longest)
    return [
        "### Audit",
        f"`staanet audit` of `{told['victim']['name']}` without gradients, {told['corpus']['clips']} test "
        f"clips: {sum(seconds.values()) / 60:.1f} minutes over {len(seconds)} stages, {told['machine']}. "
        f"The longest: {stages}.",
        *(f"* {sentence}" for sentence in told["verdict"]),
    ]


def told(what: str, done: int, total: int, figures: str = "") -> None:
    """Progress on the error stream."""
    end = "" if done < total else "\n"
    print(f"\r{what}: {done} of {total} {figures}", end=end, file=sys.stderr)
