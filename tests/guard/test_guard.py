"""The guard's laws: charge in order, same question same answer, isometry, union, bounds."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tollkeeper.guard import Calibration, Guard, Profile, profiles
from tollkeeper.guard.transform import Unchanged
from tollkeeper.types import Embeddings, Sketch, Verdict

DIM = 24
SECRET = b"deployment and model secret bytes"
SEEDS = st.integers(0, 2**32 - 1)


def inputs(seed: int, n: int, dim: int = DIM) -> Embeddings:
    """Return (n, dim) embeddings off center."""
    rng = np.random.default_rng(seed)
    return (0.5 + rng.standard_normal((n, dim))).astype(np.float32)


def make(profile: Profile = profiles.CHEAPEST, dim: int = DIM, *, secret: bytes = SECRET) -> Guard:
    """Return a guard calibrated on 400 such embeddings."""
    calibration = Calibration.fit(inputs(1, 400, dim), rng=np.random.default_rng(0))
    return Guard(profile, calibration, secret=secret)


CHEAP = make()
KEY = CHEAP.tenant_key("acme")
FULL = np.full(CHEAP.sketch_bytes, 255, np.uint8)


def admit(
    embeddings: Embeddings,
    *,
    sketch: Sketch | None = None,
    guard: Guard = CHEAP,
    key: bytes = KEY,
    seed: int = 0,
    **options: Any,
) -> Verdict:
    """Admit with the test's defaults."""
    before = guard.empty() if sketch is None else sketch
    return guard.admit(before, embeddings, key=key, rng=np.random.default_rng(seed), **options)


def cosines(rows: Embeddings) -> NDArray[np.float64]:
    """Return the (n, n) cosines in float64."""
    wide = rows.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide @ wide.T


# -- law 1, the guard's half: each input is charged before it is priced ----------


@given(seed=SEEDS, n=st.integers(1, 30))
def test_a_request_of_n_inputs_is_n_requests(seed: int, n: int) -> None:
    """Noise, charge and answers do not depend on how inputs are packed into requests."""
    embeddings = inputs(seed, n)
    whole = admit(embeddings)
    sketch = CHEAP.empty()
    for i, row in enumerate(embeddings):
        single = admit(row[None], sketch=sketch)
        sketch = single.sketch
        assert single.noise_scale[0] == whole.noise_scale[i]
        assert single.opened[0] == whole.opened[i]
        assert single.embeddings[0].tobytes() == whole.embeddings[i].tobytes()
    assert np.array_equal(sketch, whole.sketch)
    assert whole.coverage == CHEAP.fraction(whole.sketch)
    assert whole.charge == whole.opened.sum()


@given(seed=SEEDS, n=st.integers(1, 60))
def test_noise_follows_coverage_after_the_input(seed: int, n: int) -> None:
    """The scale of input i is the price of the coverage that inputs 1 to i reach."""
    embeddings = inputs(seed, n)
    found = admit(embeddings).noise_scale
    for i in range(n):
        coverage = admit(embeddings[: i + 1]).coverage
        price = CHEAP.profile.price(np.array([coverage]))[0]
        assert found[i] == np.float32(price * CHEAP.calibration.feature_std)


def test_admit_changes_nothing_it_was_given() -> None:
    """Sketch, embeddings and identities are the same bytes afterwards, past the knee as well."""
    for sketch in (CHEAP.empty(), FULL):
        embeddings, names = inputs(2, 9), [bytes([i]) for i in range(9)]
        before = (sketch.tobytes(), embeddings.tobytes(), list(names))
        verdict = admit(embeddings, sketch=sketch, identities=names, dimensions=5)
        assert (sketch.tobytes(), embeddings.tobytes(), names) == before
        assert not np.shares_memory(verdict.embeddings, embeddings)


# -- law 2: same question, same answer -------------------------------------------


@pytest.mark.parametrize("level", ["free", "noisy"])
@pytest.mark.parametrize("dimensions", [None, 7])
@pytest.mark.parametrize("named", [False, True])
def test_same_question_same_bytes(level: str, dimensions: int | None, *, named: bool) -> None:
    """Alone, among others, in reverse, later, from another replica: the same bytes."""
    guard, replica = make(profiles.RECOMMENDED), make(profiles.RECOMMENDED)
    full = np.full(guard.sketch_bytes, 255, np.uint8)
    sketch = full if level == "noisy" else guard.empty()
    embeddings = inputs(3, 40)
    names = [bytes([i]) for i in range(40)] if named else None

    def ask(rows: slice, asked: Guard, seed: int) -> Embeddings:
        some = names[rows] if names is not None else None
        return admit(
            embeddings[rows],
            sketch=sketch,
            guard=asked,
            key=asked.tenant_key("acme"),
            seed=seed,
            identities=some,
            dimensions=dimensions,
        ).embeddings

    whole = ask(slice(None), guard, 0)
    assert ask(slice(None, None, -1), replica, 1)[::-1].tobytes() == whole.tobytes()
    for i in (0, 17, 39):
        assert ask(slice(i, i + 1), replica, i).tobytes() == whole[i].tobytes()


