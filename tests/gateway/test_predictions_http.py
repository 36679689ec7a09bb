"""Predictions over real HTTP: answered and charged, repeats free, every refusal its status."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tollkeeper.challenge.solve import solve
from tollkeeper.client.offers import offered
from tollkeeper.encoders.callable_encoder import CallableEncoder
from tollkeeper.encoders.classifiers.base import canonical
from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.plans import Plan
from tollkeeper.gateway.predict_plan import Predictions
from tollkeeper.gateway.predict_tariff import Evidence
from tollkeeper.gateway.settings import Settings
from tollkeeper.testing.encoders import hash_encoder
from tollkeeper.testing.predictions import (
    SHAPE,
    BrightnessCounter,
    BrightnessDetector,
    ToyClassifier,
    pictures,
)
from tollkeeper.types import Images

TOY = ToyClassifier()
HONEST = np.linspace(0.2, 0.4, 400)


def evidence() -> Evidence:
    """The toy detectors, and what honest pictures score."""
    return Evidence("p-toy", BrightnessDetector(), HONEST, BrightnessCounter())


def body_of(inputs: Images) -> dict[str, Any]:
    """The body of a request for predictions of tensors."""
    items = [{"shape": list(one.shape), "data": one.ravel().tolist()} for one in inputs]
    return {"model": TOY.name, "input": items}


@pytest.fixture
def live(start_gateway: Any) -> Any:
    """A gateway that serves predictions only."""
    return start_gateway(classifier=TOY, evidence=evidence())


def test_an_honest_client_is_answered_and_charged(live: Any) -> None:
    """An answer holds the classifier's probabilities; the record says what was charged."""
    asked = pictures(3)
    reply = live.classify(body_of(asked))
    assert reply.status_code == 200, reply.text
    rows = [row["probabilities"] for row in reply.json()["data"]]
    np.testing.assert_array_equal(np.array(rows, np.float32), TOY.embed(asked))
    (record,) = live.gateway.store.records()
    assert (record.inputs, record.charge, record.model) == (3, 3.0, TOY.name)


def assert_error(reply: Any, status: int, code: str, param: str | None = None) -> None:
    """Check the status and the error object."""
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert (error["code"], error["param"]) == (code, param)


