"""The theft experiments as data, and the timing of an epoch: order and arithmetic, never times."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tollkeeper.attacks import names  # noqa: E402 - torch may be missing
from tollkeeper.attacks.behind import Behind  # noqa: E402
from tollkeeper.attacks.names import of  # noqa: E402
from tollkeeper.attacks.objectives.infonce import InfoNCE  # noqa: E402
from tollkeeper.attacks.objectives.rda import RDALoss  # noqa: E402
from tollkeeper.bench.theft import (  # noqa: E402
    cont_steal_bench,
    epoch_time,
    rda_bench,
    ssl_losses,
    stolen_encoder_bench,
)
from tollkeeper.bench.theft.epoch_time import Timing, epoch_metrics, time_epochs  # noqa: E402
from tollkeeper.bench.theft.pools import Pool  # noqa: E402
from tollkeeper.bench.theft.scoring import Scores  # noqa: E402
from tollkeeper.bench.theft.stage import Stage  # noqa: E402
from tollkeeper.bench.theft.variants import Variant, lineup, ready  # noqa: E402
from tollkeeper.errors import ConfigurationError  # noqa: E402
from tollkeeper.testing.clock import FakeClock  # noqa: E402
from tollkeeper.testing.victims import ToyImageVictim, blobs  # noqa: E402

pytestmark = pytest.mark.torch

MODULES = (ssl_losses, stolen_encoder_bench, cont_steal_bench, rda_bench)
MAKES = (
    ssl_losses.objectives,
    stolen_encoder_bench.variants,
    cont_steal_bench.variants,
    rda_bench.variants,
)


def toy_stage(*, labels: bool = True) -> Stage:
    """Return a stage of a toy victim without tasks."""
    images = blobs(100, side=32)
    return Stage(
        spec="python:tollkeeper.testing.victims:ToyImageVictim",
        pool=Pool("toy", images, np.arange(100) % 4 if labels else None),
        answers=ToyImageVictim().embed(images),
        references=(),
        victim=Scores(),
    )


def test_ids_and_attacks_exist() -> None:
    """Ids are the permanent ones; every attack on an open victim with one account is named."""
    found = [module.EXPERIMENT for module in MODULES]
    assert [one.id for one in found] == ["ssl-losses", "stolen-encoder", "cont-steal", "rda"]
    covered = {name for one in found for name in one.attacks}
    guarded = {name for name in of("encoder") if isinstance(names.load(name), Behind)}
    sybils = {name for name in of("encoder") if name.startswith("sybil")}
    assert set(of("encoder")) - guarded - sybils == covered


@pytest.mark.parametrize("module", MODULES)
def test_every_scale_fits_its_pool(module: Any) -> None:
    """Budgets fit pools, the probes of cpu need three seeds for an interval, gpu publishes."""
    scales = module.EXPERIMENT.scales
    assert scales["cpu"].seeds >= 3
    assert scales["gpu"].examples == 0
    for trial in scales.values():
        assert trial.budget <= trial.pool_size


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
@pytest.mark.parametrize(("module", "make"), zip(MODULES, MAKES, strict=True))
def test_every_variant_can_be_made_ready(module: Any, make: Any, scale: str) -> None:
    """Names are distinct, and every attack takes the trial's network and schedule."""
    trial = module.EXPERIMENT.scales[scale]
    made = make(trial, toy_stage())
    names = [one.name for one in made]
    assert len(set(names)) == len(names)
    for one in made:
        if one.attack is not None:
            trained: Any = ready(one.attack, one, trial)
            batches = trial.budget // trained.asks_per_input // trained.schedule.batch
            assert batches >= 1, one.name
            assert trained.schedule.epochs >= 1


def test_every_objective_of_direct_extraction_runs() -> None:
    """All variants turn a tiny budget into a copy of the victim's width."""
    setting = ssl_losses.Setting(budget=24, examples=24, batch=8)
    stage = toy_stage()
    for one in lineup(setting, stage, ssl_losses.objectives).values():
        assert one.attack is not None
        theft = ready(one.attack, one, setting)(
            ToyImageVictim(),
            stage.pool.inputs,
            budget=24,
            rng=np.random.default_rng(0),
            clock=FakeClock(step=1.0),
        )
        assert theft.surrogate.embed(stage.pool.inputs[:2]).shape == (2, 16), one.name
        assert theft.queries_spent == (0 if one.name.startswith("floor") else 24), one.name


