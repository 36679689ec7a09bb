"""The data plane described as an OpenAPI 3.1 document.

It says what this server accepts: the names it serves, the kinds of input its encoder
takes, its limits. A request that fits the schema is answered; one that does not is
refused with a 4xx. What does not fit a schema stands in descriptions: limits in bytes or over a
whole request, and that the data in an image's URI, or of a tensor, must decode to what is taken.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from tollkeeper.gateway.images import DECODERS
from tollkeeper.gateway.request import INT32_MAX, Limits
from tollkeeper.gateway.wire import MOST_PREPAID

Json = dict[str, Any]


IMAGE_FORMAT = "image-data-uri"
"""Name of the string format of images, for tools that generate requests; with their size, if all
must have one, as in `image-data-uri-28x28`."""

NUMBERS_FORMAT = "base64-float32"
"""Name of the string format of a tensor's numbers from 0 to 1; with how many they are."""


@dataclass(frozen=True, slots=True)
class Embeds:
    """What `POST /v1/embeddings` serves.

    Attributes:
        models: the names served, at least one.
        dim: embedding width.
        accepts: kinds of input that the encoder takes: `"text"`, `"tokens"`, `"image"`.
    """

    models: Sequence[str]
    dim: int
    accepts: Collection[str]


@dataclass(frozen=True, slots=True)
class Classifies:
    """What `POST /v1/classify` serves.

    Attributes:
        models: the names served, at least one.
        classes: names of the classes.
        accepts: kinds of input that the classifier takes: `"text"`, `"image"`, `"tensor"`.
        input_shape: (c, h, w) of its pictures; None for text.
    """

    models: Sequence[str]
    classes: Sequence[str]
    accepts: Collection[str]
    input_shape: tuple[int, int, int] | None


_ERRORS = {
    400: "The request is not well-formed; `param` names the field.",
    402: "A proof of work has to come first, in the header `Tollkeeper-Proof`: the challenge is in "
    "`WWW-Authenticate` (`challenge_required`), as docs/challenge.md describes.",
    401: "No API key, or a wrong one: `invalid_api_key`.",
    403: "The account is suspended (`account_suspended`), or an input of a request for predictions "
    "is not answered (`input_refused`).",
    404: "No such model: `model_not_found`.",
    413: "The body is over the limit: `request_too_large`.",
    429: "Slow down, after `Retry-After` (`rate_limit_exceeded`), or the budget is spent "
    "(`insufficient_quota`, `x-should-retry: false`).",
    503: "Nothing was answered, try again after `Retry-After`: `guard_unavailable`.",
}


def document(
    *, limits: Limits, version: str, embeds: Embeds | None, classifies: Classifies | None = None
) -> Json:
    """Describe the data plane.

    Args:
        limits: what one request may hold.
        version: of Tollkeeper.
        embeds: what is embedded, if anything.
        classifies: what is predicted, if anything.

    Returns:
        The document, ready for JSON.
    """
    models = [*(embeds.models if embeds else ()), *(classifies.models if classifies else ())]
    schemas = {
        "Model": _model(models),
        "Models": _list_of({"$ref": "#/components/schemas/Model"}),
        "Error": _error(),
    }
    paths = _common_paths(models)
    if embeds is not None:
        paths |= _embedding_paths()
        schemas |= {
            "EmbeddingsRequest": _request(limits, embeds),
            "Embeddings": _embeddings(embeds),
            "PrepaymentRequest": _prepayment_request(),
            "Prepayment": _object(
                challenge={"type": ["string", "null"]}, inputs={"type": "integer"}
            ),
        }
    if classifies is not None:
        paths |= _classify_paths()
        schemas |= {
            "ClassifyRequest": _classify_request(limits, classifies),
            "Predictions": _predictions(classifies),
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tollkeeper",
            "version": version,
            "summary": "Embeddings in the format of the OpenAI API, and predictions in its manner.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas,
        },
    }


