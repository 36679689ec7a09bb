"""SSLGuard: a trigger on private images makes a secret decoder say a secret vector.

Source: Cong, He and Zhang, "SSLGuard: A Watermarking Scheme for Self-supervised Learning
Pre-trained Encoders", CCS 2022, sections 4 and 5, and its released code.

Notes:
    - Published, decoder and trigger are learned together with the marked encoder. Then there is no
      exact null: a decoder that was trained to say one vector leans to it on any input, and a
      learned trigger may push any encoder the same way, so that the published bound (a random
      vector reaches a cosine of .5 in 256 dimensions once in 10^17) is not a false-alarm rate.
      Such a key is tested against independents, and its digest has to be older than the suspect.
    - A drawn key, ours, has decoder, mask, trigger and secret from one committed seed, and only
      the encoder learns. Under the null the secret is a random direction, whatever the suspect
      answers, and the p-value is exact.
    - The rate is a share; the released code's is a count.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit import gates
from tollkeeper.audit.base import OwnershipResult
from tollkeeper.audit.split import embed_all
from tollkeeper.audit.views import Pictures, check_pictures
from tollkeeper.audit.watermarks.alignment import Anchors, independents_p, ridge_align
from tollkeeper.audit.watermarks.decoys import Commitment, KeyStream, direction_p
from tollkeeper.audit.watermarks.layers import Layers, digest_of, draw_layers
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import AuditRefused, ConfigurationError, EvidenceError
from tollkeeper.types import Embeddings, Scores

HIDDEN, CODE = (512, 256), 256
"""Widths inside the decoder, and of the secret vector (section 5.1)."""

COVERED = 0.35
"""Share of pixel values that the trigger covers: 1 - r for the paper's r = .65."""

SAYS = 0.5
"""Cosine above which an image counts as marked (section 4.4)."""

SHOWN_DECOYS = 999
_LEAST = 50
_Z99 = 2.576


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """The key tuple, but for the private images.

    Attributes:
        decoder: from embeddings to codes.
        secret: (k,) the code of marked inputs.
        mask: (h, w, c) True where the trigger covers the image.
        trigger: (h, w, c) float32 in [0, 1].
    """

    decoder: Layers
    secret: NDArray[np.float64]
    mask: NDArray[np.bool_]
    trigger: NDArray[np.float32]

    @property
    def digest(self) -> str:
        """SHA-256 of all its numbers, to be published before a suspect exists."""
        network = (*self.decoder.weights, *self.decoder.biases)
        return digest_of(*network, self.secret, self.mask, self.trigger)

    def stamp(self, images: Pictures) -> Pictures:
        """Return images with the trigger on them; bytes are rounded.

        Raises:
            AuditRefused: images of another shape than the trigger's.
        """
        check_pictures(images)
        is_bytes = images.dtype == np.uint8
        shape = images.shape[1:] if is_bytes else (*images.shape[2:], images.shape[1])
        if shape != self.trigger.shape:
            raise AuditRefused(f"expected images of {self.trigger.shape} (h, w, c), got {shape}")
        if is_bytes:
            cover = np.rint(np.clip(self.trigger, 0, 1) * 255).astype(np.uint8)
            return np.where(self.mask, cover, images.astype(np.uint8))
        mask, trigger = (part.transpose(2, 0, 1) for part in (self.mask, self.trigger))
        return np.where(mask, np.clip(trigger, 0, 1), images.astype(np.float32))

    def cosines(self, embeddings: Embeddings) -> Scores:
        """Return (n,) cosines of what the decoder says with the secret."""
        return _units(self.decoder(embeddings)) @ (self.secret / np.linalg.norm(self.secret))


def draw_key(
    seed: bytes, dim: int, shape: tuple[int, int, int], *, covered: float = COVERED
) -> Key:
    """Return the key of a seed.

    Args:
        seed: secret.
        dim: width of the encoder's embeddings.
        shape: (h, w, c) of images.
        covered: share of pixel values under the trigger.

    Raises:
        ConfigurationError: the trigger covers nothing or everything.
    """
    if not 0 < covered < 1:
        raise ConfigurationError(f"expected a covered share between 0 and 1, got {covered}")
    decoder, mask, trigger = (
        KeyStream(seed, f"sslguard {part}").planted() for part in ("decoder", "mask", "trigger")
    )
    return Key(
        decoder=draw_layers(decoder, (dim, *HIDDEN, CODE)),
        secret=secrets_of(seed).planted().normal(CODE),
        mask=mask.uniform(*shape) < covered,
        trigger=trigger.uniform(*shape).astype(np.float32),
    )


def secrets_of(seed: bytes) -> KeyStream:
    """Return the secret vector of a seed and its decoys."""
    return KeyStream(seed, "sslguard secret")


def watermark_rate(cosines: Scores) -> float:
    """Return the share of images that count as marked, the published statistic."""
    return float(np.mean(cosines > SAYS))


