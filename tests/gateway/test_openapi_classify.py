"""The OpenAPI document of a server that predicts: valid, and in agreement with the parser."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from tollkeeper.encoders.classifiers.base import canonical
from tollkeeper.errors import RequestError
from tollkeeper.gateway.classify_reply import encode_classify
from tollkeeper.gateway.classify_request import parse_classify
from tollkeeper.gateway.images import decode_images
from tollkeeper.gateway.openapi import (
    IMAGE_FORMAT,
    NUMBERS_FORMAT,
    Classifies,
    Embeds,
    Json,
    document,
)
from tollkeeper.gateway.request import Limits

MODELS = ("digits", "org/alias")
CLASSES = ("a", "b", "c")
SHAPE = (1, 1, 2)
LIMITS = Limits(max_inputs=4)
PICTURES = Classifies(MODELS, CLASSES, ("image", "tensor"), SHAPE)
TEXTS = Classifies(MODELS, CLASSES, ("text",), None)


def image_uri(color: str) -> str:
    """Return a picture of 2 x 1 pixels as a data URI."""
    buffer = io.BytesIO()
    Image.new("RGB", (2, 1), color).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def packed(*numbers: float) -> str:
    """Return base64 of float32."""
    return base64.b64encode(np.array(numbers, "<f4").tobytes()).decode()


URIS = [image_uri(color) for color in ("red", "black", "white")]
schemathesis.openapi.format(f"{IMAGE_FORMAT}-2x1", st.sampled_from(URIS))
schemathesis.openapi.format(
    f"{NUMBERS_FORMAT}-2",
    st.tuples(*[st.floats(0, 1, width=32)] * 2).map(lambda pair: packed(*pair)),
)


def made(served: Classifies = PICTURES) -> Json:
    """Return the document of a server of one classifier."""
    return document(limits=LIMITS, version="1.2.3", embeds=None, classifies=served)


def schema_of(name: str, served: Classifies = PICTURES) -> jsonschema_rs.Validator:
    """Return a validator of one named schema."""
    reference = {"$ref": f"#/components/schemas/{name}", "components": made(served)["components"]}
    return jsonschema_rs.validator_for(reference)


@pytest.mark.parametrize("served", [PICTURES, TEXTS])
def test_document_is_valid_openapi(served: Classifies) -> None:
    """The document fits the OpenAPI 3.1 specification and survives JSON."""
    full = json.loads(json.dumps(made(served)))
    OPENAPI_31_VALIDATOR.validate(full)
    for schema in full["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


def test_only_what_is_served_is_offered() -> None:
    """Routes and names of an encoder and of a classifier are there exactly if it is served."""
    assert set(made()["paths"]) == {
        *("/v1/classify", "/v1/models", "/v1/models/{id}", "/livez", "/readyz")
    }
    both = document(
        limits=LIMITS, version="1", embeds=Embeds(("e",), 8, {"text"}), classifies=TEXTS
    )
    assert {"/v1/classify", "/v1/embeddings"} <= set(both["paths"])
    assert both["components"]["schemas"]["Model"]["properties"]["id"]["enum"] == ["e", *MODELS]
    statuses = set(both["paths"]["/v1/classify"]["post"]["responses"])
    assert statuses == {"200", "400", "401", "402", "403", "404", "413", "429", "503"}


def is_served(body: bytes, served: Classifies = PICTURES) -> bool:
    """Tell whether the server gets as far as classifying."""
    try:
        request = parse_classify(body, limits=LIMITS)
        inputs = request.inputs
        if request.modality == "image":
            inputs = decode_images([str(item) for item in inputs], limits=LIMITS)
        if served.input_shape is not None and request.modality in served.accepts:
            canonical(inputs, served.input_shape, name="m")
    except RequestError:
        return False
    return request.model in MODELS and request.modality in served.accepts


def tensor(**fields: Any) -> Json:
    """Return a tensor of two numbers with some fields changed."""
    changed = {"shape": list(SHAPE), "data": [0, 0.5]} | fields
    return {name: value for name, value in changed.items() if value != "absent"}


VALUES: list[Any] = [
    *(None, "", "a", [], ["a"], 1, True, {}, [1], [[1]], [{}]),
    *(URIS[0], URIS, URIS * 2, [*URIS, "a"]),
    *(tensor(), [tensor()], [tensor()] * 4, [tensor()] * 5, [tensor(), "a"], [tensor(), URIS[0]]),
    *(tensor(data="absent"), tensor(shape="absent"), tensor(extra=1), tensor(base64=packed(0, 1))),
    *(tensor(data="absent", base64=packed(0, 1)), tensor(data="absent", base64=packed(0))),
    *(tensor(data=[0]), tensor(data=[0, 0, 0]), tensor(data=[[0, 0]]), tensor(data=[0, "0"])),
    *(tensor(data=[0, 1.5]), tensor(data=[0, -0.5]), tensor(data=[0, True]), tensor(data=[0, 1])),
    *(tensor(shape=[1, 2, 1]), tensor(shape=[2]), tensor(shape=[1, 1, 2, 1]), tensor(shape=2)),
]


# That a text is no image's URI stands in a description.
TEXT_VALUES = [value for value in VALUES if "data:image/" not in json.dumps(value)]


@pytest.mark.parametrize(
    ("served", "value"),
    [*((PICTURES, value) for value in VALUES), *((TEXTS, value) for value in TEXT_VALUES)],
)
def test_schema_and_parser_agree_on_input(served: Classifies, value: Any) -> None:
    """A form of `input` fits the schema exactly if it is served."""
    request = {"model": MODELS[0], "input": value}
    fits = schema_of("ClassifyRequest", served).is_valid(request)
    assert fits == is_served(json.dumps(request).encode(), served)


FIELDS: dict[str, list[Any]] = {
    "encoding_format": ["float", "base64", None, "", 1],
    "top_k": [1, 3, 99, None, 0, -1, 1.5, "1", True, [1]],
    "user": ["", "u", None, 1, []],
    "extra": [1, None, {"a": []}],
    "model": [*MODELS, "other", None, 1],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in FIELDS.items() for value in values]
)
def test_schema_and_parser_agree_on_other_fields(name: str, value: Any) -> None:
    """Any other field fits the schema exactly if the parser takes it."""
    request = {"model": MODELS[0], "input": tensor(), name: value}
    fits = schema_of("ClassifyRequest").is_valid(request)
    assert fits == is_served(json.dumps(request).encode())


@pytest.mark.parametrize("top_k", [None, 1, 9])
@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_replies_fit_their_schema(top_k: int | None, encoding_format: Any) -> None:
    """What is written is what the document promises."""
    rows = np.array([[0.5, 0.25, 0.25], [0, 0, 1]], dtype=np.float32)
    body = encode_classify(
        rows, CLASSES, model=MODELS[0], tokens=2, top_k=top_k, encoding_format=encoding_format
    )
    schema_of("Predictions").validate(json.loads(body))


# Generating from a schema is slow at first, and so are unlucky draws.
generated = settings(
    deadline=None,
    max_examples=100,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def requests(mode: GenerationMode) -> st.SearchStrategy[Any]:
    """Return requests for predictions as schemathesis makes them."""
    operation = schemathesis.openapi.from_dict(made())["/v1/classify"]["POST"]
    return operation.as_strategy(generation_mode=mode)


def whole(value: Any) -> Any:
    """Return a value with 2.0 as 2: to a schema both are integers, to the server one is."""
    if isinstance(value, dict):
        return {name: whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@given(requests(GenerationMode.POSITIVE))
@generated
def test_what_fits_the_schema_is_accepted(case: Any) -> None:
    """Requests generated from the schema are accepted."""
    assert is_served(json.dumps(whole(case.body)).encode())


@given(requests(GenerationMode.NEGATIVE))
@generated
def test_what_does_not_fit_the_schema_is_refused(case: Any) -> None:
    """Requests generated to break the schema, or JSON itself, are refused."""
    if isinstance(case.body, bytes):
        assert not is_served(case.body)
    else:  # a request may also be broken elsewhere, in its headers
        fits = schema_of("ClassifyRequest").is_valid(case.body)
        assert is_served(json.dumps(whole(case.body)).encode()) == fits
