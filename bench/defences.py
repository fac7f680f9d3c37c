"""``python -m bench defences``: what defences are worth against who knows them, into results.md.

Attacks a plain victim and hardened ones on the same test clips, at the same budgets, each attack made
anew on the very victim that it is judged on: PGD, STAA-Net with a generator trained through it, and the
random control. Transformations meet what was made on the plain victim (static) and what was made through
them (adaptive). Beside that it tells what ``staanet detect``, ``certify``, ``audit`` and ``run
emodb_defences`` left in their folders. Each kind of corpus has a section of its own. A stopped command
goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import sections
from staanet import load_corpus, load_victim, pipeline, storage
from staanet.config import AttackRecipe, AuditRecipe, GeneratorRecipe, HardenRecipe
from staanet.core import NO_CHANNEL, Corpus, stratified_subset
from staanet.evaluation import transfer_matrix
from staanet.pipeline.run_card import commit
from staanet.pipeline.stage import normal
from staanet.results.adversarial_set import AdversarialSet
from staanet.storage import describe_machine
from staanet.victims import victim_folder

DENSITY = 0.2
EPSILONS = (0.01, 0.03)
ATTACKS = ("pgd", "staa", "random")
Told = Mapping[str, Any]


def main(arguments: list[str]) -> None:
    """Attack what is not attacked yet, read the rest, and write the section."""
    chosen = _parser().parse_args(arguments)
    corpus, kind = load_corpus(chosen.corpus), chosen.corpus.partition(":")[0]
    parts = [
        f"{made_by(chosen)}. A rate is the share of test clips with a changed prediction. The 95 % "
        "interval is clustered by speaker."
    ]
    parts += attacked(corpus, chosen)
    for spec in chosen.unseen:
        parts += attacked(corpus, chosen, load_corpus(spec))
    parts += detectors([read(folder / "detector.json") for folder in chosen.detector])
    parts += certificates([read(folder / "certificate.json") for folder in chosen.certificate])
    if chosen.audit:
        parts += audited(read(chosen.audit / "audit.json"))
    title = f"## Defences against adaptive attacks: {kind}"
    sections.write(f"defences-{kind}", "\n\n".join([title, *parts]))


def attacked(corpus: Corpus, chosen: argparse.Namespace, unseen: Corpus | None = None) -> list[str]:
    """Trained defences and transformations, on the test part or on clips of an ``unseen`` corpus."""
    specs = [chosen.victim, *chosen.hardened] if chosen.victim else []
    victims = [Bench(spec, corpus, chosen, unseen) for spec in specs]
    rows = [row for one in victims for row in one.rows()]
    summaries = [one for text in chosen.transformation for one in victims[0].behind(text)]
    summaries += (
        [read(chosen.run / "results" / "summary.json")] if chosen.run and unseen is None else []
    )
    parts = [*(hardened(rows) if rows else []), *transformations(summaries)]
    if unseen is None:
        return parts
    about = (
        f"The test uses {len(victims[0].clips)} clips of {unseen.name}. No victim and no generator was trained on "
        f"this corpus. The victims have the classes of {corpus.name}."
    )
    below = (f"#{part}" if part.startswith("###") else part for part in parts)
    return [f"### On {unseen.name}", about, *below]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench defences",
        description=__doc__,
        epilog="example: python -m bench defences emodb:PATH --victim shipped:emo18 --hardened hard "
        "--transformation median:3 --detector guarded --certificate certificates --audit audit",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    folder: dict[str, Any] = {"type": Path, "default": [], "action": "append", "metavar": "FOLDER"}
    parser.add_argument("corpus", help="KIND:PATH")
    parser.add_argument("--victim", help="the plain victim")
    parser.add_argument("--hardened", default=[], action="append", help="of staanet harden; repeat")
    parser.add_argument(
        "--transformation",
        default=[],
        action="append",
        metavar="NAME[:SETTING]",
        help="before the plain victim; repeat",
    )
    parser.add_argument(
        "--unseen",
        default=[],
        action="append",
        metavar="KIND:PATH",
        help="attack the same victims on clips of this corpus too; repeat",
    )
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
    for key in ("hardened", "transformation", "detector", "certificate"):
        given += [f"--{key} {_name(one)}" for one in getattr(chosen, key)]
    given += [
        f"--{key} {getattr(chosen, key).name}" for key in ("audit", "run") if getattr(chosen, key)
    ]
    given += [f"--unseen {one.partition(':')[0]}:PATH" for one in chosen.unseen]
    command = " ".join(
        [
            f"{chosen.corpus.partition(':')[0]}:PATH",
            *given,
            f"--clips {chosen.clips} --generator-steps {chosen.generator_steps}",
        ]
    )
    return f"The command `python -m bench defences {command}` ran at commit `{commit()}` with {describe_machine()}"


def _name(spec: object) -> str:
    return str(spec) if ":" in str(spec) else Path(str(spec)).name


def read(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told


# ---------------------------------------------------------------- attacks made here


class Bench:
    """A victim under attack: its clips, its generator, and the adversarial sets made on it."""

    def __init__(
        self, spec: str, corpus: Corpus, chosen: argparse.Namespace, unseen: Corpus | None = None
    ) -> None:
        self.spec, self.corpus, self.chosen, self.unseen = spec, corpus, chosen, unseen
        self.victim = load_victim(spec)
        self.victim.name = Path(spec.rpartition(":")[2]).name  # two of a kind may be called alike
        self.card = storage.read_card(Path(victim_folder(spec)), "victim")
        test = corpus.split(seed=chosen.seed)[2] if unseen is None else unseen
        usable = pipeline.load_clips(test, self.victim, pipeline.Context())
        self.clips = stratified_subset(usable, chosen.clips)
        self.epsilons = chosen.epsilon or EPSILONS

    def rows(self) -> Iterator[dict[str, Any]]:
        """What each attack, made on this very victim, does to it."""
        for epsilon in self.epsilons:
            for made in self.made(epsilon):
                cell = transfer_matrix([made], [self.victim]).summary["cells"][0]
                yield {
                    "victim": self.victim.name,
                    "test_uar": self.card["test_uar"],
                    "attack": made.card["algorithm"],
                    "epsilon": epsilon,
                    "fooled": cell["fooling_rate"],
                    "uar": cell["uar_before"]["value"],
                    "uar_after": cell["uar_after"]["value"],
                    "hardened": self.card.get("hardened"),
                    "recipe": (self.card.get("inputs") or {}).get("recipe"),
                }

    def behind(self, text: str) -> Iterator[dict[str, Any]]:
        """For each epsilon the matrix of this victim and of itself behind the transformation ``text``:
        what was made on the one and through the other, judged on both."""
        name = f"{self.victim.name}+{text.replace(':', '-').replace(',', '-')}"
        folder = self.chosen.out / "defended" / name
        pipeline.defend(
            self.victim,
            [text],
            folder,
            corpus=self.corpus,
            context=pipeline.Context(seed=self.chosen.seed, progress=told),
        )
        through = Bench(str(folder), self.corpus, self.chosen, self.unseen)
        for epsilon in self.epsilons:
            sets = [*self.made(epsilon), *through.made(epsilon)]
            yield transfer_matrix(sets, [self.victim, through.victim]).summary

    def made(self, epsilon: float) -> Iterator[AdversarialSet]:
        """Every attack at ``epsilon``, made on this victim; what is there already is read."""
        generator = self._generator() if self.chosen.generator_steps else None
        for attack in ATTACKS:
            if attack == "staa" and generator is None:
                continue
            key = f"{attack}-e{epsilon:g}"
            recipe = AttackRecipe(attack=attack, title=key, epsilon=epsilon, max_density=DENSITY)
            plan = pipeline.plan_attack(
                key, recipe, self.victim, generator=generator, context=pipeline.Context()
            )
            where = "adversarial" if self.unseen is None else f"adversarial-{self.unseen.name}"
            folder = self.chosen.out / where / f"{key}__{self.victim.name}"
            pipeline.attack(
                plan,
                self.clips,
                folder,
                context=pipeline.Context(quarantine=pipeline.Quarantine(), progress=told),
            )
            yield AdversarialSet.load(folder)

    def _generator(self) -> Path:
        recipe = GeneratorRecipe(
            epsilon=max(EPSILONS),
            max_density=DENSITY,
            steps=self.chosen.generator_steps,
            batch_size=8,
            seconds=1.0,
        )
        folder: Path = self.chosen.out / "generators" / self.victim.name
        pipeline.train_generator(
            self.corpus,
            self.victim,
            folder,
            recipe=recipe,
            context=pipeline.Context(seed=self.chosen.seed, progress=told),
        )
        return folder


def hardened(rows: Sequence[Told]) -> list[str]:
    """Fooling rates of each victim by attack and epsilon, and what hardening cost and halved."""
    lines = [
        "### Trained defences",
        f"Every attack is white box. At most {100 * DENSITY:g} % of the samples change. PGD has 20 steps.",
    ]
    table = [
        "| victim | test UAR | "
        + " | ".join(f"{attack}, epsilon {epsilon:g}" for attack in ATTACKS for epsilon in EPSILONS)
        + " |",
        "|---|---|" + 6 * "---|",
    ]
    names = list(dict.fromkeys(row["victim"] for row in rows))
    for name in names:
        own = {(row["attack"], row["epsilon"]): row for row in rows if row["victim"] == name}
        cells = [
            share(own[attack, epsilon]["fooled"]) if (attack, epsilon) in own else "not tried"
            for attack in ATTACKS
            for epsilon in EPSILONS
        ]
        uar = next(iter(own.values()))["test_uar"]
        table.append(f"| {name} | {uar:.3f} | " + " | ".join(cells) + " |")
    lines.append("\n".join(table))
    plain = [row for row in rows if row["victim"] == names[0] and row["attack"] == "pgd"]
    for name in names[1:]:
        own_rows = [row for row in rows if row["victim"] == name and row["attack"] == "pgd"]
        ratios = [
            f"{_ratio(b, a)} at epsilon {a['epsilon']:g}"
            for a, b in zip(plain, own_rows, strict=True)
        ]
        lost = 100 * (plain[0]["test_uar"] - own_rows[0]["test_uar"])
        how = own_rows[0]["hardened"] or {}
        cost = (
            f" A step takes {how['cost']['times']:.1f} times as long as a plain step."
            if "cost" in how
            else ""
        )
        lines.append(
            f"* {name}: the fooling rate of adaptive PGD, divided by the rate on the plain victim, is "
            f"{' and '.join(ratios)}. The UAR is {lost:.1f} points lower.{cost}{made_so(own_rows[0])}"
        )
    return lines


def made_so(row: Told) -> str:
    """The settings of ``staanet harden`` that made a victim, where its card tells them."""
    if not (row["hardened"] and row.get("recipe")):
        return ""
    given = " ".join(
        f"--{key.replace('_', '-')} {value}"
        for key, value in row["recipe"].items()
        if key == "method" or value != getattr(HardenRecipe(), key)
    )
    return f" The training started from `{row['hardened']['from']}` with `staanet harden {given}`."


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
        f"| {share(a['false_positive_rates'])} | {share(a['detected'])} | {share(a['fooled'])} "
        f"| {share(a['fooled_undetected'])} |"
        for one in found
        for a in one["attacks"]
    ]
    head = "| detector | attack | AUROC | false positives | detected | fooled | fooled and undetected |"
    return [
        "### Detectors",
        "The thresholds were chosen on clean dev clips, without any attack.",
        "\n".join([head, "|---|---|---|---|---|---|---|", *rows]),
    ]


def _radius(one: Told) -> str:
    """The largest radius with its unit, a plural only where there are several.

    >>> _radius({"largest_radius": 1.0, "unit": "samples that may take any value"})
    '1 sample that may take any value'
    """
    unit = str(one["unit"])
    if one["largest_radius"] == 1:
        unit = unit.replace("samples", "sample", 1)
    return f"{one['largest_radius']:.4g} {unit}"


def certificates(found: Sequence[Told]) -> list[str]:
    """What was certified, and how many attacks inside the radius succeeded: none should."""
    if not found:
        return []
    rows = [
        f"| {one['victim']} | {one['method']} | {', '.join(f'{k} {v:g}' for k, v in one['noise'].items())} "
        f"| {one['votes']['votes']} | {one['votes']['alpha']:g} | {one['right']} of {one['clips']} | {one['abstained']} | {one['median_radius']:.4g} "
        f"| {_radius(one)} | {one['broken']} of {one['attacked']} |"
        for one in found
    ]
    head = (
        "| victim | method | noise | votes | alpha | right | abstained | median radius | largest radius "
        "| successful attacks inside the radius |"
    )
    return [
        "### Certificates",
        "The table shows test clips. Each certificate is wrong with a probability of at most alpha. The "
        "attacks use gradients through the mean of 16 draws.",
        "\n".join([head, "|---|---|---|---|---|---|---|---|---|---|", *rows]),
    ]


def transformations(summaries: Sequence[Told]) -> list[str]:
    """The strongest attack on each defended victim by one who does not know the defence, and who does."""
    rows = [row for summary in summaries for row in _behind(summary)]
    if not rows:
        return []
    head = "| victim | UAR without defence | UAR with defence | undefended | static | adaptive | gap in points |"
    return [
        "### Transformations",
        "Each cell shows the attack with the highest rate. The UAR is the UAR of the attacked clips.",
        "\n".join([head, "|---|---|---|---|---|---|---|", *rows]),
    ]


def _behind(summary: Told) -> Iterator[str]:
    for name, about in summary["targets"].items():
        if "defended" not in about:
            continue
        inner = about["defended"]["inner"]
        plain, static, adaptive = (
            _strongest(
                [
                    c
                    for c in summary["cells"]
                    if c["target"] == target
                    and c["source"] == source
                    and c["channel"] == NO_CHANNEL
                    and not c["control"]
                ]
            )
            for target, source in ((inner, inner), (name, inner), (name, name))
        )
        uars = [
            f"{c['uar_before']['value']:.3f}" if c else "n/a" for c in (plain, static or adaptive)
        ]
        yield (
            f"| {name} | {' | '.join(uars)} | {_cell(plain)} | {_cell(static)} "
            f"| {_cell(adaptive)} | {_gap(static, adaptive)} |"
        )


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
    usual = normal(asdict(AuditRecipe()))
    changed = [f"{key} {value}" for key, value in told["recipe"].items() if value != usual[key]]
    sources = ", ".join(source["name"] for source in told["sources"])
    return [
        "### Audit",
        f"`staanet audit` tested `{told['victim']['name']}` {'with' if told['victim']['gradients'] else 'without'} "
        f"gradients. The sources are {sources}. The settings are {'; '.join(changed) or 'the defaults'}. "
        f"The audit used {told['corpus']['clips']} test clips. It took {sum(seconds.values()) / 60:.1f} minutes in "
        f"{len(seconds)} stages with {told['machine']}. The longest stages are: {stages}.",
        *(f"* {sentence}" for sentence in told["verdict"]),
    ]


def told(what: str, done: int, total: int, figures: str = "") -> None:
    """Progress on the error stream."""
    end = "" if done < total else "\n"
    print(f"\r{what}: {done} of {total} {figures}", end=end, file=sys.stderr)
