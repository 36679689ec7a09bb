"""PRADA: the published rule, and bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tollkeeper.detectors import prada
from tollkeeper.detectors.base import AccountDetector
from tollkeeper.detectors.prada import Prada
from tollkeeper.detectors.shapiro import shapiro_w
from tollkeeper.errors import DetectorError
from tollkeeper.types import Images, Probabilities

SHAPE = (1, 6, 6)


def traffic(count: int, *, classes: int = 3, seed: int = 0) -> tuple[Images, Probabilities]:
    """Return pictures whose pixels are whole 65,535ths, and their answers."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(classes, size=count)
    pictures = rng.beta(2, 5, (count, *SHAPE)) * 0.7 + kinds[:, None, None, None] * 0.1
    return (np.round(pictures * 65535) / 65535).astype(np.float32), one_hot(kinds, classes)


def one_hot(kinds: Any, classes: int) -> Probabilities:
    """Return answers of certain classes."""
    rows: Probabilities = np.eye(classes, dtype=np.float32)[np.asarray(kinds)]
    return rows


def by_the_book(inputs: Images, kinds: Any) -> list[float]:
    """Return 1 - W after each query, by the paper's rule with lists of everything."""
    grown: dict[int, list[Any]] = {}
    joined: dict[int, list[float]] = {}
    seen: dict[int, list[float]] = {}
    threshold: dict[int, float] = {}
    w, scores = 1.0, []
    for at, (x, c) in enumerate(zip(inputs.reshape(len(inputs), -1), kinds, strict=True), 1):
        if c not in grown:
            grown[c], joined[c], seen[c], threshold[c] = [x], [0.0], [], 0.0
        else:
            d = min(float(np.linalg.norm(x.astype(float) - g)) for g in grown[c])
            seen[c].append(d)
            if d > threshold[c]:
                grown[c].append(x)
                joined[c].append(d)
                threshold[c] = max(threshold[c], float(np.mean(joined[c]) - np.std(joined[c])))
        pool = np.array([d for ds in seen.values() if len(ds) >= 10 for d in ds])
        if at % 10 == 0 and len(pool) > 100:
            kept = pool[np.abs(pool - pool.mean()) <= 3 * pool.std()]
            w = shapiro_w(kept) if len(kept) > 100 else w
        scores.append(1 - w)
    return scores


def test_exact_is_the_papers_rule() -> None:
    """With all memory the scores are those of the rule written plainly."""
    inputs, outputs = traffic(400)
    detector = Prada.exact(SHAPE, classes=3)
    scores, _ = detector.update(detector.empty(), inputs, outputs)
    assert scores[-1] > 0
    assert np.allclose(scores, by_the_book(inputs, outputs.argmax(1)), atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"members": 7, "distances": 120}])
def test_how_queries_are_grouped_does_not_matter(options: dict[str, Any]) -> None:
    """One call, or one for each query: the same scores and the same state."""
    inputs, outputs = traffic(300)
    detector = Prada(SHAPE, classes=3, **options)
    together, last = detector.update(detector.empty(), inputs, outputs)
    state, alone = detector.empty(), []
    for at in range(300):
        scores, state = detector.update(state, inputs[at : at + 1], outputs[at : at + 1])
        alone.append(scores[0])
    assert state == last
    assert np.array_equal(alone, together)


