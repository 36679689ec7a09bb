"""Who holds which images in the ownership experiments; owners share none with anybody.

How to use it from another experiment::

    data: dict[str, str] = {}                                 # gets checksums, for the manifest
    scene = load_scene(SMALL, rng=context.rng(1), data=data)  # images (n, 16, 16, 3) uint8
    claim = scene.claims[0]                                   # .private (D_P) and .held (D_N)
    victim = train_simclr(claim.private.images, Recipe(), rng=rng)         # simclr.py
    thief = steal("mse", victim, scene.pool.images, budget=2000, rng=rng)  # thieves.py
    other = train_simclr(scene.world_block(3).images, Recipe(), rng=rng)   # an independent

Victims, thieves and independents are all `Encoder`s of such images.

The setting is that of the ownership method's small-scale reproduction: CIFAR-10, both official
splits pooled, without exact duplicates, shuffled, and averaged down to 16 by 16 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.bench.inputs import noted
from tollkeeper.data import load_images
from tollkeeper.errors import ConfigurationError

SIDE = 16
"""Pixels to which images are averaged down; 16 keeps an encoder's training at seconds."""

OTHERS = ("cifar100", "tiny_imagenet")
"""Other data that encoders are trained on and thieves ask."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Images of one holder.

    Attributes:
        images: (n, 16, 16, 3) uint8.
        labels: (n,) int64 classes.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> Block:
        """Return some of the images."""
        return Block(self.images[rows], self.labels[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """What one owner holds.

    Attributes:
        private: D_P, which the victim is trained on.
        held: D_N, of the same distribution, which the owner trains nothing on.
    """

    private: Block
    held: Block


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many images each part gets.

    Attributes:
        block: images that one encoder is trained on.
        claims: owners, each with two blocks of their own.
        references: blocks for the owner's reference encoders.
        public: images that nobody is trained on, for scales, alignments and similarities.
        probe_train: labeled images that downstream classifiers are trained on.
        probe_test: labeled images that they are tested on.
        pool: images of the world that thieves may ask.
        other: images of each other data set.
    """

    block: int = 1000
    claims: int = 2
    references: int = 8
    public: int = 2000
    probe_train: int = 2000
    probe_test: int = 1000
    pool: int = 8000
    other: int = 4000


SMALL = Sizes(
    block=200,
    claims=1,
    references=3,
    public=200,
    probe_train=200,
    probe_test=100,
    pool=500,
    other=200,
)
"""For tests: the victim trains in a second or two."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """The images of one experiment.

    Attributes:
        sizes: of the parts.
        claims: of the owners; disjoint from each other and all that follows.
        references: blocks that an owner trains reference encoders on; disjoint from everything.
        public: disjoint from everything.
        probe_train: labeled, disjoint from everything.
        probe_test: the same.
        world: what is left, of which independents are trained and thieves ask.
        others: name of another data set to images of it.
    """

    sizes: Sizes
    claims: tuple[Claim, ...]
    references: tuple[Block, ...]
    public: Block
    probe_train: Block
    probe_test: Block
    world: Block
    others: dict[str, Block]

    @property
    def pool(self) -> Block:
        """The images of the world that thieves ask, of the victim's distribution."""
        return self.world[slice(0, self.sizes.pool)]

    def world_block(self, number: int) -> Block:
        """Return the world's images of one independent; different numbers share none.

        Thieves may ask these images too: nobody's membership in D_P is touched by that.

        Raises:
            ConfigurationError: the world has fewer blocks.
        """
        size, most = self.sizes.block, len(self.world) // self.sizes.block
        if not 0 <= number < most:
            raise ConfigurationError(f"expected a block of the world below {most}, got {number}")
        return self.world[slice(number * size, (number + 1) * size)]


def load_scene(sizes: Sizes, *, rng: np.random.Generator, data: dict[str, str]) -> Scene:
    """Load CIFAR-10 and the other data and deal the images out.

    Args:
        sizes: of the parts.
        rng: shuffles; with the same state and sizes the scene is the same.
        data: gets the checksums.

    Raises:
        ConfigurationError: fewer images than are asked for.
        DataError: a data set is missing or damaged.
    """
    own = _Deal(_joined("cifar10", ("train", "test"), data), rng.spawn(1)[0])
    claims = tuple(Claim(own.take(sizes.block), own.take(sizes.block)) for _ in range(sizes.claims))
    references = tuple(own.take(sizes.block) for _ in range(sizes.references))
    public, train, test = (
        own.take(count) for count in (sizes.public, sizes.probe_train, sizes.probe_test)
    )
    world = own.rest()
    if len(world) < sizes.pool:
        raise ConfigurationError(
            f"expected {sizes.pool:,} images for thieves to ask, {len(world):,} are left; "
            "lower the sizes"
        )
    others = {
        name: _Deal(_joined(name, ("train",), data), rng.spawn(1)[0]).take(sizes.other)
        for name in OTHERS
    }
    return Scene(sizes, claims, references, public, train, test, world, others)


def small(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return square images (n, s, s, 3), s a multiple of 16, averaged down to 16 pixels."""
    n, side = images.shape[:2]
    k = side // SIDE
    sums = images.reshape(n, SIDE, k, SIDE, k, 3).sum(axis=(2, 4), dtype=np.uint32)
    found: NDArray[np.uint8] = ((sums + k * k // 2) // (k * k)).astype(np.uint8)
    return found


class _Deal:
    """A shuffled set of which parts are taken from the top."""

    def __init__(self, whole: Block, rng: np.random.Generator) -> None:
        order = rng.permutation(len(whole))
        self._whole, self._used = Block(whole.images[order], whole.labels[order]), 0

    def take(self, count: int) -> Block:
        """Return the next `count` images."""
        part = slice(self._used, self._used + count)
        self._used += count
        if self._used > len(self._whole):
            raise ConfigurationError(
                f"expected {self._used:,} images, got {len(self._whole):,}; lower the sizes"
            )
        return self._whole[part]

    def rest(self) -> Block:
        """Return what nobody has taken."""
        return self.take(len(self._whole) - self._used)


def _joined(name: str, splits: tuple[str, ...], data: dict[str, str]) -> Block:
    """Return all images of a set that are not bytewise another's copy, in their order."""
    parts = list(noted(load_images, data, name, *splits))
    images = small(np.concatenate([np.asarray(part.inputs) for part in parts]))
    labels = np.concatenate(
        [np.zeros(len(part), np.int64) if part.labels is None else part.labels for part in parts]
    )
    first: dict[bytes, int] = {}
    for number, image in enumerate(images):
        first.setdefault(image.tobytes(), number)
    kept = np.array(list(first.values()))
    return Block(images[kept], labels[kept])
