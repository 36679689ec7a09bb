"""Promises of `keys`, `tenants`, `records` and `config`, without a server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tollkeeper.gateway.predict_tariff import Evidence
from tollkeeper.ledger.sqlite import SqliteLedger
from tollkeeper.testing.predictions import (
    BrightnessCounter,
    BrightnessDetector,
    ToyClassifier,
    pictures,
)
from tollkeeper.types import Record


def test_a_key_is_printed_as_json(tmp_path: Path, cli: Callable[..., Any]) -> None:
    """`keys create --json` prints key, id and tenant, makes the tenant, and the list shows the id."""
    made = json.loads(
        cli("keys", "create", "--tenant", "acme", "--data-dir", tmp_path, "--json").out
    )
    assert set(made) == {"key", "id", "tenant"}
    assert made["key"].startswith("sk-tk-")
    listed = cli("keys", "list", "--data-dir", tmp_path, "--json")
    assert [(row["id"], row["tenant"], row["revoked_at"]) for row in json.loads(listed.out)] == [
        (made["id"], "acme", None)
    ]
    assert made["key"] not in listed.out
    tenants = json.loads(cli("tenants", "list", "--data-dir", tmp_path, "--json").out)
    assert [row["name"] for row in tenants] == ["acme"]


def test_prose_shows_the_key_and_a_table(tmp_path: Path, cli: Callable[..., Any]) -> None:
    """Without --json the key stands on a line of its own and lists are aligned tables."""
    key, rest = cli("keys", "create", "--tenant", "acme", "--data-dir", tmp_path).out.split("\n", 1)
    assert key.startswith("sk-tk-")
    assert "acme" in rest
    header, row = cli("keys", "list", "--data-dir", tmp_path).out.splitlines()
    assert header.split() == ["id", "tenant", "created_at", "revoked_at"]
    assert row.index("acme") == header.index("tenant")


def test_revoking_twice_is_fine_and_keeps_the_time(tmp_path: Path, cli: Callable[..., Any]) -> None:
    """A revoked key shows when it was revoked; revoking it again changes nothing."""
    where = ("--data-dir", tmp_path, "--json")
    made = json.loads(cli("keys", "create", "--tenant", "acme", *where).out)
    once = cli("keys", "revoke", made["id"], *where)
    again = cli("keys", "revoke", made["id"], *where)
    assert once.status == again.status == 0
    assert json.loads(once.out) == json.loads(again.out)
    assert json.loads(once.out)["revoked_at"] >= json.loads(once.out)["created_at"]


def test_standing_changes_are_shown(tmp_path: Path, cli: Callable[..., Any]) -> None:
    """Grant, suspend, resume, link and unlink print the tenant as it is afterwards."""
    where = ("--data-dir", tmp_path, "--json")
    for name in ("acme", "bolt"):
        cli("keys", "create", "--tenant", name, *where)

    def change(*words: str) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(cli("tenants", *words, *where).out)
        return shown

    assert change("grant", "acme", "--inputs", "500")["budget"] == 500
    assert change("suspend", "acme")["suspended"] is True
    assert change("resume", "acme")["suspended"] is False
    assert change("allow", "acme", "--inputs", "70")["grant"]["inputs"] == 70
    assert change("disallow", "acme")["grant"] is None
    assert change("link", "acme", "bolt")["pool"] == "acme/1"
    assert change("show", "bolt")["pool"] == change("show", "acme")["pool"]
    assert change("unlink", "bolt")["pool"] == "bolt"
    assert change("pardon", "acme")["pool"] == "acme"


def test_records_are_listed_and_pruned(tmp_path: Path, cli: Callable[..., Any]) -> None:
    """`records list` shows the newest first, `records prune` deletes those past an age in days."""
    where = ("--data-dir", tmp_path)
    cli("keys", "create", "--tenant", "acme", *where)
    with SqliteLedger(tmp_path / "ledger.sqlite3") as ledger:
        for i, (tenant, days) in enumerate([("acme", 9), ("bolt", 5), ("acme", 1)]):
            record = Record(
                at=time.time() - 86_400 * days,
                tenant=tenant,
                key_id="key_1",
                request_id=f"r{i}",
                model="m",
                inputs=1,
                tokens=1,
                charge=1.0,
                coverage=0.1,
                noise_scale=0.0,
                profile="none/1",
                decision="paid",
                reason="puzzle",
                paid_s=1.5,
            )
            ledger.commit("p", record, b"", expected=i)

    def listed(*words: str) -> list[str]:
        rows = json.loads(cli("records", "list", *words, *where, "--json").out)
        assert {(r["decision"], r["reason"], r["paid_s"]) for r in rows} == {
            ("paid", "puzzle", 1.5)
        }
        return [row["request_id"] for row in rows]

    assert listed() == ["r2", "r1", "r0"]
    assert listed("--tenant", "acme", "--limit", "1") == ["r2"]
    header, row, *_ = cli("records", "list", *where).out.splitlines()
    assert row.index("acme") == header.index("tenant")
    assert row.index("paid ") == header.index("decision")
    assert row.index("1.5") == header.index("paid_s")
    assert row.index("r2") == header.index("request_id")
    assert "1 records" in cli("records", "prune", "--before", "7", *where).out
    pruned = cli("records", "prune", "--before", "3", *where, "--json")
    assert json.loads(pruned.out) == {"deleted": 1}
    assert listed() == ["r2"]


@pytest.mark.parametrize(
    "words",
    [
        ("tenants", "show", "nobody"),
        ("tenants", "suspend", "nobody"),
        ("tenants", "link", "acme", "nobody"),
        ("tenants", "link", "acme", "acme"),
        ("tenants", "unlink", "acme"),
        ("tenants", "pardon", "nobody"),
        ("tenants", "overlaps"),
        ("tenants", "grant", "acme", "--inputs", "-1"),
        ("keys", "revoke", "key_unknown"),
        ("keys", "create", "--tenant", ""),
        ("keys", "create", "--tenant", "a/b"),
        ("records", "prune", "--before", "-1"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, cli: Callable[..., Any], words: tuple[str, ...]
) -> None:
    """What does not exist or makes no sense ends with status 2 and one line."""
    cli("keys", "create", "--tenant", "acme", "--data-dir", tmp_path)
    failed = cli(*words, "--data-dir", tmp_path)
    assert (failed.status, failed.out, len(failed.err.splitlines())) == (2, "", 1)


def test_a_mistyped_folder_is_not_created(tmp_path: Path, cli: Callable[..., Any]) -> None:
    """Verbs that look at state refuse a data folder that does not exist."""
    failed = cli("tenants", "list", "--data-dir", tmp_path / "typo")
    assert failed.status == 2
    assert not (tmp_path / "typo").exists()


def test_a_ledger_url_goes_before_the_folder(tmp_path: Path, cli: Callable[..., Any]) -> None:
    """With --ledger the state is where the URL says; only the secrets stay in the folder."""
    where = ("--data-dir", tmp_path / "home", "--ledger", f"sqlite://{tmp_path}/elsewhere.db")
    cli("keys", "create", "--tenant", "acme", *where)
    assert (tmp_path / "elsewhere.db").exists()
    assert not (tmp_path / "home" / "ledger.sqlite3").exists()
    assert len(json.loads(cli("keys", "list", *where, "--json").out)) == 1


def test_later_settings_win_and_secrets_are_masked(
    tmp_path: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flags win over variables, these over the file; no secret is printed."""
    file = tmp_path / "settings.yaml"
    file.write_text("port: 1111\nhost: file\ndata_dir: from-file\nmaster_key: 'feed'\n")
    monkeypatch.setenv("TOLLKEEPER_HOST", "variable")
    monkeypatch.setenv("TOLLKEEPER_DATA_DIR", "from-variable")
    monkeypatch.setenv("TOLLKEEPER_ADMIN_TOKEN", "hush-hush")
    shown = cli("config", "show", "--config", file, "--data-dir", "from-flag", "--json")
    effective = json.loads(shown.out)
    names = ("port", "host", "data_dir")
    assert [effective[name] for name in names] == [1111, "variable", "from-flag"]
    assert "feed" not in shown.out
    assert "hush" not in shown.out


