"""``python -m bench strength RUN CORPUS``: what the generator reaches beside what others reach.

On test clips of a finished run's corpus and, with ``--other``, on clips of speakers never trained on:
limits kept, white-box fooling, samples needed, transfer, targeted success, and time. Generators that
the run does not hold are trained into ``--out``; each figure is kept there, so that a stopped command
goes on where it was.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench import sections
from bench.attacking import DENSITY, EPSILON, Bench, made_folder, on, parser, percent, titled, word
from staanet import storage
from staanet.attacks import MIFGSM, PGD, VMIFGSM, Random, SigmaZero, Staa, craft
from staanet.core import Attack, Budget, Clip, stratified_subset
from staanet.generators.base import Generator
from staanet.pipeline.run_card import commit
from staanet.storage import describe_machine
from staanet.victims import members_of

PAPER_WEIGHTS = (1.0, 0.01, 0.0)
"""Of its sparsity term: the published 1e-5 at six seconds of speech, a hundredth of it, and nothing."""
WAVE_U_NET = "Wave-U-Net (compact), objective of ours"
TABLES = ("limits", "white_box", "samples", "equal_fooling", "transfer", "targeted", "elsewhere")
DENSITIES = (0.003, 0.01, 0.03, 0.1, 0.2, 0.5)


def main(arguments: list[str]) -> None:
    """Train what is missing, measure, and write the section."""
    asks = parser("strength", __doc__, clips=28)
    asks.add_argument("--other", help="KIND:PATH of speakers never trained on")
    asks.add_argument("--steps", type=int, default=400, help="of the published objective")
    asks.add_argument("--tables", nargs="+", choices=TABLES, help="some of them (default: all)")
    chosen = asks.parse_args(arguments)
    with storage.FolderLock(made_folder(chosen.out)):
        bench = Strength.of(
            chosen.run, chosen.corpus, chosen.out, chosen.clips, chosen.steps, device=chosen.device
        )
        tables = bench.tables(chosen.other)
        parts = [tables[name]() for name in chosen.tables or tables]
    some = f" --tables {' '.join(chosen.tables)}" if chosen.tables else ""
    other = f" --other {chosen.other.partition(':')[0]}:PATH" if chosen.other else ""
    about = (
        f"`python -m bench strength RUN {chosen.corpus.partition(':')[0]}:PATH{other} "
        f"--clips {chosen.clips} --steps {chosen.steps}{some}{on(chosen.device)}`, commit `{commit()}`, {describe_machine()}. "
        f"Epsilon {EPSILON}, {chosen.clips} test clips spread over labels and speakers, one seed. "
        "Seconds a clip were taken beside other work. "
        f"Victims: {bench.about_victims()}."
    )
    sections.write("strength", "\n\n".join(["## Strength", about, *parts]))


@dataclass
class Strength(Bench):
    """The tables of the section."""

    def paper(self, weight: float) -> Generator:
        """The published objective, its defects mended, against emo18 on a network of the size of ours."""
        return self.generator(
            f"paper_emo18_{weight:g}",
            ["emo18"],
            network="compact",
            objective="paper",
            steps=self.steps,
            sparsity=weight,
        )

    def tables(self, other: str | None) -> dict[str, Callable[[], str]]:
        """What makes each table, by its name."""
        found: dict[str, Callable[[], str]] = {
            name: getattr(self, name) for name in TABLES if name != "elsewhere"
        }
        return found if other is None else {**found, "elsewhere": lambda: self.elsewhere(other)}

    def wave_u_net(self) -> Generator:
        """A network like the published one, of the size of ours, trained as ours is, against emo18."""
        return self.generator(WAVE_U_NET, ["emo18"], network="compact", steps=self.steps)

    # ------------------------------------------------------------ tables

    def limits(self) -> str:
        """Whether what the user names is kept, whatever epsilon, batch and length."""
        generator, rows = self.own("emo18"), []
        source, rng = self.victims["emo18"], np.random.default_rng(0)
        for epsilon, batch in ((0.005, 4), (0.01, 16), (0.02, 64), (0.03, 4), (0.05, 16)):
            clips = []
            for number in range(batch):
                whole = self.clips[number % len(self.clips)]
                length = int(rng.uniform(2, 10) * whole.sample_rate)
                samples = np.resize(whole.pcm16, length)
                clips.append(Clip(str(number), samples, whole.sample_rate))
            for share, count in ((0.05, None), (0.2, None), (None, 1000)):
                budget = Budget(epsilon=epsilon, max_density=share, max_l0=count)
                made = craft(
                    Staa(generator=generator, budget=budget), source, clips, batch_size=batch
                )
                broken = sum(
                    bool(budget.violations(one.clean.pcm16, one.adversarial)) for one in made
                )
                used = statistics.fmean(
                    len(one.support) / (count or math.floor((share or 1) * len(one.adversarial)))
                    for one in made
                )
                named = f"{100 * share:g} % of samples" if share else f"{count} samples"
                rows.append(
                    [epsilon, batch, named, f"{batch - broken} of {batch}", f"{100 * used:.1f} %"]
                )
        head = ["epsilon", "batch", "limit named", "clips that keep it", "of the limit used"]
        return titled("Limits kept", head, rows, "Clips of 2 to 10 s, no tuning.")

    def white_box(self) -> str:
        """As many samples, the same epsilon."""
        rows = []
        for name, source in self.victims.items():
            budget = Budget(epsilon=EPSILON, max_density=DENSITY)
            generator = self.own(name)
            for title, attack in (
                ("STAA-Net", lambda g=generator, b=budget: Staa(generator=g, budget=b)),
                (
                    "STAA-Net, eight iterations",
                    lambda g=generator, b=budget: Staa(generator=g, budget=b, iterations=8),
                ),
                (
                    "STAA-Net, 5 steps of PGD from there",
                    lambda g=generator, b=budget: Staa(generator=g, budget=b, refine=5),
                ),
                ("PGD, 20 steps", lambda b=budget: PGD(budget=b)),
                ("random", lambda b=budget: Random(budget=b)),
            ):
                found = self.measure(f"white_{name}_{word(title)}", attack, source)
                rows.append(
                    [
                        name,
                        title,
                        percent(found.fooled(name)),
                        f"{found.mean('density'):.3f}",
                        f"{found.mean('snr_db'):.1f}",
                        f"{found.seconds:.3f}",
                    ]
                )
        head = ["source", "attack", "fooled", "density", "SNR dB", "s a clip"]
        note = f"At most {100 * DENSITY:g} % of the samples."
        return titled("White box", head, rows, note)

    def samples(self) -> str:
        """How many samples it takes to fool a share of what dense PGD of 100 steps fools."""
        source, generator = self.victims["emo18"], self.own("emo18")
        dense = self.measure(
            "dense_pgd100", lambda: PGD(budget=Budget(epsilon=EPSILON), steps=100), source
        ).fooled("emo18")
        ways: dict[str, Callable[[Budget], Attack]] = {
            "STAA-Net": lambda b: Staa(generator=generator, budget=b),
            "STAA-Net, 5 steps of PGD from there": lambda b: Staa(
                generator=generator, budget=b, refine=5
            ),
            "PGD, 20 steps": lambda b: PGD(budget=b),
            WAVE_U_NET: lambda b: Staa(generator=self.wave_u_net(), budget=b),
            **{
                f"published objective, weight {weight:g}": lambda b, w=weight: Staa(  # type: ignore[misc]
                    generator=self.paper(w), budget=b
                )
                for weight in PAPER_WEIGHTS
            },
            "random": lambda b: Random(budget=b),
        }
        rows = []
        for title, way in ways.items():
            rates, seconds = [], 0.0
            for density in DENSITIES:
                budget = Budget(epsilon=EPSILON, max_density=density)
                found = self.measure(
                    f"samples_{word(title)}_{density}", lambda w=way, b=budget: w(b), source
                )
                rates.append(found.fooled("emo18"))
                seconds = found.seconds
            needed = [percent(_needed(DENSITIES, rates, s * dense)) for s in (0.8, 0.95)]
            rows.append([title, *map(percent, rates), *needed, f"{seconds:.3f}"])
        few = stratified_subset(self.clips, 10)
        zero = self.measure(
            "sigma_zero_1000",
            lambda: SigmaZero(budget=Budget(epsilon=EPSILON), steps=1000),
            source,
            clips=few,
        )
        own = sorted(
            row["density"] if row["before"]["emo18"] != row["after"]["emo18"] else math.inf
            for row in zero.rows
        )
        rates = [statistics.fmean(value <= density for value in own) for density in DENSITIES]
        needed = [percent(own[math.ceil(share * dense * len(own)) - 1]) for share in (0.8, 0.95)]
        rows.append(
            [
                f"sigma-zero, 1000 steps, {len(few)} clips",
                *map(percent, rates),
                *needed,
                f"{zero.seconds:.3f}",
            ]
        )
        head = [
            "attack on emo18",
            *(f"fooled at {100 * d:g} %" for d in DENSITIES),
            "samples for 80 %",
            "samples for 95 %",
            "s a clip",
        ]
        note = (
            f"The last shares are of what PGD of 100 steps on every sample fools, {percent(dense)}; "
            "samples in between are interpolated over their logarithm; n/a: not reached."
        )
        return titled("Samples needed", head, rows, note)

    def equal_fooling(self) -> str:
        """How loud the change is where ours fools as many clips as the published objective does."""
        source, generator = self.victims["emo18"], self.own("emo18")
        rows = []
        others: dict[str, Callable[[], Generator]] = {
            f"published objective, weight {weight:g}": lambda w=weight: self.paper(w)  # type: ignore[misc]
            for weight in PAPER_WEIGHTS
        }
        others[WAVE_U_NET] = self.wave_u_net
        for title, made in others.items():
            theirs = self.measure(
                f"samples_{word(title)}_{DENSITIES[-1]}",
                lambda m=made: Staa(  # type: ignore[misc]
                    generator=m(), budget=Budget(epsilon=EPSILON, max_density=DENSITIES[-1])
                ),
                source,
            )
            ours = next(
                found
                for density in (*DENSITIES, 1.0)
                if (
                    found := self.measure(
                        f"samples_staa_net_{density}",
                        lambda b=Budget(epsilon=EPSILON, max_density=density): Staa(
                            generator=generator, budget=b
                        ),  # type: ignore[misc]
                        source,
                    )
                ).fooled("emo18")
                >= theirs.fooled("emo18")
                or density == 1.0
            )
            for name, one in ((title, theirs), ("STAA-Net", ours)):
                rows.append(
                    [
                        name,
                        percent(one.fooled("emo18")),
                        percent(one.mean("density")),
                        f"{one.mean('snr_db'):.1f}",
                    ]
                )
        head = ["attack on emo18", "fooled", "samples changed", "SNR dB"]
        note = (
            f"STAA-Net at the least of the shares above that fools as many as the other does with up to "
            f"{100 * DENSITIES[-1]:g} %; clips that nothing touched have no SNR and are left out of its mean."
        )
        return titled("Loudness at equal fooling", head, rows, note)

    def transfer(self) -> str:
        """The target's own weights are in no source."""
        budget = Budget(epsilon=EPSILON, max_density=DENSITY)
        names = list(self.victims)
        left_out = [",".join(n for n in names if n != one) for one in names]
        rows = []
        for name in (*names, "emo18,zhao19", *left_out):
            source, generator = self.source(name), self.own(name)
            ways: dict[str, Callable[[], Attack]] = {
                "STAA-Net": lambda g=generator: Staa(generator=g, budget=budget),  # type: ignore[misc]
                "STAA-Net, eight iterations": lambda g=generator: Staa(  # type: ignore[misc]
                    generator=g, budget=budget, iterations=8
                ),
                "MI-FGSM, 10 steps": lambda: MIFGSM(budget=budget),
                "random": lambda: Random(budget=budget),
            }
            if name not in left_out:  # on three sources it takes a minute for ten clips
                ways["VMI-FGSM, 10 steps"] = lambda: VMIFGSM(budget=budget)
            if name == "emo18":
                ways[WAVE_U_NET] = lambda: Staa(generator=self.wave_u_net(), budget=budget)
                for weight in PAPER_WEIGHTS:
                    title = f"published objective, weight {weight:g}"
                    ways[title] = lambda w=weight: Staa(  # type: ignore[misc]
                        generator=self.paper(w), budget=budget
                    )
            for title, attack in ways.items():
                found = self.measure(f"transfer_{word(name)}_{word(title)}", attack, source)
                own = {member.name for member in members_of(source)}
                rows.append(
                    [
                        name,
                        title,
                        *(
                            "white box" if target in own else percent(found.fooled(target))
                            for target in self.victims
                        ),
                        f"{found.seconds:.3f}",
                    ]
                )
        head = ["sources", "attack", *self.victims, "s a clip"]
        note = f"At most {100 * DENSITY:g} % of the samples; the small transformers are the hard direction."
        return titled("Transfer", head, rows, note)

    def targeted(self) -> str:
        """One generator, any class; each clip towards one of the others."""
        source = self.victims["emo18"]
        generator = self.generator(
            "targeted_emo18_8_looks",
            ["emo18"],
            goal="targeted",
            iterations=8,
            steps=60,
            evaluate_every=30,
        )
        dense, sparse = Budget(epsilon=EPSILON), Budget(epsilon=EPSILON, max_density=DENSITY)
        ways: dict[str, Callable[[], Attack]] = {
            "STAA-Net, one generator for all classes, eight iterations": lambda: Staa(
                generator=generator, budget=sparse
            ),
            "STAA-Net, every sample": lambda: Staa(
                generator=generator, budget=Budget(epsilon=EPSILON, max_density=1.0)
            ),
            "STAA-Net, 5 steps of PGD from there": lambda: Staa(
                generator=generator, budget=sparse, refine=5
            ),
            "PGD, 20 steps, as many samples": lambda: PGD(budget=sparse),
            "PGD, 100 steps, every sample": lambda: PGD(budget=dense, steps=100),
        }
        rows = []
        for title, attack in ways.items():
            found = self.measure(f"targeted_{word(title)}", attack, source, label="each")
            rows.append(
                [
                    title,
                    percent(found.reached("emo18")),
                    f"{found.mean('density'):.3f}",
                    f"{found.seconds:.3f}",
                ]
            )
        head = ["attack on emo18", "takes it for the wanted class", "density", "s a clip"]
        return titled(
            "Targeted", head, rows, "Each clip aims at one of the classes that it is not."
        )

    def elsewhere(self, spec: str) -> str:
        """Other speakers, another language: nothing here was trained or tuned on them."""
        ((corpus, clips),) = self.unseen(spec).items()
        rows = []
        for snr in (None, 20.0):
            budget = Budget(epsilon=EPSILON, max_density=DENSITY, min_snr_db=snr)
            for name in ("emo18", "zhao19"):
                generator = self.own(name)
                for title, attack in (
                    ("STAA-Net", lambda g=generator, b=budget: Staa(generator=g, budget=b)),
                    (
                        "STAA-Net, eight iterations",
                        lambda g=generator, b=budget: Staa(generator=g, budget=b, iterations=8),
                    ),
                    ("PGD, 20 steps", lambda b=budget: PGD(budget=b)),
                    ("random", lambda b=budget: Random(budget=b)),
                ):
                    key = f"elsewhere_{corpus}_{name}_{word(title)}_{snr}"
                    found = self.measure(key, attack, self.victims[name], clips=clips)
                    rows.append(
                        [
                            name,
                            title,
                            "any" if snr is None else f"{snr:g}",
                            *(percent(found.fooled(target)) for target in ("emo18", "zhao19")),
                            f"{found.mean('density'):.3f}",
                            f"{found.mean('snr_db'):.1f}",
                        ]
                    )
        head = [
            "source",
            "attack",
            "least dB named",
            "fools emo18",
            "fools zhao19",
            "density",
            "SNR dB",
        ]
        note = f"{len(clips)} clips of {corpus}, speakers that no victim or generator has heard."
        return titled("Never heard before", head, rows, note)


def _needed(densities: Sequence[float], rates: Sequence[float], goal: float) -> float:
    """The density at which a curve first reaches ``goal``; infinite where it does not.

    >>> round(_needed([0.01, 0.1], [0.2, 0.6], 0.4), 4)
    0.0316
    """
    for number, rate in enumerate(rates):
        if rate >= goal:
            if number == 0:
                return densities[0]
            below, span = rates[number - 1], math.log(densities[number] / densities[number - 1])
            return densities[number - 1] * math.exp(span * (goal - below) / (rate - below))
    return math.inf


if __name__ == "__main__":
    main(sys.argv[1:])
