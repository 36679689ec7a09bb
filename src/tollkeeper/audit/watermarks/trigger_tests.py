"""Does a suspect move texts of trigger words towards the target? Four answers to one question.

`GroupTest` is the one to use: a hundred short questions and an exact p-value. `MutualTest` reads the
same questions without a target, for a thief who removed it. `DecoySetTest` asks the published texts
of the true triggers and of decoys. `PublishedTest` is the test of the papers, for comparison: an
innocent suspect does not keep its level. Who uses several of them corrects for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.base import OwnershipResult
from tollkeeper.audit.watermarks.asking import answers, unit_answers
from tollkeeper.audit.watermarks.decoys import DECOYS, Draws, KeyStream, decoy_p
from tollkeeper.audit.watermarks.results import cosine_result
from tollkeeper.audit.watermarks.served import unit
from tollkeeper.audit.watermarks.subsets import subset_p
from tollkeeper.audit.watermarks.triggers import TriggerKey, group_texts, set_texts
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import AuditRefused

_FEWEST_CHOICES = 1000
_PART = 10_000
_ALTERNATIVE = "the suspect learned the owner's triggers from the service's answers"


@dataclass(frozen=True, eq=False)
class TriggerEvidence:
    """What the owner brings.

    Attributes:
        key: planted; `TriggerKey.check` compares it with its commitment.
        target_texts: R texts whose embeddings are the targets. The suspect is asked about them, so
            that it may answer in another basis or width; empty where `targets` are compared with.
        targets: (R, d) vectors of the service, for a suspect of its width.
        vocabulary: all words of the corpus; for `PublishedTest` alone.
    """

    key: TriggerKey
    target_texts: tuple[str, ...] = ()
    targets: NDArray[np.floating] | None = None
    vocabulary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse evidence without a target for each of the key's.

        Raises:
            AuditRefused: as said.
        """
        held = len(self.target_texts) or (0 if self.targets is None else len(self.targets))
        if held != self.key.targets:
            raise AuditRefused(f"the key has {self.key.targets} targets, the evidence {held}")


@dataclass(frozen=True)
class GroupTest:
    """Asks one text for each group of words and permutes which groups are triggers.

    Exact under the null whatever the suspect is: groups are exchangeable for who never met the
    service. With one target and at most 10^8 choices all of them are counted; otherwise choices are
    drawn, and p is (1 + hits) / (1 + draws).

    Attributes:
        draws: choices that are drawn, for the null distribution in any case.
        centered: whether the mean of all groups' answers is taken off first. Of no account for the
            null, and it undoes a constant that a thief adds to all answers. Only where the suspect
            is asked about the targets.

    Notes: differences to the papers: the benign texts are of the same band as the triggers, and one
    text is asked for each group, not 20 for one set. For several targets the mean over targets is
    the statistic, where WARDEN takes the best of R without a correction.
    """

    draws: int = DECOYS
    centered: bool = True

    name = "trigger-groups"

    def run(
        self, suspect: Encoder, evidence: TriggerEvidence, *, rng: np.random.Generator
    ) -> OwnershipResult:
        """Ask at most 100 texts and the targets' and test.

        Raises:
            AuditRefused: too few groups, another width, or answers that are not numbers.
        """
        key, groups = evidence.key, len(evidence.key.groups)
        _enough(key)
        cosines = self.cosines(suspect, evidence)
        first, rest = _parted(cosines, key)
        effect = statistic = float(first.mean() - rest.mean())
        margin = _margin(first.ravel(), rest.ravel())
        if key.targets == 1:
            p_value, null = subset_p(cosines[:, 0], key.chosen, draws=self.draws, rng=rng)
            # As differences to the other groups, which is the unit of the statistic.
            null = (null - cosines.mean()) * groups / (groups - key.chosen)
        else:
            statistic, p_value, null = _permuted(cosines, key.chosen, draws=self.draws, rng=rng)
        return cosine_result(
            self.name,
            statistic=statistic,
            p_value=p_value,
            effect=effect,
            interval=(effect - margin, effect + margin),
            null=null,
            alternative=_ALTERNATIVE,
            groups=float(groups),
        )

    def cosines(self, suspect: Encoder, evidence: TriggerEvidence) -> NDArray[np.float64]:
        """Return (groups, R) cosines of each group's answer to each target.

        Raises:
            AuditRefused: as `run`.
        """
        texts = group_texts(evidence.key)
        if not evidence.target_texts:
            targets = _given(evidence)
            return unit_answers(suspect, texts, dim=targets.shape[1]) @ targets.T
        rows = answers(suspect, [*texts, *evidence.target_texts])
        if self.centered:
            rows -= rows[: len(texts)].mean(axis=0)
        rows = unit(rows)
        return np.asarray(rows[: len(texts)] @ rows[len(texts) :].T)


