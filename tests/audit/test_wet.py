"""The test of a secret linear map: exact for the innocent, and it finds the map again."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from scipy import stats

from tollkeeper.audit.watermarks.served import MarkedEncoder, unit
from tollkeeper.audit.watermarks.wet import Wet, WetEvidence, WetKey, WetTest
from tollkeeper.errors import AuditRefused
from tollkeeper.testing.words import WordEncoder

SEED = b"a seed of the owner, 32 bytes ok"
DIM = 48
TEXTS = tuple(f"text {at} of {at % 7} and {at % 11}" for at in range(80))
SERVICE = WordEncoder(DIM)
WAYS: tuple[Literal["back", "forward"], ...] = ("back", "forward")


def evidence(key: WetKey, texts: tuple[str, ...] = TEXTS) -> WetEvidence:
    """Return texts with the service's own answers."""
    return WetEvidence(key, texts, SERVICE.embed(texts))


@pytest.mark.parametrize("way", WAYS)
def test_the_marked_service_is_found(way: Literal["back", "forward"]) -> None:
    """Its answers are the owner's behind the map, and behind no other."""
    key = WetKey(SEED, DIM, entries=6)
    result = WetTest(way=way).run(
        MarkedEncoder(SERVICE, Wet(key)), evidence(key), rng=np.random.default_rng(0)
    )

    assert result.statistic == pytest.approx(1, abs=1e-3)
    assert result.p_value == 1 / 1000
    assert result.details["auc"] == 1
    assert result.interval[0] > 0.1


@pytest.mark.parametrize("way", WAYS)
def test_cosines_are_those_of_the_map_written_out(way: Literal["back", "forward"]) -> None:
    """Sums over frequencies against the map applied key by key, for an odd width too."""
    for dim in (48, 47):
        key = WetKey(SEED, dim, entries=6)
        answers = WordEncoder(dim, salt="other").embed(TEXTS)
        clean = WordEncoder(dim).embed(TEXTS)
        held = WetEvidence(key, TEXTS, clean)
        found = WetTest(decoys=99, way=way).run(
            WordEncoder(dim, salt="other"), held, rng=np.random.default_rng(0)
        )
        for index, mean in ((0, found.statistic), (7, found.null_distribution[6])):
            one = key.decoy(index)
            pair = (one.undo(answers), clean) if way == "back" else (answers, one.apply(clean))
            expected = (unit(pair[0]) * unit(pair[1])).sum(axis=1).mean()
            assert mean == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("way", WAYS)
def test_the_innocent_get_uniform_p_values(way: Literal["back", "forward"]) -> None:
    """Whether unrelated or the very same encoder without the map: over 60 seeds, no trace."""
    for suspect in (WordEncoder(DIM, salt="somebody else's"), SERVICE):
        found = [
            WetTest(decoys=99, way=way)
            .run(
                suspect,
                evidence(WetKey(SEED + bytes([at]), DIM, entries=6)),
                rng=np.random.default_rng(0),
            )
            .p_value
            for at in range(60)
        ]
        assert stats.kstest(found, "uniform").pvalue > 0.01


def test_a_test_that_cannot_be_done_is_refused() -> None:
    """Another width, too few texts, or embeddings of other texts."""
    key = WetKey(SEED, DIM)
    generator = np.random.default_rng(0)

    with pytest.raises(AuditRefused, match="width 48, got 32"):
        WetTest().run(WordEncoder(32), evidence(key), rng=generator)
    with pytest.raises(AuditRefused, match="at least 50 texts"):
        WetTest().run(SERVICE, evidence(key, TEXTS[:49]), rng=generator)
    with pytest.raises(AuditRefused, match="clean embeddings"):
        WetTest().run(SERVICE, WetEvidence(key, TEXTS, SERVICE.embed(TEXTS[:60])), rng=generator)
