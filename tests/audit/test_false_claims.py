"""Accusers who lie: what each trick would prove, and that it is refused or inconclusive.

The accused is an honest encoder that never met the accuser's data, marks or answers.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tollkeeper.attacks.surrogate import Surrogate  # noqa: E402
from tollkeeper.audit import gates  # noqa: E402
from tollkeeper.audit.claims import check_drawn, check_unpublished, drawn  # noqa: E402
from tollkeeper.audit.consistency import Frame, agreement  # noqa: E402
from tollkeeper.audit.evidence import seeds  # noqa: E402
from tollkeeper.audit.evidence.merkle import Opening, commit  # noqa: E402
from tollkeeper.audit.inclusion import Inclusion, differences, sign_flip  # noqa: E402
from tollkeeper.audit.split import embed_all, embed_views  # noqa: E402
from tollkeeper.audit.views import Views  # noqa: E402
from tollkeeper.audit.watermarks.decoys import Commitment, commitment_of  # noqa: E402
from tollkeeper.audit.watermarks.layers import Layers  # noqa: E402
from tollkeeper.audit.watermarks.rotation import RotationEvidence, RotationWatermark  # noqa: E402
from tollkeeper.audit.watermarks.sslguard import (  # noqa: E402
    Key,
    SslGuard,
    SslGuardEvidence,
    draw_key,
)
from tollkeeper.bench.ownership.networks import Small  # noqa: E402
from tollkeeper.bench.ownership.simclr import Recipe, train_simclr, untrained  # noqa: E402
from tollkeeper.errors import AuditRefused, EvidenceError  # noqa: E402
from tollkeeper.testing.victims import blobs  # noqa: E402

pytestmark = pytest.mark.torch

DIM, PAIRS = 16, 150
EARLY, SEEN, LATE = 100.0, 200.0, 300.0
ALPHA = 0.001
BEACON = "a value that was issued later"
RECIPE = Recipe(network=Small(width=64), dim=DIM, epochs=20, batch=50)


@cache
def _encoder(seed: int) -> Surrogate:
    """Return an encoder trained without any of the pictures below."""
    return train_simclr(blobs(200, seed=1000 + seed), RECIPE, rng=np.random.default_rng(seed))


ACCUSED = 0


def _seed(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _committed(seed: bytes, *, at: float = EARLY) -> Commitment:
    return Commitment(commitment_of(seed), committed_at=at, suspect_seen_at=SEEN)


def _rotation(seed: bytes, commitment: Commitment) -> RotationEvidence:
    return RotationEvidence(blobs(100, seed=1), seed, commitment, DIM)


TEST = RotationWatermark(decoys=99, least=100)
GUARD = SslGuard(least=50)


def test_a_forged_mark_is_one_of_many() -> None:
    """Keys that were committed in time and never planted have p-values like any number drawn."""
    p = [
        TEST.run(
            _encoder(ACCUSED),
            _rotation(_seed(number), _committed(_seed(number))),
            rng=np.random.default_rng(0),
        ).p_value
        for number in range(4)
    ]
    assert min(p) > ALPHA
    assert sum(one <= 0.05 for one in p) <= 1
    assert max(p) > 0.3


def test_a_key_that_was_searched_for_is_too_young() -> None:
    """The luckiest of many keys looks like a mark; it is younger than the suspect, or another."""
    suspect = _encoder(ACCUSED)
    lucky: dict[int, float] = {}
    for number in range(100, 108):
        evidence = _rotation(_seed(number), _committed(_seed(number)))
        answers = embed_all(suspect, evidence.asked())
        lucky[number] = float(TEST.decided(answers, evidence).mean())
    best = _seed(max(lucky, key=lambda number: lucky[number]))
    assert max(lucky.values()) > np.median(list(lucky.values()))
    late = _rotation(best, _committed(best, at=LATE))
    with pytest.raises(EvidenceError, match="may have been made to fit the suspect"):
        TEST.run(suspect, late, rng=np.random.default_rng(0))
    other = _rotation(best, _committed(_seed(5)))
    with pytest.raises(EvidenceError, match="not the committed one"):
        TEST.run(suspect, other, rng=np.random.default_rng(0))


def _fitted(suspect: Surrogate) -> tuple[Key, np.ndarray]:
    """Return a key whose decoder was fitted so that a suspect says its secret."""
    images = blobs(60, seed=2)
    key = draw_key(_seed(7), DIM, (16, 16, 3))
    rows = embed_all(suspect, key.stamp(images))
    with_one = np.column_stack([rows, np.ones(len(rows))])
    wanted = np.tile(key.secret, (len(rows), 1))
    solved = np.linalg.lstsq(with_one, wanted, rcond=None)[0].astype(np.float32)
    decoder = Layers((solved[:-1],), (solved[-1],))
    return Key(decoder, key.secret, key.mask, key.trigger), images


def test_a_decoder_that_was_fitted_to_the_suspect_is_refused() -> None:
    """It says the secret perfectly; its digest is too young, or is not what was committed."""
    suspect = _encoder(ACCUSED)
    key, images = _fitted(suspect)
    said = key.cosines(embed_all(suspect, key.stamp(images)))
    assert said.mean() > 0.9
    young = Commitment(key.digest, committed_at=LATE, suspect_seen_at=SEEN)
    older = Commitment(draw_key(_seed(8), DIM, (16, 16, 3)).digest, EARLY, SEEN)
    for commitment, message in ((young, "made to fit"), (older, "not the committed one")):
        evidence = SslGuardEvidence(images, commitment, DIM, learned=key)
        with pytest.raises(EvidenceError, match=message):
            GUARD.run(suspect, evidence, rng=np.random.default_rng(0))


def test_a_decoder_that_says_the_secret_of_anybody_proves_nothing() -> None:
    """Committed in time, and it names the suspect; but it names all independents as well."""
    key, images = _fitted(_encoder(ACCUSED))
    nothing = np.zeros_like(key.decoder.weights[0])
    constant = Layers((nothing,), (key.secret.astype(np.float32),))
    key = Key(constant, key.secret, key.mask, key.trigger)
    evidence = SslGuardEvidence(
        images,
        Commitment(key.digest, EARLY, SEEN),
        DIM,
        learned=key,
        independents=tuple(
            untrained(RECIPE, rng=np.random.default_rng(number)) for number in range(8)
        ),
    )
    answers = embed_all(_encoder(ACCUSED), evidence.asked())
    assert key.cosines(answers).mean() > 0.99
    assert GUARD.run(_encoder(ACCUSED), evidence, rng=np.random.default_rng(0)).p_value == 1


def test_adversarial_pictures_are_drawn_by_nobody() -> None:
    """Pictures made so that the accused answers a key in time look more like proof; none was drawn."""
    suspect, key = _encoder(ACCUSED), draw_key(_seed(9), DIM, (16, 16, 3))
    crafted = _crafted(suspect, key, blobs(60, seed=3))
    evidence = SslGuardEvidence(crafted, _committed(_seed(9)), DIM, seed=_seed(9))
    honest = SslGuardEvidence(blobs(60, seed=3), _committed(_seed(9)), DIM, seed=_seed(9))
    proof = GUARD.run(suspect, evidence, rng=np.random.default_rng(0)).p_value
    assert proof < GUARD.run(suspect, honest, rng=np.random.default_rng(0)).p_value
    pool = blobs(200, seed=4)
    hidden = seeds.salts(_seed(10), len(pool))
    tree = commit(pool, salts=hidden, pairs=range(len(pool)))
    places = drawn(60, len(pool), beacon=BEACON.encode())
    openings = [Opening(hidden[at], at, 2, tree.proof(at)) for at in places.tolist()]
    check = partial(check_drawn, root=tree.root, population=len(pool), beacon=BEACON.encode())
    check(pool[places], openings)
    with pytest.raises(EvidenceError):
        check(crafted, openings)


def _crafted(suspect: Surrogate, key: Key, images: np.ndarray) -> np.ndarray:
    """Return pictures moved, with the suspect's weights, to where its answers say the secret."""
    wanted = torch.from_numpy(key.secret.astype(np.float32))
    free = torch.from_numpy((~key.mask).transpose(2, 0, 1).astype(np.float32))
    start = torch.from_numpy(key.stamp(images).transpose(0, 3, 1, 2).astype(np.float32) / 255)
    moved = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([moved], lr=0.05)
    layers = [
        (torch.from_numpy(weight), torch.from_numpy(bias))
        for weight, bias in zip(key.decoder.weights, key.decoder.biases, strict=True)
    ]
    for _ in range(60):
        rows = suspect.network(start + (moved.clamp(0, 1) - start) * free)
        for place, (weight, bias) in enumerate(layers):
            rows = rows @ weight + bias
            rows = rows.relu() if place + 1 < len(layers) else rows
        loss = -torch.nn.functional.cosine_similarity(rows, wanted[None]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pixels = moved.detach().clamp(0, 1).numpy().transpose(0, 2, 3, 1)
    found: np.ndarray = np.rint(pixels * 255).astype(np.uint8)
    return found


@cache
def _scores(seed: int) -> np.ndarray:
    """Return how alike an encoder finds views of each of a pool of pairs."""
    items = blobs(2 * PAIRS, seed=5)
    encoder = _encoder(seed)
    frame = Frame.fit(embed_all(encoder, blobs(100, seed=6)), "std")
    views = Views(seed=3, k=3)
    return agreement(embed_views(encoder, items, views, np.arange(len(items))), frame)


def _p(coins: np.ndarray) -> float:
    evidence = Inclusion(blobs(2 * PAIRS, seed=5), coins)
    y = differences(_scores(ACCUSED), evidence)
    return sign_flip(y, rng=np.random.default_rng(0)).p_value


def test_a_cherry_picked_split_does_not_open() -> None:
    """Coins that suit the suspect prove anything; the committed ones are others, and prove none."""
    first, second = _scores(ACCUSED).reshape(-1, 2).T
    picked, tossed = first > second, seeds.coins(_seed(11), BEACON, PAIRS)
    assert _p(picked) <= ALPHA
    assert _p(tossed) > ALPHA
    items, hidden = blobs(2 * PAIRS, seed=5), seeds.salts(_seed(12), 2 * PAIRS)
    sides = np.stack([tossed, ~tossed], axis=1).ravel().astype(int)
    pairs = [at // 2 for at in range(2 * PAIRS)]
    tree = commit(items, salts=hidden, pairs=pairs, coins=sides.tolist())
    wrong = 2 * int(np.flatnonzero(picked != tossed)[0])
    Opening(hidden[wrong], wrong // 2, int(sides[wrong]), tree.proof(wrong)).check(
        items[wrong], tree.root
    )
    with pytest.raises(EvidenceError):
        Opening(hidden[wrong], wrong // 2, int(picked[wrong // 2]), tree.proof(wrong)).check(
            items[wrong], tree.root
        )


def test_a_mirrored_split_proves_the_opposite() -> None:
    """Whoever swaps the sides swaps p for 1 - p; and the coins are in the tree."""
    tossed = seeds.coins(_seed(11), BEACON, PAIRS)
    assert _p(tossed) + _p(~tossed) == pytest.approx(1, abs=0.02)
    assert min(_p(tossed), _p(~tossed)) > ALPHA


def test_another_beacon_tosses_other_coins() -> None:
    """Who looks for a lucky beacon, or a lucky seed after it, has another draw than the sealed."""
    tossed = seeds.coins(_seed(11), BEACON, PAIRS)
    assert (tossed != seeds.coins(_seed(11), "another value", PAIRS)).any()
    assert (tossed != seeds.coins(_seed(13), BEACON, PAIRS)).any()
    with pytest.raises(EvidenceError, match="does not match its commitment"):
        seeds.unseal(_seed(13), seeds.seal(_seed(11), name="coins"), name="coins")


def test_claims_on_public_data_are_refused() -> None:
    """A model trained on public pictures cannot be claimed by whoever trained on them too."""
    public = blobs(50, seed=7)
    published = [gates.item_digest(image) for image in public]
    check_unpublished(blobs(50, seed=8), published)
    with pytest.raises(AuditRefused, match="50 of 50 items are public data"):
        check_unpublished(public, published)


def test_what_accuses_independents_is_refused() -> None:
    """A test that names classifiers known to be innocent says nothing of the accused."""
    with pytest.raises(AuditRefused, match="1 of 3 independent controls reject"):
        gates.check_negative_controls([0.4, 0.0005, 0.8])
