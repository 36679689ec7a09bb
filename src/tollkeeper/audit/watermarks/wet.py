"""WET: all answers go through one secret linear map.

The map is circulant: its first row has k positive entries that sum to 1, each further row is the
one before it moved by one. Who owns it can undo it on a copy's answers, who does not cannot.

Source: Shetty et al., "WET: Overcoming Paraphrasing Vulnerabilities in Embeddings-as-a-Service with
Linear Transformation Watermarks", ACL 2025, section 4.
Notes: the map keeps the width, as in the published main setting; the released code can widen, and
ends the run where a row gives no invertible map, which draws again here. The published figure
compares copies of two maps with each other; here the null are maps of the same committed seed that
were never used, so that an innocent suspect is accused at the stated rate. A global linear map
cannot be told from an honest change of basis by anyone who did not commit to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.base import OwnershipResult
from tollkeeper.audit.watermarks.asking import unit_answers
from tollkeeper.audit.watermarks.decoys import KeyStream, decoy_p
from tollkeeper.audit.watermarks.results import cosine_result
from tollkeeper.audit.watermarks.served import unit
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import AuditRefused, ConfigurationError
from tollkeeper.types import Embeddings

ENTRIES = 25
"""Entries of a row that are not zero: the published k."""

_SINGULAR = 1e-4
"""Least absolute eigenvalue: below, rounding to float32 shows in what is undone."""

_DRAWS = 100
_LEAST_TEXTS = 50


@dataclass(frozen=True)
class WetKey:
    """A circulant map.

    Attributes:
        seed: the owner's secret.
        dim: width d.
        entries: k, of a row.
        index: which key of the seed; 0 is planted, others are decoys.
    """

    seed: bytes
    dim: int
    entries: int = ENTRIES
    index: int = 0

    def __post_init__(self) -> None:
        """Refuse a map that does not mix.

        Raises:
            ConfigurationError: as said.
        """
        KeyStream(self.seed, "wet")
        if not 1 < self.entries <= self.dim:
            raise ConfigurationError(
                f"expected from 2 to {self.dim} entries of a row, got {self.entries}"
            )

    @cached_property
    def row(self) -> NDArray[np.float64]:
        """The first row, (d,), of an invertible map.

        Raises:
            ConfigurationError: none of many draws was invertible.
        """
        draws = KeyStream(self.seed, "wet").draws(self.index)
        for _ in range(_DRAWS):
            row = np.zeros(self.dim)
            row[draws.choose(self.dim, self.entries)] = draws.uniform(self.entries)
            row /= row.sum()
            if np.abs(np.fft.rfft(row)).min() > _SINGULAR:
                return row
        raise ConfigurationError(
            f"no invertible map of {self.entries} entries in {self.dim} coordinates was drawn; "
            "take another number of entries"
        )

    @property
    def spectrum(self) -> NDArray[np.complex128]:
        """What the map multiplies each frequency by, (d // 2 + 1,)."""
        # Rows move to the right, so that the map is a correlation with the first row.
        return np.conj(np.fft.rfft(self.row))

    def decoy(self, index: int) -> WetKey:
        """Return another key of the same seed, drawn alike and never planted."""
        return replace(self, index=index)

    def apply(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return (n, d) rows through the map, not normalized."""
        changed = np.fft.rfft(np.asarray(rows, np.float64)) * self.spectrum
        return np.asarray(np.fft.irfft(changed, self.dim))

    def undo(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return (n, d) rows through the inverse map, not normalized."""
        changed = np.fft.rfft(np.asarray(rows, np.float64)) / self.spectrum
        return np.asarray(np.fft.irfft(changed, self.dim))


@dataclass(frozen=True)
class Wet:
    """Answers Norm(T e_o) to every text.

    Attributes:
        key: the map.
    """

    key: WetKey

    name = "wet"

    def mark(self, texts: Sequence[str], embeddings: Embeddings) -> Embeddings:
        """Return marked (n, d) unit vectors."""
        del texts
        return unit(self.key.apply(unit(embeddings))).astype(np.float32)


@dataclass(frozen=True, eq=False)
class WetEvidence:
    """What the owner brings.

    Attributes:
        key: planted.
        texts: n public texts.
        clean: (n, d) what the service's encoder answers without the map.
    """

    key: WetKey
    texts: tuple[str, ...]
    clean: Embeddings


@dataclass(frozen=True)
class WetTest:
    """Undoes the map on a suspect's answers and compares with the owner's own.

    The p-value is exact for any suspect that never met the service: its answers do not depend on
    which key of the committed seed was planted.

    Attributes:
        decoys: B maps that were never used.
        way: "back" undoes the map on the suspect's answers, as published; "forward" takes the
            owner's through it, which magnifies no error of the copy.
    """

    decoys: int = 999
    way: Literal["back", "forward"] = "back"

    name = "wet"

    def run(
        self, suspect: Encoder, evidence: WetEvidence, *, rng: np.random.Generator
    ) -> OwnershipResult:
        """Ask n texts once and test.

        Raises:
            AuditRefused: too few texts or decoys, another width, or answers that are not numbers.
        """
        del rng  # All keys come from the committed seed.
        key = evidence.key
        _fitting(evidence)
        asked = unit_answers(suspect, evidence.texts, dim=key.dim)
        keys = [key, *(key.decoy(index) for index in range(1, self.decoys + 1))]
        spectra = np.stack([one.spectrum for one in keys], axis=1)
        cosines = _cosines(asked, unit(evidence.clean), spectra, back=self.way == "back")
        true, null = cosines[:, 0], cosines[:, 1:].mean(axis=0)
        gain = true - cosines[:, 1:].mean(axis=1)
        effect, margin = float(gain.mean()), 2.576 * float(gain.std(ddof=1)) / len(gain) ** 0.5
        return cosine_result(
            self.name,
            statistic=float(true.mean()),
            p_value=decoy_p(float(true.mean()), null),
            effect=effect,
            interval=(effect - margin, effect + margin),
            null=null,
            alternative="the suspect answers through the owner's secret map",
            auc=float((cosines[:, :1] > cosines[:, 1:]).mean()),
            texts=float(len(gain)),
        )


def _fitting(evidence: WetEvidence) -> None:
    """Refuse too few texts, or clean embeddings of others."""
    count, dim = len(evidence.texts), evidence.key.dim
    if count < _LEAST_TEXTS or evidence.clean.shape != (count, dim):
        raise AuditRefused(
            f"expected at least {_LEAST_TEXTS} texts and their ({count}, {dim}) clean embeddings, "
            f"got {evidence.clean.shape}"
        )


def _cosines(
    answers: NDArray[np.float64],
    clean: NDArray[np.float64],
    spectra: NDArray[np.complex128],
    *,
    back: bool,
) -> NDArray[np.float64]:
    """Return (n, keys) cosines of answers and clean rows with a map between them.

    By Parseval, without a transform for each key: products and lengths are sums over frequencies.
    """
    dim = clean.shape[1]
    twice = np.full(dim // 2 + 1, 2.0)
    twice[0] = 1.0
    if dim % 2 == 0:
        twice[-1] = 1.0
    asked, owned = np.fft.rfft(answers), np.fft.rfft(clean)
    between = 1 / spectra if back else np.conj(spectra)
    moved = asked if back else owned
    products = ((twice * asked * np.conj(owned)) @ between).real
    lengths = np.sqrt((twice * np.abs(moved) ** 2) @ np.abs(between) ** 2)
    other = np.linalg.norm(clean if back else answers, axis=1, keepdims=True)
    return np.asarray(products / (lengths * other * np.sqrt(dim)))
