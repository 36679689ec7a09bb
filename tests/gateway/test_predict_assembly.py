"""From a detector file to what tells queries apart, and from settings to both models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.challenge.protocol import Issuer, Proof, body_digest
from tollkeeper.challenge.puzzle import HashPuzzle
from tollkeeper.challenge.solve import solve
from tollkeeper.client.offers import offered
from tollkeeper.detectors.base import Detector
from tollkeeper.detectors.bundle import Bundle, probe_for
from tollkeeper.detectors.floors import MaxSoftmax, PixelShare
from tollkeeper.detectors.fused import Fused
from tollkeeper.detectors.history import History
from tollkeeper.detectors.same import Same
from tollkeeper.encoders.classifiers.load import load_classifier
from tollkeeper.errors import ConfigurationError, EncoderError, ProofError
from tollkeeper.gateway.assembly import served_encoder
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.plans import Plan, Plans, Scale
from tollkeeper.gateway.predict_assembly import (
    evidence_of,
    make_classifier,
    make_evidence,
    make_predictions,
)
from tollkeeper.gateway.predict_plan import Predictions
from tollkeeper.gateway.predict_tariff import Tariff
from tollkeeper.gateway.settings import Settings
from tollkeeper.guard import keys
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.testing.predictions import (
    CLASSES,
    SHAPE,
    BrightnessCounter,
    BrightnessDetector,
    ToyClassifier,
)
from tollkeeper.types import Account, Probabilities, Scores

TOY = ToyClassifier()
BUNDLE = Bundle(
    victim=TOY.name,
    input_shape=SHAPE,
    classes=len(CLASSES),
    detectors={"brightness": BrightnessDetector()},
    recommended="brightness",
    honest={"brightness": np.linspace(0.2, 0.4, 300)},
    account=BrightnessCounter(),
    graphs={},
    probe=probe_for(SHAPE),
    probe_answers=TOY.embed(probe_for(SHAPE)),
)


def test_a_bundle_gives_scores_their_meaning() -> None:
    """The recommended detector scores, and its honest scores rank what it says."""
    evidence = evidence_of(BUNDLE, TOY, digest=b"1")
    assert evidence.detector is BUNDLE.detectors["brightness"]
    np.testing.assert_allclose(evidence.ranks(np.array([0.0, 0.3, 9.0])), [0, 150 / 301, 300 / 301])
    assert evidence.fingerprint != evidence_of(BUNDLE, TOY, digest=b"2").fingerprint
    assert evidence.follow is None


def test_an_account_is_followed_by_scores_of_the_same_detector_only() -> None:
    """Scores of another detector mean nothing to it, also of one of the same kind."""

    class Follower(BrightnessCounter):
        def follow(self, state: bytes, scores: Scores) -> tuple[Scores, bytes]:
            return scores, state

        def __init__(self, detector: Detector) -> None:
            self.detector = detector

    detectors: dict[str, Detector] = {
        "one": MaxSoftmax(SHAPE, 3),
        "two": PixelShare(SHAPE, 3, 0.2, 0.8),
    }
    scores = np.linspace(-1, 0, 500)
    whole = replace(
        BUNDLE,
        detectors=detectors,
        honest=dict.fromkeys(detectors, scores),
        recommended="one",
        account=Follower(MaxSoftmax(SHAPE, 3)),
    )
    assert evidence_of(whole, TOY, digest=b"").follow is not None
    assert evidence_of(replace(whole, recommended="two"), TOY, digest=b"").follow is None


def test_a_history_is_made_anew_for_the_detector_that_policy_reads() -> None:
    """What it was fitted for is another scale."""
    scores = np.linspace(-1, 0, 500)
    detectors: dict[str, Detector] = {
        "one": MaxSoftmax(SHAPE, 3),
        "two": PixelShare(SHAPE, 3, 0.2, 0.8),
    }
    whole = replace(
        BUNDLE,
        detectors=detectors,
        honest=dict.fromkeys(detectors, scores),
        recommended="two",
        account=History(MaxSoftmax(SHAPE, 3), scores),
    )
    found = evidence_of(whole, TOY, digest=b"")
    assert isinstance(found.account, History)
    assert found.account.detector is detectors["two"]
    assert found.follow == found.account.follow


@pytest.mark.parametrize("purpose", [(), ("predictions",)])
def test_challenges_of_predictions_are_signed_with_a_key_of_their_own(
    purpose: tuple[str, ...],
) -> None:
    """A proof for embeddings of a model of the same name pays for no prediction."""
    service = make_predictions(
        TOY,
        evidence_of(BUNDLE, TOY, digest=b""),
        MemoryLedger(),
        plans=Plans({}, "toll", Scale(0.05, 0.2, refuses=True)),
        clock=lambda: 0.0,
        metrics=Metrics(),
        secret=bytes(32),
    )
    ladder = service.admission.ladder(Account("a", "k", "a"))
    issuer = Issuer(keys.derive(bytes(32), "challenges", *purpose, TOY.name), entropy=bytes)
    challenge = issuer.issue(
        HashPuzzle.of(2, issuer.salt()),
        account="a",
        policy=ladder.version,
        digest=body_digest(b""),
        expires_at=60.0,
    )
    offer = offered(challenge.header())
    assert offer is not None
    proof, booth = offer.proof(solve(offer.puzzle)), service.admission.booth
    if purpose:
        assert isinstance(booth.verify(proof, tenant="a", ladder=ladder, body=b""), Proof)
        return
    with pytest.raises(ProofError):
        booth.verify(proof, tenant="a", ladder=ladder, body=b"")


def test_a_detector_of_another_victim_is_refused() -> None:
    """A classifier that answers the probe otherwise is named, and so is the remedy."""

    class Other(ToyClassifier):
        def embed(self, inputs: Any) -> Probabilities:
            return np.roll(super().embed(inputs), 1, axis=1)

    with pytest.raises(ConfigurationError, match=r"for another victim: for 'toy-classes'.*'other'"):
        evidence_of(BUNDLE, Other("other"), digest=b"")


def test_an_account_detector_that_names_no_threshold_is_refused() -> None:
    """Without a suspicion at which to alarm a plan's rate means nothing."""

    class Silent:
        name = "silent"
        state_bytes = 0

        def empty(self) -> bytes:
            return b""

        def update(self, state: bytes, inputs: Any, outputs: Any) -> Any:
            return np.zeros(len(inputs)), state

    with pytest.raises(ConfigurationError, match="silent does not say when it alarms"):
        evidence_of(replace(BUNDLE, account=Silent()), TOY, digest=b"")


