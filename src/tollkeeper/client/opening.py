"""From an address to a target that is ready to be asked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import httpx2
import msgspec

from tollkeeper.client.allowance import Allowance
from tollkeeper.client.calls import CLASSIFY, EMBEDDINGS, Line, Route
from tollkeeper.client.pace import Pace
from tollkeeper.client.refusals import refuse
from tollkeeper.client.solver import Solver
from tollkeeper.client.target import ClassifierTarget, Target
from tollkeeper.client.transcript import Transcript
from tollkeeper.encoders.upstream_http import base_address, bearer, request
from tollkeeper.errors import (
    AuthenticationError,
    BudgetExhausted,
    ConfigurationError,
    EncoderError,
    ModelNotFoundError,
    RefusalError,
    RequestError,
    SuspendedError,
)

_MAX_LIST_BYTES = 2**20
_NO_LIST = frozenset({404, 405, 501})  # text-embeddings-inference keeps no list of models
_SHOWN = 10
_FOR_GOOD = (AuthenticationError, BudgetExhausted, SuspendedError)


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


def open_target(
    url: str,
    *,
    transcript: str | os.PathLike[str],
    api_key: str | None = None,
    account: str = "default",
    allowance: Allowance | None = None,
    pace: Pace | None = None,
    dim: int | None = None,
    probe: Any = "a",
    spares: Sequence[Any] = (),
    batch: int = 32,
    retries: int = 5,
    max_wait_s: float = 120.0,
    timeout_s: float = 60.0,
    client: httpx2.Client | None = None,
    solver: Solver | None = None,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], float] = time.time,
    route: Route = EMBEDDINGS,
) -> Target:
    """Open one account at an OpenAI-compatible service.

    A target named without its model is asked for its list of models once, which is no call
    for answers and costs nothing. A width that nobody states is learned by asking for
    `probe`, which is a query like any other. Both are kept in the transcript.

    Args:
        url: `http(s)://host/v1`, with `#model` where the service has several.
        transcript: file of this account at this target; made if there is none.
        api_key: the account's credential.
        account: the account's label in the transcript; never the key.
        allowance: caps and price, shared by all accounts of one attacker; None for no caps.
        pace: how fast, shared by all accounts at one host; None for four calls at once.
        dim: embedding width; None learns it.
        probe: the input to learn the width from. One that the run asks anyway costs nothing
            extra: its answer is kept, and the run's first time is answered with it.
        spares: further ones, asked one after the other where the target refuses an input and
            not the account.
        batch: inputs in one call; 32 is what text-embeddings-inference takes.
        retries: further tries after 408, 424, 429, 5xx, a timeout or a lost connection.
        max_wait_s: longest wait before a try; 120 is where the OpenAI client gives up. A target
            that asks for more is not asked again.
        timeout_s: seconds that one call may take, body included.
        client: HTTP client to use instead of an own one; its owner closes it.
        solver: pays challenges, within the allowance; its owner closes it. None pays none, and
            a challenge is a refusal.
        clock: monotonic seconds.
        now: seconds since the epoch, for the transcript.
        route: what to ask for.

    Returns:
        A target whose name and width are known.

    Raises:
        ConfigurationError: an unusable address, key or option; a transcript of another target;
            a service with several models and none named; or the probe was refused.
        TollkeeperError: as `Target.embed`, from the probe.
    """
    _check(batch=batch, retries=retries, max_wait_s=max_wait_s, timeout_s=timeout_s)
    address, _, named = url.partition("#")
    base = base_address(address, whose="target")
    pace = pace or Pace()
    owned = ExitStack()
    try:
        line = Line(
            base=base,
            route=route,
            client=client or owned.enter_context(_client(pace.concurrency)),
            headers=bearer(api_key, whose="target"),
            secret=api_key,
            timeout_s=timeout_s,
            retries=retries,
            max_wait_s=max_wait_s,
            allowance=allowance or Allowance(),
            pace=pace,
            transcript=owned.enter_context(
                _transcript(transcript, base if route == EMBEDDINGS else base + route.path, account)
            ),
            solver=solver,
            clock=clock,
            now=now,
        )
        line.allowance.carry(str(line.transcript.path), line.transcript.spend())
        kind = Target if route == EMBEDDINGS else ClassifierTarget
        target = kind(line, model=_model(line, base, named), batch=batch, closing=owned)
        _learn_width(target, line.transcript, dim, [probe, *spares])
    except BaseException:
        owned.close()
        raise
    return target


def open_classifier_target(
    url: str, *, transcript: str | os.PathLike[str], probe: Any, **options: Any
) -> ClassifierTarget:
    """Open one account at a service with `/v1/classify`.

    Args:
        url: as for `open_target`.
        transcript: as for `open_target`; not one of embeddings.
        probe: the input to learn the classes from: a (c, h, w) float32 tensor in [0, 1], an
            (h, w, 3) uint8 image or a text. One that the run asks anyway costs nothing extra.
        options: as for `open_target`.

    Returns:
        A target whose name, classes and shape of input are known.

    Raises:
        ConfigurationError: as for `open_target`.
        TollkeeperError: as for `open_target`.
    """
    target = open_target(url, transcript=transcript, probe=probe, route=CLASSIFY, **options)
    assert isinstance(target, ClassifierTarget)
    target.knows(probe)
    return target


def _check(*, batch: int, retries: int, max_wait_s: float, timeout_s: float) -> None:
    """Refuse options that make no sense, all in one message."""
    wrong = []
    if batch < 1:
        wrong.append(f"a batch of at least 1, got {batch}")
    if retries < 0:
        wrong.append(f"at least 0 retries, got {retries}")
    if not max_wait_s >= 0:
        wrong.append(f"a longest wait of at least 0 s, got {max_wait_s}")
    if not timeout_s > 0:
        wrong.append(f"a timeout above 0 s, got {timeout_s}")
    if wrong:
        raise ConfigurationError(f"expected {'; '.join(wrong)}")


def _client(concurrency: int) -> httpx2.Client:
    return httpx2.Client(
        limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    )


@contextmanager
def _transcript(path: str | os.PathLike[str], base: str, account: str) -> Iterator[Transcript]:
    """Open the transcript of an account at a target; close it in the end."""
    with closing(Transcript(path)) as transcript:
        transcript.belongs_to("target", base)
        transcript.belongs_to("account", account)
        yield transcript


def _model(line: Line, base: str, named: str) -> str | None:
    """Return the name to send: as given, as in the transcript, or as the target lists it."""
    known = line.transcript.fact("model")
    if named or known is None:
        known = named or _listed(line, base)
        line.transcript.belongs_to("model", known)
    return known or None


def _listed(line: Line, base: str) -> str:
    """Return the one model that the target lists; empty where it keeps no list."""
    try:
        reply = request(
            line.client,
            "GET",
            base + "/models",
            headers=line.headers,
            timeout_s=line.timeout_s,
            limit=_MAX_LIST_BYTES,
            clock=line.clock,
        )
    except httpx2.RequestError as error:
        raise EncoderError(
            f"cannot reach the target at {base} ({type(error).__name__}); check the address"
        ) from error
    if reply.status in _NO_LIST:
        return ""
    if reply.status != 200:
        refuse(reply, secret=line.secret)
    try:
        names = [model.id for model in msgspec.json.decode(reply.content, type=_Models).data]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EncoderError(
            "the target's list of models cannot be read; name the model as http://host/v1#model"
        ) from error
    if len(names) != 1:
        raise ConfigurationError(
            f"the target serves {', '.join(map(repr, names[:_SHOWN])) or 'no model'}; "
            "name one as http://host/v1#model"
        )
    return names[0]


def _learn_width(
    target: Target, transcript: Transcript, dim: int | None, probes: Sequence[Any]
) -> None:
    """Set the target's width: as given, as in the transcript, or from the first answer."""
    if dim is not None:
        transcript.belongs_to("dim", str(dim))
    known = transcript.fact("dim")
    if known is None:
        try:
            known = str(_first_answered(target, probes))
        except ModelNotFoundError as error:
            raise ConfigurationError(
                f"{error}; an address ends in /v1, with #model behind it if it has several"
            ) from error
        except RequestError as error:
            raise ConfigurationError(
                f"the target refused the first input, which shows its width: {error}; does it "
                "take such inputs?"
            ) from error
        transcript.belongs_to("dim", known)
        target.rewind()
    target.dim = int(known)


def _first_answered(target: Target, probes: Sequence[Any]) -> int:
    """Return the width of the first answer to one of several inputs."""
    for left, probe in zip(reversed(range(len(probes))), probes, strict=True):
        try:
            return int(target.embed([probe]).shape[1])
        except RefusalError as error:
            if left == 0 or isinstance(error, _FOR_GOOD):
                raise
    raise AssertionError("the last probe returns or raises")
