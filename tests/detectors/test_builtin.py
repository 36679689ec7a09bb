"""Promises of the detectors that are shipped with the built-in classifier."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.detectors.builtin import DIGITS, builtin_bundle_path
from tollkeeper.detectors.bundle import Bundle, load_bundle
from tollkeeper.detectors.history import History
from tollkeeper.encoders.classifiers.base import Classifier
from tollkeeper.encoders.classifiers.load import BUILTIN, load_classifier
from tollkeeper.graphs import Graph
from tollkeeper.types import Images


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Return what is shipped."""
    return load_bundle(DIGITS)


@pytest.fixture(scope="module")
def victim() -> Classifier:
    """Return the classifier that is shipped."""
    return load_classifier("builtin:digits")


def seven(shift: int = 0) -> Images:
    """Draw a seven as MNIST draws: 20 pixels high, gray at the edges of strokes."""
    fine = np.zeros((112, 112), np.float32)
    fine[20:31, 32:80] = 1
    for row in range(20, 92):
        middle = 75 - (row - 20) * 30 // 72 + shift
        fine[row, middle - 6 : middle + 6] = 1
    small: Images = fine.reshape(28, 4, 28, 4).mean(axis=(1, 3), dtype=np.float32)
    return small[None, None]


def test_the_detectors_are_for_the_classifier(bundle: Bundle, victim: Classifier) -> None:
    """Both are found by the built-in's name, and the victim answers the probe as it did."""
    assert builtin_bundle_path("builtin:digits") == DIGITS
    assert builtin_bundle_path("onnx:digits.onnx") is None
    bundle.check_victim(victim)
    assert bundle.victim == victim.name == "digits"
    assert victim.classes == tuple("0123456789")
    assert bundle.recommended == "fused"


def test_they_are_small() -> None:
    """Each file is below 2 MB, so that the package stays small."""
    assert DIGITS.stat().st_size < 2_000_000
    assert BUILTIN.stat().st_size < 2_000_000


def test_a_drawn_digit_is_read_and_noise_is_told(bundle: Bundle, victim: Classifier) -> None:
    """A seven is a seven; noise ranks above 99 % of honest queries and a seven far below it."""
    noise = np.random.default_rng(0).random((8, 1, 28, 28), dtype=np.float32)
    queries = np.concatenate([seven(), noise])
    answers = victim.embed(queries)
    ranks = bundle.rank(bundle.detectors["fused"].score(queries, answers))

    assert answers[0].argmax() == 7
    assert (ranks[1:] > 0.99).all()
    scores = bundle.detectors["fused"].score(queries, answers)
    assert (scores[1:] > scores[0]).all()


def test_an_account_that_asks_noise_is_caught(bundle: Bundle, victim: Classifier) -> None:
    """A dozen queries of noise raise the alarm of one honest account in a hundred."""
    noise = np.random.default_rng(1).random((12, 1, 28, 28), dtype=np.float32)
    account = bundle.account
    assert isinstance(account, History)
    suspicion, _ = account.update(account.empty(), noise, victim.embed(noise))

    assert suspicion[-1] >= account.alarm_at(0.01)


def test_networks_of_responses_are_in_it(bundle: Bundle) -> None:
    """MAD's surrogate and the misinformer answer with ten classes."""
    for name in ("misinformer", "surrogate"):
        graph = Graph(bundle.graphs[name], name=name)
        assert graph.run(seven())["logits"].shape == (1, 10)