def test_a_detector_alone_is_refused(tmp_path: Path) -> None:
    """A detector file needs a classifier to look at."""
    settings = Settings(detector=str(tmp_path / "x"))
    with pytest.raises(ConfigurationError, match="name a classifier"):
        make_classifier(settings)


def test_without_a_file_there_is_no_detector() -> None:
    """Predictions are then served without ranks, under a name of their own."""
    evidence = make_evidence(Settings(encoder="none", classifier="onnx:x"), TOY)
    assert (evidence.detector, evidence.account) == (None, None)
    assert evidence.fingerprint.startswith("p")


def test_another_detector_of_the_file_is_used_and_followed() -> None:
    """`FILE#NAME` ranks by that detector, and accounts are followed by its scores too."""
    digits = load_classifier("builtin:digits")
    usual, other = (
        make_evidence(Settings(classifier="builtin:digits", detector=spec), digits)
        for spec in (None, "builtin:digits#same")
    )
    assert isinstance(usual.detector, Fused)
    assert isinstance(other.detector, Same)
    assert isinstance(other.account, History)
    assert other.account.detector is other.detector
    assert other.follow == other.account.follow
    assert usual.fingerprint != other.fingerprint
    with pytest.raises(ConfigurationError, match="expected a detector of fused, same"):
        make_evidence(Settings(classifier="builtin:digits", detector="builtin:digits#sane"), digits)


def test_a_built_in_classifier_can_do_without_detectors() -> None:
    """`none` is no file."""
    settings = Settings(classifier="builtin:digits", detector="none")
    assert make_evidence(settings, load_classifier("builtin:digits")).detector is None


def test_rows_that_are_no_probabilities_end_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python classifier is asked once before anybody is served."""
    lines = "import numpy as np\n\ndef f(x):\n    return np.full((len(x), 2), 0.9)\n"
    lines += "f.classes, f.input_shape = ('a', 'b'), (1, 4, 4)\n"
    (tmp_path / "wide_rows.py").write_text(lines)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EncoderError, match="sum"):
        make_classifier(Settings(classifier="python:wide_rows:f"))


def test_no_encoder_and_no_classifier_is_nothing_to_serve() -> None:
    """A server needs one of them, and says so before it makes a folder."""
    settings = Settings(encoder="none")
    assert served_encoder(settings) is None
    with pytest.raises(ConfigurationError, match="name a classifier to serve, or an encoder"):
        make_classifier(settings)


def test_a_tariff_is_another_one_where_prices_or_detectors_are() -> None:
    """Challenges are bound to the puzzle and to the detectors, and not to what leaves."""
    evidence = evidence_of(BUNDLE, TOY, digest=b"1")
    plan = Plan()
    versions = {
        Tariff.of(plan, evidence).version,
        Tariff.of(plan.model_copy(update={"puzzle": "SCRYPT"}), evidence).version,
        Tariff.of(plan, evidence_of(BUNDLE, TOY, digest=b"2")).version,
        Tariff.of(Plan(predictions=Predictions(refuse_rank=0.9)), evidence).version,
    }
    assert len(versions) == 4
    rounded = Plan(predictions=Predictions.model_validate({"outputs": [{"decimals": 1}]}))
    assert Tariff.of(rounded, evidence).version in versions


def test_an_alarm_that_nothing_raises_is_refused_where_it_is_written() -> None:
    """A detector file that follows no account ends the start of a plan that relies on it."""
    evidence = evidence_of(replace(BUNDLE, account=None), TOY, digest=b"")
    with pytest.raises(ConfigurationError, match=r"alarm 0.02: expected a detector file that"):
        Tariff.of(Plan(predictions=Predictions(alarm=0.02)), evidence)
    assert Tariff.of(Plan(predictions=Predictions(alarm=None)), evidence).alarm_at is None
    written = Plan(predictions=Predictions(challenge_rank=0.9))
    for plan in Plans({"toll": written}, "toll", Scale(0.05, 0.2, refuses=True)).all:
        assert Tariff.of(plan, evidence).alarm_at is None


def test_a_detector_for_other_inputs_does_not_start() -> None:
    """It is asked once before the first request, and named."""
    bad = replace(BUNDLE, detectors={"brightness": MaxSoftmax((3, 4, 4), 3)})
    with pytest.raises(ConfigurationError, match=r"max-softmax of the detector file fails"):
        evidence_of(bad, TOY, digest=b"")


def test_an_account_detector_keeps_little() -> None:
    """One whose state would take an account beyond 16 KiB is refused by name."""
    large = BrightnessCounter()
    large.state_bytes = 1000
    with pytest.raises(ConfigurationError, match="at most 992 bytes for each account, got 1000"):
        evidence_of(replace(BUNDLE, account=large), TOY, digest=b"")
