"""`tollkeeper serve`: both planes, and what a first start tells the operator."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Callable, Container, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tollkeeper.cli.options import Config, DataDir, Json, Ledger
from tollkeeper.cli.output import emit

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from tollkeeper.gateway.settings import Settings
    from tollkeeper.gateway.stores import Stores

FIRST_TENANT = "default"
_TINY_IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGM4oaEB"
    "AALUARkFUI+kAAAAAElFTkSuQmCC"
)
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - read, not bound


def serve(
    *,
    host: Annotated[str | None, typer.Option(help="Address of the data plane.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the data plane; 0 picks one.")] = None,
    admin_host: Annotated[str | None, typer.Option(help="Address of the admin plane.")] = None,
    admin_port: Annotated[
        int | None, typer.Option(help="Port of the admin plane; 0 picks one.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="SPEC of the encoder to guard; none is none.")
    ] = None,
    classifier: Annotated[
        str | None, typer.Option(help="SPEC of a classifier to guard, at /v1/classify.")
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[#NAME]",
            help="What `tollkeeper detectors fit` wrote for the classifier; none is none.",
        ),
    ] = None,
    data_dir: DataDir = None,
    profile: Annotated[str | None, typer.Option(help="Guard profile.")] = None,
    config: Config = None,
    calibration: Annotated[
        Path | None, typer.Option(help="What `tollkeeper calibrate` wrote for the encoder.")
    ] = None,
    shadow: Annotated[
        bool | None, typer.Option("--shadow/--no-shadow", help="Decide and log, change nothing.")
    ] = None,
    accept_new_guard: Annotated[
        bool | None,
        typer.Option("--accept-new-guard", help="Start although every tenant's space changes."),
    ] = None,
    ledger: Ledger = None,
    as_json: Json = False,
) -> None:
    """Serve a guarded embedding or prediction API; the first start prints an API key once."""
    from tollkeeper.gateway.settings import load

    read = partial(
        load,
        config,
        host=host,
        port=port,
        admin_host=admin_host,
        admin_port=admin_port,
        encoder=encoder,
        classifier=classifier,
        detector=detector,
        data_dir=data_dir,
        profile=profile,
        calibration=calibration,
        shadow=shadow,
        accept_new_guard=accept_new_guard,
        ledger=ledger,
    )
    settings = read()
    _log_to_stderr()
    _run(settings, read, as_json=as_json)


def _run(settings: Settings, reread: Callable[[], Settings], *, as_json: bool) -> None:
    """Serve until a signal comes, and tell the operator once both ports accept requests.

    Args:
        settings: to serve with.
        reread: reads them anew, for SIGHUP.
        as_json: how to tell.
    """
    import asyncio

    import numpy as np

    from tollkeeper.gateway import assembly, predict_assembly, server
    from tollkeeper.gateway.stores import open_stores

    # The models first: a mistyped SPEC must not leave a data folder behind.
    encoder = assembly.served_encoder(settings)
    classifier = predict_assembly.make_classifier(settings)
    stores = open_stores(settings, clock=server.wall_clock)
    gateway = server.Gateway(
        settings,
        stores,
        encoder=encoder,
        classifier=classifier,
        clock=server.wall_clock,
        rng=np.random.default_rng(),
    )

    def announce(data_port: int, admin_port: int) -> None:
        facts = {
            "url": f"http://{_reachable(settings.host)}:{data_port}/v1",
            "admin_url": f"http://{_reachable(settings.admin_host)}:{admin_port}",
            "model": encoder.name if encoder else None,
            "classifier": classifier.name if classifier else None,
            "input_shape": classifier.input_shape if classifier else None,
            "detector": gateway.detector,
            "profile": settings.profile,
            "shadow": settings.shadow,
            "plan": settings.plan,
            "mode": gateway.plans.of("").plan.mode,
            "key": _first_key(stores),
        }
        accepts = encoder.accepts if encoder else frozenset()
        emit(facts, as_json=as_json, prose=lambda facts: _welcome(facts, settings, accepts))

    async def run() -> None:
        stop = server.stop_on_signals()
        server.reload_on_hangup(gateway, reread)
        await server.run(gateway, settings, announce=announce, stop=stop)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(run())


def _loop_factory() -> Callable[[], AbstractEventLoop] | None:
    """Return uvloop's factory, or None for asyncio's own where uvloop is not available."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _log_to_stderr() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def _reachable(host: str) -> str:
    """Return the address under which this machine reaches a server bound to `host`."""
    host = _ANY_HOST.get(host, host)
    return f"[{host}]" if ":" in host else host