def test_w_is_computed_at_tens_and_with_more_than_100_distances(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three classes give no distance at first, so 110 queries leave 107 and 100 leave 97."""
    asked: list[int] = []

    def counted(values: Any) -> float:
        asked.append(len(values))
        return 0.5

    monkeypatch.setattr(prada, "shapiro_w", counted)
    inputs, outputs = traffic(139)
    detector = Prada.exact(SHAPE, classes=3)
    scores, _ = detector.update(detector.empty(), inputs, outputs)
    assert len(asked) == 3
    assert min(asked) > 100
    assert scores[:109].max() == 0
    assert scores[109:].tolist() == [0.5] * 30


def test_equal_pictures_are_at_distance_0_which_counts() -> None:
    """A repeat adds a 0 to the distances; 102 repeats allow no test of shape, and no alarm."""
    inputs, outputs = traffic(1)
    many = np.repeat(inputs, 120, axis=0), np.repeat(outputs, 120, axis=0)
    for detector in (Prada.exact(SHAPE, classes=3), Prada(SHAPE, classes=3)):
        scores, state = detector.update(detector.empty(), *many)
        past = detector._read(state)
        assert past.distances.tolist() == [0.0] * 119
        assert len(past.members) == 1
        assert scores.max() == 0
        assert not detector.alarms(scores).any()


def test_two_heaps_of_distances_alarm_and_one_does_not() -> None:
    """Small steps from earlier queries, as Jacobian augmentation makes them, leave the normal."""
    inputs, outputs = traffic(400, classes=1)
    rng = np.random.default_rng(1)
    steps = 0.02 * rng.choice([-1, 1], inputs.shape)
    stepped = np.clip(inputs + steps, 0, 1).astype(np.float32)
    for detector in (Prada.exact(SHAPE, classes=2), Prada(SHAPE, classes=2, distances=800)):
        answers = np.pad(outputs, ((0, 0), (0, 1)))
        honest, state = detector.update(detector.empty(), inputs, answers)
        stealing, _ = detector.update(state, stepped, answers)
        assert not detector.alarms(honest[-100:]).any()
        assert detector.alarms(stealing[-100:]).all()


def test_a_state_never_exceeds_what_is_stated() -> None:
    """Whatever is sent, memory is bounded; ten classes of digits take less than 16 KiB."""
    rng = np.random.default_rng(0)
    detector = Prada((1, 28, 28), classes=10, key=b"secret")
    state = detector.empty()
    for kinds in (rng.integers(10, size=600), np.zeros(600, int)):
        pictures = rng.random((600, 1, 28, 28), dtype=np.float32)
        _, state = detector.update(state, pictures, one_hot(kinds, 10))
        assert len(state) <= detector.state_bytes
    assert len(state) == detector.state_bytes <= 16 * 1024


def test_a_projection_keeps_distances_and_depends_on_its_key() -> None:
    """Kept distances are those of the pictures to a few percent, and other keys keep others."""
    rng = np.random.default_rng(0)
    pictures = rng.random((200, 1, 28, 28), dtype=np.float32)
    found = []
    for key in (b"a", b"b"):
        detector = Prada((1, 28, 28), classes=2, key=key, projection=64)
        _, state = detector.update(detector.empty(), pictures, one_hot(np.zeros(200, int), 2))
        found.append(detector._read(state).distances)
    true = np.sqrt(784 / 6)
    assert not np.array_equal(found[0], found[1])
    # The nearest of many is nearer than most.
    assert all(0.6 * true < np.median(one) < 1.1 * true for one in found)


def test_packing_keeps_the_state_readable() -> None:
    """An unpacked detector goes on where the packed one stopped."""
    inputs, outputs = traffic(150)
    detector = Prada(SHAPE, classes=3, key=b"secret", delta=0.9)
    again = Prada.unpack(*detector.pack(), threads=1)
    assert isinstance(again, AccountDetector)
    _, state = detector.update(detector.empty(), inputs, outputs)
    assert again.delta == 0.9
    scores, after = detector.update(state, inputs, outputs)
    assert np.array_equal(again.update(state, inputs, outputs)[0], scores)
    assert again.update(state, inputs, outputs)[1] == after


def test_foreign_and_broken_states_are_refused() -> None:
    """A state belongs to one detector, and wrong queries are refused."""
    inputs, outputs = traffic(20)
    detector, other = Prada(SHAPE, classes=3), Prada(SHAPE, classes=3, key=b"other")
    _, state = detector.update(detector.empty(), inputs, outputs)
    with pytest.raises(DetectorError, match="another"):
        other.update(state, inputs, outputs)
    with pytest.raises(DetectorError, match="cut short"):
        detector.update(state[:-1], inputs, outputs)
    with pytest.raises(DetectorError, match="another"):
        detector.update(b"", inputs, outputs)
    with pytest.raises(DetectorError, match="shape"):
        detector.update(state, inputs[:, :, :3], outputs)
    with pytest.raises(DetectorError, match="distances above 100"):
        Prada(SHAPE, classes=3, distances=100)


def test_nothing_asked_changes_nothing() -> None:
    """No queries, no scores, the same state."""
    detector = Prada(SHAPE, classes=3)
    scores, state = detector.update(detector.empty(), *(rows[:0] for rows in traffic(1)))
    assert scores.shape == (0,)
    assert state == detector.empty()
