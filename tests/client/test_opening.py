"""Promises of opening: the right target, its model and width, and one line for every mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.client import Allowance, Caps, Spend, open_target
from tollkeeper.errors import (
    AuthenticationError,
    BudgetExhausted,
    ConfigurationError,
    EncoderError,
    TollkeeperError,
)

Open = Callable[..., Any]


def listed(*names: str) -> dict[str, Any]:
    """Return the body of a list of models."""
    return {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}


def test_the_only_model_is_found(server: Any, connect: Open) -> None:
    """Without `#model` the target's list is read, with the credential, and the name is sent."""
    target = connect(api_key="sk-mine")
    assert (target.name, server.lists, server.requests) == ("fake-1", 1, [])
    target.embed(["a"])
    assert server.requests[0]["model"] == "fake-1"
    assert target.spend().calls == 1, "the list is no call for embeddings"


def test_a_named_model_is_not_looked_up(server: Any, connect: Open) -> None:
    """`#model` is sent as it is."""
    assert connect(url=f"{server.url}/#other/model").name == "other/model"
    assert server.lists == 0


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_target_without_a_list_gets_no_name(server: Any, connect: Open, status: int) -> None:
    """Servers of a single model, such as text-embeddings-inference, are asked without one."""
    server.models = server.reply(status)
    target = connect()
    target.embed(["a"])
    assert target.name == "target"
    assert "model" not in server.requests[0]


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (listed("m1", "m2"), ConfigurationError, r"serves 'm1', 'm2'; name one as .*#model"),
        (listed(), ConfigurationError, "no model"),
        (b"<html>", EncoderError, "cannot be read"),
        ({"data": [{"name": "x"}]}, EncoderError, "cannot be read"),
    ],
)
def test_a_list_that_does_not_decide_is_told(
    server: Any, connect: Open, body: Any, kind: type[TollkeeperError], words: str
) -> None:
    """Several models or a strange list: the user is told to name one."""
    server.models = server.reply(body=body)
    with pytest.raises(kind, match=words):
        connect()


def test_a_refused_list_is_told(server: Any, connect: Open) -> None:
    """A wrong key is found at opening, before any query."""
    server.models = server.reply(401, "no such key")
    with pytest.raises(AuthenticationError, match="no such key"):
        connect()


def test_nobody_there_is_one_line(server: Any, connect: Open) -> None:
    """A wrong port is told as such, without a traceback of a socket."""
    server.close()
    with pytest.raises(
        EncoderError, match=r"cannot reach the target at http://.* \(ConnectError\)"
    ):
        connect()


def test_the_width_is_learned_by_one_query(server: Any, connect: Open) -> None:
    """Without `dim` the probe is asked, counted as a query, and not asked in later runs."""
    target = connect(dim=None)
    assert target.dim == 4
    assert (server.asked(), target.spend().distinct) == (["a"], 1)
    target.close()
    again = connect(dim=None)
    assert (again.dim, len(server.requests)) == (4, 1)


def test_a_probe_from_the_pool_costs_nothing_extra(server: Any, connect: Open) -> None:
    """The run's first asking of the probe is answered with what the probe brought."""
    pool = list(np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8))
    target = connect(dim=None, probe=pool[0], allowance=Allowance(Caps(distinct=3)))
    assert target.embed(pool).shape == (3, 4)
    assert (len(server.asked()), target.spend().distinct, target.spend().repeats) == (3, 3, 0)


def test_the_probe_is_under_the_caps(server: Any, connect: Open) -> None:
    """With a cap of 0 not even the width is asked for."""
    with pytest.raises(BudgetExhausted):
        connect(dim=None, allowance=Allowance(Caps(distinct=0)))
    assert server.requests == []


def test_a_refused_probe_says_what_to_give(server: Any, connect: Open) -> None:
    """A target that takes no texts is no mystery."""
    server.behavior = lambda _: server.reply(400, "images only")
    with pytest.raises(ConfigurationError, match=r"images only; does it take such inputs"):
        connect(dim=None)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"url": "http://127.0.0.1:9/v1"}, "is of target"),
        ({"account": "other"}, "is of account 'default', not 'other'"),
        ({"dim": 5}, "is of dim '4', not '5'"),
    ],
)
def test_a_transcript_of_something_else_is_refused(
    server: Any, connect: Open, changed: dict[str, Any], words: str
) -> None:
    """Another address, account or width: answers are not mixed, and nothing is sent."""
    connect().close()
    server.lists = 0
    with pytest.raises(ConfigurationError, match=f"{words}.*name another file"):
        connect(**changed)
    assert (server.lists, server.requests) == (0, [])


def test_a_transcript_of_another_model_is_refused(server: Any, connect: Open) -> None:
    """The model belongs to the transcript, named or found; without a name the old one is kept."""
    connect(url=f"{server.url}#one").close()
    assert connect_name(connect) == "one"
    with pytest.raises(ConfigurationError, match="is of model 'one', not 'two'"):
        connect(url=f"{server.url}#two")
    assert server.lists == 0


def connect_name(connect: Open) -> str:
    """Open a target without naming the model, and return its name."""
    with connect() as target:
        return str(target.name)


def test_a_failed_opening_leaves_the_transcript_free(server: Any, connect: Open) -> None:
    """After a mistake the same file can be opened at once."""
    server.models = server.reply(401)
    with pytest.raises(AuthenticationError):
        connect()
    server.models = server.reply(body=listed("m"))
    assert connect().spend() == Spend()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/v1",
        "host/v1",
        "http:///v1",
        "http://u:secret@host/v1",
        "http://host/v1?k=secret",
    ],
)
def test_an_unusable_address_is_refused(tmp_path: Path, url: str) -> None:
    """An address that is none, or holds a credential, is refused without quoting it."""
    with pytest.raises(ConfigurationError, match="target's address") as caught:
        open_target(url, transcript=tmp_path / "t")
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_bad_options_are_named_together(tmp_path: Path) -> None:
    """All of them in one line, and before a file is made."""
    with pytest.raises(ConfigurationError, match=r"batch .* 0; .*retries, got -1; .*timeout .* 0"):
        open_target("http://host/v1", transcript=tmp_path / "t", batch=0, retries=-1, timeout_s=0)
    with pytest.raises(ConfigurationError, match="printable ASCII"):
        open_target("http://host/v1", transcript=tmp_path / "t", api_key="zwei\nZeilen")
    assert list(tmp_path.iterdir()) == []


def test_an_own_client_is_made_and_closed(server: Any, tmp_path: Path) -> None:
    """Without a client of the caller's the target opens one and closes it."""
    with open_target(server.url, transcript=tmp_path / "t", dim=4) as target:
        assert target.embed(["a"]).shape == (1, 4)
        own = target._line.client
    assert own.is_closed