def _first_key(stores: Stores) -> str | None:
    """Make the first tenant and its key if the ledger holds no tenant yet.

    Called when both ports are bound, so that the only showing of the key is not lost
    to a start that fails.
    """
    if stores.store.tenants():
        return None
    secret, _ = stores.keyring.create(FIRST_TENANT)
    return secret


def _welcome(facts: Mapping[str, Any], settings: Settings, accepts: Container[str]) -> str:
    """Return what the operator reads when the server is up."""
    served = [str(facts[kind]) for kind in ("model", "classifier") if facts[kind]]
    guard = f"profile {facts['profile']}, " if facts["model"] else ""
    if facts["classifier"]:
        guard += f"detector {facts['detector']}, " if facts["detector"] else "no detector, "
    guard += f"plan {facts['plan']}"
    guard += ", nothing enforced" if facts["shadow"] or facts["mode"] == "shadow" else ""
    token = "set by you" if settings.admin_token else f"in {settings.data_dir / 'admin.token'}"
    text = (
        f"Tollkeeper serves {' and '.join(served)} at {facts['url']} ({guard})\n"
        f"Admin plane at {facts['admin_url']} (token {token})"
    )
    if facts["key"] is None:
        return text
    text += f"""

Created tenant {FIRST_TENANT}. This is its API key, shown only now:

{facts["key"]}
"""
    if facts["model"] is None:
        return f"{text}\nTry it with curl:\n\n{_classify_curl(facts)}\n"
    text = f"""{text}
Try it with curl:

{_curl(facts, accepts)}

or in Python, with the openai package:

{_snippet(facts, accepts)}
"""
    return (
        f"{text}\nand a prediction:\n\n{_classify_curl(facts)}\n" if facts["classifier"] else text
    )


def _curl(facts: Mapping[str, Any], accepts: Container[str]) -> str:
    return _post("embeddings", facts, {"model": facts["model"], "input": _example(accepts)})


def _classify_curl(facts: Mapping[str, Any]) -> str:
    """Return a request for the classes of a black picture, or of a text."""
    import numpy as np

    from tollkeeper.encoders.upstream_ask import jsonable

    item: Any = "Where is my card?"
    if facts["input_shape"] is not None:
        _, height, width = facts["input_shape"]
        item = jsonable(np.zeros((height, width, 3), np.uint8))
    return _post("classify", facts, {"model": facts["classifier"], "input": item, "top_k": 3})


def _post(route: str, facts: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    return (
        f"curl {facts['url']}/{route} -H 'Authorization: Bearer {facts['key']}' "
        f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
    )


def _snippet(facts: Mapping[str, Any], accepts: Container[str]) -> str:
    return f"""from openai import OpenAI
client = OpenAI(base_url={facts["url"]!r}, api_key={facts["key"]!r})
reply = client.embeddings.create(model={facts["model"]!r}, input={_example(accepts)!r})
print(len(reply.data[0].embedding), "numbers")"""


def _example(accepts: Container[str]) -> str | list[int]:
    """Return an input that the encoder takes."""
    if "text" in accepts:
        return "Where is my card?"
    return _TINY_IMAGE if "image" in accepts else [1, 2, 3]
