"""The data plane described as an OpenAPI 3.1 document.

It says what this server accepts: the names it serves, the kinds of input its encoder
takes, its limits. A request that fits the schema is answered; one that does not is
refused with a 4xx. Two rules do not fit a schema and stand in descriptions: limits in
bytes or over a whole request, and that the data in an image's URI must decode.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from tollkeeper.gateway.images import DECODERS
from tollkeeper.gateway.request import INT32_MAX, Limits
from tollkeeper.gateway.wire import MOST_PREPAID

Json = dict[str, Any]


IMAGE_FORMAT = "image-data-uri"
"""Name of the string format of images, for tools that generate requests."""

_ERRORS = {
    400: "The request is not well-formed; `param` names the field.",
    402: "A proof of work has to come first, in the header `Tollkeeper-Proof`: the challenge is in "
    "`WWW-Authenticate` (`challenge_required`), as docs/challenge.md describes.",
    401: "No API key, or a wrong one: `invalid_api_key`.",
    403: "The account is suspended: `account_suspended`.",
    404: "No such model: `model_not_found`.",
    413: "The body is over the limit: `request_too_large`.",
    429: "Slow down, after `Retry-After` (`rate_limit_exceeded`), or the budget is spent "
    "(`insufficient_quota`, `x-should-retry: false`).",
    503: "Nothing was answered, try again after `Retry-After`: `guard_unavailable`.",
}


def document(
    *, limits: Limits, models: Sequence[str], dim: int, accepts: Collection[str], version: str
) -> Json:
    """Describe the data plane.

    Args:
        limits: what one request may hold.
        models: the names served, at least one.
        dim: embedding width.
        accepts: kinds of input that the encoder takes: `"text"`, `"tokens"`, `"image"`.
        version: of Tollkeeper.

    Returns:
        The document, ready for JSON.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tollkeeper",
            "version": version,
            "summary": "Embeddings in the format of the OpenAI API.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"bearer": []}],
        "paths": _paths(models),
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "EmbeddingsRequest": _request(limits, models, dim, accepts),
                "Embeddings": _embeddings(models, dim),
                "Model": _model(models),
                "Models": _list_of({"$ref": "#/components/schemas/Model"}),
                "PrepaymentRequest": _prepayment_request(),
                "Prepayment": _object(
                    challenge={"type": ["string", "null"]}, inputs={"type": "integer"}
                ),
                "Error": _error(),
            },
        },
    }


def _paths(models: Sequence[str]) -> Json:
    model_id = {
        "name": "id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": list(models)},
    }
    embed = _operation("createEmbedding", "Embed inputs.", "Embeddings", 400, 402, 404, 413, 429)
    embed["requestBody"] = {"required": True, "content": _json("EmbeddingsRequest")}
    prepay = _operation("createChallenge", "Pay ahead for a pass.", "Prepayment", 400, 413, 429)
    prepay["requestBody"] = {"required": True, "content": _json("PrepaymentRequest")}
    return {
        "/v1/embeddings": {"post": embed},
        "/v1/models": {"get": _operation("listModels", "List the models served.", "Models")},
        "/v1/models/{id}": {
            "parameters": [model_id],
            "get": _operation("retrieveModel", "Describe one model.", "Model", 404),
        },
        "/tollkeeper/v1/challenges": {"post": prepay},
        "/livez": {"get": _health("livez", "Tell whether the process runs.")},
        "/readyz": {"get": _health("readyz", "Tell whether requests can be answered.", 503)},
    }


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


def _request(limits: Limits, models: Sequence[str], dim: int, accepts: Collection[str]) -> Json:
    return {
        "type": "object",
        "required": ["input", "model"],
        "description": "Fields not listed here are ignored; null means absent. "
        f"At most {limits.max_body_bytes} bytes.",
        "properties": {
            "input": {"anyOf": _input_forms(limits, accepts)},
            "model": {"type": "string", "enum": list(models)},
            "encoding_format": {
                "description": "base64 holds little-endian float32.",
                "enum": ["float", "base64", None],
                "default": "float",
            },
            "dimensions": {"type": ["integer", "null"], "minimum": 1, "maximum": dim},
            "user": {"type": ["string", "null"]},
        },
    }


def _input_forms(limits: Limits, accepts: Collection[str]) -> list[Json]:
    """Return one schema for a single item and one for a list, per kind of input."""
    token = {"type": "integer", "minimum": 0, "maximum": INT32_MAX}
    items: dict[str, Json] = {
        "text": {
            "type": "string",
            "minLength": 1,
            "description": f"At most {limits.max_item_bytes} bytes in UTF-8. "
            "A string that starts with data:image/ is an image.",
        },
        "tokens": {
            "type": "array",
            "items": token,
            "minItems": 1,
            "maxItems": limits.max_item_tokens,
            "description": f"At most {limits.max_request_tokens} tokens in one request.",
        },
        "image": {
            "type": "string",
            "format": IMAGE_FORMAT,
            "pattern": rf"^data:image/({'|'.join(DECODERS)});base64,[A-Za-z0-9+/]+={{0,2}}$",
            "description": f"At most {limits.max_image_bytes} bytes and "
            f"{limits.max_image_pixels} pixels each, {limits.max_request_pixels} pixels together.",
        },
    }
    chosen = [item for kind, item in items.items() if kind in accepts]
    lists = [
        {"type": "array", "items": item, "minItems": 1, "maxItems": limits.max_inputs}
        for item in chosen
    ]
    return chosen + lists


def _embeddings(models: Sequence[str], dim: int) -> Json:
    floats = {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": dim}
    row = _object(
        object={"const": "embedding"},
        index={"type": "integer", "minimum": 0},
        embedding={"anyOf": [floats, {"type": "string", "contentEncoding": "base64"}]},
    )
    count = {"type": "integer", "minimum": 0}
    return _object(
        **_list_of(row)["properties"],
        model={"type": "string", "enum": list(models)},
        usage=_object(prompt_tokens=count, total_tokens=count),
    )


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
