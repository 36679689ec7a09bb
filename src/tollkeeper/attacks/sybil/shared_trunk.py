"""One trunk for all accounts, one linear head for each: no shared input, no map.

A linear per-account transform is absorbed by that account's head, so the trunk sees the answers
of all accounts in one space: it defeats any linear per-tenant transform without overlapping
queries. Not published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tollkeeper.attacks.asking import Answers, Asker, remaining, take
from tollkeeper.attacks.base import metered_accounts
from tollkeeper.attacks.fit import fit, run_network
from tollkeeper.attacks.objectives.base import Objective
from tollkeeper.attacks.objectives.mse import MSE
from tollkeeper.attacks.progress import Progress
from tollkeeper.attacks.selection.base import no_answers
from tollkeeper.attacks.surrogate import Surrogate
from tollkeeper.attacks.torching import device, seeded_init
from tollkeeper.attacks.trained import Loss, Recovering
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import ConfigurationError, TollkeeperError
from tollkeeper.types import Batch, Embeddings


@dataclass(frozen=True, kw_only=True)
class SharedTrunk(Recovering):
    """Spread the pool over the accounts without overlap and train one network on all answers.

    The surrogate answers in the space of the first account that answered.

    Attributes:
        width: of the trunk's output.
        objective: of head outputs and answers, each account's centred and scaled to RMS 1.
    """

    paper: ClassVar[str] = "ours"
    least_accounts: ClassVar[int] = 2
    width: int = 512
    objective: Objective = field(default_factory=MSE)

    def run(
        self, victim: Encoder, queries: Batch, *, rng: np.random.Generator, progress: Progress
    ) -> Encoder:
        """Ask every account for its share and train trunk and heads together."""
        choosing, asking, building, ordering = rng.spawn(4)
        accounts = metered_accounts(victim)
        count = min(len(queries), remaining(victim) // self.recovery.asks_per_input)
        chosen = self.selection.choose(queries, count, ask=no_answers, rng=choosing)
        shares = self._ask(accounts, queries, chosen, rng=asking, progress=progress)
        trunk = self.network.build(self.width, building)
        with seeded_init(building):
            heads = nn.ModuleList(
                nn.Linear(self.width, share.embeddings.shape[1]) for share in shares
            ).to(device())
        inputs = [trunk.prepare(take(queries, share.index)).to(device()) for share in shares]
        targets = [_Scaled.of(share.embeddings) for share in shares]
        loss = self._loss(trunk, heads, torch.cat(inputs), targets)
        total = sum(len(share.index) for share in shares)
        fit([trunk, heads], total, loss, schedule=self.schedule, rng=ordering, progress=progress)
        network = _FirstHead(trunk, heads[0], targets[0])
        return Surrogate(network, dim=shares[0].embeddings.shape[1])

    def _ask(
        self,
        accounts: Sequence[Encoder],
        queries: Batch,
        chosen: NDArray[np.intp],
        *,
        rng: np.random.Generator,
        progress: Progress,
    ) -> list[Answers]:
        """Return the answers of every account that gave any.

        Raises:
            TollkeeperError: no account did.
        """
        shares: list[Answers] = []
        refusal: TollkeeperError | None = None
        for account, index in zip(accounts, np.array_split(chosen, len(accounts)), strict=True):
            asker = Asker(
                account,
                queries,
                recovery=self.recovery,
                rng=rng,
                progress=progress,
                goal=len(index),
            )
            try:
                asker.ask(index)
            except TollkeeperError as error:
                refusal = error
                continue
            answers = asker.answered()
            shares.append(Answers(answers.index, self.recovery.finish(answers.embeddings)))
        if not shares:
            raise refusal or ConfigurationError("expected at least one query per account")
        return shares

    def _loss(
        self, trunk: nn.Module, heads: nn.ModuleList, inputs: Tensor, targets: Sequence[_Scaled]
    ) -> Loss:
        """Return the mean over accounts of the objective on the batch's rows of each."""
        owner = torch.cat([torch.full((len(one.rows),), i) for i, one in enumerate(targets)])
        place = torch.cat([torch.arange(len(one.rows)) for one in targets])

        def loss(index: Tensor) -> Tensor:
            features = run_network(trunk, inputs[index])
            losses = []
            for number, (head, one) in enumerate(zip(heads, targets, strict=True)):
                mine = owner[index] == number
                if mine.any():
                    rows = one.rows[place[index[mine]]]
                    losses.append(self.objective(head(features[mine]), rows) * mine.sum())
            return torch.stack(losses).sum() / len(index)

        return loss


@dataclass(frozen=True, slots=True, eq=False)
class _Scaled:
    """One account's answers, centred and scaled to RMS 1, and the way back.

    Attributes:
        rows: (m, d).
        mean: (d,).
        scale: one number.
    """

    rows: Tensor
    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, embeddings: Embeddings) -> _Scaled:
        raw = torch.from_numpy(embeddings).to(device())
        mean = raw.mean(dim=0)
        scale = (raw - mean).square().mean().sqrt().clamp(min=1e-12)
        return cls((raw - mean) / scale, mean, scale)


class _FirstHead(nn.Module):
    """Trunk and the first account's head, back in that account's units."""

    def __init__(self, trunk: nn.Module, head: nn.Module, units: _Scaled) -> None:
        super().__init__()
        self.accepts = trunk.accepts
        self.prepare = trunk.prepare
        self.trunk, self.head = trunk, head
        self.register_buffer("mean", units.mean)
        self.register_buffer("scale", units.scale)

    def forward(self, prepared: Tensor) -> Tensor:
        """Embed prepared inputs: (n, d)."""
        return self.head(self.trunk(prepared)) * self.scale + self.mean
