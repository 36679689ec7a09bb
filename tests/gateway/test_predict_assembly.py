"""From a detector file to what tells queries apart, and from settings to both models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.detectors.bundle import Bundle, probe_for
from tollkeeper.detectors.fused import Fused
from tollkeeper.detectors.history import History
from tollkeeper.detectors.same import Same
from tollkeeper.encoders.classifiers.load import load_classifier
from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.assembly import served_encoder
from tollkeeper.gateway.predict_assembly import evidence_of, make_classifier, make_evidence
from tollkeeper.gateway.settings import Settings
from tollkeeper.testing.predictions import (
    CLASSES,
    SHAPE,
    BrightnessCounter,
    BrightnessDetector,
    ToyClassifier,
)
from tollkeeper.types import Probabilities

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


def test_no_encoder_and_no_classifier_is_nothing_to_serve() -> None:
    """A server needs one of them, and says so before it makes a folder."""
    settings = Settings(encoder="none")
    assert served_encoder(settings) is None
    with pytest.raises(ConfigurationError, match="name a classifier to serve, or an encoder"):
        make_classifier(settings)
