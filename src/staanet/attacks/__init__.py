"""Attacks: ``ATTACKS`` lists them by name; ``craft`` runs one on clips and returns adversarial audio."""

from __future__ import annotations

from staanet.attacks.crafting import collate, craft, craft_batch, density_flags, logits_of
from staanet.attacks.gradient import FGSM, MIFGSM, PGD, VMIFGSM
from staanet.attacks.random import Random
from staanet.attacks.search import OnePixel, SparseRS
from staanet.attacks.sparse import VFGA, SigmaZero, SparseFool
from staanet.attacks.sparse_pgd import SparsePGD
from staanet.attacks.staa import Staa, project_to_snr
from staanet.attacks.universal import UAP, fit_uap, load_uap, save_uap

__all__ = [
    "ATTACKS",
    "FGSM",
    "MIFGSM",
    "OnePixel",
    "PGD",
    "Random",
    "SigmaZero",
    "SparseFool",
    "SparsePGD",
    "SparseRS",
    "Staa",
    "UAP",
    "VFGA",
    "VMIFGSM",
    "collate",
    "craft",
    "craft_batch",
    "density_flags",
    "fit_uap",
    "load_uap",
    "logits_of",
    "project_to_snr",
    "save_uap",
]

ATTACKS = {
    "fgsm": FGSM,
    "mi_fgsm": MIFGSM,
    "one_pixel": OnePixel,
    "pgd": PGD,
    "random": Random,
    "sigma_zero": SigmaZero,
    "sparse_rs": SparseRS,
    "sparsefool": SparseFool,
    "spgd": SparsePGD,
    "staa": Staa,
    "uap": UAP,
    "vfga": VFGA,
    "vmi_fgsm": VMIFGSM,
}