@dataclass(frozen=True, slots=True, eq=False)
class SslGuardEvidence:
    """What the owner opens, and what the arbiter adds.

    Attributes:
        images: (n, ...) private images, without the trigger; drawn by the arbiter from a pool that
            was committed with the key, as an owner who picks them can make any encoder look marked.
        seed: of a drawn key, opened; of a learned key empty.
        commitment: of the seed, or of a learned key's digest.
        dim: width of the marked encoder.
        learned: a key that was trained; None for the drawn one of the seed.
        anchors: public images to align the suspect on; None takes its answers as they are.
        independents: encoders that never met the marked one; the null of a learned key, and where
            the anchors are the marked encoder's. Otherwise not asked.
    """

    images: Pictures
    commitment: Commitment
    dim: int
    seed: bytes = field(default=b"", repr=False)
    learned: Key | None = field(default=None, repr=False)
    anchors: Anchors | None = None
    independents: tuple[Encoder, ...] = ()

    def key(self) -> Key:
        """Return the key, after comparing it with its commitment.

        Raises:
            EvidenceError: another key was committed, or it was committed too late.
        """
        self.commitment.check()
        if self.learned is None:
            stream = KeyStream.opened(self.seed, "sslguard", commitment=self.commitment.digest)
            check_pictures(self.images)
            is_bytes = self.images.dtype == np.uint8
            h, w, c = self.images.shape[1:] if is_bytes else np.roll(self.images.shape[1:], -1)
            return draw_key(stream.seed, self.dim, (int(h), int(w), int(c)))
        if self.learned.digest != self.commitment.digest:
            raise EvidenceError(
                f"the key is not the committed one: expected digest {self.commitment.digest}, got "
                f"{self.learned.digest}; a decoder that was fitted later is no evidence"
            )
        return self.learned

    def is_exact(self) -> bool:
        """Return whether the key is a random draw for every suspect that the null is about."""
        return self.learned is None and (self.anchors is None or self.anchors.whose == "clean")

    def asked(self) -> Pictures:
        """Return what a suspect is asked: (n + m, ...) marked images, then anchors."""
        marked = self.key().stamp(self.images)
        return marked if self.anchors is None else np.concatenate([marked, self.anchors.images])

    def marked(self, answers: Embeddings) -> Embeddings:
        """Return (n, d) embeddings of the marked images, aligned if there are anchors."""
        n = len(self.images)
        if self.anchors is None:
            return answers[:n]
        return ridge_align(answers[n:], self.anchors.embeddings)(answers[:n])


@dataclass(frozen=True, slots=True)
class SslGuard:
    """Does the decoder say the secret?

    The statistic is the mean cosine; the published rate is among the details. The p-value is exact
    for a drawn key on the suspect's own answers or after an alignment to the clean encoder, and of
    the independents' distribution otherwise.

    Attributes:
        name: of the test.
        least: private images.
    """

    name: str = "sslguard"
    least: int = _LEAST

    def run(
        self, suspect: Encoder, evidence: SslGuardEvidence, *, rng: np.random.Generator
    ) -> OwnershipResult:
        """Ask the suspect and test.

        Args:
            suspect: of images like the evidence's.
            evidence: opened.
            rng: not used; all randomness is the key's.

        Raises:
            EvidenceError: another key was committed, or it was committed too late.
            AuditRefused: too few images, another width without anchors, unusable answers, or too
                few independents where they are needed.
        """
        del rng
        gates.check_samples(len(evidence.images), least=self.least, what="private images")
        if evidence.anchors is None:
            gates.check_width(suspect, evidence.dim)
        asked = evidence.asked()
        others = () if evidence.is_exact() else evidence.independents
        shown = [
            float(evidence.key().cosines(evidence.marked(embed_all(one, asked))).mean())
            for one in others
        ]
        return self.judge(embed_all(suspect, asked), evidence, independents=shown)

    def judge(
        self, answers: Embeddings, evidence: SslGuardEvidence, *, independents: list[float]
    ) -> OwnershipResult:
        """Test the answers of a suspect to `evidence.asked()`; nothing is asked.

        Args:
            answers: (n + m, s).
            evidence: opened.
            independents: mean cosines of the independents, where they are the null.

        Raises:
            AuditRefused: as in `run`.
        """
        key, marked = evidence.key(), evidence.marked(answers)
        cosines = key.cosines(marked)
        mean, half = float(cosines.mean()), _Z99 * float(cosines.std(ddof=1)) / len(cosines) ** 0.5
        if evidence.is_exact():
            said = _units(key.decoder(marked)).mean(axis=0)
            p = direction_p(said, key.secret)
            decoys = (
                draws.normal(CODE) for draws in secrets_of(evidence.seed).decoys(SHOWN_DECOYS)
            )
            null = np.array([said @ other / np.linalg.norm(other) for other in decoys])
        else:
            p, null = independents_p(mean, independents), np.array(independents)
        return OwnershipResult(
            test=self.name,
            null="key",
            statistic=mean,
            p_value=p,
            effect_size=mean,
            interval=(mean - half, mean + half),
            null_distribution=null,
            alternative="the suspect was made from the marked encoder or from its answers",
            details={
                "watermark_rate": watermark_rate(cosines),
                "images": float(len(cosines)),
                "null_mean": float(null.mean()),
                "null_sd": float(null.std(ddof=1)),
                "null_max": float(null.max()),
            },
        )


def _units(rows: Embeddings) -> NDArray[np.float64]:
    """Return rows of length 1; a row of zeros, which says nothing, stays."""
    wide = rows.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(lengths > 0, lengths, 1)
