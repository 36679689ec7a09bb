"""How far a picture is from a classifier's borders, found with its gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tollkeeper.audit.classifiers.margins import NORMS, Margins, Side, check_classes, lengths
from tollkeeper.encoders.lab.torch_classifier import TorchClassifier
from tollkeeper.errors import AuditRefused

_TOGETHER = 256


@dataclass(frozen=True, slots=True)
class MinGD:
    """Steps towards every class until it is the one named; needs the suspect's weights.

    Source: Maini, Yaghini, Papernot, "Dataset Inference: Ownership Resolution in Machine
    Learning", ICLR 2021, section 4.2 and the code released with it.

    Notes:
        Each step goes down the largest logit minus the target's: by its sign for linf, along it
        for l2, and for l1 in the `pixels` values of largest slope that can still move. Distances
        are sorted for each picture, as in the released notebooks. Differences from that code: it
        takes a pixel of exactly 0 or 1 for one that cannot move either way in l1, here it may
        leave its bound; it asks every picture twice a step; of more than `targets` classes it
        takes the most confident but the first, as here, where the paper has the most confident.

    Attributes:
        linf: length of a step, and of the others; the paper's.
        l2: of a step.
        l1: of a step, shared by `pixels`.
        pixels: values that a step in l1 moves.
        targets: classes at most.
        steps: towards one class at most.
    """

    linf: float = 0.001
    l2: float = 0.01
    l1: float = 0.1
    pixels: int = 100
    targets: int = 10
    steps: int = 500

    def __post_init__(self) -> None:
        """Refuse steps that go nowhere.

        Raises:
            AuditRefused: a length that is not positive, or nothing to do.
        """
        least = min(self.pixels, self.targets, self.steps)
        if min(self.linf, self.l2, self.l1) <= 0 or least < 1:
            raise AuditRefused(
                "expected positive steps, at least 1 of them and 1 target, got "
                f"{self.linf}, {self.l2}, {self.l1}, {self.pixels}, {self.targets}, {self.steps}"
            )

    def measure(self, suspect: TorchClassifier, side: Side, *, rng: np.random.Generator) -> Margins:
        """Step from every picture towards every class.

        Args:
            suspect: a network of this process.
            side: n pictures; their labels are not used.
            rng: not used: nothing is drawn.

        Raises:
            AuditRefused: the suspect has fewer classes than the labels.
        """
        del rng
        check_classes(suspect, side)
        parts = [
            self._part(suspect, torch.from_numpy(side.images[start : start + _TOGETHER].copy()))
            for start in range(0, len(side), _TOGETHER)
        ]
        distances = np.concatenate([part[0] for part in parts])
        flipped = np.concatenate([part[1] for part in parts])
        order = np.argsort(distances, axis=1, kind="stable")
        return Margins(
            np.take_along_axis(distances, order, axis=1),
            np.take_along_axis(flipped, order, axis=1),
            sum(part[2] for part in parts),
        )

    def _part(self, suspect: TorchClassifier, images: Tensor) -> tuple[np.ndarray, np.ndarray, int]:
        """Return (n, t, 3) distances, whether their targets were reached, and the queries."""
        with torch.no_grad():
            order = suspect.network(_at(suspect, images)).argsort(dim=1, descending=True).cpu()
        few = suspect.dim <= self.targets
        goals = order.sort(dim=1)[0] if few else order[:, 1 : self.targets + 1]
        count = goals.shape[1]
        found = np.empty((len(images), count, len(NORMS)))
        reached = np.empty(found.shape, np.bool_)
        queries = len(images)
        for norm in range(len(NORMS)):
            many = images.repeat_interleave(count, dim=0)
            moved, done, asked = self._walk(suspect, many, goals.reshape(-1), norm)
            found[:, :, norm] = lengths((moved - many).numpy(), norm).reshape(-1, count)
            reached[:, :, norm] = done.numpy().reshape(-1, count)
            queries += asked
        return found, reached, queries

    def _walk(
        self, suspect: TorchClassifier, images: Tensor, goals: Tensor, norm: int
    ) -> tuple[Tensor, Tensor, int]:
        """Return (n, c, h, w) pictures moved to their goals, which arrived, and the queries."""
        moved, left, asked = images.clone(), torch.arange(len(images)), 0
        for _ in range(self.steps):
            here, goal = _at(suspect, moved[left]), _at(suspect, goals[left])
            slope, away = _slope(suspect, here, goal)
            asked += len(left)
            step = self._step(here, slope, norm)
            moved[left[away]] = (here + step).clamp(0, 1).cpu()[away]
            left = left[away]
            if len(left) == 0:
                break
        if len(left):
            _, away = _slope(suspect, _at(suspect, moved[left]), _at(suspect, goals[left]))
            asked, left = asked + len(left), left[away]
        done = torch.ones(len(images), dtype=torch.bool)
        done[left] = False
        return moved, done, asked

    def _step(self, here: Tensor, slope: Tensor, norm: int) -> Tensor:
        """Return the step of each picture, uphill along (n, c, h, w) slopes."""
        if norm == 0:
            return self.linf * slope.sign()
        flat = slope.flatten(1)
        if norm == 1:
            size = flat.norm(dim=1).clamp_min(1e-12)[:, None, None, None]
            return self.l2 * slope / size
        at = here.flatten(1)
        stuck = ((flat < 0) & (at <= 0)) | ((flat > 0) & (at >= 1))
        free = flat.masked_fill(stuck, 0)
        pixels = min(self.pixels, free.shape[1])
        most = free.abs().topk(pixels, dim=1).indices
        # By place and not by size, or equal slopes would make a longer step.
        chosen = torch.zeros_like(free).scatter(1, most, free.gather(1, most).sign())
        return (self.l1 / pixels * chosen).reshape(here.shape)


def _slope(suspect: TorchClassifier, here: Tensor, goals: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slope of the goal's logit less the largest one, and which are not there yet."""
    here = here.clone().requires_grad_()
    logits = suspect.network(here)
    away = logits.argmax(dim=1) != goals
    gained = logits.gather(1, goals[:, None])[:, 0] - logits.amax(dim=1)
    (slope,) = torch.autograd.grad(gained.sum(), here)
    return slope, away.cpu()


def _at(suspect: TorchClassifier, rows: Tensor) -> Tensor:
    """Return rows where the suspect's weights are."""
    return rows.to(next(suspect.network.parameters()).device)