def test_shown_settings_are_a_config_file(tmp_path: Path, cli: Callable[..., Any]) -> None:
    """What `config show` prints can be read back as a config file with the same effect."""
    shown = cli("config", "show", "--data-dir", tmp_path).out
    assert yaml.safe_load(shown)["data_dir"] == str(tmp_path)
    file = tmp_path / "settings.yaml"
    file.write_text(shown)
    assert cli("config", "show", "--config", file).out == shown


def test_wrong_variables_are_one_line(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong variable ends a verb with status 2 and one line that names it."""
    monkeypatch.setenv("TOLLKEEPER_PORT", "high")
    failed = cli("config", "show")
    assert (failed.status, failed.out, len(failed.err.splitlines())) == (2, "", 1)
    assert "port" in failed.err


def test_the_operator_sees_accounts_of_predictions(
    cli: Callable[..., Any], tmp_path: Path, start_gateway: Any
) -> None:
    """The table tells what was predicted, how suspicious that is, and since when too much."""
    plans = {"guard": {"predictions": {"alarm": 0.01}}}
    evidence = Evidence(
        "p-toy", BrightnessDetector(), np.linspace(0.2, 0.4, 400), BrightnessCounter()
    )
    live = start_gateway(classifier=ToyClassifier(), evidence=evidence, plans=plans)
    for bright in pictures(3, mean=0.9):
        item = {"shape": list(bright.shape), "data": bright.ravel().tolist()}
        live.classify({"model": "toy-classes", "input": [item]})
    done = cli("tenants", "list", "--data-dir", tmp_path / "data")
    head, row = (line.split() for line in done.out.splitlines())
    told = dict(zip(head, row, strict=False))
    assert (told["predicted"], told["suspicion"], told["alarm_at"]) == ("3", "3", "3")
    assert "alarmed" in row
    done = cli("records", "list", "--data-dir", tmp_path / "data")
    assert "1 new, rank 0.9975, account at 3" in done.out