@given(seed=SEEDS, n=st.integers(1, 40), order=st.randoms(use_true_random=False))
def test_repeats_cost_nothing(seed: int, n: int, order: Any) -> None:
    """Asking again, in any order, charges 0 and leaves the sketch as it was."""
    embeddings = inputs(seed, n)
    sketch = admit(embeddings).sketch
    shuffled = list(range(n))
    order.shuffle(shuffled)
    again = admit(embeddings[shuffled], sketch=sketch)
    assert again.charge == 0
    assert not again.opened.any()
    assert np.array_equal(again.sketch, sketch)


def test_identities_name_the_question() -> None:
    """Inputs with one identity share their noise; embedding bytes are the default identity."""
    unmoved = make(dataclasses.replace(profiles.CHEAPEST, transform=Unchanged(), keeps_norm=False))
    embeddings = inputs(4, 2)

    def noise(**options: Any) -> Embeddings:
        answer = admit(embeddings, sketch=FULL, guard=unmoved, **options).embeddings
        return answer - embeddings

    shared = noise(identities=[b"q", b"q"])
    np.testing.assert_allclose(shared[0], shared[1], atol=1e-5)
    assert np.abs(noise()[0] - noise()[1]).max() > 0.1


@pytest.mark.parametrize("share", [0, 1])
def test_weighing_tells_all_but_the_answers(share: int) -> None:
    """What is weighed first and answered later is what `admit` returns at once."""
    guard, batch = make(profiles.get("recommended")), inputs(5, 6)
    sketch = guard.empty()
    sketch[:] = 255 * share
    given: dict[str, Any] = {"key": KEY, "dimensions": 4}
    whole = guard.admit(sketch, batch, rng=np.random.default_rng(0), **given)
    verdict, answer = guard.weigh(sketch, batch, rng=np.random.default_rng(0), **given)
    assert verdict.embeddings.shape == (0, 4)
    np.testing.assert_array_equal(answer(), whole.embeddings)
    for name in ("sketch", "coverage", "noise_scale", "opened", "charge", "fractions", "places"):
        np.testing.assert_array_equal(getattr(verdict, name), getattr(whole, name))


def test_identities_are_read_only_when_noise_is_due() -> None:
    """A lazy sequence of identities is not indexed below the knee."""

    class Lazy(list[bytes]):
        def __getitem__(self, index: Any) -> Any:
            raise AssertionError("identity asked for")

    lazy = Lazy([b"a", b"b"])
    admit(inputs(5, 2), identities=lazy)
    with pytest.raises(AssertionError, match="asked for"):
        admit(inputs(5, 2), sketch=FULL, identities=lazy)


def test_b4b_noise_is_fresh() -> None:
    """The published guard answers the same question differently each time."""
    guard = make(profiles.B4B_2023)
    full = np.full(guard.sketch_bytes, 255, np.uint8)
    answers = [admit(inputs(6, 3), sketch=full, guard=guard, seed=s).embeddings for s in (0, 1)]
    assert not np.array_equal(answers[0], answers[1])


# -- law 3: no harm below the knee -----------------------------------------------


