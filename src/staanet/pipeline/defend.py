"""The stages that defend a victim, and that attack it knowing its defence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.config import AttackRecipe
from staanet.core import Corpus, Victim, stratified_subset
from staanet.defences import Defended
from staanet.errors import InvalidInput
from staanet.evaluation import CONTROLS, check_names, defence_knowledge
from staanet.pipeline.attack import attack
from staanet.pipeline.attack_plan import plan_attack
from staanet.pipeline.clips import load_clips
from staanet.pipeline.context import Context
from staanet.pipeline.folders import is_done, normal
from staanet.pipeline.train import quality_of
from staanet.results.adversarial_set import AdversarialSet
from staanet.transforms import parse_transform
from staanet.victims import load_victim

ADAPTIVE = ("pgd", "sigma_zero")
"""What is tried through a defence where nothing else is asked for: many samples a little, few by more."""
BLACK_BOX = ("sparse_rs",)
"""What is tried where there is no gradient to follow."""
_OF_ANY_CARD = {
    "kind",
    "architecture",
    "name",
    "labels",
    "sample_rate",
    "settings",
    "sha256",
    "schema",
    "staanet",
    "python",
    "numpy",
    "torch",
}


def defend(
    victim: Victim,
    chain: Sequence[str],
    out: Path,
    *,
    name: str | None = None,
    corpus: Corpus | None = None,
    context: Context,
) -> Defended:
    """Write ``victim`` behind a chain of defences (``NAME[:SETTING]``) as a victim folder.

    With a corpus the card tells recall before
    (``undefended_dev_uar`` ...) and after (``dev_uar`` ...) on its dev and test parts.
    """
    made = Defended(victim, [parse_transform(text) for text in chain], name=name, seed=context.seed)
    inner = _card_of(victim)
    inputs: dict[str, Any] = {
        **(inner.get("inputs") or {}),
        "defences": [str(one) for one in made.chain],
        "draws": context.seed,
        "inner": victim.sha256,
    }
    figures: dict[str, float] = {}
    if corpus is not None:
        parts = dict(zip(("dev", "test"), context.split(corpus)[1:], strict=True))
        inputs |= context.split_inputs(corpus)
        if is_done(out, "victim", inputs):
            return _again(out, context)
        for part, own in parts.items():
            clips = load_clips(own, victim, context)
            for prefix, one in (("undefended_", victim), ("", made)):
                figures |= {f"{prefix}{part}_{k}": v for k, v in quality_of(one, clips).items()}
            context.progress("defend", len(figures), 8, "")
    elif is_done(out, "victim", inputs):
        return _again(out, context)
    own_card = {key: value for key, value in inner.items() if key not in _OF_ANY_CARD}
    made.save_pretrained(out, inner_card=own_card, inputs=normal(inputs), **figures)
    made.origin = str(out)
    return made


def adapt(
    sets: Sequence[Path],
    targets: Sequence[Victim],
    out: Path,
    *,
    attacks: Sequence[str] | None = None,
    clips: int = 40,
    context: Context,
) -> list[Path]:
    """Attack each defended target that no set knows, on the clips of ``sets`` and at their budget.

    Each of ``attacks`` (by default PGD and sigma-zero, without gradients Sparse-RS) is made through the
    defence on up to ``clips`` clips, at the epsilon and density of the first set that is no control,
    into ``out/ATTACK__TARGET``. A black-box model behind a defence is attacked by queries.
    """
    check_names(targets)
    held = [AdversarialSet.load(place) for place in sets]
    attacks_held = [one for one in held if one.card.get("algorithm") not in CONTROLS]
    made = []
    for target in targets:
        known = any(defence_knowledge(one, target) == "adaptive" for one in attacks_held)
        if not isinstance(target, Defended) or known:
            continue
        model = next(iter(attacks_held), held[0])
        most = max(held, key=len)
        budget = model.card.get("budget") or {}
        for name in attacks or (ADAPTIVE if target.differentiable else BLACK_BOX):
            recipe = AttackRecipe(
                attack=name,
                title=f"{name}, knowing the defence",
                epsilon=float(budget.get("epsilon") or 0.03),
                max_density=budget.get("max_density"),
            )
            plan = plan_attack(name, recipe, target, context=context)
            plan = replace(plan, inputs={**plan.inputs, "target": target.sha256})
            usable = [c.clean for c in most if len(c.clean.pcm16) >= target.minimum_samples]
            chosen = stratified_subset(usable, clips)
            if not chosen:
                raise InvalidInput(
                    f"no clip is long enough for {target.name}",
                    where=sets[0],
                    remedy="Evaluate it on longer clips",
                )
            if len(chosen) < len(usable):
                plan = replace(plan, of=len(usable))
            place = out / f"{name}__{target.name}"
            attack(plan, chosen, place, context=context)
            made.append(place)
    return made


def _card_of(victim: Victim) -> dict[str, Any]:
    """The card of a victim folder; nothing of a model that was made elsewhere."""
    place = Path(victim.origin)
    return storage.read_card(place, "victim") if (place / storage.CARD).is_file() else {}


def _again(out: Path, context: Context) -> Defended:
    victim = load_victim(out).to(context.device)
    assert isinstance(victim, Defended), "its inputs name defences"
    return victim
