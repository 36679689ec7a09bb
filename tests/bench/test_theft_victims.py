"""Victims of a campaign: open, guarded anew for each run, or live behind HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.attacks.accounts import Accounts
from tollkeeper.bench.theft.victims import REQUEST, guarded, in_process, is_address, live
from tollkeeper.client import Caps
from tollkeeper.errors import BudgetExhausted, ConfigurationError
from tollkeeper.testing import HashEncoder
from tollkeeper.testing.victims import ToyTextVictim, sentences

TOY = "python:tollkeeper.testing.victims:ToyTextVictim"
TEXTS = sentences(300)


def opened(url: str, folder: Path, *keys: str, **caps: float) -> Any:
    """Open a live target."""
    return live(
        url,
        keys,
        folder=folder,
        price=0.5,
        caps=Caps(**caps),  # type: ignore[arg-type]  # all fields take floats here
        concurrency=2,
        probe="query 0",
    )


def queries(count: int) -> list[str]:
    """Return distinct texts."""
    return [f"query {number}" for number in range(count)]


def test_an_open_encoder_is_the_same_for_all() -> None:
    """Runs, accounts and scoring ask one encoder, and nothing is live."""
    victim = in_process(TOY, accounts=3)
    assert isinstance(victim.encoder, Accounts)
    assert len(victim.encoder.accounts) == 3
    assert victim.begin(0) is victim.begin(1)
    np.testing.assert_array_equal(victim.clean.embed(TEXTS[:5]), ToyTextVictim().embed(TEXTS[:5]))
    assert not victim.is_live
    assert not isinstance(in_process(TOY).encoder, Accounts)


def test_a_guard_stands_before_attacks_and_not_before_scoring() -> None:
    """Accounts are shown spaces of their own, the clean encoder is bare, each run starts anew."""
    victim = guarded(TOY, "cheapest", TEXTS, accounts=2, clock=lambda: 0.0)
    first, again, other = victim.begin(0), victim.begin(0), victim.begin(1)
    assert isinstance(first, Accounts)
    assert isinstance(again, Accounts)
    one, two = (account.embed(TEXTS[:50]) for account in first.accounts)
    clean = victim.clean.embed(TEXTS[:50])
    assert not np.allclose(one, clean, atol=0.01)
    assert not np.allclose(one, two, atol=0.01)
    np.testing.assert_array_equal(clean, ToyTextVictim().embed(TEXTS[:50]))
    np.testing.assert_array_equal(again.accounts[0].embed(TEXTS[:50]), one)
    assert not np.allclose(other.embed(TEXTS[:50]), one, atol=0.01)
    with pytest.raises(ConfigurationError, match="guard profile"):
        guarded(TOY, "strong", TEXTS, accounts=1, clock=lambda: 0.0)


def test_a_live_target_is_paid_once_for_all_runs(start_gateway: Any, tmp_path: Path) -> None:
    """Another run, and another process with the same folder, gets kept answers for nothing."""
    gateway = start_gateway(HashEncoder(8), profile="none")
    for _ in range(2):
        with opened(gateway.url, tmp_path / "kept", gateway.key) as victim:
            assert victim.is_live
            for seed in range(2):
                rows = victim.begin(seed).embed(queries(100))
                np.testing.assert_array_equal(rows, HashEncoder(8).embed(queries(100)))
            spend = victim.spend()
            assert (spend.distinct, spend.repeats, spend.money) == (100, 0, 50.0)
            assert spend.calls == 1 + -(-99 // REQUEST)  # the probe is one of the hundred


def test_accounts_have_transcripts_of_their_own(start_gateway: Any, tmp_path: Path) -> None:
    """Each key is an account whose answers no other one gets; no file holds a key."""
    gateway = start_gateway(HashEncoder(8), profile="cheapest")
    folder = tmp_path / "transcripts"
    keys = [gateway.key, gateway.new_key("second")]
    with opened(gateway.url, folder, *keys) as victim:
        one, two = (account.embed(queries(20)) for account in victim.encoder.accounts)
        assert not np.allclose(one, two, atol=0.01)
        assert victim.clean is victim.encoder.accounts[0]
    with opened(gateway.url, folder, keys[1]) as victim:
        np.testing.assert_array_equal(victim.begin(0).embed(queries(20)), two)
        assert victim.spend().distinct == 20
    assert len(list(folder.glob("*.sqlite"))) == 2
    for file in folder.iterdir():
        assert not any(key.encode() in file.read_bytes() for key in keys)


def test_caps_hold_over_all_accounts(start_gateway: Any, tmp_path: Path) -> None:
    """Two accounts do not spend twice the cap."""
    gateway = start_gateway(HashEncoder(8), profile="none")
    keys = [gateway.key, gateway.new_key("second")]
    with opened(gateway.url, tmp_path, *keys, money=40.0) as victim:
        first, second = victim.encoder.accounts
        first.embed(queries(50))
        with pytest.raises(BudgetExhausted, match=r"cap of 40\.0 in money"):
            second.embed(queries(50))


def test_bad_targets_are_refused(tmp_path: Path) -> None:
    """Addresses, folders and caps that cannot be used end in one line, before anything is sent."""
    (tmp_path / "file").touch()
    assert is_address("https://host/v1#model")
    assert not is_address("builtin:text")
    for url, folder, caps, named in (
        ("http://user:pass@host/v1", tmp_path, {}, "without user"),
        ("http://127.0.0.1:1/v1", tmp_path / "file" / "below", {}, "cannot make the folder"),
        ("http://127.0.0.1:1/v1", tmp_path, {"money": -1.0}, "at least 0"),
    ):
        with pytest.raises(ConfigurationError, match=named), opened(url, folder, **caps):
            pass
