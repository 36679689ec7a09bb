"""What attacks compare with what: their losses, computed by hand on a network that is a matrix.

These attacks need more images and steps than a test has before their copies are any good.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from tollkeeper.attacks.direct import Direct  # noqa: E402
from tollkeeper.attacks.head_recreation import HeadRecreation  # noqa: E402
from tollkeeper.attacks.objectives import InfoNCE, SupCon  # noqa: E402
from tollkeeper.attacks.objectives.symmetrized import Symmetrized  # noqa: E402
from tollkeeper.attacks.offline import Known  # noqa: E402
from tollkeeper.attacks.rda import RDA  # noqa: E402
from tollkeeper.attacks.stolen_encoder import StolenEncoder  # noqa: E402
from tollkeeper.attacks.two_views import TwoViews  # noqa: E402
from tollkeeper.attacks.viewed import Views  # noqa: E402
from tollkeeper.lab.fit import Schedule  # noqa: E402
from tollkeeper.lab.progress import Step, silent  # noqa: E402

IMAGES, VIEWS, DIM = 12, 3, 5
DRAWS = np.random.default_rng(0)
PLAIN = torch.from_numpy(DRAWS.integers(0, 256, (IMAGES, 3, 2, 2)).astype(np.uint8))
PIXELS = torch.from_numpy(DRAWS.integers(0, 256, (VIEWS, IMAGES, 3, 2, 2)).astype(np.uint8))
ANSWERS = torch.from_numpy(DRAWS.normal(size=(VIEWS, IMAGES, DIM)).astype(np.float32))
MATRIX = torch.from_numpy(DRAWS.normal(size=(DIM, 12)).astype(np.float32))
BATCH = torch.tensor([7, 2, 11, 4])


class FakeNetwork(nn.Module):
    """Multiplies pixels by a matrix, without the operator that torch would do in half precision."""

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images
        return (pixels.flatten(1)[:, None] * MATRIX).sum(dim=2)


class Recorder:
    """An objective that remembers what it compared, and says 1, 2, 3 and so on."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor]] = []

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        self.calls.append((z.detach(), h.detach()))
        return z.sum() * 0 + len(self.calls)


def known() -> Known:
    """Return images with one answer each, asked in a mixed order."""
    return Known(np.random.default_rng(1).permutation(IMAGES), PLAIN, ANSWERS[0])


def views() -> Views:
    """Return images with an answer for each view; every image begins with its first view."""
    turns = torch.zeros(IMAGES, dtype=torch.int64)
    return Views(PLAIN, PIXELS, ANSWERS, torch.Generator().manual_seed(0), turns)


def loss_of(attack: Any, data: Any) -> tuple[Any, list[nn.Module]]:
    """Return an attack's loss on a network that is a matrix."""
    loss, modules = attack.loss(FakeNetwork(), data, rng=np.random.default_rng(0), progress=silent)
    return loss, modules


def number(scalar: Tensor) -> float:
    """Return a scalar without its gradient."""
    return float(scalar.detach())


def embedded(image: Tensor) -> Any:
    """Return what the network says of one uint8 image, in numpy."""
    return MATRIX.numpy() @ (image.numpy().astype(np.float64) / 255).ravel()


def unit(row: Any) -> Any:
    """Return a vector at length 1."""
    return row / np.linalg.norm(row)


def as_is(images: Tensor, generator: Any) -> Tensor:
    """Return the same images."""
    del generator
    return images


def inverted(images: Tensor, generator: Any) -> Tensor:
    """Return the negatives of images in [0, 1]."""
    del generator
    return 1 - images


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("strength", [0.0, 20.0])
def test_stolen_encoder_adds_augmented_copies(strength: float, copies: int) -> None:
    """L1 plus lambda L2: with copies that are the image it is 1 + lambda times L1."""
    away = [
        np.linalg.norm(unit(embedded(PLAIN[at])) - unit(ANSWERS[0, at].numpy()))
        for at in BATCH.tolist()
    ]
    loss, _ = loss_of(StolenEncoder(augment=as_is, strength=strength, copies=copies), known())
    assert number(loss(BATCH)) == pytest.approx((1 + strength) * np.mean(away), rel=1e-5)


def test_stolen_encoder_gives_augmented_copies_the_answer_to_the_image() -> None:
    """First the image, then each copy, is compared with what the victim said of the image."""
    seen = Recorder()
    loss, _ = loss_of(
        StolenEncoder(augment=inverted, strength=10, copies=2, objective=seen), known()
    )
    assert number(loss(BATCH)) == pytest.approx(1 + 10 * (2 + 3) / 2)
    for call, sign in zip(seen.calls, (1, -1, -1), strict=True):
        for row, at in enumerate(BATCH.tolist()):
            image = embedded(PLAIN[at])
            negative = MATRIX.numpy().sum(axis=1) - image
            assert call[0][row].numpy() == pytest.approx(image if sign > 0 else negative, abs=1e-4)
        assert torch.equal(call[1], ANSWERS[0, BATCH])