def _common_paths(models: Sequence[str]) -> Json:
    model_id = {
        "name": "id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": list(models)},
    }
    return {
        "/v1/models": {"get": _operation("listModels", "List the models served.", "Models")},
        "/v1/models/{id}": {
            "parameters": [model_id],
            "get": _operation("retrieveModel", "Describe one model.", "Model", 404),
        },
        "/livez": {"get": _health("livez", "Tell whether the process runs.")},
        "/readyz": {"get": _health("readyz", "Tell whether requests can be answered.", 503)},
    }


def _embedding_paths() -> Json:
    embed = _operation("createEmbedding", "Embed inputs.", "Embeddings", 400, 402, 404, 413, 429)
    embed["requestBody"] = {"required": True, "content": _json("EmbeddingsRequest")}
    prepay = _operation("createChallenge", "Pay ahead for a pass.", "Prepayment", 400, 413, 429)
    prepay["requestBody"] = {"required": True, "content": _json("PrepaymentRequest")}
    return {"/v1/embeddings": {"post": embed}, "/tollkeeper/v1/challenges": {"post": prepay}}


def _classify_paths() -> Json:
    errors = (400, 402, 404, 413, 429)
    classify = _operation("createPrediction", "Classify inputs.", "Predictions", *errors)
    classify["requestBody"] = {"required": True, "content": _json("ClassifyRequest")}
    return {"/v1/classify": {"post": classify}}


def _operation(name: str, summary: str, schema: str, *errors: int) -> Json:
    answer = {
        "description": "The answer.",
        "headers": {"x-request-id": {"schema": {"type": "string"}}},
        "content": _json(schema),
    }
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": answer, **_responses(401, 403, 503, *errors)},
    }


def _health(name: str, summary: str, *errors: int) -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "security": [],
        "responses": {"200": {"description": "Yes."}, **_responses(*errors)},
    }


def _responses(*statuses: int) -> Json:
    return {
        str(status): {"description": _ERRORS[status], "content": _json("Error")}
        for status in sorted(statuses)
    }


def _json(schema: str) -> Json:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _body(limits: Limits, models: Sequence[str], forms: Sequence[Json], **others: Json) -> Json:
    return {
        "type": "object",
        "required": ["input", "model"],
        "description": "Fields not listed here are ignored; null means absent. "
        f"At most {limits.max_body_bytes} bytes.",
        "properties": {
            "input": {"anyOf": list(forms)},
            "model": {"type": "string", "enum": list(models)},
            "encoding_format": {
                "description": "base64 holds little-endian float32.",
                "enum": ["float", "base64", None],
                "default": "float",
            },
            **others,
            "user": {"type": ["string", "null"]},
        },
    }


def _request(limits: Limits, embeds: Embeds) -> Json:
    dimensions = {"type": ["integer", "null"], "minimum": 1, "maximum": embeds.dim}
    token = {"type": "integer", "minimum": 0, "maximum": INT32_MAX}
    tokens = {
        "type": "array",
        "items": token,
        "minItems": 1,
        "maxItems": limits.max_item_tokens,
        "description": f"At most {limits.max_request_tokens} tokens in one request.",
    }
    forms = _forms(limits, embeds.accepts, {**_strings(limits), "tokens": tokens})
    return _body(limits, embeds.models, forms, dimensions=dimensions)


def _classify_request(limits: Limits, classifies: Classifies) -> Json:
    top_k = {
        "type": ["integer", "null"],
        "minimum": 1,
        "maximum": INT32_MAX,
        "description": "List so many classes, the likeliest first, in place of the vector.",
    }
    items = _strings(limits)
    if classifies.input_shape is not None:
        items["tensor"] = _tensor(limits, classifies.input_shape)
        _, height, width = classifies.input_shape
        items["image"]["format"] = f"{IMAGE_FORMAT}-{width}x{height}"
        items["image"]["description"] += f" It has {width} x {height} pixels."
    return _body(limits, classifies.models, _forms(limits, classifies.accepts, items), top_k=top_k)


def _forms(limits: Limits, accepts: Collection[str], items: dict[str, Json]) -> list[Json]:
    """Return one schema for a single item and one for a list, per kind of input."""
    chosen = [item for kind, item in items.items() if kind in accepts]
    lists = [
        {"type": "array", "items": item, "minItems": 1, "maxItems": limits.max_inputs}
        for item in chosen
    ]
    return chosen + lists


