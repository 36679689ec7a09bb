"""Rotation-prediction watermark: heads, what is asked, and verification.

The marked encoder was trained so that secret heads tell from an embedding whether its image was
turned by less or by more than half a circle. A copy learns this along; an honest encoder does not,
as the heads are random networks that it never met.

Source: Dziedzic et al., "On the Difficulty of Defending Self-Supervised Learning against Model
Extraction", ICML 2022, and its released code (ssl-attacks-defenses).

Notes:
    - Heads are drawn from a committed seed and never trained. In the released code the head is
      meant to be trained, but its optimizer never gets the parameters; here this is on purpose,
      as it makes decoy heads an exact null. The paper compares with 50%.
    - Several heads may be planted; the paper has one.
    - Both copies of one image are one observation in the interval; they were two.
    - Verification takes images that nobody trained on; the released code takes training images.
    - Images are turned bilinearly, the released code takes the nearest pixel; corners are black.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit import gates
from tollkeeper.audit.base import OwnershipResult
from tollkeeper.audit.split import embed_all
from tollkeeper.audit.views import Pictures
from tollkeeper.audit.watermarks.alignment import Anchors, independents_p, ridge_align
from tollkeeper.audit.watermarks.decoys import DECOYS, Commitment, Draws, KeyStream, decoy_test
from tollkeeper.audit.watermarks.layers import Layers, draw_layers
from tollkeeper.audit.watermarks.turning import rotated
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Embeddings, Scores

HEADS, ANGLES = "rotation heads", "rotation angles"
"""Labels of the keys."""

HIDDEN = (256, 128)
"""Widths inside a head, of the released code."""

_Z99 = 2.576


def draw_heads(draws: Draws, dim: int, *, heads: int = 1) -> tuple[Layers, ...]:
    """Return the heads of a key, from embeddings of width `dim` to two logits each."""
    return tuple(draw_layers(draws, (dim, *HIDDEN, 2)) for _ in range(heads))


def draw_angles(draws: Draws, count: int, *, margin: float = 0.0) -> NDArray[np.float64]:
    """Return (2, count) degrees: below 180 in the first row, above in the second.

    Args:
        draws: of the key.
        count: images.
        margin: degrees around 0, 180 and 360 that are left out, where the class cannot be seen;
            the paper leaves out none.

    Raises:
        ConfigurationError: the margin leaves nothing.
    """
    if not 0 <= margin < 90:
        raise ConfigurationError(f"expected a margin from 0 to below 90 degrees, got {margin}")
    share = draws.uniform(2, count)
    return margin + share * (180 - 2 * margin) + np.array([[0.0], [180.0]])


def mark_accuracy(first: Embeddings, second: Embeddings, heads: tuple[Layers, ...]) -> Scores:
    """Return (n,) the share of right decisions about each image.

    Args:
        first: (n, d) of images turned by less than 180 degrees.
        second: (n, d) of the same images turned by more.
        heads: of one key.
    """
    right = np.zeros(len(first))
    for head in heads:
        low, high = head(first), head(second)
        right += (low[:, 0] >= low[:, 1]).astype(float) + (high[:, 1] > high[:, 0])
    return right / (2 * len(heads))


@dataclass(frozen=True, slots=True, eq=False)
class RotationEvidence:
    """What the owner opens, and what the arbiter adds.

    Attributes:
        images: (n, ...) of the encoder's domain, drawn by the arbiter; nobody trained on them.
        seed: of the heads and of the angles, opened.
        commitment: what was published of the seed, and when.
        dim: width of the marked encoder.
        heads: how many were planted.
        margin: degrees left out around the borders between the classes.
        anchors: public images to align the suspect on; None takes its answers as they are, which a
            permutation defeats.
        independents: encoders that never met the marked one; the null where the anchors are the
            marked encoder's, otherwise not asked.
    """

    images: Pictures
    seed: bytes = field(repr=False)
    commitment: Commitment
    dim: int
    heads: int = 1
    margin: float = 0.0
    anchors: Anchors | None = None
    independents: tuple[Encoder, ...] = ()

    def asked(self) -> Pictures:
        """Return what a suspect is asked: (2n + m, ...) images turned by less, by more, anchors.

        Raises:
            EvidenceError: the seed is not the committed one, or was committed too late.
        """
        angles = draw_angles(self._keys(ANGLES).planted(), len(self.images), margin=self.margin)
        turned = [rotated(self.images, degrees) for degrees in angles]
        return np.concatenate([*turned, *([self.anchors.images] if self.anchors else [])])

    def keys(self) -> KeyStream:
        """Return the heads' keys.

        Raises:
            EvidenceError: the seed is not the committed one, or was committed too late.
        """
        return self._keys(HEADS)

    def _keys(self, label: str) -> KeyStream:
        self.commitment.check()
        return KeyStream.opened(self.seed, label, commitment=self.commitment.digest)

    def split(self, answers: Embeddings) -> tuple[Embeddings, Embeddings]:
        """Return the embeddings of both copies, aligned if there are anchors.

        Args:
            answers: (2n + m, s) to `asked`.

        Raises:
            AuditRefused: the suspect has another width and there are no anchors.
        """
        n = len(self.images)
        if self.anchors is None:
            return answers[:n], answers[n:]
        mapped = ridge_align(answers[2 * n :], self.anchors.embeddings)
        return mapped(answers[:n]), mapped(answers[n : 2 * n])


@dataclass(frozen=True, slots=True)
class RotationWatermark:
    """Does a suspect answer to the heads?

    The p-value is exact where heads are looked for in the suspect's own answers, or after an
    alignment to the clean encoder: under the null the planted heads are exchangeable with decoys.
    After an alignment to the marked encoder it is of the independents' distribution.

    Attributes:
        name: of the test.
        decoys: keys that the planted one is compared with, at most.
        least: images.
    """

    name: str = "rotation-watermark"
    decoys: int = DECOYS
    least: int = gates.LEAST

    def run(
        self, suspect: Encoder, evidence: RotationEvidence, *, rng: np.random.Generator
    ) -> OwnershipResult:
        """Ask the suspect and test.

        Args:
            suspect: of images like the evidence's.
            evidence: opened.
            rng: not used; all randomness is the committed seed's.

        Raises:
            EvidenceError: the seed is not the committed one, or was committed too late.
            AuditRefused: too few images, another width without anchors, or unusable answers.
        """
        del rng
        gates.check_samples(len(evidence.images), least=self.least, what="images")
        if evidence.anchors is None:
            gates.check_width(suspect, evidence.dim)
        asked = evidence.asked()
        others = evidence.independents if _is_marked(evidence) else ()
        shown = [float(self.decided(embed_all(one, asked), evidence).mean()) for one in others]
        return self.judge(embed_all(suspect, asked), evidence, independents=shown)

    def decided(self, answers: Embeddings, evidence: RotationEvidence) -> Scores:
        """Return (n,) the share of right decisions of the planted heads about each image."""
        heads = draw_heads(evidence.keys().planted(), evidence.dim, heads=evidence.heads)
        return mark_accuracy(*evidence.split(answers), heads)

    def judge(
        self, answers: Embeddings, evidence: RotationEvidence, *, independents: list[float]
    ) -> OwnershipResult:
        """Test the answers of a suspect to `evidence.asked()`; nothing is asked.

        Args:
            answers: (2n + m, s).
            evidence: opened.
            independents: accuracies of the independents, where they are the null.

        Raises:
            AuditRefused: as in `run`.
        """
        right = self.decided(answers, evidence)
        accuracy = float(right.mean())
        if _is_marked(evidence):
            null = np.array(independents)
            p = independents_p(accuracy, independents)
        else:
            p, null = self._against_decoys(accuracy, answers, evidence)
        half = _Z99 * float(right.std(ddof=1)) / np.sqrt(len(right))
        return OwnershipResult(
            test=self.name,
            null="key",
            statistic=accuracy,
            p_value=p,
            effect_size=accuracy - 0.5,
            interval=(accuracy - 0.5 - half, accuracy - 0.5 + half),
            null_distribution=null,
            alternative="the suspect was made from the marked encoder or from its answers",
            details={
                "images": float(len(right)),
                "null_mean": float(null.mean()),
                "null_sd": float(null.std(ddof=1)),
                "null_max": float(null.max()),
            },
        )

    def _against_decoys(
        self, accuracy: float, answers: Embeddings, evidence: RotationEvidence
    ) -> tuple[float, NDArray[np.float64]]:
        first, second = evidence.split(answers)

        def decoy(draws: Draws) -> float:
            heads = draw_heads(draws, evidence.dim, heads=evidence.heads)
            return float(mark_accuracy(first, second, heads).mean())

        return decoy_test(accuracy, decoy, evidence.keys(), count=self.decoys)


def _is_marked(evidence: RotationEvidence) -> bool:
    return evidence.anchors is not None and evidence.anchors.whose == "marked"