@pytest.mark.parametrize("dim", [2, 3, 77, 384, 1536])
@pytest.mark.parametrize("share", [None, 0.5])
def test_without_noise_cosines_are_kept(dim: int, share: float | None) -> None:
    """Cosines between answers equal the clean ones to 1e-5, also at fewer dimensions."""
    guard = make(profiles.RECOMMENDED, dim)
    embeddings = inputs(7, 30, dim)
    width = None if share is None else -(-dim // 2)
    verdict = admit(embeddings, guard=guard, dimensions=width)
    assert not verdict.noise_scale.any()
    expected = cosines(embeddings[:, :width])
    assert np.abs(cosines(verdict.embeddings) - expected).max() < 1e-5
    if width is not None and width < dim:
        np.testing.assert_allclose(np.linalg.norm(verdict.embeddings, axis=1), 1, rtol=1e-5)


def test_full_dimensions_change_nothing() -> None:
    """Asking for all d dimensions is asking for the embedding itself."""
    embeddings = inputs(8, 5)
    whole = admit(embeddings).embeddings
    assert admit(embeddings, dimensions=DIM).embeddings.tobytes() == whole.tobytes()


def test_a_zero_prefix_stays_finite() -> None:
    """An embedding whose kept coordinates are all zero is answered with zeros."""
    embeddings = inputs(9, 2)
    embeddings[0, :4] = 0
    verdict = admit(embeddings, dimensions=4)
    assert not verdict.embeddings[0].any()
    assert np.isfinite(verdict.embeddings).all()


# -- law 4: union -----------------------------------------------------------------


@given(seed=SEEDS, owners=st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_a_pool_is_charged_as_one_account(seed: int, owners: list[int]) -> None:
    """The merged coverage of k accounts is that of one account that asked everything."""
    embeddings = inputs(seed, len(owners))
    together = admit(embeddings)
    merged = CHEAP.empty()
    for owner in range(4):
        mine = embeddings[[i for i, o in enumerate(owners) if o == owner]]
        alone = admit(mine, key=CHEAP.tenant_key(str(owner)))
        merged = CHEAP.merge(merged, alone.sketch)
    assert np.array_equal(merged, together.sketch)
    assert CHEAP.fraction(merged) == together.coverage


@given(seed=SEEDS, n=st.integers(0, 40), more=st.integers(0, 40))
def test_coverage_never_falls(seed: int, n: int, more: int) -> None:
    """Coverage after a request is at least what it was before."""
    first = admit(inputs(seed, n))
    second = admit(inputs(seed + 1, more), sketch=first.sketch)
    assert second.coverage >= first.coverage == CHEAP.fraction(first.sketch)
    assert np.array_equal(CHEAP.merge(first.sketch, second.sketch), second.sketch)


# -- the price is paid --------------------------------------------------------------


def test_b4b_noise_has_the_priced_scale() -> None:
    """At full coverage the published guard adds noise of standard deviation 31.6."""
    guard = make(dataclasses.replace(profiles.B4B_2023, transform=Unchanged()))
    full = np.full(guard.sketch_bytes, 255, np.uint8)
    embeddings = inputs(10, 500)
    verdict = admit(embeddings, sketch=full, guard=guard)
    assert verdict.noise_scale[0] == pytest.approx(31.62, abs=0.01)
    noise = verdict.embeddings - embeddings
    assert noise.std() == pytest.approx(31.62, rel=0.03)


def test_keyed_noise_has_the_priced_scale() -> None:
    """Before norms are restored, noise is the level times the feature std."""
    cheap = dataclasses.replace(profiles.CHEAPEST, transform=Unchanged(), keeps_norm=False)
    guard = make(cheap)
    embeddings = inputs(11, 500)
    verdict = admit(embeddings, sketch=FULL, guard=guard)
    expected = 0.5 * 2**3 * guard.calibration.feature_std
    assert np.allclose(verdict.noise_scale, expected)
    assert (verdict.embeddings - embeddings).std() == pytest.approx(expected, rel=0.03)


def test_noisy_answers_keep_the_clean_norm() -> None:
    """The norm of an answer does not tell the noise in it."""
    embeddings = inputs(12, 50)
    verdict = admit(embeddings, sketch=FULL)
    assert verdict.noise_scale.all()
    np.testing.assert_allclose(
        np.linalg.norm(verdict.embeddings, axis=1), np.linalg.norm(embeddings, axis=1), rtol=1e-5
    )
    assert np.abs(cosines(verdict.embeddings) - cosines(embeddings)).max() > 0.1


def test_noise_does_not_depend_on_dimensions() -> None:
    """A shortened noisy answer is the shortened full-width noisy answer."""
    guard = make(dataclasses.replace(profiles.CHEAPEST, transform=Unchanged()))
    embeddings = inputs(13, 6)
    whole = admit(embeddings, sketch=FULL, guard=guard).embeddings
    short = admit(embeddings, sketch=FULL, guard=guard, dimensions=9).embeddings
    expected = whole[:, :9] / np.linalg.norm(whole[:, :9], axis=1, keepdims=True)
    np.testing.assert_allclose(short, expected, rtol=1e-5, atol=1e-6)


@given(seed=SEEDS, n=st.integers(1, 30))
@settings(deadline=None)
def test_cheapest_reaches_its_ceiling_and_no_further(seed: int, n: int) -> None:
    """Prices stop at the last level, even at full coverage."""
    scales = admit(inputs(seed, n), sketch=FULL).noise_scale
    assert np.allclose(scales, 4 * CHEAP.calibration.feature_std)


def test_none_passes_embeddings_through() -> None:
    """Without a guard answers are the clean embeddings, and nothing is kept or charged."""
    guard = make(profiles.NONE)
    embeddings = inputs(14, 5)
    verdict = admit(embeddings, guard=guard)
    assert np.array_equal(verdict.embeddings, embeddings)
    assert (verdict.charge, verdict.coverage, verdict.sketch.size) == (0, 0, 0)
    assert not guard.tracks
    assert CHEAP.tracks


# -- law 7: secrets -------------------------------------------------------------------


def test_answers_differ_by_tenant_key_version_secret_and_profile() -> None:
    """Each of the names a secret is derived from changes the answer."""
    embeddings = inputs(15, 3)
    newer = dataclasses.replace(profiles.CHEAPEST, version=2)
    answers = [
        admit(
            embeddings, guard=guard, key=guard.tenant_key(tenant, version=version)
        ).embeddings.tobytes()
        for guard, tenant, version in [
            (CHEAP, "acme", 1),
            (CHEAP, "umbrella", 1),
            (CHEAP, "acme", 2),
            (make(secret=SECRET[::-1]), "acme", 1),
            (make(newer), "acme", 1),
        ]
    ]
    assert len(set(answers)) == len(answers)


def test_transforms_of_different_widths_are_unrelated() -> None:
    """The transform is derived from the width too, so a short answer is no prefix."""
    whole = admit(inputs(16, 3)).embeddings
    short = admit(inputs(16, 3), dimensions=16).embeddings
    assert (
        np.abs(short / np.linalg.norm(short) - whole[:, :16] / np.linalg.norm(whole)).max() > 0.05
    )


def test_hyperplanes_are_secret() -> None:
    """Another secret counts other buckets for the same inputs."""
    embeddings = inputs(17, 20)
    other = make(secret=SECRET[::-1])
    assert not np.array_equal(admit(embeddings).sketch, admit(embeddings, guard=other).sketch)
    assert CHEAP.fingerprint != other.fingerprint
    assert CHEAP.fingerprint == make().fingerprint


# -- the ceiling ---------------------------------------------------------------------------

CAPPED = make(dataclasses.replace(profiles.CHEAPEST, ceiling=0.3))


def test_at_the_ceiling_nothing_new_is_answered() -> None:
    """What a pool knows is still answered; what is new costs nothing and shows nothing."""
    known = inputs(11, 40)
    sketch = CAPPED.empty()
    for row in known:
        verdict = admit(row[None], sketch=sketch, guard=CAPPED)
        if verdict.refused:
            break
        sketch = verdict.sketch
    assert verdict.refused
    assert 0.3 <= CAPPED.fraction(sketch) < 0.5
    assert verdict.sketch is sketch
    assert (verdict.charge, len(verdict.embeddings)) == (0, 0)
    assert not verdict.opened.any()
    again = admit(known[:5], sketch=sketch, guard=CAPPED)
    assert (again.refused, len(again.embeddings)) == (False, 5)


@given(seed=SEEDS, n=st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_the_request_that_reaches_the_ceiling_is_answered(seed: int, n: int) -> None:
    """Its size tells nothing of how far the ceiling is; the next new input is refused."""
    together = admit(inputs(seed, n), guard=CAPPED)
    assert not together.refused
    assert len(together.embeddings) == n
    after = admit(inputs(seed + 1, 1), sketch=together.sketch, guard=CAPPED)
    new = admit(inputs(seed + 1, 1), sketch=together.sketch).charge > 0
    assert after.refused == (new and CAPPED.fraction(together.sketch) >= 0.3)


# -- law 8: bounds ---------------------------------------------------------------------


def test_state_per_tenant_is_at_most_16_kb() -> None:
    """Sketch and transform together stay within the bound at 1,536 dimensions."""
    guard = make(profiles.RECOMMENDED, 1536)
    transform = guard.profile.transform.for_tenant(KEY, 1536)
    assert guard.sketch_bytes == 10_240 + 256 // 8 + 256 * 4
    assert guard.sketch_bytes + transform.nbytes <= 16 * 1024


def test_threads_do_not_disturb_each_other() -> None:
    """One guard serves several threads the answers it would give one by one."""
    guard = make(profiles.RECOMMENDED)
    full = np.full(guard.sketch_bytes, 255, np.uint8)

    def answer(i: int) -> bytes:
        key = guard.tenant_key(str(i % 7))
        return admit(inputs(i, 5), sketch=full, guard=guard, key=key).embeddings.tobytes()

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(answer, range(60)))
    assert found == [answer(i) for i in range(60)]
