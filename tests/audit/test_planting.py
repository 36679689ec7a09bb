"""Planting of both image marks in a small network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tollkeeper.audit.watermarks.decoys import KeyStream, decoy_p
from tollkeeper.audit.watermarks.rotation import HEADS, draw_angles, draw_heads, mark_accuracy
from tollkeeper.audit.watermarks.sslguard import draw_key, watermark_rate
from tollkeeper.audit.watermarks.turning import rotated
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.progress import Step

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from tollkeeper.audit.lab.planting import Still, TorchLayers  # noqa: E402
from tollkeeper.audit.lab.rotation import alternate, plant_rotation  # noqa: E402
from tollkeeper.audit.lab.sslguard import Recipe, plant_sslguard  # noqa: E402
from tollkeeper.lab.fit import Schedule  # noqa: E402
from tollkeeper.lab.torching import seeded_init  # noqa: E402

SEED = bytes(range(32))
SIDE, DIM = 8, 32
STREAM = KeyStream(SEED, HEADS)
SHORT = Schedule(epochs=12, batch=64, rate=2e-3)


def pictures(count: int, seed: int = 0) -> Any:
    """Return pictures (n, h, w, 3) that are brighter above than below."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(200, 60, SIDE)[:, None, None]
    return np.clip(ramp + rng.normal(0, 30, (count, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


def prepare(images: Any) -> Any:
    """Return (n, 3, h, w) in [0, 1]."""
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255


def network(seed: int = 0) -> Any:
    """Return an untrained encoder whose normalization has seen pictures."""
    with seeded_init(np.random.default_rng(seed)):
        made = nn.Sequential(
            nn.Flatten(),
            nn.Linear(3 * SIDE**2, 64),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Linear(64, DIM),
        )
    made(prepare(pictures(200, 50)))
    return made.eval()


def embed(made: Any, images: Any) -> Any:
    """Return (n, d) embeddings."""
    with torch.no_grad():
        return made(prepare(images)).numpy()


def shown(made: Any, keys: int = 1) -> list[float]:
    """Return the accuracy of keys' heads, the planted one first, on fresh pictures."""
    images = pictures(300, 7)
    angles = draw_angles(KeyStream(SEED, "angles").planted(), 300)
    first, second = (embed(made, rotated(images, degrees)) for degrees in angles)
    heads = (draw_heads(STREAM.draws(index), DIM) for index in range(keys))
    return [float(mark_accuracy(first, second, one).mean()) for one in heads]


def test_torch_layers_are_the_keys_layers() -> None:
    """The torch network computes what the numpy network does, and gives its numbers back."""
    (head,) = draw_heads(STREAM.planted(), DIM)
    rows = np.random.default_rng(0).standard_normal((5, DIM)).astype(np.float32)
    there = TorchLayers(head)
    with torch.no_grad():
        assert np.allclose(there(torch.from_numpy(rows)).numpy(), head(rows), atol=1e-5)
    assert (there.numbers().weights[1] == head.weights[1]).all()
    assert not any(part.requires_grad for part in there.parameters())
    assert all(part.requires_grad for part in TorchLayers(head, trained=True).parameters())


def test_fine_tuning_plants_a_mark_that_few_decoys_reach() -> None:
    """Heads of the key are right on fresh images, nearly all decoys less; the clean one is left."""
    clean, told = network(), list[Step]()
    before = {name: value.clone() for name, value in clean.state_dict().items()}
    drifts = []
    for keep, keep_turned in ((0.01, 0.0), (0.001, 0.0001)):
        marked = plant_rotation(
            clean,
            pictures(256),
            draw_heads(STREAM.planted(), DIM),
            prepare=prepare,
            rng=np.random.default_rng(1),
            keep=keep,
            keep_turned=keep_turned,
            schedule=replace(SHORT, rate=5e-3),
            progress=told.append,
        )
        upright = pictures(200, 9)
        drifts.append(np.square(embed(marked, upright) - embed(clean, upright)).mean())
    true, *decoys = shown(marked, 100)
    assert true > 0.7
    assert decoy_p(true, decoys) <= 0.05
    assert drifts[0] < drifts[1] / 2
    assert all((value == before[name]).all() for name, value in clean.state_dict().items())
    assert (marked[2].running_mean == clean[2].running_mean).all()
    assert told[-1] == Step("mark", 12, 12, loss=told[-1].loss)


def test_alternation_trains_both_in_turn() -> None:
    """Every other epoch is the owner's own, and the mark is there in the end."""
    made, calls = network(), []
    target = prepare(pictures(256)).mean(dim=(1, 2, 3))

    def training(index: Any) -> Any:
        calls.append(len(index))
        return (
            (made(prepare(pictures(256)[index.numpy()])).mean(dim=1) - target[index])
            .square()
            .mean()
        )

    alternate(
        made,
        pictures(256),
        draw_heads(STREAM.planted(), DIM),
        training=training,
        prepare=prepare,
        rng=np.random.default_rng(1),
        schedule=replace(SHORT, epochs=24),
    )
    assert calls == [64] * 4 * 12
    assert shown(made)[0] > 0.7


def test_planting_is_the_same_again() -> None:
    """The same generator gives the same marked encoder."""
    heads = draw_heads(STREAM.planted(), DIM)
    twice = [
        plant_rotation(
            network(),
            pictures(64),
            heads,
            prepare=prepare,
            rng=np.random.default_rng(3),
            schedule=replace(SHORT, epochs=1),
        )
        for _ in range(2)
    ]
    images = pictures(20, 2)
    assert (embed(twice[0], images) == embed(twice[1], images)).all()


def test_still_keeps_normalization_still() -> None:
    """In training mode the wrapped network's running statistics do not move."""
    made = network()
    before = made[2].running_mean.clone()
    Still(made).train()(prepare(pictures(64, 8)))
    assert (made[2].running_mean == before).all()


FAST = Recipe(epochs=6, batch=32, rate=5e-2, shadow_rate=5e-2, decoder_rate=5e-2, trigger_rate=1e-1)


@pytest.mark.parametrize("released", [False, True])
def test_a_learned_key_is_said_under_the_trigger_only(released: bool) -> None:
    """The marked encoder has rate 1 under the learned trigger, the clean one and plain images 0."""
    clean, key = network(), draw_key(SEED, DIM, (SIDE, SIDE, 3))
    found = plant_sslguard(
        clean,
        network(5),
        pictures(64),
        pictures(512, 3),
        key,
        prepare=prepare,
        rng=np.random.default_rng(1),
        recipe=replace(FAST, released=released),
    )
    assert found.key.digest != key.digest
    assert (found.key.secret == key.secret).all()
    stamped = found.key.stamp(pictures(64))
    assert watermark_rate(found.key.cosines(embed(found.marked, stamped))) == 1
    assert watermark_rate(found.key.cosines(embed(clean, stamped))) < 0.1
    assert watermark_rate(found.key.cosines(embed(found.marked, pictures(100, 6)))) < 0.1


def test_a_drawn_key_is_not_changed() -> None:
    """Without learning, the key that comes back is the drawn one; the marked encoder leans to it."""
    clean, key = network(), draw_key(SEED, DIM, (SIDE, SIDE, 3))
    found = plant_sslguard(
        clean,
        network(5),
        pictures(64),
        pictures(512, 3),
        key,
        prepare=prepare,
        rng=np.random.default_rng(1),
        recipe=replace(FAST, learns_key=False),
    )
    assert found.key.digest == key.digest
    stamped = key.stamp(pictures(64))
    now, before = (key.cosines(embed(one, stamped)).mean() for one in (found.marked, clean))
    assert now > before + 0.2


def test_unusable_images_are_refused() -> None:
    """Fewer images than a batch holds, and images prepared as integers, are refused."""
    key = draw_key(SEED, DIM, (SIDE, SIDE, 3))
    rest: dict[str, Any] = {"rng": np.random.default_rng(1), "recipe": FAST}
    with pytest.raises(ConfigurationError, match="at least 32"):
        plant_sslguard(
            network(), network(5), pictures(8), pictures(64), key, prepare=prepare, **rest
        )
    with pytest.raises(ConfigurationError, match="floats"):
        plant_sslguard(
            network(), network(5), pictures(64), pictures(64), key, prepare=torch.from_numpy, **rest
        )
