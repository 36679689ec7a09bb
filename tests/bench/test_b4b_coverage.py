"""The b4b-coverage experiment: its hashes, its orders, and that it is what a live guard sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tollkeeper.bench.experiment import Context
from tollkeeper.bench.guard_coverage import Samples
from tollkeeper.bench.runner import run_experiment
from tollkeeper.bench.theft import b4b_coverage
from tollkeeper.bench.theft.b4b_coverage import (
    EXPERIMENT,
    HASHES,
    Account,
    Loaded,
    Setting,
    Source,
    World,
    class_sorted,
    follow,
    guards_of,
    measure,
    noise_in_std,
    uniform,
    whitening,
)
from tollkeeper.bench.theft.guarded import GuardedVictim
from tollkeeper.errors import ConfigurationError
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.testing.clock import FakeClock
from tollkeeper.types import Batch, Embeddings

DIM = 16


def rows(n: int, seed: int = 0) -> Embeddings:
    """Return (n, DIM) embeddings as after a ReLU: positive, skewed, a few strong directions."""
    rng = np.random.default_rng(seed)
    strengths = 1 / np.arange(1, DIM + 1)
    mixing = np.random.default_rng(99).standard_normal((DIM, DIM))
    found = 1 + (rng.standard_normal((n, DIM)) * strengths) @ mixing
    return np.maximum(found, 0).astype(np.float32)


class FakeEncoder:
    """Embeds number k as row k of `rows`."""

    name = "fake"
    dim = DIM
    accepts = frozenset({"text"})
    rows_independent = True

    def __init__(self) -> None:
        self._rows = rows(2000, 5)

    def embed(self, inputs: Batch) -> Embeddings:
        """Look the rows up."""
        return self._rows[[int(item) for item in inputs]]


class FakeSoundEncoder(FakeEncoder):
    """Says that it knows sounds only."""

    accepts = frozenset({"sound"})


def context(steps: list[tuple[int, int, str]] | None = None) -> Context:
    """Return a context that notes progress."""
    noted = [] if steps is None else steps
    return Context(3, FakeClock(step=1.0), lambda *step: noted.append(step))


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    """Return the calibration of 500 rows."""
    return Calibration.fit(rows(500, 1), rng=np.random.default_rng(0), keep=500)


def test_whitened_samples_have_the_identity_as_covariance() -> None:
    """Every direction has variance 1, and no two are correlated."""
    sample = rows(300)
    white = sample.astype(np.float64) @ whitening(sample)
    np.testing.assert_allclose(np.cov(white, rowvar=False), np.eye(DIM), atol=1e-4)


def test_a_sample_that_cannot_be_whitened_is_refused() -> None:
    """As many rows as columns leave a direction unknown."""
    with pytest.raises(ConfigurationError, match=r"more than 16 calibration embeddings.* got 16"):
        whitening(rows(DIM))


def test_coverage_rises_with_queries_and_from_hash_to_hash(calibration: Calibration) -> None:
    """More queries cover more, and centering, then whitening, spreads the same queries."""
    samples = Samples()
    account = Account("all", rows(1500), None, broad=True)
    guards = guards_of(calibration, 2, context())
    follow(guards, account, (100, 500), samples, encoder="fake", rng=np.random.default_rng(0))
    value = {name: metric.value for name, metric in samples.metrics().items()}
    for name in HASHES:
        curve = [value[f"coverage.fake.{name}.all.n{n}"] for n in (100, 500, 1500)]
        assert 0 < curve[0] < curve[1] < curve[2] <= uniform(1500) + 0.01
    last = [value[f"coverage.fake.{name}.all.n1500"] for name in ("raw", "centered", "whitened")]
    assert 1.2 * last[0] < last[1]
    assert 1.2 * last[1] < last[2]


def test_only_the_hash_differs_from_the_paper() -> None:
    """Raw is `b4b-2023` itself, and all three charge by its price."""
    paper = profiles.B4B_2023
    raw = HASHES["raw"]
    assert (raw.centered, raw.planes) == (paper.centered, paper.planes)
    for profile in HASHES.values():
        assert (profile.tables, profile.bits, profile.price) == (
            paper.tables,
            paper.bits,
            paper.price,
        )


def test_a_walk_is_what_the_live_service_charges(calibration: Calibration) -> None:
    """Coverage and noise equal those of an account of the service that asked the same."""
    samples = Samples()
    guards = {"raw": guards_of(calibration, 1, context())["raw"]}
    encoder = FakeEncoder()
    asked = encoder.embed(range(800))
    account = Account("all", asked, None, broad=True)
    follow(guards, account, (), samples, encoder="fake", rng=np.random.default_rng(0))
    with GuardedVictim(
        encoder,
        HASHES["raw"],
        calibration,
        secret=context().rng(100, 0).bytes(32),
        clock=FakeClock(step=1.0),
        rng=np.random.default_rng(0),
    ) as victim:
        victim.account("one").embed([str(number) for number in range(800)])
        metrics = samples.metrics()
        assert metrics["coverage.fake.raw.all.n800"].value == victim.coverage("one")
        assert metrics["noise.fake.raw.all.n800"].value == pytest.approx(victim.noise("one"))


def test_noise_is_stated_in_feature_std(calibration: Calibration) -> None:
    """At the target coverage the paper's scale of 1 is divided by the encoder's spread."""
    guard = guards_of(calibration, 1, context())["raw"][0]
    assert noise_in_std(guard, 0.8) == pytest.approx(1 / calibration.feature_std, rel=1e-5)


def test_sorted_traffic_exhausts_class_after_class() -> None:
    """Every input comes once, and a class that was left does not come back."""
    labels = np.random.default_rng(0).integers(0, 5, 60)
    order = class_sorted(labels, rng=np.random.default_rng(1))
    assert sorted(order.tolist()) == list(range(60))
    assert np.count_nonzero(np.diff(labels[order])) == 4
    assert not np.array_equal(labels[order], np.sort(labels))


def test_uniform_coverage_is_that_of_balls_in_bins() -> None:
    """The formula agrees with thrown balls."""
    rng = np.random.default_rng(0)
    thrown = [len(np.unique(rng.integers(0, 4096, 5000))) / 4096 for _ in range(40)]
    assert uniform(5000) == pytest.approx(np.mean(thrown), abs=0.003)


def _numbers(limit: int, rng: np.random.Generator, data: dict[str, str]) -> Loaded:
    """Return numbers of two classes; notes itself."""
    data["numbers/train"] = "0"
    return [str(number) for number in range(min(limit, 90))], np.repeat([0, 1], 45)


def test_every_account_gets_its_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole sources in both orders, parts and unlabeled ones in random order."""
    world = World(
        (
            Source("numbers", _numbers, parts={"ones": (1,)}),
            Source("bare", lambda *args: (_numbers(*args)[0], None), broad=True),
        ),
        lambda rng, data: [str(number) for number in range(200)],
    )
    monkeypatch.setattr(b4b_coverage, "_WORLDS", {"text": world})
    monkeypatch.setattr(b4b_coverage, "load_encoder", lambda spec: FakeEncoder())
    steps: list[tuple[int, int, str]] = []
    setting = Setting(encoders=("fake",), counts=(20, 80), secrets=2, limit=80, calibration=150)
    result = measure(setting, context(steps))

    assert steps == [
        (0, 2, "fake, calibration"),
        (0, 2, "fake, numbers"),
        (1, 2, "fake, bare"),
    ]
    ones = {name.split(".")[-1] for name in result.metrics if ".raw.ones." in name}
    assert len(ones) == 2  # after 20 and after all, a random share of 45
    expected = {
        f"{family}.fake.{hashing}.{name}.{suffix}"
        for hashing in HASHES
        for family, name, suffix in (
            ("coverage", "numbers", "n20"),
            ("coverage", "numbers", "n80"),
            ("coverage_sorted", "numbers", "n20"),
            ("noise", "numbers", "n80"),
            ("coverage", "bare", "n20"),
            ("coverage", "bare", "n80"),
            ("noise", "bare", "n80"),
        )
    }
    assert {name for name in result.metrics if ".ones." not in name} == expected
    assert result.metrics["coverage.fake.raw.numbers.n80"].direction == "lower"
    assert result.metrics["coverage.fake.raw.bare.n80"].direction == "higher"
    assert result.data == {"numbers/train": "0"}
    assert result.diagnostics["fake"]["dim"] == DIM


