"""From the first coin to a page that a person can read, against a copy stolen over HTTP."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.slow]

PAIRS, QUERIES, PUBLIC, REFERENCES = 500, 2000, 300, 2
Pictures = NDArray[np.uint8]


def _tollkeeper(*words: object, expect: int = 0, **environment: str) -> Any:
    """Run the real command as each party would, and return what it printed as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "tollkeeper", *map(str, words), "--json"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, done.stderr
    return json.loads(done.stdout)


def _pictures(count: int) -> Pictures:
    """Return photographs at 16 by 16 pixels."""
    from tollkeeper.bench.ownership.scene import small
    from tollkeeper.data import load_images

    found = np.asarray(load_images("cifar10", "test").inputs)
    return small(found[np.random.default_rng(11).permutation(len(found))[:count]])


def _trained(pictures: Pictures, path: Path, seed: int) -> None:
    """Train a small contrastive encoder and write it as a graph."""
    from tollkeeper.bench.ownership.simclr import Recipe, train_simclr

    _exported(train_simclr(pictures, Recipe(), rng=np.random.default_rng(seed)), path)


def _exported(encoder: Any, path: Path) -> None:
    from tollkeeper.lab.exporting import export_graph

    path.write_bytes(export_graph(encoder.network, (3, 16, 16)))


def _stolen(live: Any, queries: Pictures, folder: Path) -> None:
    """Copy what the gateway serves, with an account like any other."""
    from tollkeeper.bench.ownership.thieves import Means, steal
    from tollkeeper.client import open_target

    with open_target(
        live.url, transcript=folder / "transcript", api_key=live.key, probe=queries[0]
    ) as target:
        copy = steal(
            "mse",
            target,
            queries,
            budget=len(queries),
            rng=np.random.default_rng(7),
            means=Means(epochs=60),
        )
    _exported(copy, folder / "copy.onnx")


def _enrolled(owner: Path, private: Pictures) -> Pictures:
    """Let coins decide what is trained on; return it."""
    np.save(owner / "private.npy", private)
    made = _tollkeeper("audit", "include", owner / "private.npy", "-o", owner / "pool")
    assert made["pairs"] == PAIRS
    _tollkeeper("audit", "include", "-o", owner / "pool", "--beacon", "published later")
    names = (owner / "pool" / "train.txt").read_text().splitlines()
    return private[[int(name.rpartition(":")[2]) for name in names]]


def _read_pdf(path: Path) -> str:
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(path.read_bytes()))
    return " ".join(" ".join(page.extract_text().split()) for page in reader.pages)


def test_a_copy_stolen_over_http_is_shown_to_be_one(
    start_gateway: Callable[..., Any], data_dir: Path, tmp_path: Path
) -> None:
    """Include, train, commit, serve, steal, serve the copy, run, report; verified elsewhere."""
    from tollkeeper.encoders.onnx_encoder import OnnxEncoder

    total = 2 * PAIRS + QUERIES + PUBLIC + REFERENCES * PAIRS
    drawn = _pictures(total)
    private, queries, public, rest = np.split(drawn, np.cumsum([2 * PAIRS, QUERIES, PUBLIC]))
    owner, thief = tmp_path / "owner", tmp_path / "thief"
    owner.mkdir()
    thief.mkdir()

    _trained(_enrolled(owner, private), owner / "victim.onnx", seed=1)
    for place, own in enumerate(np.split(rest, REFERENCES)):
        _trained(own, owner / f"reference{place}.onnx", seed=2 + place)
    np.save(owner / "public.npy", public)
    references = ", ".join(f"onnx:reference{place}.onnx" for place in range(REFERENCES))
    (owner / "plan.yaml").write_text(
        f"claim: encoder-2026\nmethod: inclusion\ninclusion: pool\ncontrol: onnx:victim.onnx\n"
        f"references: [{references}]\npublic: public.npy\ndraw: {PAIRS}\nlooks: 2\n"
    )
    fixed = _tollkeeper("audit", "commit", owner / "plan.yaml", "-o", owner / "case")

    victim = start_gateway(
        OnnxEncoder(owner / "victim.onnx"), profile="none", data_dir=tmp_path / "gateway"
    )
    _stolen(victim, queries, thief)
    suspect = start_gateway(
        OnnxEncoder(thief / "copy.onnx", name="all-our-own-work"),
        profile="none",
        data_dir=tmp_path / "suspect",
    )
    run = ("audit", "run", owner / "case", "--beacon", "named by the arbiter")
    found = _tollkeeper(
        *run,
        *("--suspect", suspect.url, "-o", owner / "evidence"),
        TOLLKEEPER_SUSPECT_KEY=suspect.key,
    )
    assert found["verdict"] == "derived"
    assert found["corrected_p"] <= 0.001
    independent = _tollkeeper(
        *run, "--suspect", f"onnx:{owner / 'reference0.onnx'}", "-o", owner / "other"
    )
    assert independent["verdict"] == "inconclusive"

    elsewhere = tmp_path / "arbiter" / "evidence"
    elsewhere.parent.mkdir()
    (owner / "evidence").rename(elsewhere)
    held = _tollkeeper("audit", "verify", elsewhere, "--key", fixed["key"])
    assert (held["holds"], held["verdict"]) == (True, "derived")
    assert suspect.key.encode() not in b"".join(
        path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()
    )
    _tollkeeper("audit", "report", elsewhere)
    words = _read_pdf(elsewhere.with_name("evidence.pdf"))
    for expected in ("Derived: at the committed error rate", "all-our-own-work", suspect.url):
        assert expected in words
    assert "all-our-own-work" in elsewhere.with_name("evidence.html").read_text()

    answer = sorted((elsewhere / "calls").glob("*.response"))[3]
    answer.write_bytes(answer.read_bytes().replace(b"A", b"B", 1))
    broken = _tollkeeper("audit", "verify", elsewhere, expect=1)
    assert broken == {"holds": False, "reason": f"calls/{answer.name} was changed"}