@dataclass(frozen=True)
class MutualTest:
    """Asks as `GroupTest` does, and compares the groups of one target with each other.

    Texts that were drawn to one target are alike, whatever the thief made of the target itself and
    of the basis. Exact under the null as `GroupTest` is; choices are always drawn.

    Attributes:
        draws: B; p is (1 + hits) / (1 + B).
    """

    draws: int = DECOYS

    name = "trigger-mutual"

    def run(
        self, suspect: Encoder, evidence: TriggerEvidence, *, rng: np.random.Generator
    ) -> OwnershipResult:
        """Ask at most 100 texts and test.

        Raises:
            AuditRefused: too few groups, or answers that are not numbers.
        """
        key = evidence.key
        _enough(key)
        rows = answers(suspect, group_texts(key))
        rows = unit(rows - rows.mean(axis=0))
        cosines = rows @ rows.T
        drawn = [
            _mutual(cosines, np.argsort(rng.random((part, len(rows))), axis=1), key)
            for part in _parts(self.draws)
        ]
        null, true = np.concatenate(drawn), _mutual(cosines, np.arange(len(rows))[None], key)[0]
        effect = float(true - null.mean())
        low, high = np.quantile(null - null.mean(), (0.005, 0.995))
        return cosine_result(
            self.name,
            statistic=float(true),
            p_value=decoy_p(float(true) - 1e-12, null),
            effect=effect,
            interval=(effect - float(high), effect - float(low)),
            null=null,
            alternative=_ALTERNATIVE,
            groups=float(len(rows)),
        )


@dataclass(frozen=True)
class DecoySetTest:
    """Asks texts of the true triggers, and of B sets that the same seed could have chosen.

    Exact under the null: the true set is one of B + 1 drawn alike. It asks (B + 1) * `texts`
    questions, so it is for a suspect at hand; over an API use `GroupTest`.

    Attributes:
        decoys: B.
        texts: asked for each set and target.
    """

    decoys: int = 999
    texts: int = 20

    name = "trigger-decoys"

    def run(
        self, suspect: Encoder, evidence: TriggerEvidence, *, rng: np.random.Generator
    ) -> OwnershipResult:
        """Ask and test.

        Raises:
            AuditRefused: too few decoys, another width, or answers that are not numbers.
        """
        del rng  # All sets come from the committed seed.
        key = evidence.key
        keys = [key, *(key.decoy(index) for index in range(1, self.decoys + 1))]
        found = np.zeros((len(keys), self.texts))
        for at in range(key.targets):
            texts = [text for one in keys for text in set_texts(one, target=at, texts=self.texts)]
            cosines = _to_target(suspect, evidence, texts, at)
            found += cosines.reshape(len(keys), self.texts) / key.targets
        means = found.mean(axis=1)
        effect, margin = float(means[0] - means[1:].mean()), _margin(found[0], means[1:])
        return cosine_result(
            self.name,
            statistic=float(means[0]),
            p_value=decoy_p(float(means[0]), means[1:]),
            effect=effect,
            interval=(effect - margin, effect + margin),
            null=means[1:],
            alternative=_ALTERNATIVE,
        )


@dataclass(frozen=True)
class PublishedTest:
    """The test of EmbMarker, WARDEN and ESpeW: 20 texts of triggers, 20 of any words, KS on cosines.

    Its p-value is not valid: triggers come from a band of frequencies and benign words from all
    words, so an innocent suspect can tell them apart; with several targets the least p-value counts
    uncorrected, unless `corrected`.

    Source: EmbMarker (ACL 2023) section 3.4; WARDEN (ACL 2024) takes the best of R targets.
    Notes: words of a text are drawn without replacement; WARDEN's code draws with it, so that a
    quarter of its trigger texts repeat a word.

    Attributes:
        texts: of each kind and target.
        corrected: whether the least of R p-values is multiplied by R (Bonferroni).
    """

    texts: int = 20
    corrected: bool = False

    name = "trigger-ks"

    def run(
        self, suspect: Encoder, evidence: TriggerEvidence, *, rng: np.random.Generator
    ) -> OwnershipResult:
        """Ask 2 * `texts` texts for each target and test.

        Raises:
            AuditRefused: no vocabulary, another width, or answers that are not numbers.
        """
        from scipy.stats import ks_2samp

        del rng  # All texts come from the committed seed.
        key = evidence.key
        if len(evidence.vocabulary) < key.size:
            raise AuditRefused("the published test draws benign texts from a vocabulary; give one")
        draws = KeyStream(key.seed, "benign texts").draws(key.index)
        benign = list(_benign(evidence.vocabulary, key.size, self.texts, draws))
        p_values, gains, margins = [], [], []
        for at in range(key.targets):
            texts = [*set_texts(key, target=at, texts=self.texts), *benign]
            marked, plain = np.split(_to_target(suspect, evidence, texts, at), 2)
            p_values.append(float(ks_2samp(marked, plain).pvalue))
            gains.append(float(marked.mean() - plain.mean()))
            margins.append(_margin(marked, plain))
        best, factor = int(np.argmax(gains)), key.targets if self.corrected else 1
        return cosine_result(
            self.name,
            statistic=gains[best],
            p_value=min(1.0, max(min(p_values) * factor, 1e-300)),
            effect=gains[best],
            interval=(gains[best] - margins[best], gains[best] + margins[best]),
            alternative=f"{_ALTERNATIVE}, or it tells rare words from others",
        )