def picture_uri(picture: NDArray[np.uint8]) -> str:
    """A picture as a data URI."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def test_pictures_and_tensors_are_the_same_inputs(live: Any) -> None:
    """A data URI is decoded to the tensor that it is; as a tensor it is then free."""
    picture = np.random.default_rng(0).integers(0, 100, (4, 4, 3), dtype=np.uint8)
    asked = live.classify({"model": TOY.name, "input": picture_uri(picture)})
    assert asked.status_code == 200, asked.text
    tensor = canonical((picture,), SHAPE, name="")
    again = live.classify(body_of(tensor))
    assert again.json()["data"] == asked.json()["data"]
    assert live.gateway.store.read("default@p-toy").spent == 1


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"shape": [1, 5, 4], "data": [0.0] * 20}, "4 x 4"),
        ({"shape": [3, 4, 4], "data": [0.0] * 48}, "4 x 4"),
        ({"shape": [1, 4, 4], "data": [0.0] * 15 + [1.5]}, "from 0 to 1"),
        (b"NaN", "NaN"),
        ("a text", "takes image or tensor"),
        ("data:image/png;base64,AAAA", "image"),
    ],
)
def test_bad_inputs_name_the_field(live: Any, item: Any, words: str) -> None:
    """What the classifier cannot take is a 400 with its field, and nothing is charged."""
    body: Any = {"model": TOY.name, "input": [item]}
    if isinstance(item, bytes):
        numbers = b",".join([b"0"] * 15 + [item])
        body = b'{"model":"%b","input":{"shape":[1,4,4],"data":[%b]}}' % (
            TOY.name.encode(),
            numbers,
        )
    reply = live.classify(body)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == "input"
    assert words in reply.json()["error"]["message"]
    assert list(live.gateway.store.records()) == []


def test_every_refusal_has_its_status(live: Any) -> None:
    """No key, an unknown model, a suspended tenant, a spent budget: as for embeddings."""
    body = body_of(pictures(1))
    assert_error(live.classify(body, key="sk-wrong"), 401, "invalid_api_key")
    unknown = live.classify({**body, "model": "gpt"})
    assert_error(unknown, 404, "model_not_found", "model")
    assert live.classify(body_of(pictures(3))).status_code == 200
    assert live.admin("POST", "/tenants/default/grant", json={"inputs": 1}).status_code == 200
    live.gateway.keyring.refresh()
    assert_error(live.classify(body_of(pictures(2, seed=1))), 429, "insufficient_quota")
    assert live.classify(body_of(pictures(1, seed=2))).status_code == 200
    live.admin("POST", "/tenants/default/suspend")
    live.gateway.keyring.refresh()
    assert_error(live.classify(body), 403, "account_suspended")


def test_a_refused_input_is_a_403_that_tells_nothing(start_gateway: Any) -> None:
    """The reply names the input; neither headers nor body hold a rank or a score."""
    plans = {"guard": {"predictions": {"refuse_rank": 0.9}}}
    live = start_gateway(classifier=TOY, evidence=evidence(), plans=plans)
    reply = live.classify(body_of(pictures(1, mean=0.9)))
    assert_error(reply, 403, "input_refused")
    told = (str(dict(reply.headers)) + reply.text).lower()
    for word in ("rank", "score", "suspic", "detector", "brightness", "tollkeeper-"):
        assert word not in told


def test_a_challenge_is_paid_over_http(start_gateway: Any) -> None:
    """402 with a puzzle; the same body with its proof is answered, with a receipt."""
    told = {"challenge_rank": 0.9, "ceiling_bits": 9, "alarm": None}
    live = start_gateway(
        classifier=TOY, evidence=evidence(), plans={"guard": {"predictions": told}}
    )
    body = json.dumps(body_of(pictures(1, mean=0.85))).encode()
    refused = live.classify(body)
    assert_error(refused, 402, "challenge_required")
    offer = offered(refused.headers["www-authenticate"])
    assert offer is not None
    paid = live.classify(body, headers={"Tollkeeper-Proof": offer.proof(solve(offer.puzzle))})
    assert paid.status_code == 200, paid.text
    assert "tollkeeper-receipt" in paid.headers


def test_models_of_both_kinds_are_listed(start_gateway: Any) -> None:
    """One server answers embeddings and predictions, each under its own model's name."""
    encoder = CallableEncoder(hash_encoder(16).embed, dim=16, name="toy")
    live = start_gateway(encoder, classifier=TOY, evidence=evidence())
    headers = {"Authorization": f"Bearer {live.key}"}
    listed = httpx2.get(f"{live.url}/models", headers=headers).json()["data"]
    assert [row["id"] for row in listed] == ["toy", TOY.name]
    assert live.embed(["a"]).shape == (1, 16)
    assert live.classify(body_of(pictures(1))).status_code == 200
    wrong = live.post({"model": TOY.name, "input": "a"})
    assert_error(wrong, 404, "model_not_found", "model")
    assert live.entry().spent == 1
    assert live.gateway.store.read("default@p-toy").spent == 1


def test_what_is_not_served_says_so(start_gateway: Any, live: Any) -> None:
    """Without a classifier, and without an encoder, a path says what the server lacks."""
    assert_error(live.post({"model": "toy", "input": "a"}), 404, "unknown_url")
    passes = httpx2.post(
        f"{live.root}/tollkeeper/v1/challenges",
        headers={"Authorization": f"Bearer {live.key}"},
        json={"inputs": 3},
    )
    assert_error(passes, 404, "unknown_url")
    live.stop()
    encoder = CallableEncoder(hash_encoder(16).embed, dim=16, name="toy")
    other = start_gateway(encoder)
    reply = other.classify(body_of(pictures(1)))
    assert_error(reply, 404, "unknown_url")
    assert "no classifier" in reply.json()["error"]["message"]