def test_published_constants_are_kept() -> None:
    """Temperatures, lambdas and numbers of views are those of the papers."""

    def attacks(made: list[Variant]) -> dict[str, Any]:
        return {one.name: one.attack for one in made}

    stage = toy_stage()
    direct = attacks(ssl_losses.objectives(ssl_losses.EXPERIMENT.scales["cpu"], stage))
    assert direct["infonce"].objective == InfoNCE(temperature=0.07)
    assert direct["softnn"].objective.temperature == 100
    cont = attacks(cont_steal_bench.variants(cont_steal_bench.EXPERIMENT.scales["cpu"], stage))
    assert cont["views10"].objective == InfoNCE(temperature=0.5)
    stolen = attacks(
        stolen_encoder_bench.variants(stolen_encoder_bench.EXPERIMENT.scales["cpu"], stage)
    )
    assert (stolen["lambda20"].strength, stolen["lambda20"].copies) == (20, 1)
    assert (stolen["lambda0"].strength, stolen["lambda0"].copies) == (0, 0)
    rda = attacks(rda_bench.variants(rda_bench.EXPERIMENT.scales["gpu"], stage))
    assert rda["views10"].objective == RDALoss(temperature=0.07)
    assert (rda["views10"].views, rda["views10"].copies) == (10, 5)


def test_contrast_by_class_needs_a_labeled_pool() -> None:
    """A pool without classes is refused before anything is trained."""
    with pytest.raises(ConfigurationError, match="labels"):
        ssl_losses.objectives(ssl_losses.Setting(), toy_stage(labels=False))


def test_schemes_take_turns_on_equal_terms() -> None:
    """All schemes train as often, each turn in the other order; the clock is the caller's."""
    steps: list[tuple[int, int, str]] = []
    found = time_epochs(
        Timing("convnet", images=16, batch=8, turns=3),
        clock=FakeClock(step=2.0),
        rng=np.random.default_rng(0),
        progress=lambda *step: steps.append(step),
    )
    assert steps == [(turn, 3, "timing epochs") for turn in range(3)]
    assert found["seconds"] == dict.fromkeys(("kept", "kept_float32", "reference"), [2.0] * 3)
    peak = found["peak_rss_mb"]
    assert peak is None or peak > 10


def test_epoch_metrics_are_medians_of_paired_ratios() -> None:
    """The goal is stated for the fast precision, and the same precision stands beside it."""
    found = epoch_metrics(
        {
            "seconds": {
                "kept": [1.0, 2.0, 9.0],
                "kept_float32": [2.0, 3.0, 6.0],
                "reference": [2.0, 4.0, 10.0],
            },
            "peak_rss_mb": 300.0,
        },
        rng=np.random.default_rng(0),
    )
    values = {name: metric.value for name, metric in found.items()}
    assert values == {
        "epoch_over_reference": 0.5,
        "epoch_over_reference.same_precision": 0.75,
        "peak_rss_mb": 300.0,
    }
    assert {metric.direction for metric in found.values()} == {"lower"}


def test_the_reference_asks_its_victim_and_ours_does_not() -> None:
    """Kept answers stay what they were; the reference's are the victim network's own."""
    schemes, surrogate = epoch_time._schemes(
        Timing("convnet", images=8, batch=8, turns=1), np.random.default_rng(0)
    )
    surrogate.eval()
    with torch.no_grad():
        loss = {name: float(scheme(torch.arange(8))) for name, scheme in schemes.items()}
        again = {name: float(scheme(torch.arange(8))) for name, scheme in schemes.items()}
    assert loss == again
    # The same answers in two precisions, then others.
    assert loss["kept"] == pytest.approx(loss["kept_float32"], rel=0.05)
    assert loss["reference"] != pytest.approx(loss["kept_float32"], rel=0.05)
