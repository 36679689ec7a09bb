"""A real gateway in front of the victim: who is answered over HTTP, and after how long no more.

The server is started as an operator starts it, with the victim as an ONNX file and its detectors in
one file. Under one plan inputs of a high rank are refused, one by one; under another only accounts
are, once their history is an alarm. Every user has an account of its own and asks one image at a
time, the honest one's and the thief's from the same scene as in all other experiments.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from tollkeeper.bench.experiment import Direction, Metric
from tollkeeper.bench.predict.accounts import FUSED, HONEST
from tollkeeper.bench.predict.deployment import Deployment
from tollkeeper.bench.server import Server, create_key
from tollkeeper.client.opening import open_classifier_target
from tollkeeper.client.target import ClassifierTarget
from tollkeeper.detectors.bundle import Bundle, probe_for, save_bundle
from tollkeeper.detectors.history import History
from tollkeeper.encoders.classifiers.onnx import OnnxClassifier
from tollkeeper.encoders.lab.torch_classifier import TorchClassifier
from tollkeeper.errors import RefusalError
from tollkeeper.lab.exporting import export_graph
from tollkeeper.types import Images, Scores

Answered = NDArray[np.bool_]
"""(n,) whether each of a user's images was answered."""

PLAN, PROBE = "live", "probe"
DETECTORS = ("same", FUSED)
_PATIENCE = 32
"""Refusals in a row after which an account is taken to be barred."""


def live(made: Deployment, *, queries: int, refused: float, alarm: float) -> dict[str, Metric]:
    """Return what honest users and Knockoff get from a guarded gateway.

    Args:
        made: with the detectors of `DETECTORS`.
        queries: of each user.
        refused: share of honest traffic whose ranks are refused.
        alarm: share of honest accounts that an alarm may ever hit.
    """
    scene, found = made.scene, dict[str, Metric]()
    users = {HONEST: scene.honest[:queries], "knockoff": scene.pool[:queries]}
    # What a client learns the classes from must be answered; it is one more query of each account.
    usual = made.scores(scene.calibration, made.victim.embed(scene.calibration))[FUSED].argmin()
    users[PROBE] = scene.calibration[usual : usual + 1]
    with tempfile.TemporaryDirectory(prefix="tollkeeper-live-") as name:
        folder = Path(name)
        victim = _served(made.victim, folder)
        for detector in DETECTORS:
            bundle = _bundle(made, victim, detector)
            save_bundle(folder / f"{detector}.bundle", bundle)
            rule = {"refuse_rank": 1 - refused, "alarm": None}
            path = f"live.{scene.dataset}.{detector}"
            for user, answered in _asked(folder, detector, rule, users).items():
                direction: Direction = "higher" if user == HONEST else "lower"
                share = float(answered.mean())
                found[f"{path}.answered.{user}"] = Metric(share, "share", direction)
                expected = _expected(bundle, made, users[user], refused)
                found[f"{path}.expected.{user}"] = Metric(expected, "share", direction)
            if detector == FUSED:
                # The account's history follows the fused score, whichever is recommended.
                rule = {"refuse_rank": None, "alarm": alarm}
                for user, answered in _asked(folder, detector, rule, users).items():
                    direction = "higher" if user == HONEST else "lower"
                    count = Metric(float(answered.sum()), "queries", direction)
                    found[f"live.{scene.dataset}.alarm.answered.{user}"] = count
    return found


def _served(victim: TorchClassifier, folder: Path) -> OnnxClassifier:
    """Write the victim as an operator has it, and return it as the server reads it."""
    assert victim.input_shape is not None
    path = folder / "victim.onnx"
    path.write_bytes(export_graph(victim.network, victim.input_shape, outputs=("logits",)))
    about = {"name": victim.name, "classes": victim.classes, "outputs": "logits"}
    path.with_suffix(".json").write_text(json.dumps(about))
    return OnnxClassifier(path)


def _bundle(made: Deployment, victim: OnnxClassifier, recommended: str) -> Bundle:
    scene = made.scene
    answers = made.victim.embed(scene.calibration)
    detectors = {name: made.defense.detectors[name] for name in DETECTORS}
    honest: Mapping[str, Scores] = {
        name: np.sort(one.score(scene.calibration, answers)) for name, one in detectors.items()
    }
    probe = probe_for(scene.shape)
    return Bundle(
        victim=victim.name,
        input_shape=scene.shape,
        classes=victim.dim,
        detectors=detectors,
        recommended=recommended,
        honest=honest,
        account=History(detectors[FUSED], honest[FUSED]),
        graphs={},
        probe=probe,
        probe_answers=victim.embed(probe),
    )


def _expected(bundle: Bundle, made: Deployment, images: Images, refused: float) -> float:
    """Return the share of images that the same rule answers without any gateway."""
    detector = bundle.detectors[bundle.recommended]
    ranks = bundle.rank(detector.score(images, made.victim.embed(images)))
    return float((ranks < 1 - refused).mean())


def _asked(
    folder: Path,
    detector: str,
    rule: Mapping[str, object],
    users: Mapping[str, Images],
) -> dict[str, Answered]:
    """Return which of each user's images were answered by a server with such a plan."""
    data = folder / f"{detector}-{'alarm' if rule['alarm'] else 'refuse'}"
    config = data.with_suffix(".yaml")
    settings = {
        "classifier": f"onnx:{folder / 'victim.onnx'}",
        "detector": str(folder / f"{detector}.bundle"),
        "plan": PLAN,
        "plans": {PLAN: {"predictions": dict(rule)}},
    }
    config.write_text(yaml.safe_dump(settings))
    keys = {user: create_key(data, tenant=user) for user in users if user != PROBE}
    found: dict[str, Answered] = {}
    with Server(
        data, profile="recommended", encoder="none", key=keys[HONEST], config=config
    ) as server:
        for user in (one for one in users if one != PROBE):
            with closing(
                open_classifier_target(
                    f"http://127.0.0.1:{server.port}/v1",
                    transcript=data / f"{user}.jsonl",
                    probe=users[PROBE][0],
                    api_key=keys[user],
                    batch=1,
                )
            ) as target:
                # Whoever is refused a query asks the next one; whoever is barred stops asking.
                patience = _PATIENCE if rule["alarm"] else len(users[user])
                found[user] = _answered(target, users[user], patience)
    return found


def _answered(target: ClassifierTarget, images: Images, patience: int) -> Answered:
    """Ask one by one until all are asked or the account is barred."""
    answered = np.zeros(len(images), np.bool_)
    refused = 0
    for at in range(len(images)):
        try:
            target.embed(images[at : at + 1])
        except RefusalError:
            refused += 1
        else:
            answered[at], refused = True, 0
        if refused >= patience:
            break
    return answered
