"""Noise is standard normal; keyed noise is a function of key, level and question alone."""

import hashlib

import numpy as np

from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.noise import Fresh, Keyed, Noise
from tollkeeper.types import Embeddings

KEY, DIM = b"noise key", 64


def draw(
    noise: Noise,
    scales: list[float],
    identities: list[bytes],
    *,
    key: bytes = KEY,
    dim: int = DIM,
    seed: int = 0,
) -> Embeddings:
    """Draw with the test's defaults."""
    rng = np.random.default_rng(seed)
    clean = np.zeros((len(scales), dim), np.float32)
    calibration = Calibration.identity(dim)
    return noise(
        np.array(scales), clean, key=key, identities=identities, rng=rng, calibration=calibration
    )


def test_both_kinds_are_standard_normal() -> None:
    """Mean 0, variance 1, and no correlation between rows or coordinates."""
    names = [bytes([i // 256, i % 256]) for i in range(2000)]
    for noise in (Fresh(), Keyed()):
        sample = draw(noise, [1.0] * 2000, names)
        assert abs(sample.mean()) < 0.01
        assert abs(sample.var() - 1) < 0.02
        assert np.abs(np.corrcoef(sample.T) - np.eye(DIM)).max() < 0.12


def test_keyed_noise_repeats_in_any_batch_and_order() -> None:
    """A question's noise is the same alone, in company and in reverse."""
    names = [b"a", b"bb", b"", b"a"]
    whole = draw(Keyed(), [0.5, 1.0, 2.0, 0.5], names)
    assert np.array_equal(whole[0], whole[3])
    assert np.array_equal(draw(Keyed(), [1.0], [b"bb"], seed=9)[0], whole[1])
    backwards = draw(Keyed(), [0.5, 2.0, 1.0, 0.5], names[::-1])
    assert np.array_equal(backwards, whole[::-1])


def test_keyed_noise_is_unrelated_across_levels_keys_and_questions() -> None:
    """Changing level, key or identity changes the noise entirely, so differences do not cancel."""
    base = draw(Keyed(), [1.0], [b"q"], dim=4096)[0]
    for other in (
        draw(Keyed(), [2.0], [b"q"], dim=4096),
        draw(Keyed(), [1.0], [b"r"], dim=4096),
        draw(Keyed(), [1.0], [b"q"], key=b"other", dim=4096),
    ):
        assert abs(np.corrcoef(base, other[0])[0, 1]) < 0.08


def test_fresh_noise_comes_from_the_given_generator() -> None:
    """The same seed repeats fresh noise; identities do not."""
    one = draw(Fresh(), [1.0, 1.0], [b"q", b"q"])
    assert np.array_equal(one, draw(Fresh(), [1.0, 1.0], [b"x", b"y"]))
    assert not np.array_equal(one[0], one[1])


def test_keyed_noise_never_changes_between_releases() -> None:
    """A pinned digest: answers past the knee survive upgrades too."""
    drawn = draw(Keyed(), [0.25, 0.5], [b"a", b"b"])
    digest = hashlib.sha256((drawn * 2**20).astype(np.int32).tobytes()).hexdigest()[:16]
    assert digest == "37b16c9adef7791c"
