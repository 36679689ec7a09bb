"""What an honest user and a crawler see, over HTTP, with real data and the real encoder."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from tollkeeper.data.text import load_text
from tollkeeper.encoders.load import load_encoder
from tollkeeper.gateway.calibrations import calibration_for
from tollkeeper.guard import profiles

SPEC = "builtin:text"
BATCH = 500

Rows = NDArray[np.float32]


def embed(served: Any, key: str, texts: Sequence[str]) -> Rows:
    """Embed texts through the server, 500 at a time: (n, d)."""
    parts = []
    with httpx2.Client(timeout=120) as http:
        for start in range(0, len(texts), BATCH):
            reply = http.post(
                f"{served.url}/embeddings",
                json={
                    "model": "tollkeeper-text",
                    "input": list(texts[start : start + BATCH]),
                    "encoding_format": "base64",
                },
                headers={"Authorization": f"Bearer {key}"},
            )
            assert reply.status_code == 200, reply.text
            parts += [
                np.frombuffer(base64.b64decode(row["embedding"]), "<f4")
                for row in reply.json()["data"]
            ]
    return np.array(parts)


def neighbors(queries: Rows, index: Rows) -> NDArray[np.intp]:
    """Return the ten nearest rows of `index` by cosine for each query: (n, 10)."""
    unit = index / np.linalg.norm(index, axis=1, keepdims=True)
    return np.argpartition(-(queries @ unit.T), 10, axis=1)[:, :10]


def recall10(found: NDArray[np.intp], wanted: NDArray[np.intp]) -> float:
    """Return the mean share of wanted neighbors that were found."""
    shared = [len(set(a) & set(b)) for a, b in zip(found, wanted, strict=True)]
    return float(np.mean(shared)) / 10


def probe(train: Rows, labels: Any, test: Rows, test_labels: Any) -> float:
    """Return the accuracy of a linear probe."""
    model = LogisticRegression(C=10.0, max_iter=200)
    return float(model.fit(train, labels).score(test, test_labels))


@pytest.fixture
def banking(data_dir: Path) -> Any:
    """Banking77, both splits."""
    environ = {"TOLLKEEPER_DATA": str(data_dir)}
    return load_text("banking77", "train", environ=environ), load_text(
        "banking77", "test", environ=environ
    )


@pytest.mark.slow
def test_honest_user_notices_nothing(serve: Any, banking: Any) -> None:
    """All 13,083 banking questions under `recommended`: same probe, same neighbors."""
    train, test = banking
    served = serve("--profile", "recommended")
    key = served.key("bank")
    got_train, got_test = (embed(served, key, part.inputs) for part in (train, test))
    encoder = load_encoder(SPEC)
    clean_train, clean_test = encoder.embed(train.inputs), encoder.embed(test.inputs)

    recall = recall10(neighbors(got_test, got_train), neighbors(clean_test, clean_train))
    with_guard = probe(got_train, train.labels, got_test, test.labels)
    without = probe(clean_train, train.labels, clean_test, test.labels)

    assert recall >= 0.99
    assert abs(with_guard - without) <= 0.005


def broad_pool(data_dir: Path) -> list[str]:
    """Distinct texts of five unrelated sources, shuffled."""
    environ = {"TOLLKEEPER_DATA": str(data_dir)}
    sources = [("ag_news", "train"), ("ag_news", "test"), ("sst2", "train"), ("mr", "all")]
    sources += [("wikitext2", "validation"), ("wikitext2", "test")]
    texts = {t for name, split in sources for t in load_text(name, split, environ=environ).inputs}
    return [str(text) for text in np.random.default_rng(0).permutation(sorted(texts))]


def shown(served: Any, *arguments: str) -> Any:
    """Return what the command line says about the server's data, while it runs."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tollkeeper", *arguments, "--json"),
            *("--data-dir", str(served.data_dir)),
        ],
        check=True,
        capture_output=True,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["b4b-2023", "recommended"])
def test_crawler_pays_as_the_curve_says(
    serve: Any, data_dir: Path, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Along a broad walk each answer's noise is the price of its coverage; others stay clean."""
    pool = broad_pool(data_dir)
    # To the end of the curve: at the ceiling the thief would be refused.
    monkeypatch.setenv("TOLLKEEPER_REFUSE_AT_CEILING", "false")
    served = serve("--profile", profile)
    thief, honest = served.key("thief"), served.key("honest")
    embed(served, thief, pool)

    chosen = profiles.get(profile)
    calibration = calibration_for(SPEC, 384, given=None, required=True)
    unit = calibration.feature_std if chosen.in_feature_std else 1.0
    records = shown(served, "records", "list", "--tenant", "thief", "--limit", "1000")
    assert len(records) == -(-len(pool) // BATCH)
    coverage = np.array([record["coverage"] for record in records])
    scales = np.array([record["noise_scale"] for record in records])
    np.testing.assert_allclose(scales, chosen.price(coverage) * unit, rtol=1e-6)
    assert coverage.max() > 0.95

    # As many as are free for a newcomer.
    clean = load_encoder(SPEC).embed(pool[:430])
    theirs, mine = embed(served, thief, pool[:430]), embed(served, honest, pool[:430])
    wanted = neighbors(clean[:100], clean[100:])
    assert recall10(neighbors(theirs[:100], theirs[100:]), wanted) < 0.1
    assert affine_residual(clean, mine) < 1e-3 * float(np.std(mine))
    if profile == "recommended":
        assert recall10(neighbors(mine[:100], mine[100:]), wanted) >= 0.99
    else:
        # Noise of scale s through a matrix of entries uniform on (-1, 1).
        expected = float(chosen.price(coverage.max(keepdims=True))[0]) * np.sqrt(384 / 3)
        assert affine_residual(clean, theirs) == pytest.approx(expected, rel=0.05)


@pytest.mark.slow
def test_the_openai_client_meets_the_ceiling(serve: Any, data_dir: Path) -> None:
    """A crawler gets no more than some thousand texts, hears of its quota, and keeps what it has."""
    openai = pytest.importorskip("openai")
    pool = broad_pool(data_dir)
    served = serve("--profile", "recommended")
    with openai.OpenAI(base_url=served.url, api_key=served.key("thief"), max_retries=0) as client:
        answered, code = 0, None
        while code is None and answered < len(pool):
            part = pool[answered : answered + 100]
            try:
                client.embeddings.create(model="tollkeeper-text", input=part)
                answered += 100
            except openai.RateLimitError as refusal:
                code = refusal.code
        assert code == "insufficient_quota"
        assert 500 < answered < 5000
        known = client.embeddings.create(model="tollkeeper-text", input=pool[:100])
    assert len(known.data) == 100
    entry = shown(served, "tenants", "show", "thief")
    assert entry["queries"] == answered + 100


def affine_residual(clean: Rows, answers: Rows) -> float:
    """Return the noise std per coordinate that the best affine map of `clean` leaves."""
    design = np.hstack([clean, np.ones((len(clean), 1), np.float32)]).astype(np.float64)
    fitted = design @ np.linalg.lstsq(design, answers.astype(np.float64), rcond=None)[0]
    freedom = len(clean) - design.shape[1]
    return float(np.sqrt(np.square(answers - fitted).sum() / freedom / answers.shape[1]))