@pytest.mark.parametrize("copies", [1, 4])
def test_rda_compares_copies_with_the_mean_of_unit_answers(copies: int) -> None:
    """The prototype of an image is that of its own views, and copies are averaged over."""
    seen = Recorder()
    loss, _ = loss_of(RDA(train_augment=inverted, copies=copies, objective=seen), views())
    assert number(loss(BATCH)) == pytest.approx(np.mean(np.arange(copies) + 1))
    assert len(seen.calls) == copies
    for z, prototypes in seen.calls:
        for row, at in enumerate(BATCH.tolist()):
            total = np.zeros(DIM)
            for view in range(VIEWS):
                total += unit(ANSWERS[view, at].numpy())
            assert prototypes[row].numpy() == pytest.approx(total / VIEWS, abs=1e-6)
            negative = MATRIX.numpy().sum(axis=1) - embedded(PLAIN[at])
            assert z[row].numpy() == pytest.approx(negative, abs=1e-4)


def test_two_views_are_two_views_of_the_same_images() -> None:
    """Rows are first views, then second ones, and each has the answer to exactly that view."""
    seen = Recorder()
    loss, modules = loss_of(TwoViews(make_objective=lambda _: seen), views())
    pairs = set()
    for _ in range(30):
        loss(BATCH)
        z, h = seen.calls[-1]
        assert len(z) == len(h) == 2 * len(BATCH)
        pair = tuple(
            next(view for view in range(VIEWS) if torch.equal(part, ANSWERS[view, BATCH]))
            for part in h.chunk(2)
        )
        for half, view in zip(z.chunk(2), pair, strict=True):
            for row, at in enumerate(BATCH.tolist()):
                assert half[row].numpy() == pytest.approx(embedded(PIXELS[view, at]), abs=1e-4)
        pairs.add(pair)
    assert pairs == {(a, b) for a in range(VIEWS) for b in range(VIEWS) if a != b}
    assert modules == []


def test_an_objective_with_weights_is_trained_beside_the_network() -> None:
    """The symmetrized loss has the victim's width and goes into the optimizer."""
    _, modules = loss_of(TwoViews(make_objective=Symmetrized), views())
    assert [type(module) for module in modules] == [Symmetrized]
    assert next(modules[0].parameters()).shape[1] == DIM


def test_head_recreation_trains_its_head_then_matches_through_it() -> None:
    """Two views of an image come together after the head, and the head is on both sides."""
    steps: list[Step] = []
    first = ANSWERS[0]
    data = replace(views(), targets=torch.stack([first, -first, first + 1]))
    objective = InfoNCE(temperature=0.1)

    def trained(epochs: int) -> tuple[Any, nn.Module]:
        schedule = Schedule(epochs=epochs, batch=IMAGES, rate=1e-2)
        attack = HeadRecreation(projection=4, head_schedule=schedule, objective=objective)
        loss, (head,) = attack.loss(
            FakeNetwork(), data, rng=np.random.default_rng(0), progress=steps.append
        )
        return loss, head

    def contrast(head: nn.Module) -> float:
        return number(objective(head(first), head(-first)))

    loss, head = trained(200)
    assert {step.phase for step in steps} == {"training the head"}
    assert contrast(head) < 0.5 * contrast(trained(0)[1])
    for view in range(VIEWS):  # views come in turn
        rows = torch.from_numpy(
            np.stack([embedded(PIXELS[view, at]) for at in BATCH.tolist()]).astype(np.float32)
        )
        wanted = number(objective(head(rows), head(data.targets[view, BATCH])))
        assert number(loss(BATCH)) == pytest.approx(wanted, rel=1e-4)


def test_classes_are_those_of_the_inputs_that_were_asked() -> None:
    """Labels are of the pool, and rows are in asking order."""
    data = known()
    labels = np.arange(IMAGES) // 2
    loss, _ = loss_of(Direct(objective=SupCon(), labels=labels), data)
    rows = torch.from_numpy(
        np.stack([embedded(PLAIN[at]) for at in range(IMAGES)]).astype(np.float32)
    )
    asked = torch.tensor([labels[at] for at in data.index.tolist()])
    whole = torch.arange(IMAGES)
    assert number(loss(whole)) == pytest.approx(float(SupCon()(rows, ANSWERS[0], asked)), rel=1e-5)
    assert number(loss(whole)) != pytest.approx(
        float(SupCon()(rows, ANSWERS[0], torch.from_numpy(labels))), rel=1e-2
    )
