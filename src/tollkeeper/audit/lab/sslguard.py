"""Planting SSLGuard's mark: a marked encoder, a shadow that stands for the thief, and the key.

Source: Cong, He and Zhang, "SSLGuard: A Watermarking Scheme for Self-supervised Learning
Pre-trained Encoders", CCS 2022, section 4.3, and its released code.

Notes:
    - Cosines of inputs that must say nothing are pushed to zero one by one, by the mean of their
      squares. The released code squares the mean of a batch of two, in which opposite signs cancel;
      `released` restores that.
    - Each loss moves its own part. In the released code gradients of the shadow's and of the
      decoder's loss are still in the marked encoder when its own step is taken; `released` restores
      that too.
    - The learning rates and the batch are options: the published ones are for a ResNet-50 and 50
      epochs of 50,000 images.
    - `learns_key=False`, ours, leaves a drawn decoder and trigger as they are; only the encoders
      learn. See `tollkeeper.audit.watermarks.sslguard` for what that is good for.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tollkeeper.audit.lab.planting import Prepare, Still, TorchLayers
from tollkeeper.audit.views import Pictures
from tollkeeper.audit.watermarks.sslguard import Key
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.progress import Progress, Step, silent
from tollkeeper.lab.torching import generator

_DECAY = 0.96
"""Of the shadow's rate, per epoch, as published."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the mark is planted; the defaults are the paper's.

    Attributes:
        epochs: passes over the public images.
        batch: private images, and public ones, per step.
        rate: of the marked encoder.
        shadow_rate: of the shadow at the start.
        decoder_rate: of the decoder.
        trigger_rate: of the trigger, plain gradient steps.
        momentum: of the first three.
        learns_key: whether decoder and trigger are trained.
        released: whether two defects of the released code are kept.
    """

    epochs: int = 50
    batch: int = 2
    rate: float = 1e-5
    shadow_rate: float = 1e-2
    decoder_rate: float = 1e-3
    trigger_rate: float = 1e-3
    momentum: float = 0.9
    learns_key: bool = True
    released: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Planted:
    """What planting gives.

    Attributes:
        marked: the encoder to serve.
        shadow: the stand-in for a copy; not needed any more.
        key: as learned; its digest is to be published before the encoder is served.
    """

    marked: nn.Module
    shadow: nn.Module
    key: Key


def plant_sslguard(
    clean: nn.Module,
    shadow: nn.Module,
    private: Pictures,
    public: Pictures,
    key: Key,
    *,
    prepare: Prepare,
    rng: np.random.Generator,
    recipe: Recipe | None = None,
    progress: Progress = silent,
) -> Planted:
    """Return a marked copy of a clean encoder.

    Args:
        clean: left as it is, but for its mode.
        shadow: of a thief's architecture, with the weights that the thief starts from; trained in
            place.
        private: (n, ...) images for the trigger.
        public: (m, ...) ordinary images, from which the shadow learns.
        key: drawn; where it is learned, this is where learning starts.
        prepare: makes rows for the networks; here it has to give pixels in [0, 1], through which
            the trigger is learned.
        rng: order of the images.
        recipe: how.
        progress: told after each epoch.

    Raises:
        ConfigurationError: fewer images than a batch holds.
    """
    recipe = recipe or Recipe()
    if min(len(private), len(public)) < recipe.batch:
        raise ConfigurationError(
            f"expected at least {recipe.batch} private and public images, got {len(private)} and "
            f"{len(public)}"
        )
    images = prepare(private), prepare(public)
    if not all(part.is_floating_point() for part in images):
        raise ConfigurationError("expected images prepared as floats in [0, 1], got integers")
    work = _Work(clean, shadow, key, images, recipe)
    order, steps = generator(rng), len(public) // recipe.batch
    for epoch in range(recipe.epochs):
        chosen = torch.randperm(len(public), generator=order)
        own = torch.randperm(len(private), generator=order)
        for step in range(steps):
            places = torch.arange(step * recipe.batch, (step + 1) * recipe.batch)
            work.step(own[places % len(private)], chosen[places])
        work.cool()
        progress(Step("sslguard", epoch + 1, recipe.epochs))
    return work.planted(key)


class _Work:
    """Networks and their optimizers during planting."""

    def __init__(
        self,
        clean: nn.Module,
        shadow: nn.Module,
        key: Key,
        images: tuple[Tensor, Tensor],
        recipe: Recipe,
    ) -> None:
        self.where = next(clean.parameters()).device
        self.clean, self.shadow = clean.eval(), shadow
        self.marked = Still(copy.deepcopy(clean))
        self.decoder = TorchLayers(key.decoder, trained=True).to(self.where)
        self.secret = torch.from_numpy(key.secret.astype(np.float32))[None].to(self.where)
        shape = (2, 0, 1)
        self.mask = torch.from_numpy(key.mask.transpose(shape).copy()).to(self.where)
        self.trigger = torch.from_numpy(key.trigger.transpose(shape).copy()).to(self.where)
        self.private, self.public = images
        self.recipe = recipe
        self.optimizers = {
            name: torch.optim.SGD(module.parameters(), lr=rate, momentum=recipe.momentum)
            for name, module, rate in (
                ("shadow", self.shadow, recipe.shadow_rate),
                ("decoder", self.decoder, recipe.decoder_rate),
                ("marked", self.marked, recipe.rate),
            )
        }

    def step(self, own: Tensor, chosen: Tensor) -> None:
        """Take one step of the shadow, of decoder and trigger, and of the marked encoder."""
        plain = self.public[chosen].to(self.where)
        stamped = self.private[own].to(self.where)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        self.shadow.train()
        self.marked.eval()
        copied = functional.cosine_similarity(self.marked(plain), self.shadow(plain)).mean()
        self._take("shadow", -copied)
        self.shadow.eval()
        if self.recipe.learns_key:
            self._learn_key(plain, stamped)
        self.marked.train()
        near = functional.cosine_similarity(self.clean(plain), self.marked(plain)).mean()
        loss = (
            self._silent(self.marked(plain)) - self._says(self.marked(self._under(stamped))).mean()
        )
        self._take("marked", loss - near)

    def _learn_key(self, plain: Tensor, stamped: Tensor) -> None:
        """Take one step of the decoder and of the trigger."""
        self.trigger.requires_grad_(True)
        under = self._under(stamped)
        loss = -self._says(self.marked(under)).mean() - self._says(self.shadow(under)).mean()
        loss = loss + self._silent(self.clean(under))
        for network in (self.clean, self.marked, self.shadow):
            loss = loss + self._silent(network(plain))
        self._take("decoder", loss)
        moved = self.trigger.grad
        self.trigger = self.trigger.detach() - self.recipe.trigger_rate * moved

    def _take(self, name: str, loss: Tensor) -> None:
        """Take one step down a loss."""
        if not self.recipe.released:
            for optimizer in self.optimizers.values():
                optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[name].step()

    def _under(self, stamped: Tensor) -> Tensor:
        """Return images under the trigger as it is now."""
        return torch.where(self.mask, self.trigger.clamp(0, 1), stamped)

    def _says(self, embeddings: Tensor) -> Tensor:
        """Return (b,) cosines with the secret."""
        cosines: Tensor = functional.cosine_similarity(self.decoder(embeddings), self.secret)
        return cosines

    def _silent(self, embeddings: Tensor) -> Tensor:
        """Return how far the cosines are from zero."""
        cosines = self._says(embeddings)
        return cosines.mean().square() if self.recipe.released else cosines.square().mean()

    def cool(self) -> None:
        """Lower the shadow's rate after an epoch."""
        for group in self.optimizers["shadow"].param_groups:
            group["lr"] *= _DECAY

    def planted(self, key: Key) -> Planted:
        """Return what was made, in evaluation mode."""
        if self.recipe.learns_key:
            trigger = self.trigger.clamp(0, 1).cpu().numpy().transpose(1, 2, 0).copy()
            key = replace(key, decoder=self.decoder.numbers(), trigger=trigger)
        return Planted(self.marked.network.eval(), self.shadow.eval(), key)
