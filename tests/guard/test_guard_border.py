"""What does not fit the guard is refused (law 9), without telling state (law 6)."""

from typing import Any

import numpy as np
import pytest

from tollkeeper.errors import GuardError
from tollkeeper.guard import Calibration, Guard, Profile, profiles
from tollkeeper.types import Embeddings, Verdict

DIM = 24


def inputs(n: int, dim: int = DIM) -> Embeddings:
    """Return (n, dim) embeddings."""
    return np.random.default_rng(n).standard_normal((n, dim)).astype(np.float32)


def make(profile: Profile = profiles.CHEAPEST, *, secret: bytes = bytes(32)) -> Guard:
    """Return a guard calibrated on 400 such embeddings."""
    calibration = Calibration.fit(inputs(400), rng=np.random.default_rng(0))
    return Guard(profile, calibration, secret=secret)


CHEAP = make()
FULL = np.full(CHEAP.sketch_bytes, 255, np.uint8)


def admit(guard: Guard = CHEAP, **changes: Any) -> Verdict:
    """Admit three inputs, except for the changes."""
    usual = {
        "sketch": guard.empty(),
        "embeddings": inputs(3),
        "key": guard.tenant_key("acme"),
        "rng": np.random.default_rng(0),
    }
    return guard.admit(**{**usual, **changes})


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"embeddings": inputs(3, DIM + 1)}, r"\(n, 24\), got \(3, 25\)"),
    ({"embeddings": inputs(3)[0]}, r"got \(24,\)"),
    ({"embeddings": np.full((2, DIM), np.nan, np.float32)}, "finite"),
    ({"embeddings": np.full((2, DIM), -np.inf, np.float32)}, "finite"),
    ({"embeddings": np.full((2, DIM), 1e30, np.float32)}, "finite"),
    ({"embeddings": [["x"] * DIM]}, "numbers"),
    ({"sketch": np.zeros(3, np.uint8)}, "sketch"),
    ({"sketch": np.zeros(32, np.float64)}, "sketch"),
    ({"key": b"short"}, "16 bytes"),
    ({"dimensions": 0}, "from 1 to 24, got 0"),
    ({"dimensions": DIM + 1}, "from 1 to 24, got 25"),
    ({"dimensions": True}, "whole number"),
    ({"dimensions": 3.0}, "whole number"),
    ({"identities": [b"a"]}, "3 identities, got 1"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    """Each misfit is one clear error, and the message tells nothing of the account's state."""
    with pytest.raises(GuardError, match=message) as raised:
        admit(**change)
    words = str(raised.value).lower()
    assert not any(word in words for word in ("coverage", "noise", "scale", "cheapest"))


def test_an_empty_request_is_answered_with_nothing() -> None:
    """No inputs: no answers, no charge, the same sketch."""
    for sketch in (CHEAP.empty(), FULL):
        verdict = admit(embeddings=inputs(0), sketch=sketch)
        assert verdict.embeddings.shape == (0, DIM)
        assert verdict.charge == 0
        assert np.array_equal(verdict.sketch, sketch)


def test_short_secrets_are_refused() -> None:
    """A guard cannot be built on a guessable secret."""
    with pytest.raises(GuardError, match="16 bytes"):
        make(secret=b"hunter2")


def test_answers_have_the_announced_width() -> None:
    """`out_dim` tells the width of answers at any `dimensions`."""
    for profile in (profiles.get(name) for name in profiles.NAMES):
        guard = make(profile)
        for width in (None, 5):
            verdict = admit(guard, dimensions=width)
            assert verdict.embeddings.shape == (3, guard.out_dim(width))


def test_loading_reads_what_was_stored() -> None:
    """Bytes of a sketch read back; other sizes are refused."""
    sketch = admit().sketch
    assert np.array_equal(CHEAP.load(sketch.tobytes()), sketch)
    assert not CHEAP.load(b"").any()
    with pytest.raises(GuardError, match="160 bytes"):
        CHEAP.load(bytes(31))
