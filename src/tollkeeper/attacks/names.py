"""The table of attacks: one line each. Reading it loads no torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tollkeeper.encoders.base import Modality
from tollkeeper.errors import ConfigurationError

if TYPE_CHECKING:
    from tollkeeper.attacks.base import Attack

_IMAGE: frozenset[Modality] = frozenset({"image"})
_TEXT: frozenset[Modality] = frozenset({"text"})
_BOTH = _IMAGE | _TEXT
_TENSOR: frozenset[Modality] = frozenset({"tensor"})

Copies = Literal["encoder", "classifier"]
"""What an attack copies."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One attack as the user picks it.

    Attributes:
        make: `module:function` inside this package; the function takes no arguments.
        summary: one line.
        source: the paper, or `ours`.
        accepts: modalities of the victims that it copies.
        copies: what those victims are.
    """

    make: str
    summary: str
    source: str
    accepts: frozenset[Modality] = _IMAGE
    copies: Copies = "encoder"


def _of_classifiers(make: str, summary: str, source: str) -> Entry:
    return Entry(f"classifier.presets:{make}", summary, source, _TENSOR, "classifier")


_SSLX = "Dziedzic et al., ICML 2022"
_KNOCKOFF = "Orekondy et al., CVPR 2019"
_PAPERNOT = "Papernot et al., ASIA CCS 2017"
_PRADA = "Juuti et al., EuroS&P 2019"
_DFME = "Truong et al., CVPR 2021"
_MAZE = "Kariyappa et al., CVPR 2021"
_ACTIVE = "Pal et al., AAAI 2020"

ATTACKS: Mapping[str, Entry] = {
    "direct-mse": Entry("presets:mse", "match raw embeddings", _SSLX, _BOTH),
    "direct-cosine": Entry("presets:cosine", "match directions", _SSLX, _BOTH),
    "direct-infonce": Entry("presets:infonce", "contrast answers in a batch", _SSLX, _BOTH),
    "direct-softnn": Entry("presets:softnn", "soft nearest neighbors", _SSLX, _BOTH),
    "direct-supcon": Entry("presets:supcon", "contrast by class; needs labels", _SSLX, _BOTH),
    "direct-wasserstein": Entry("presets:wasserstein", "match feature CDFs", _SSLX, _BOTH),
    "direct-bce": Entry("presets:bce", "match rounded activations", _SSLX, _BOTH),
    "direct-barlow": Entry("presets:barlow", "decorrelate two views", _SSLX),
    "direct-barlow-cross": Entry(
        "presets:barlow_cross", "decorrelate surrogate and victim", "ours", _BOTH
    ),
    "direct-symmetrized": Entry("presets:symmetrized", "SimSiam-style prediction", _SSLX),
    "head-recreation": Entry("presets:head_recreation", "rebuild the head first", _SSLX),
    "stolen-encoder": Entry(
        "presets:stolen_encoder", "one query, augmented copies", "Liu et al., CCS 2022"
    ),
    "cont-steal": Entry(
        "presets:cont_steal", "contrast augmented queries", "Sha et al., CVPR 2023"
    ),
    "rda": Entry("presets:rda", "prototypes of ten views", "Wu et al., ECCV 2024"),
    "text-distillation": Entry(
        "presets:text_distillation", "a smaller text encoder", "arXiv 2406.09355", _TEXT
    ),
    "merged-inputs": Entry(
        "presets:merged_inputs", "merge every input with one filler", "ours", _BOTH
    ),
    "stop-at-noise": Entry(
        "presets:stop_at_noise", "leave at the first perturbed answer", "ours", _BOTH
    ),
    "sybil-overlap": Entry(
        "presets:sybil_overlap",
        "accounts mapped by shared inputs",
        "Dubinski et al., NeurIPS 2023",
        _BOTH,
    ),
    "sybil-matching": Entry(
        "presets:sybil_matching", "accounts matched without shared inputs", "ours", _BOTH
    ),
    "sybil-rotation": Entry(
        "presets:sybil_rotation", "the same against orthogonal transforms", "ours", _BOTH
    ),
    "sybil-trunk": Entry("presets:sybil_trunk", "one trunk, a head per account", "ours", _BOTH),
    "sybil-stop": Entry(
        "presets:sybil_stop", "the same, each left at its first perturbed answer", "ours", _BOTH
    ),
    "knockoff": _of_classifiers("knockoff", "random pictures of a public pool", _KNOCKOFF),
    "knockoff-adaptive": _of_classifiers("knockoff_adaptive", "a bandit picks classes", _KNOCKOFF),
    "knockoff-rotating": _of_classifiers("knockoff_rotating", "accounts take turns", "ours"),
    "copycat": _of_classifiers(
        "copycat", "random pictures, labels only", "Correia-Silva et al., IJCNN 2018"
    ),
    "jbda": _of_classifiers("jbda", "steps along the copy's gradient", _PAPERNOT),
    "jbda-papernot": _of_classifiers("jbda_papernot", "flipped steps, a reservoir", _PAPERNOT),
    "jbda-strokes": _of_classifiers("jbda_strokes", "steps on what is drawn alone", "ours"),
    "jbda-half": _of_classifiers("jbda_half", "half the step", "ours"),
    "jbda-gray": _of_classifiers("jbda_gray", "the same step in all channels", "ours"),
    "jbda-rotating": _of_classifiers("jbda_rotating", "accounts take turns", "ours"),
    "t-random": _of_classifiers("t_random", "a step towards a random class", _PRADA),
    "t-random-iterated": _of_classifiers("t_random_iterated", "the same in small steps", _PRADA),
    "dfme": _of_classifiers("dfme", "a generator against recovered logits", _DFME),
    "maze": _of_classifiers("maze", "a generator against probabilities", _MAZE),
    "active-thief": _of_classifiers("active_thief", "where the copy is unsure", _ACTIVE),
    "active-thief-center": _of_classifiers(
        "active_thief_k_center", "far from what is known", _ACTIVE
    ),
    "active-thief-dfal": _of_classifiers("active_thief_dfal", "near the copy's borders", _ACTIVE),
    "active-thief-both": _of_classifiers(
        "active_thief_both", "near borders, far from each other", _ACTIVE
    ),
}


def of(copies: Copies) -> Mapping[str, Entry]:
    """Return the attacks that copy victims of one kind."""
    return {name: entry for name, entry in ATTACKS.items() if entry.copies == copies}


def find(name: str) -> Entry:
    """Return the attack of this name.

    Raises:
        ConfigurationError: there is none; names those there are.
    """
    if name not in ATTACKS:
        raise ConfigurationError(f"no attack {name!r}; choose {', '.join(ATTACKS)}")
    return ATTACKS[name]


def load(name: str) -> Attack:
    """Make the attack of this name with its published settings.

    Raises:
        ConfigurationError: unknown name, or torch is missing.
    """
    entry = find(name)
    module, _, function = entry.make.partition(":")
    try:
        made: Attack = getattr(importlib.import_module(f"tollkeeper.attacks.{module}"), function)()
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"attacks need the lab tools ({error.name} is missing): pip install 'tollkeeper[lab]'"
        ) from error
    return made