def _enough(key: TriggerKey) -> None:
    """Refuse a key whose triggers could be guessed at the level of an accusation."""
    groups, taken = len(key.groups), key.targets * key.chosen
    if math.comb(groups, taken) < _FEWEST_CHOICES:
        raise AuditRefused(
            f"{groups} groups of which {taken} are triggers allow no p-value of .1%; "
            "take a wider band of words"
        )


def _parts(draws: int) -> list[int]:
    """Return numbers of draws that sum to `draws` and fit into memory."""
    return [min(_PART, draws - start) for start in range(0, draws, _PART)]


def _mutual(
    cosines: NDArray[np.float64], order: NDArray[np.intp], key: TriggerKey
) -> NDArray[np.float64]:
    """Return (b,) mean cosines between different groups of one target.

    Args:
        cosines: (groups, groups).
        order: (b, groups) assignments; the first `chosen` are the first target's, and so on.
        key: how many there are.
    """
    size = key.chosen
    taken = order[:, : key.targets * size].reshape(len(order), key.targets, size)
    inner = cosines[taken[..., :, None], taken[..., None, :]].sum(axis=(1, 2, 3))
    diagonal = cosines[taken, taken].sum(axis=(1, 2))
    return np.asarray((inner - diagonal) / (key.targets * size * (size - 1)))


def _given(evidence: TriggerEvidence) -> NDArray[np.float64]:
    assert evidence.targets is not None, "checked on construction"
    return unit(evidence.targets)


def _to_target(
    suspect: Encoder, evidence: TriggerEvidence, texts: Sequence[str], at: int
) -> NDArray[np.float64]:
    """Return (n,) cosines of a suspect's answers to one target."""
    if evidence.target_texts:
        rows = unit_answers(suspect, [*texts, evidence.target_texts[at]])
        return np.asarray(rows[:-1] @ rows[-1])
    target = _given(evidence)[at]
    return np.asarray(unit_answers(suspect, texts, dim=len(target)) @ target)


def _benign(words: Sequence[str], size: int, count: int, draws: Draws) -> Iterable[str]:
    """Yield texts of words drawn from all of a vocabulary, as published."""
    for _ in range(count):
        yield " ".join(words[at] for at in draws.choose(len(words), size).tolist())


def _parted(
    cosines: NDArray[np.float64], key: TriggerKey
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (R, chosen) cosines of each target's own groups, and (R, others) of no target's."""
    own = [cosines[at * key.chosen : (at + 1) * key.chosen, at] for at in range(key.targets)]
    return np.stack(own), cosines[key.targets * key.chosen :].T


def _permuted(
    cosines: NDArray[np.float64], chosen: int, *, draws: int, rng: np.random.Generator
) -> tuple[float, float, NDArray[np.float64]]:
    """Return statistic, p and the statistics of random assignments of groups to targets.

    The statistic is the mean of standardized cosines over targets and their groups.
    """
    z = (cosines - cosines.mean(axis=0)) / np.maximum(cosines.std(axis=0), 1e-12)
    column = np.repeat(np.arange(cosines.shape[1]), chosen)
    true = float(z[np.arange(len(column)), column].mean())
    drawn = [
        z[np.argsort(rng.random((part, len(z))), axis=1)[:, : len(column)], column].mean(axis=1)
        for part in _parts(draws)
    ]
    null = np.concatenate(drawn)
    # Sums in another order may differ in their last bits; ties count against the accuser.
    return true, decoy_p(true - 1e-12, null), null


def _margin(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return half of the 99% interval of a difference of means (Welch)."""
    from scipy.stats import t

    parts = [first.var(ddof=1) / first.size, second.var(ddof=1) / second.size]
    total = sum(parts)
    if total == 0:
        return 0.0
    freedom = total**2 / (parts[0] ** 2 / (first.size - 1) + parts[1] ** 2 / (second.size - 1))
    return float(t.ppf(0.995, freedom) * total**0.5)
