"""Unchanged clients against a real server process."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import openai
import pytest

from tollkeeper.encoders.load import load_encoder

MODEL = "tollkeeper-text"


@pytest.fixture
def client(serve: Any) -> Any:
    """The stock client, pointed at a server with the built-in text encoder."""
    served = serve()
    with openai.OpenAI(base_url=served.url, api_key=served.key("acme")) as client:
        yield client


def vectors(response: Any) -> Any:
    """Return (n, d) of a client's response."""
    return np.array([row.embedding for row in response.data], np.float32)


def test_sync_client_with_default_base64(client: Any) -> None:
    """The stock client's default request works, and keeps cosines of the clean encoder."""
    texts = ["the card was declined", "my card does not work", "stocks fell on Friday"]
    response = client.embeddings.create(model=MODEL, input=texts)
    served = vectors(response)
    clean = load_encoder("builtin:text").embed(texts)
    np.testing.assert_allclose(served @ served.T, clean @ clean.T, atol=1e-5)
    assert response.usage.prompt_tokens == response.usage.total_tokens > 0
    assert [row.index for row in response.data] == [0, 1, 2]
    assert response._request_id.startswith("req_")


def test_async_client(client: Any) -> None:
    """The asynchronous client gets the same answers, also many at once."""

    async def ask() -> list[Any]:
        async with openai.AsyncOpenAI(
            base_url=str(client.base_url), api_key=client.api_key
        ) as asynchronous:
            calls = [
                asynchronous.embeddings.create(model=MODEL, input=f"text {i % 5}")
                for i in range(40)
            ]
            return [vectors(response)[0] for response in await asyncio.gather(*calls)]

    answers = asyncio.run(ask())
    for i, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, answers[i % 5])


def test_two_thousand_inputs(client: Any) -> None:
    """One request may hold 2,000 inputs; each answer is the one a single request gets."""
    texts = [f"sentence number {i} about topic {i % 17}" for i in range(2000)]
    many = vectors(client.embeddings.create(model=MODEL, input=texts))
    assert many.shape == (2000, 384)
    for i in (0, 999, 1999):
        one = vectors(client.embeddings.create(model=MODEL, input=texts[i]))[0]
        np.testing.assert_array_equal(one, many[i])


def test_dimensions_and_float(client: Any) -> None:
    """`dimensions` truncates and renormalizes before the transform, so cosines are the prefix's."""
    texts = ["red apples", "green apples", "interest rates"]
    response = client.embeddings.create(
        model=MODEL, input=texts, dimensions=64, encoding_format="float"
    )
    served = vectors(response)
    assert served.shape == (3, 64)
    clean = load_encoder("builtin:text").embed(texts)[:, :64]
    clean /= np.linalg.norm(clean, axis=1, keepdims=True)
    np.testing.assert_allclose(served @ served.T, clean @ clean.T, atol=1e-5)


def test_models_are_listed(client: Any) -> None:
    """`models.list` and `models.retrieve` work."""
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


def test_errors_are_typed(client: Any) -> None:
    """Refusals arrive as the client's own exception types, with our codes."""
    with pytest.raises(openai.NotFoundError) as missing:
        client.embeddings.create(model="gpt-9", input="a")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as empty:
        client.embeddings.create(model=MODEL, input="")
    assert empty.value.param == "input"
    wrong = client.with_options(api_key="sk-wrong")
    with pytest.raises(openai.AuthenticationError) as refused:
        wrong.embeddings.create(model=MODEL, input="a")
    assert refused.value.code == "invalid_api_key"


def test_token_lists_get_advice(client: Any) -> None:
    """An encoder that cannot decode token ids says what the client must set."""
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        client.embeddings.create(model=MODEL, input=[1, 2, 3])


def test_langchain_sends_text(client: Any) -> None:
    """langchain-openai's embeddings class works unchanged when it sends text."""
    langchain_openai = pytest.importorskip("langchain_openai")
    embeddings = langchain_openai.OpenAIEmbeddings(
        model=MODEL,
        base_url=str(client.base_url),
        api_key=client.api_key,
        check_embedding_ctx_length=False,
    )
    documents = np.array(embeddings.embed_documents(["a red fox", "a brown dog"]), np.float32)
    query = np.array(embeddings.embed_query("a red fox"), np.float32)
    np.testing.assert_array_equal(documents[0], query)
