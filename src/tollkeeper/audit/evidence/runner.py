"""One run of a committed audit against one suspect, from the first call to the finished bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.evidence import asking, log
from tollkeeper.audit.evidence.bundle import (
    CALL_FILES,
    CALLS,
    COMMITMENT,
    ENCODER_FILES,
    ENCODERS,
    LOG,
    RESULT,
    write_array,
    write_json,
    write_manifest,
)
from tollkeeper.audit.evidence.canonical import digest, to_bytes
from tollkeeper.audit.evidence.case import Case, identity
from tollkeeper.audit.evidence.custody import Custody
from tollkeeper.audit.evidence.findings import Findings
from tollkeeper.audit.evidence.log import Entry, SignedLog
from tollkeeper.audit.evidence.opened import Opened
from tollkeeper.audit.evidence.verify import TOOL, assemble, calls_of
from tollkeeper.encoders.base import Encoder, checked
from tollkeeper.encoders.load import load_encoder
from tollkeeper.errors import AuditRefused, EvidenceError

Told = Callable[[str, int, int], None]
"""What is being done, how far it is, and how far it goes."""

_BATCH = 256


@dataclass(frozen=True, slots=True)
class Order:
    """Who is audited, and how.

    Attributes:
        suspect: SPEC or address.
        beacon: value that chooses among the items; empty for none.
        account: the operator's name for the identity that asks.
        api_key: credential for an address; never kept.
    """

    suspect: str
    beacon: str = ""
    account: str = "unnamed"
    api_key: str | None = None


def run(
    case: Case, order: Order, folder: Path, *, clock: Callable[[], float], told: Told
) -> Findings:
    """Ask a suspect and write the bundle; after a break the same call goes on.

    Args:
        case: of the owner.
        order: who is audited.
        folder: of the bundle; new, or of a run of this order that broke off.
        clock: seconds since the epoch.
        told: progress.

    Raises:
        AuditRefused: the plan allows no more runs, or the evidence cannot carry the test.
        EvidenceError: control or references are not the committed ones, or a log was changed.
        EncoderError: the suspect failed; nothing that was answered is lost.
    """
    with SignedLog(case.folder / LOG, case.signer, clock=clock) as written:
        began, opened = _begin(case, order, folder, written)
        inputs = opened.inputs(case.fixed.decision["views"])
        _prepare(case, folder, opened)
        with SignedLog(folder / CALLS, case.signer, clock=clock) as kept:
            _ask(
                case,
                order,
                folder,
                began,
                kept,
                opened=opened,
                inputs=inputs,
                clock=clock,
                told=told,
            )
        _embed_others(case, folder, inputs, told)
        found = _found(folder, written, began)
        write_json(folder, RESULT, found.to_json())
        manifest = write_manifest(folder)
        written.append(
            "finished",
            {"run": began.body["run"], "manifest": manifest, "verdict": found.verdict},
        )
    for path in (case.folder / LOG, log.head_path(case.folder / LOG)):
        shutil.copyfile(path, folder / path.name)
    return found


def _begin(case: Case, order: Order, folder: Path, written: SignedLog) -> tuple[Entry, Opened]:
    """Return the line in which the run began and what it opens; write both if it is new."""
    wanted = {"suspect": order.suspect, "beacon": order.beacon, "bundle": folder.name}
    runs = [each for each in written.entries if each.kind == "run"]
    over = {each.body["run"] for each in written.entries if each.kind in {"finished", "refused"}}
    for each in runs:
        if each.body["bundle"] != folder.name:
            continue
        if each.body["run"] in over:
            raise AuditRefused(f"run {each.body['run']} is over; give the new one another folder")
        if any(each.body[name] != value for name, value in wanted.items()):
            raise AuditRefused(f"the run in {folder} is of another suspect or beacon")
        return each, Opened.of(case, beacon=order.beacon)
    looks = case.fixed.decision["looks"]
    if len(runs) >= looks:
        raise AuditRefused(
            f"{len(runs)} runs were begun, and the plan allows {looks}; more would need a stricter "
            "correction, which has to be committed first"
        )
    if folder.exists() and any(folder.iterdir()):
        raise AuditRefused(f"{folder} is not empty; give the bundle a new folder")
    opened = Opened.of(case, beacon=order.beacon)
    began = written.append("run", {"run": len(runs) + 1, **wanted})
    return began, opened


def _prepare(case: Case, folder: Path, opened: Opened) -> None:
    """Write what the bundle shows of the case."""
    (folder / CALL_FILES).mkdir(parents=True, exist_ok=True)
    (folder / ENCODER_FILES).mkdir(exist_ok=True)
    shutil.copyfile(case.folder / COMMITMENT, folder / COMMITMENT)
    opened.write(folder)


def _ask(
    case: Case,
    order: Order,
    folder: Path,
    began: Entry,
    kept: SignedLog,
    *,
    opened: Opened,
    inputs: list[NDArray[np.uint8]],
    clock: Callable[[], float],
    told: Told,
) -> None:
    """Ask the suspect for everything that it has not answered yet."""
    if not kept.entries:
        kept.append("run", {"line": began.hash})
    calls = calls_of(kept.entries, began)
    custody = Custody(
        folder / CALL_FILES,
        lambda call: _append(kept, call),
        account=order.account,
        tool=TOOL,
        clock=clock,
        count=len(calls),
    )
    places = asking.order(
        len(inputs),
        repeats=case.fixed.decision["repeats"],
        rng=opened.generator("order", began.body["run"]),
    )
    with asking.connected(order.suspect, custody, api_key=order.api_key) as suspect:
        asking.ask(
            suspect,
            inputs,
            places,
            answered=asking.read_answers(folder / CALL_FILES, calls).count,
            told=lambda done, all_: told("asking the suspect", done, all_),
        )


def _append(kept: SignedLog, call: Mapping[str, Any]) -> None:
    kept.append("call", call)


def _embed_others(case: Case, folder: Path, inputs: list[NDArray[np.uint8]], told: Told) -> None:
    """Put the same inputs to control and references, which must be the committed ones."""
    loaded = [(role, spec, load_encoder(spec)) for role, spec in case.encoders]
    hashes = [identity(spec, encoder, case.public) for _, spec, encoder in loaded]
    case.fixed.match("weights", hashes[0])
    case.fixed.match("references", digest(to_bytes(sorted(hashes[1:]))))
    listed = []
    for place, ((role, spec, encoder), found) in enumerate(zip(loaded, hashes, strict=True)):
        told("embedding controls and references", place, len(loaded))
        file = f"{ENCODER_FILES}/{place:02d}.npy"
        write_array(folder, file, _embedded(encoder, inputs))
        name = "control" if role == "control" else f"reference {place}"
        listed.append({"name": name, "role": role, "spec": spec, "hash": found, "file": file})
    write_json(folder, ENCODERS, listed)


def _embedded(encoder: Encoder, inputs: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    parts = [inputs[at : at + _BATCH] for at in range(0, len(inputs), _BATCH)]
    return np.concatenate(
        [checked(encoder.embed(part), n=len(part), dim=encoder.dim) for part in parts]
    )


def _found(folder: Path, written: SignedLog, began: Entry) -> Findings:
    """Compute the findings; a refusal is logged, for it is a look too."""
    try:
        return assemble(folder, written.entries, run=began.body["run"])
    except EvidenceError:
        raise
    except AuditRefused as error:
        written.append("refused", {"run": began.body["run"], "reason": str(error)})
        raise
