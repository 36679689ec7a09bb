"""`tollkeeper audit stamp`: a dated signature of an authority on the head of a log."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Any

import typer

from tollkeeper.cli.lab import write
from tollkeeper.cli.options import Json
from tollkeeper.cli.output import emit
from tollkeeper.errors import AuditRefused, ConfigurationError

_QUERY, _REPLY = "application/timestamp-query", "application/timestamp-reply"
_WAIT_S = 30.0
_MOST_BYTES = 1 << 20
_SHARED = 0o666


def stamp(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="log.jsonl of a pool or a case.")],
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the reply, or for the query.")
    ] = None,
    authority: Annotated[
        str | None, typer.Option(metavar="URL", help="RFC 3161 authority to ask.")
    ] = None,
    reply: Annotated[
        Path | None, typer.Option("--check", metavar="REPLY", help="Check a reply instead.")
    ] = None,
    trust: Annotated[
        Path | None, typer.Option(help="PEM certificates in which its chain must end.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Have the head of a log stamped (RFC 3161), or check such a stamp."""
    from tollkeeper.audit.evidence.log import read
    from tollkeeper.audit.evidence.stamp import request

    if (output is None) == (reply is None):
        raise ConfigurationError("expected --output to write to, or --check to check; not both")
    entries = read(log)
    if not entries:
        raise AuditRefused(f"{log} has no lines yet; there is nothing to stamp")
    hashes = [entry.hash for entry in entries]
    if reply is not None:
        told = _checked(_bytes(reply), hashes, _trusted(trust))
    else:
        assert output is not None
        nonce = secrets.randbits(64)
        query = request(bytes.fromhex(hashes[-1]), nonce=nonce)
        if authority is None:
            write(output, query, mode=_SHARED)
            told = {"head": hashes[-1], "lines": len(hashes), "query": str(output)}
        else:
            roots = _trusted(trust)
            answer = _asked(authority, query)
            told = _checked(answer, hashes[-1:], roots, nonce=nonce) | {"lines": len(hashes)}
            write(output, answer, mode=_SHARED)
    emit(told, as_json=as_json, prose=_prose)


def _checked(
    reply: bytes, hashes: list[str], trusted: bytes, *, nonce: int | None = None
) -> dict[str, Any]:
    """Return what a reply says of the line whose hash it holds."""
    from tollkeeper.audit.evidence.stamp import check, stamped

    seen = stamped(reply).hex()
    if seen not in hashes:
        raise AuditRefused(f"the stamp is of {seen}, which is the hash of no line of this log")
    found = check(reply, bytes.fromhex(seen), trusted=trusted, nonce=nonce)
    return {
        "head": seen,
        "lines": hashes.index(seen) + 1,
        "at": found.at,
        "authority": found.authority,
        "root": found.root,
    }


def _asked(url: str, query: bytes) -> bytes:
    """Post a query to an authority."""
    import httpx2

    headers = {"content-type": _QUERY, "accept": _REPLY}
    try:
        answer = httpx2.post(url, content=query, headers=headers, timeout=_WAIT_S)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise AuditRefused(f"the authority {url} cannot be reached: {error}") from error
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if answer.status_code != 200 or kind != _REPLY or len(answer.content) > _MOST_BYTES:
        raise AuditRefused(
            f"expected {_REPLY} of {url}, got status {answer.status_code} and {kind or 'nothing'}"
        )
    return answer.content


def _trusted(trust: Path | None) -> bytes:
    if trust is None:
        raise ConfigurationError("give --trust: certificates of authorities whose word you take")
    return _bytes(trust)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error


def _prose(told: dict[str, Any]) -> str:
    if "query" in told:
        return (
            f"head       {told['head']}\n"
            f"query      {told['query']}; post it as {_QUERY} to an authority, keep the reply"
        )
    return (
        f"{told['lines']} lines of the log were written before {told['at']}\n"
        f"head       {told['head']}\nsays       {told['authority']}\ntrusted by {told['root']}"
    )