def test_a_reload_changes_plans_of_predictions_too(live: Any) -> None:
    """New plans hold at once; those that cannot hold here change nothing."""
    gateway, settings = live.gateway, Settings(encoder="none")

    def reload(**told: Any) -> None:
        plans = {"guard": Plan(predictions=Predictions(**told))}
        gateway.reload(settings.model_copy(update={"plans": plans}))

    with pytest.raises(ConfigurationError, match="honest scores"):
        reload(refuse_rank=0.9999)
    assert live.classify(body_of(pictures(1, mean=0.9))).status_code == 200
    reload(refuse_rank=0.9)
    assert_error(live.classify(body_of(pictures(1, mean=0.9, seed=1))), 403, "input_refused")


def test_a_classifier_elsewhere_gets_what_the_detector_sees(start_gateway: Any) -> None:
    """Pictures for a classifier that waits for another machine are decoded here all the same."""

    class Remote(ToyClassifier):
        concurrency = 2

    live = start_gateway(classifier=Remote(), evidence=evidence())
    picture = np.random.default_rng(0).integers(0, 100, (4, 4, 3), dtype=np.uint8)
    replies = [live.classify({"model": TOY.name, "input": [picture_uri(picture)]})]
    replies.append(live.classify(body_of(canonical((picture,), SHAPE, name=""))))
    assert [reply.status_code for reply in replies] == [200, 200]
    assert live.gateway.store.read("default@p-toy").spent == 1


def test_the_engine_settles_what_the_classifier_fails(start_gateway: Any) -> None:
    """A classifier that returns no probabilities is a 503 that charges nothing."""

    class Logits(ToyClassifier):
        def embed(self, inputs: Any) -> Any:
            return super().embed(inputs) * np.float32(2)

    broken = Logits()
    live = start_gateway(classifier=broken, evidence=evidence())
    assert_error(live.classify(body_of(pictures(1))), 503, "guard_unavailable")
    assert list(live.gateway.store.records()) == []


def test_an_operator_sees_links_and_pardons_accounts_of_predictions(start_gateway: Any) -> None:
    """Reports hold spend and suspicion; a link unites accounts, a pardon forgets suspicion."""
    plans = {"guard": {"predictions": {"alarm": 0.01}}}
    live = start_gateway(classifier=TOY, evidence=evidence(), plans=plans)
    other = live.new_key("other")
    assert live.classify(body_of(pictures(1, mean=0.9))).status_code == 200
    assert live.classify(body_of(pictures(2, mean=0.9)), key=other).status_code == 200
    report = live.admin("GET", "/tenants/other").json()
    assert (report["predicted"], report["suspicion"], report["spent"]) == (2.0, 2.0, 0.0)
    # The evidence of both holds for both, and nobody pays twice for what either asked.
    assert live.admin("POST", "/tenants/default/link", json={"with": "other"}).status_code == 200
    live.gateway.keyring.refresh()
    report = live.admin("GET", "/tenants/default").json()
    assert report["predicted"] == 3.0
    assert report["suspicion"] == pytest.approx(np.logaddexp(0, [1, 2]).sum() - 2 * np.log(2))
    assert (report["standing"], report["alarm_at"]) == ("free", 3.0)
    assert live.classify(body_of(pictures(2, mean=0.9))).status_code == 200
    assert live.admin("GET", "/tenants/default").json()["predicted"] == 3.0
    assert live.classify(body_of(pictures(1, mean=0.9, seed=4))).status_code == 200
    assert_error(live.classify(body_of(pictures(1)), key=other), 429, "insufficient_quota")
    assert live.admin("GET", "/tenants/other").json()["standing"] == "alarmed"
    assert live.admin("POST", "/tenants/other/pardon").status_code == 200
    live.gateway.keyring.refresh()
    report = live.admin("GET", "/tenants/other").json()
    assert (report["predicted"], report["suspicion"]) == (4.0, 2.0)
    assert report["standing"] == "free"
    assert live.classify(body_of(pictures(1)), key=other).status_code == 200


def test_overlaps_of_embeddings_are_not_looked_for_where_none_are_served(
    start_gateway: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """`link_overlap` is no reason not to start then, and one line in the log says so."""
    live = start_gateway(classifier=TOY, evidence=evidence(), link_overlap=0.5)
    assert live.classify(body_of(pictures(1))).status_code == 200
    assert "links.unwatched" in caplog.text