def test_encoders_of_other_inputs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder of neither images nor texts is named with what it accepts."""
    monkeypatch.setattr(b4b_coverage, "load_encoder", lambda spec: FakeSoundEncoder())
    with pytest.raises(ConfigurationError, match="image or text inputs, got 'fake' of sound"):
        measure(Setting(encoders=("fake",)), context())


def test_texts_are_walked(data_dir: Path) -> None:
    """On the real text encoder, centering changes little: its embeddings are centered already."""
    setting = Setting(("builtin:text",), counts=(100,), secrets=2, limit=400, calibration=500)
    found = measure(setting, context()).metrics
    raw, centered = (
        found[f"coverage.text.{name}.broad_text.n400"].value for name in ("raw", "centered")
    )
    assert raw == pytest.approx(centered, rel=0.05)
    assert found["coverage.text.raw.banking77.n400"].value < raw


@pytest.mark.slow
def test_smoke_run_keeps_its_promises(data_dir: Path) -> None:
    """Both encoders; raw image features cover less than centered ones from the start."""
    setting = EXPERIMENT.setting("smoke")
    result = run_experiment(EXPERIMENT, "smoke", setting, context())
    for name in ("cifar10", "gtsrb", "tiny_imagenet", "random_pixels"):
        raw, centered, whitened = (
            result.metrics[f"coverage.image.{hashing}.{name}.n300"].value for hashing in HASHES
        )
        assert raw < centered < whitened
    assert {"cifar10/train", "banking77/test", "wikitext2/test"} <= set(result.manifest["data"])
