"""Enforcement is turned on in a running gateway: nothing restarts, nobody's request is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from tollkeeper.client import Solver, paying_client
from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.plans import Plan
from tollkeeper.gateway.settings import Settings
from tollkeeper.testing import HashEncoder

PAGE = "docs/challenge.md"
PLAN: dict[str, Any] = {
    "challenge": 0.0,
    "first_seconds": 0.001,
    "last_seconds": 0.002,
    "noise": None,
    "refuse": None,
}


def until(holds: Callable[[], object], *, seconds: float = 10.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.02)


class Customer(threading.Thread):
    """Asks one new text after the other with the stock client, until it is told to stop."""

    def __init__(self, live: Any, key: str, name: str, http: Any = None) -> None:
        super().__init__(daemon=True)
        self.seen: Counter[str] = Counter()
        self._title = name
        self._ended = threading.Event()
        self._client = openai.OpenAI(
            base_url=live.url, api_key=key, http_client=http, max_retries=0
        )
        self._model = live.gateway.service.encoder.name

    def run(self) -> None:
        number = 0
        while not self._ended.is_set():
            try:
                texts = [f"{self._title} {number} {i}" for i in range(8)]
                self._client.embeddings.create(model=self._model, input=texts)
                self.seen["answered"] += 1
            except openai.APIStatusError as error:
                self.seen[str(error.code)] += 1
            except openai.OpenAIError as error:
                self.seen[type(error).__name__] += 1
            number += 1

    def finish(self) -> Counter[str]:
        """Stop asking, and tell what was seen."""
        self._ended.set()
        self.join(20)
        self._client.close()
        return self.seen


def test_a_call_without_a_proof_is_made_once_and_names_the_page(start_gateway: Any) -> None:
    """The stock client makes exactly one call on a challenge; its error says what to read."""
    live = start_gateway(HashEncoder(16), plans={"pays": PLAN}, plan="pays")
    model = live.gateway.service.encoder.name
    challenged = live.gateway.service.metrics.requests.labels("/v1/embeddings", "402")
    client = openai.OpenAI(base_url=live.url, api_key=live.key)

    def walk() -> None:
        for number in range(1000):
            client.embeddings.create(model=model, input=f"walk {number}")

    with client, pytest.raises(openai.APIStatusError) as caught:
        walk()
    assert caught.value.status_code == 402
    assert caught.value.code == "challenge_required"
    assert PAGE in caught.value.message
    until(lambda: challenged._value.get() == 1)


def test_one_tenant_is_enforced_while_all_are_asking(start_gateway: Any) -> None:
    """From one verb on a tenant is challenged, others are not, and every request got a reply."""
    plan = {**PLAN, "mode": "shadow"}
    live = start_gateway(HashEncoder(16), plans={"trial": plan}, plan="trial")
    with Solver(processes=0) as solver:
        customers = {
            "acme": Customer(live, live.new_key("acme"), "acme"),
            "paying": Customer(
                live, live.new_key("paying"), "paying", paying_client(solver=solver)
            ),
            "other": Customer(live, live.new_key("other"), "other"),
        }
        for customer in customers.values():
            customer.start()
        until(lambda: all(one.seen["answered"] > 20 for one in customers.values()))
        operator = live.gateway._operator
        operator.set_mode("acme", "enforce")
        operator.set_mode("paying", "enforce")
        until(lambda: customers["acme"].seen["challenge_required"] > 3)
        until(lambda: solver.tally().challenges > 3)
        operator.set_mode("acme", "shadow")
        answered = customers["acme"].seen["answered"]
        until(lambda: customers["acme"].seen["answered"] > answered + 3)
        seen = {name: customer.finish() for name, customer in customers.items()}
    assert set(seen["acme"]) == {"answered", "challenge_required"}
    assert set(seen["paying"]) == {"answered"}
    assert set(seen["other"]) == {"answered"}


def test_plans_that_were_read_anew_hold_for_clients_and_for_the_operator(
    start_gateway: Any,
) -> None:
    """After a reload the next request meets the new plan, and the operator's report names it."""
    live = start_gateway(HashEncoder(16))
    model = live.gateway.service.encoder.name
    with openai.OpenAI(base_url=live.url, api_key=live.key, max_retries=0) as client:

        def ask(number: int) -> None:
            texts = [f"walk {number} {i}" for i in range(30)]
            client.embeddings.create(model=model, input=texts)

        for number in range(5):
            ask(number)
        live.gateway.reload(Settings(plans={"pays": Plan(**PLAN)}, plan="pays"))
        with pytest.raises(openai.APIStatusError) as caught:
            ask(5)
    assert caught.value.code == "challenge_required"
    report = live.gateway._operator.tenant("default")
    assert (report.plan, report.standing) == ("pays", "challenged")
    live.gateway._flush()
    (record,) = live.gateway._operator.records(limit=1)
    assert record.decision == "challenged"
    assert "s due" in record.reason


def test_no_reload_and_no_start_takes_a_tenants_plan_away(start_gateway: Any) -> None:
    """Else a tenant in shadow would meet the default plan, enforced, for a slip of the pen."""
    trial = {"trial": Plan(**{**PLAN, "mode": "shadow"})}
    live = start_gateway(HashEncoder(16), plans=trial)
    live.gateway._operator.set_plan("default", "trial")
    with pytest.raises(ConfigurationError, match=r"default \(trial\)"):
        live.gateway.reload(Settings())
    assert live.gateway._operator.tenant("default").mode == "shadow"
    live.stop()
    with pytest.raises(ConfigurationError, match=r"default \(trial\)"):
        start_gateway(HashEncoder(16))
    start_gateway(HashEncoder(16), plans=trial)


def test_a_hangup_reads_the_plans_anew(tmp_path: Path) -> None:
    """SIGHUP lets a changed file hold; a broken file changes nothing, and says so in the log."""
    config = tmp_path / "gateway.yaml"
    written: dict[str, Any] = {"port": 0, "admin_port": 0, "profile": "none"}
    config.write_text(yaml.safe_dump(written))
    launch = [sys.executable, "-c", "from tollkeeper.cli import main; main()"]
    server = subprocess.Popen(
        [*launch, "serve", "--json", "--config", str(config), "--data-dir", str(tmp_path / "data")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert server.stderr is not None
    try:
        text = ""
        while True:
            text += server.stdout.readline()
            try:
                json.loads(text)
            except ValueError:
                continue
            break
        for content, told in (
            ({**written, "plan": "toll"}, "plans.reloaded default=toll"),
            ({**written, "plan": "gone"}, "plans.kept"),
            ({**written, "plans": {"toll": {"noise": 7}}}, "plans.kept"),
        ):
            config.write_text(yaml.safe_dump(content))
            server.send_signal(signal.SIGHUP)
            while told not in (line := server.stderr.readline()):
                assert line, "the server ended"
    finally:
        server.terminate()
        server.communicate(timeout=20)
