"""The guard: state in, state out.

`Guard.admit` is the whole defense of one request: it charges the pool's coverage,
looks up the price, adds noise and applies the tenant's transform. It is a pure
function of its arguments; whoever calls it keeps the sketch.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import GuardError
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.coverage import Visit, drawn
from tollkeeper.guard.keys import derive
from tollkeeper.guard.mark import Marker
from tollkeeper.guard.profiles import Profile
from tollkeeper.guard.scaling import norms_of, with_norms
from tollkeeper.guard.terms import Terms
from tollkeeper.guard.transform import Transform
from tollkeeper.types import Embeddings, Sketch, Verdict

_MEMO_BYTES = 64 << 20
_MEMO_ENTRIES = 4096


class Guard:
    """One guarded model's defense; safe to use from several threads.

    Attributes:
        profile: the constants, with the calibration's knee if it has one.
        calibration: the encoder's statistics; its width is the only one admitted.
        version: profile and version, for example `recommended/1`.
        sketch_bytes: size of a sketch.
    """

    def __init__(self, profile: Profile, calibration: Calibration, *, secret: bytes) -> None:
        """Derive the hyperplanes and their thresholds.

        Args:
            profile: the constants.
            calibration: of the encoder that is guarded.
            secret: at least 16 bytes, of one deployment and one model.

        Raises:
            GuardError: the secret is too short.
            CalibrationError: its sample is too small for the profile's landmarks.
        """
        self.profile = profile = profile.with_knee(calibration.knee)
        self.calibration = calibration
        self.version = f"{profile.name}/{profile.version}"
        self._secret = secret
        self._coverage = drawn(profile, calibration, derive(secret, "hyperplanes", self.version))
        self.sketch_bytes = self._coverage.sketch_bytes
        # A cache of a pure function: derived secrets are never stored elsewhere.
        size = self._derive_transform(bytes(32), calibration.dim).nbytes
        entries = min(_MEMO_ENTRIES, max(1, _MEMO_BYTES // max(1, size)))
        self._transform = functools.lru_cache(maxsize=entries)(self._derive_transform)
        self._terms = Terms(ceiling=profile.ceiling)

    @property
    def tracks(self) -> bool:
        """Whether coverage is measured at all; if not, there is nothing to store."""
        return self.profile.tables > 0

    @property
    def fingerprint(self) -> str:
        """Return 16 hex digits that differ whenever sketches cannot be compared.

        They depend on the secret (hence the model), the profile's version, the calibration
        and the size of a sketch; a sketch is meaningful only to a guard with the same
        fingerprint.
        """
        calibration = hashlib.sha256(self.calibration.to_bytes()).hexdigest()
        # Profiles without a sample have sketches of the size that they always had.
        sized = (self.sketch_bytes,) if self.profile.samples else ()
        parts = (self.version, calibration, *sized)
        return derive(self._secret, "fingerprint", *parts, length=8).hex()

    @property
    def commitment(self) -> str:
        """Return 64 hex digits that bind the owner to all tenants' keys and tell none of them."""
        return derive(self._secret, "commitment", self.version).hex()

    def out_dim(self, dimensions: int | None = None) -> int:
        """Return the width d' of answers, which some transforms change.

        Raises:
            GuardError: `dimensions` does not fit this guard.
        """
        return self._transform(bytes(32), self._checked_width(dimensions)).out_dim

    def empty(self) -> Sketch:
        """Return the sketch of a pool that never asked."""
        return self._coverage.empty()

    def load(self, data: bytes) -> Sketch:
        """Read `sketch.tobytes()`; no bytes at all mean an empty sketch.

        Raises:
            GuardError: the bytes are not a sketch of this guard.
        """
        return self._coverage.from_bytes(data)

    def merge(self, one: Sketch, other: Sketch) -> Sketch:
        """Return the sketch of a pool that asked what both asked.

        Raises:
            GuardError: an argument is not a sketch of this guard.
        """
        return self._coverage.merge(one, other)

    def fraction(self, sketch: Sketch, spared: Sketch | None = None) -> float:
        """Return the coverage of a sketch in [0, 1], without what is spared.

        Raises:
            GuardError: the argument is not a sketch of this guard.
        """
        return self.profile.layout.fraction(sketch, spared)

    def signal(self, sketch: Sketch, embeddings: Embeddings) -> NDArray[np.float64]:
        """Return (n,) what the price would read after each of n inputs; nothing is charged.

        Raises:
            GuardError: an argument does not fit this guard.
        """
        return self._coverage.visit(sketch, self._checked(embeddings)).fractions

    def mark(self, sketch: Sketch, embeddings: Embeddings) -> Sketch:
        """Return a sketch with (n, d) embeddings in it; nothing is priced.

        Raises:
            GuardError: an argument does not fit this guard.
        """
        return self.mark_places(sketch, self._coverage.places(self._checked(embeddings)))

    def mark_places(self, sketch: Sketch, places: NDArray[np.intp]) -> Sketch:
        """Return a sketch with inputs in it that a verdict has told the places of.

        Raises:
            GuardError: the sketch is not one of this guard.
        """
        return self._coverage.mark(sketch, places)

    def view(
        self,
        embeddings: Embeddings,
        *,
        key: bytes,
        dimensions: int | None = None,
        marked: bool = False,
    ) -> Embeddings:
        """Return (n, d') what a tenant sees below the knee: its transform, its mark if marked.

        Raises:
            GuardError: an argument does not fit this guard, or it cannot mark.
        """
        clean, width = self._checked(embeddings), self._checked_width(dimensions)
        if marked:
            clean = self.marker.apply(clean, clean, key=key)
        if width < self.calibration.dim:
            clean = with_norms(clean[:, :width], 1.0)
        return self._transform(key, width)(clean)

    def tenant_key(self, tenant: str, *, version: int = 1) -> bytes:
        """Return the 32-byte key of a tenant; a new version is a new space and new noise."""
        return derive(self._secret, "tenant", tenant, version)

    @functools.cached_property
    def marker(self) -> Marker:
        """What marks answers; derived when first needed, for no tenant is marked by default.

        Raises:
            GuardError: embeddings are too narrow, or the calibration has too small a sample.
        """
        return self.profile.mark.of(self.calibration, self._secret, self.version)

    def admit(
        self,
        sketch: Sketch,
        embeddings: Embeddings,
        *,
        key: bytes,
        rng: np.random.Generator,
        identities: Sequence[bytes] | None = None,
        dimensions: int | None = None,
        terms: Terms | None = None,
    ) -> Verdict:
        """Decide what may leave for n inputs, asked one after the other.

        Each input is charged before it is priced, so its noise is that of the coverage
        it leads to, and a request of n inputs equals n requests, but that the ceiling is
        looked at before the first.

        Args:
            sketch: the pool's sketch before; not changed.
            embeddings: (n, d) clean embeddings; not changed.
            key: the tenant's key.
            rng: source of fresh noise; unused by profiles with keyed noise.
            identities: n byte strings; inputs with the same one are the same question.
                None identifies an input by its embedding's bytes.
            dimensions: keep so many leading coordinates and scale to unit norm, before
                the transform. None, or d itself, keeps the embedding whole.
            terms: of this account; None are the profile's, with its ceiling.

        Returns:
            The verdict. With the same key, identity and price level an embedding yields
            the same bytes (unless the profile's noise is fresh). A request that asks
            for something new of a pool at the ceiling is refused whole.

        Raises:
            GuardError: an argument does not fit this guard; nothing was decided.
        """
        verdict, answer = self.weigh(
            sketch,
            embeddings,
            key=key,
            rng=rng,
            identities=identities,
            dimensions=dimensions,
            terms=terms,
        )
        return verdict if verdict.refused else replace(verdict, embeddings=answer())

    def weigh(
        self,
        sketch: Sketch,
        embeddings: Embeddings,
        *,
        key: bytes,
        rng: np.random.Generator,
        identities: Sequence[bytes] | None = None,
        dimensions: int | None = None,
        terms: Terms | None = None,
    ) -> tuple[Verdict, Callable[[], Embeddings]]:
        """Price n inputs and leave their answers to be made later, or never.

        Args and errors are those of `admit`.

        Returns:
            What `admit` returns, but without embeddings; and what makes these.
        """
        clean = self._checked(embeddings)
        width = self._checked_width(dimensions)
        if identities is not None and len(identities) != len(clean):
            raise GuardError(f"expected {len(clean)} identities, got {len(identities)}")
        terms = terms or self._terms
        visit = self._coverage.visit(sketch, clean, terms.spared)
        if terms.granted:
            visit = self._granted(visit, sketch, terms.spared)
        opened = visit.opened > 0
        if _is_over(visit, terms.ceiling):
            refusal = self._refusal(visit, sketch, width)
            return refusal, lambda: refusal.embeddings
        coverage = float(visit.fractions[-1]) if len(clean) else visit.before
        prices = np.zeros(len(clean))
        # Coverage never falls within a batch, so the last input decides whether any pays.
        if not terms.granted and coverage - terms.forgiven > self.profile.price.free_until:
            prices = self.profile.price(np.maximum(visit.fractions - terms.forgiven, 0.0))
        transform = self._transform(key, width)
        marker = self.marker if terms.marked else None

        def answer() -> Embeddings:
            made = clean
            if prices.any():
                left = 1.0 if marker is None else 1.0 - marker.share
                made = self._noisy(clean, prices, left, key=key, identities=identities, rng=rng)
            if marker is not None:
                noise = prices * (self._unit / self.calibration.feature_std)
                made = marker.apply(made, clean, key=key, noise=noise)
            if width < self.calibration.dim:
                made = with_norms(made[:, :width], 1.0)
            return transform(made)

        verdict = Verdict(
            embeddings=np.empty((0, transform.out_dim), np.float32),
            sketch=visit.sketch,
            coverage=coverage,
            noise_scale=(prices * self._unit).astype(np.float32),
            opened=opened,
            charge=float(np.count_nonzero(opened)),
            before=visit.before,
            fractions=visit.fractions,
            places=visit.places,
            spared=visit.spared,
        )
        return verdict, answer

    def _granted(self, visit: Visit, sketch: Sketch, spared: Sketch | None) -> Visit:
        """Return a visit that leaves the pool as far as it was."""
        layout = self.profile.layout
        return replace(
            visit,
            fractions=np.full(len(visit.places), visit.before),
            spared=layout.spare(layout.signal(sketch, spared), visit.sketch),
        )

    def _refusal(self, visit: Visit, sketch: Sketch, width: int) -> Verdict:
        """Return the verdict on a request that asks for something new at the ceiling."""
        count = len(visit.places)
        return Verdict(
            embeddings=np.empty((0, self._transform(bytes(32), width).out_dim), np.float32),
            sketch=sketch,
            coverage=visit.before,
            noise_scale=np.zeros(count, np.float32),
            opened=np.zeros(count, np.bool_),
            charge=0.0,
            before=visit.before,
            fractions=np.full(count, visit.before),
            places=visit.places,
            refused=True,
        )

    @property
    def _unit(self) -> float:
        """What a relative noise scale of 1 is in the units of the embeddings."""
        return self.calibration.feature_std if self.profile.in_feature_std else 1.0

    def _noisy(
        self,
        clean: Embeddings,
        scales: NDArray[np.float64],
        share: float,
        *,
        key: bytes,
        identities: Sequence[bytes] | None,
        rng: np.random.Generator,
    ) -> Embeddings:
        """Return (n, d) embeddings with a share of the variance of noise; scale 0 adds none."""
        paying = np.flatnonzero(scales)
        rows = clean[paying]
        if identities is None:
            names = [hashlib.sha256(row.tobytes()).digest() for row in rows]
        else:
            names = [identities[i] for i in paying.tolist()]
        noise = self.profile.noise(
            scales[paying],
            rows,
            key=derive(
                self._secret if self.profile.noise.is_shared else key, "noise", self.version
            ),
            identities=names,
            rng=rng,
            calibration=self.calibration,
        )
        noise *= (scales[paying] * (self._unit * math.sqrt(share))).astype(np.float32)[:, None]
        noise += rows
        if self.profile.keeps_norm:
            noise = with_norms(noise, norms_of(rows))
        answer = clean.copy()
        answer[paying] = noise
        return answer

    def _derive_transform(self, key: bytes, width: int) -> Transform:
        """Return the transform of one tenant at one width."""
        return self.profile.transform.for_tenant(
            derive(key, "transform", self.version, width), width
        )

    def _checked(self, embeddings: Embeddings) -> Embeddings:
        """Return (n, d) float32, C-contiguous, or raise GuardError."""
        try:
            array = np.ascontiguousarray(embeddings, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise GuardError("expected embeddings that are numbers") from error
        if array.ndim != 2 or array.shape[1] != self.calibration.dim:
            raise GuardError(
                f"expected embeddings of shape (n, {self.calibration.dim}), got {array.shape}; "
                "was the model changed after it was calibrated?"
            )
        return array

    def _checked_width(self, dimensions: int | None) -> int:
        """Return the width of the answer before the transform, or raise GuardError."""
        dim = self.calibration.dim
        if dimensions is None:
            return dim
        if isinstance(dimensions, bool) or not isinstance(dimensions, int | np.integer):
            raise GuardError(f"expected dimensions to be a whole number, got {dimensions!r}")
        if not 1 <= dimensions <= dim:
            raise GuardError(f"expected dimensions from 1 to {dim}, got {dimensions}")
        return int(dimensions)


def _is_over(visit: Visit, ceiling: float | None) -> bool:
    """Return whether a request asks for something new of a pool at the ceiling.

    The request that reaches the ceiling is answered to its end, at the last price level:
    refusing it would tell by its size how far the ceiling is.
    """
    return ceiling is not None and visit.before >= ceiling and bool(visit.opened.any())