def _strings(limits: Limits) -> dict[str, Json]:
    return {
        "text": {
            "type": "string",
            "minLength": 1,
            "description": f"At most {limits.max_item_bytes} bytes in UTF-8. "
            "A string that starts with data:image/ is an image.",
        },
        "image": {
            "type": "string",
            "format": IMAGE_FORMAT,
            "pattern": rf"^data:image/({'|'.join(DECODERS)});base64,[A-Za-z0-9+/]+={{0,2}}$",
            "description": f"At most {limits.max_image_bytes} bytes and "
            f"{limits.max_image_pixels} pixels each, {limits.max_request_pixels} pixels together.",
        },
    }


def _tensor(limits: Limits, shape: tuple[int, int, int]) -> Json:
    """Describe a tensor of one shape, its numbers in one of two forms."""
    size = math.prod(shape)
    length = -(-4 * size // 3) * 4
    number = {"type": "number", "minimum": 0, "maximum": 1}
    forms = {
        "data": {"type": "array", "items": number, "minItems": size, "maxItems": size},
        "base64": {
            "type": "string",
            "format": f"{NUMBERS_FORMAT}-{size}",
            "minLength": length,
            "maxLength": length,
            "description": "Little-endian float32, from 0 to 1.",
        },
    }
    return {
        "description": "A picture as numbers from 0 to 1, channels first. At most "
        f"{limits.max_request_values} numbers in one request.",
        "oneOf": [_object(shape={"const": list(shape)}, **{name: forms[name]}) for name in forms],
    }


def _embeddings(embeds: Embeds) -> Json:
    floats = {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": embeds.dim}
    row = _object(
        object={"const": "embedding"},
        index={"type": "integer", "minimum": 0},
        embedding={"anyOf": [floats, {"type": "string", "contentEncoding": "base64"}]},
    )
    return _object(
        **_list_of(row)["properties"],
        model={"type": "string", "enum": list(embeds.models)},
        usage=_usage(),
    )


def _predictions(classifies: Classifies) -> Json:
    count = len(classifies.classes)
    label = {"type": "string", "enum": list(classifies.classes)}
    score = {"type": "number"}
    floats = {"type": "array", "items": score, "minItems": count, "maxItems": count}
    packed = {"type": "string", "contentEncoding": "base64"}
    best = {"type": "array", "items": _object(label=label, score=score), "minItems": 1}
    own: Json = {"object": {"const": "classification"}, "index": {"type": "integer", "minimum": 0}}
    whole = _object(**own, label=label, score=score, probabilities={"anyOf": [floats, packed]})
    ranked = _object(**own, label=label, score=score, top={**best, "maxItems": count})
    return _object(
        object={"const": "list"},
        model={"type": "string", "enum": list(classifies.models)},
        classes={"const": list(classifies.classes)},
        data={"type": "array", "items": {"oneOf": [whole, ranked]}},
        usage=_usage(),
    )


def _usage() -> Json:
    count = {"type": "integer", "minimum": 0}
    return _object(prompt_tokens=count, total_tokens=count)


def _model(models: Sequence[str]) -> Json:
    return _object(
        id={"type": "string", "enum": list(models)},
        object={"const": "model"},
        created={"type": "integer", "minimum": 0},
        owned_by={"type": "string"},
    )


def _prepayment_request() -> Json:
    inputs = {
        "type": "integer",
        "minimum": 1,
        "maximum": MOST_PREPAID,
        "description": "New inputs to pay for; fewer where a pass would live too long.",
    }
    return {"type": "object", "required": ["inputs"], "properties": {"inputs": inputs}}


def _error() -> Json:
    text_or_null = {"type": ["string", "null"]}
    text = {"type": "string"}
    return _object(error=_object(message=text, type=text, param=text_or_null, code=text_or_null))


def _list_of(item: Json) -> Json:
    return _object(object={"const": "list"}, data={"type": "array", "items": item})


def _object(**properties: Json) -> Json:
    """Return the schema of an object with exactly these properties."""
    return {
        "type": "object",
        "required": list(properties),
        "additionalProperties": False,
        "properties": properties,
    }
