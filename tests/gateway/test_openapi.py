"""The OpenAPI document: valid, and in agreement with the code that it describes."""

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

from tollkeeper.errors import InputError, RequestError
from tollkeeper.gateway import wire
from tollkeeper.gateway.images import decode_images
from tollkeeper.gateway.openapi import IMAGE_FORMAT, Embeds, Json, document
from tollkeeper.gateway.request import INT32_MAX, Limits

MODELS = ("minilm", "org/alias")
DIM = 8
LIMITS = Limits(max_inputs=4, max_item_tokens=5)
KINDS = ("text", "tokens", "image")


def image_uri(size: int) -> str:
    """Return a small picture as a data URI."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), "red").save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


URIS = [image_uri(size) for size in (1, 2, 3)]
schemathesis.openapi.format(IMAGE_FORMAT, st.sampled_from(URIS))


def made(*accepts: str) -> Json:
    """Return the document of a server that takes these kinds of input."""
    return document(limits=LIMITS, version="1.2.3", embeds=Embeds(MODELS, DIM, accepts))


def schema_of(name: str, *accepts: str) -> jsonschema_rs.Validator:
    """Return a validator of one named schema."""
    full = made(*(accepts or KINDS))
    reference = {"$ref": f"#/components/schemas/{name}", "components": full["components"]}
    return jsonschema_rs.validator_for(reference)


@pytest.mark.parametrize("accepts", [KINDS, ("text",), ("image",)])
def test_document_is_valid_openapi(accepts: tuple[str, ...]) -> None:
    """The document fits the OpenAPI 3.1 specification and survives JSON."""
    full = json.loads(json.dumps(made(*accepts)))
    OPENAPI_31_VALIDATOR.validate(full)
    for schema in full["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
    assert full["info"]["version"] == "1.2.3"


def test_document_names_every_route_and_error() -> None:
    """All routes of the data plane are there, and embedding lists every error it can give."""
    paths = made("text")["paths"]
    assert {(path, method) for path, item in paths.items() for method in item} == {
        ("/v1/embeddings", "post"),
        ("/tollkeeper/v1/challenges", "post"),
        ("/v1/models", "get"),
        ("/v1/models/{id}", "parameters"),
        ("/v1/models/{id}", "get"),
        ("/livez", "get"),
        ("/readyz", "get"),
    }
    statuses = set(paths["/v1/embeddings"]["post"]["responses"])
    assert statuses == {"200", "400", "401", "402", "403", "404", "413", "429", "503"}


def encoded(value: Any) -> bytes:
    """Return a value as JSON, as clients write it."""
    return json.dumps(whole(value)).encode()


def whole(value: Any) -> Any:
    """Return a value with 2.0 as 2: to a schema both are integers, to the server one is."""
    if isinstance(value, dict):
        return {name: whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def is_served(body: bytes) -> bool:
    """Tell whether the server gets as far as embedding."""
    try:
        request = wire.parse_embeddings(body, limits=LIMITS)
        if request.modality == "image":
            decode_images([str(item) for item in request.inputs], limits=LIMITS)
    except RequestError:
        return False
    return request.model in MODELS and (request.dimensions or 0) <= DIM


VALUES: list[Any] = [
    *(None, "", "a", " ", [], ["a"], ["a"] * 4, ["a"] * 5, ["a", ""], ["a", 1]),
    *([0], [INT32_MAX], [INT32_MAX + 1], [-1], [1.5], [True], [1] * 5, [1] * 6),
    *([[1]], [[1], []], [[1]] * 4, [[1]] * 5, [[1], "a"], [[[1]]], {}, 1, True),
]


@pytest.mark.parametrize("value", VALUES)
def test_schema_and_parser_agree_on_input(value: Any) -> None:
    """A form of `input` fits the schema exactly if the parser takes it."""
    request = {"model": MODELS[0], "input": value}
    assert schema_of("EmbeddingsRequest").is_valid(request) == is_served(encoded(request))


FIELDS: dict[str, list[Any]] = {
    "encoding_format": ["float", "base64", None, "", "int8", 1],
    "dimensions": [1, DIM, None, 0, -1, 1.5, "1", True, [1]],
    "user": ["", "u", None, 1, []],
    "extra": [1, None, {"a": []}],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in FIELDS.items() for value in values]
)
def test_schema_and_parser_agree_on_other_fields(name: str, value: Any) -> None:
    """Any other field fits the schema exactly if the parser takes it."""
    request = {"model": MODELS[0], "input": "a", name: value}
    assert schema_of("EmbeddingsRequest").is_valid(request) == is_served(encoded(request))


def test_only_what_the_encoder_takes_is_offered() -> None:
    """Kinds of input that the encoder does not take, and names not served, do not fit."""
    offered = {"text": "a", "tokens": [1], "image": URIS[0]}
    for kind, value in offered.items():
        request = {"model": MODELS[0], "input": value}
        assert schema_of("EmbeddingsRequest", kind).is_valid(request)
        assert not schema_of("EmbeddingsRequest", kind).is_valid(request | {"model": "other"})
    image_only = schema_of("EmbeddingsRequest", "image")
    assert not image_only.is_valid({"model": MODELS[0], "input": "a"})
    assert not image_only.is_valid({"model": MODELS[0], "input": [1]})
    assert not schema_of("EmbeddingsRequest", "text").is_valid({"model": MODELS[0], "input": [1]})


def test_replies_fit_their_schemas() -> None:
    """What `wire` writes is what the document promises."""
    embeddings = np.ones((2, DIM), dtype=np.float32)
    for encoding_format in ("float", "base64"):
        body = wire.encode_embeddings(
            embeddings, model=MODELS[0], tokens=3, encoding_format=encoding_format
        )
        schema_of("Embeddings").validate(json.loads(body))
    schema_of("Model").validate(json.loads(wire.model_body(MODELS[1], 5)))
    schema_of("Models").validate(json.loads(wire.models_body(dict.fromkeys(MODELS, 5))))
    for error in (InputError("m", param="input"), RuntimeError()):
        schema_of("Error").validate(json.loads(wire.error_response(error).body))


# Generating from a schema is slow at first, and so are unlucky draws.
generated = settings(
    deadline=None,
    max_examples=100,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def requests(mode: GenerationMode) -> st.SearchStrategy[Any]:
    """Return requests for embeddings as schemathesis makes them."""
    operation = schemathesis.openapi.from_dict(made(*KINDS))["/v1/embeddings"]["POST"]
    return operation.as_strategy(generation_mode=mode)


@given(requests(GenerationMode.POSITIVE))
@generated
def test_what_fits_the_schema_is_accepted(case: Any) -> None:
    """Requests generated from the schema are accepted."""
    assert is_served(encoded(case.body))


@given(requests(GenerationMode.NEGATIVE))
@generated
def test_what_does_not_fit_the_schema_is_refused(case: Any) -> None:
    """Requests generated to break the schema, or JSON itself, are refused."""
    if isinstance(case.body, bytes):
        assert not is_served(case.body)
    else:  # a request may also be broken elsewhere, in its headers
        assert is_served(encoded(case.body)) == schema_of("EmbeddingsRequest").is_valid(case.body)
