"""The table of attacks: one line each. Reading it loads no torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tollkeeper.encoders.base import Modality
from tollkeeper.errors import ConfigurationError

if TYPE_CHECKING:
    from tollkeeper.attacks.base import Attack

_IMAGE: frozenset[Modality] = frozenset({"image"})
_TEXT: frozenset[Modality] = frozenset({"text"})
_BOTH = _IMAGE | _TEXT


@dataclass(frozen=True, slots=True)
class Entry:
    """One attack as the user picks it.

    Attributes:
        make: `module:function` inside this package; the function takes no arguments.
        summary: one line.
        source: the paper, or `ours`.
        accepts: modalities of the victims that it copies.
    """

    make: str
    summary: str
    source: str
    accepts: frozenset[Modality] = _IMAGE


_SSLX = "Dziedzic et al., ICML 2022"

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
}


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
