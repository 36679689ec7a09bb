"""A bundle holds anywhere, and no byte of it can change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.audit.evidence import keys, log
from tollkeeper.audit.evidence.bundle import read_array, read_json, write_array, write_json
from tollkeeper.audit.evidence.case import Case
from tollkeeper.audit.evidence.findings import Findings
from tollkeeper.audit.evidence.verify import verify
from tollkeeper.errors import AuditRefused, EvidenceError

SealAnew = Callable[[Path, Case], None]


def test_a_bundle_holds_in_another_folder_and_gives_the_same_figures(
    against_copy: tuple[Findings, Path], bundle: Path, owned: Case
) -> None:
    """A copied bundle verifies under the owner's key, digit for digit as it was found."""
    found, _ = against_copy
    held = verify(bundle, key=owned.fixed.owner)
    assert held.found == found
    assert (held.found.verdict, held.key) == ("derived", owned.fixed.owner)
    assert held.found.exact


def test_every_changed_byte_is_found(bundle: Path) -> None:
    """Whatever file is changed, at its ends or anywhere in it, verification fails."""
    rng = np.random.default_rng(3)
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    kept = [path for path in files if path.parent.name != "calls"]
    kept += [path for path in files if path.parent.name == "calls"][::9]
    for path in kept:
        whole = path.read_bytes()
        places = {0, len(whole) - 1, *rng.integers(0, len(whole), 3).tolist()}
        for place in places:
            changed = bytearray(whole)
            changed[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(changed)
            with pytest.raises(EvidenceError):
                verify(bundle)
        path.write_bytes(whole)


def test_cut_added_and_missing_files_are_named(bundle: Path) -> None:
    """The reason names the file."""
    (bundle / "calls" / "extra").write_bytes(b"")
    with pytest.raises(EvidenceError, match="calls/extra was added"):
        verify(bundle)
    (bundle / "calls" / "extra").unlink()
    with (bundle / "public.npy").open("r+b") as file:
        file.truncate(500)
    (bundle / "items.npy").unlink()
    with pytest.raises(EvidenceError, match=r"public\.npy was changed; items\.npy is missing"):
        verify(bundle)


@pytest.mark.parametrize("place", [0, 1, -1])
def test_a_dropped_line_of_the_log_of_calls_is_found(
    bundle: Path, owned: Case, seal_anew: SealAnew, place: int
) -> None:
    """A line that was dropped is found though everything above it was signed anew."""
    lines = (bundle / "calls.jsonl").read_bytes().splitlines(keepends=True)
    del lines[place]
    (bundle / "calls.jsonl").write_bytes(b"".join(lines))
    seal_anew(bundle, owned)
    with pytest.raises(EvidenceError, match=r"calls\.jsonl|does not follow"):
        verify(bundle)


def test_another_key_than_the_published_one_is_refused(bundle: Path, tmp_path: Path) -> None:
    """A bundle that somebody else signed fails when the key is given."""
    other = keys.create(tmp_path / "key.pem")
    with pytest.raises(EvidenceError, match="signed by the key"):
        verify(bundle, key=other.public)


def _verdict(bundle: Path) -> None:
    told = read_json(bundle, "result.json")
    write_json(bundle, "result.json", {**told, "verdict": "inconclusive"})


def _figure(bundle: Path) -> None:
    told = read_json(bundle, "result.json")
    told["rows"][0]["effect_size"] *= 1.01
    write_json(bundle, "result.json", told)


def _item(bundle: Path) -> None:
    items = read_array(bundle, "items.npy")
    items[5, 0, 0, 0] ^= 1
    write_array(bundle, "items.npy", items)


def _swapped_coin(bundle: Path) -> None:
    told = read_json(bundle, "opened.json")
    for place in (0, 1):
        told["openings"][place]["coin"] ^= 1
    write_json(bundle, "opened.json", told)


def _other_items(bundle: Path) -> None:
    told = read_json(bundle, "opened.json")
    write_json(bundle, "opened.json", {**told, "beacon": "a luckier one"})


def _seed(bundle: Path) -> None:
    told = read_json(bundle, "opened.json")
    told["seeds"]["views"] = "00" * 32
    write_json(bundle, "opened.json", told)


def _response(bundle: Path) -> None:
    path = bundle / "calls" / "000002.response"
    path.write_bytes((bundle / "calls" / "000003.response").read_bytes())


def _reference(bundle: Path) -> None:
    write_array(bundle, "encoders/01.npy", read_array(bundle, "encoders/00.npy"))


def _fewer_references(bundle: Path) -> None:
    write_json(bundle, "encoders.json", read_json(bundle, "encoders.json")[:-1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_verdict, "result.verdict"),
        (_figure, "effect_size"),
        (_item, "does not belong to the root"),
        (_swapped_coin, "coin"),
        (_other_items, "other items are opened"),
        (_seed, "seed of views"),
        (_response, "not what the log of calls says"),
        (_reference, "reference controls reject"),
        (_fewer_references, "references do not match the commitment"),
    ],
)
def test_an_owner_with_the_key_cannot_change_what_was_found(
    bundle: Path, owned: Case, seal_anew: SealAnew, change: Callable[[Path], None], reason: str
) -> None:
    """Manifest and log made anew around a change do not help: it is computed again."""
    change(bundle)
    seal_anew(bundle, owned)
    with pytest.raises(AuditRefused, match=reason):
        verify(bundle)


def test_a_run_that_the_log_does_not_number_is_refused(
    bundle: Path, owned: Case, tmp_path: Path
) -> None:
    """A log without its first run, as if the lucky second one had been the only look, fails."""
    lines = log.read(bundle / "log.jsonl")
    told: list[tuple[str, dict[str, Any]]] = [(each.kind, dict(each.body)) for each in lines]
    told = [(kind, {**body, "run": 2} if "run" in body else body) for kind, body in told]
    for path in (bundle / "log.jsonl", bundle / "log.jsonl.head"):
        path.unlink()
    with log.SignedLog(bundle / "log.jsonl", owned.signer, clock=lambda: 1.8e9) as written:
        for kind, body in told:
            written.append(kind, body)
    with pytest.raises(EvidenceError, match="numbered one by one"):
        verify(bundle)


def test_what_is_no_bundle_is_refused_with_the_reason(tmp_path: Path, bundle: Path) -> None:
    """An empty folder and one without a log are told apart from a changed bundle."""
    with pytest.raises(EvidenceError, match="cannot read"):
        verify(tmp_path / "nothing")
    shutil.rmtree(bundle / "calls")
    with pytest.raises(EvidenceError, match="is missing"):
        verify(bundle)
