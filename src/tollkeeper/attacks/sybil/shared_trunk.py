"""One trunk for all accounts, one linear head for each: no shared input, no map.

A linear per-account transform is absorbed by that account's head, so the trunk sees the answers
of all accounts in one space: it defeats any linear per-tenant transform without overlapping
queries. Not published.

The surrogate is the trunk; the heads are thrown away. A head has learned from its own account's
share only, and puts that account's distortion back. The objective is squared error, because
InfoNCE has only the few rows of one account in a batch to contrast.
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
from tollkeeper.attacks.objectives.base import Objective
from tollkeeper.attacks.objectives.mse import MSE
from tollkeeper.attacks.selection.base import no_answers
from tollkeeper.attacks.trained import Loss, Recovering
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import ConfigurationError, TollkeeperError
from tollkeeper.lab.fit import run_network
from tollkeeper.lab.progress import Progress
from tollkeeper.lab.torching import device, seeded_init
from tollkeeper.types import Batch, Embeddings


@dataclass(frozen=True, kw_only=True)
class SharedTrunk(Recovering):
    """Spread the pool over the accounts without overlap and train one network on all answers.

    Attributes:
        width: of the trunk's output, which is the surrogate's.
        objective: of head outputs and answers, each account's centered and scaled to RMS 1.
    """

    paper: ClassVar[str] = "ours"
    width: int = 512
    objective: Objective = field(default_factory=MSE)

    @property
    def least_accounts(self) -> int:
        """Identities without which the method makes no sense."""
        return 2

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
        targets = [_scaled(share.embeddings) for share in shares]
        return self.trained(
            trunk,
            self._loss(trunk, heads, torch.cat(inputs), targets),
            beside=[heads],
            count=sum(len(share.index) for share in shares),
            dim=self.width,
            rng=ordering,
            progress=progress,
        )

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

        What an account leaves unanswered is dealt to those that still answer.

        Raises:
            TollkeeperError: no account did.
        """
        goal = -(-len(chosen) // len(accounts))
        askers = [
            Asker(one, queries, recovery=self.recovery, rng=rng, progress=progress, goal=goal)
            for one in accounts
        ]
        refusal: TollkeeperError | None = None
        going, left = askers, chosen
        while going and len(left):
            rest = []
            for asker, index in zip(going, np.array_split(left, len(going)), strict=True):
                try:
                    asker.ask(index)
                except TollkeeperError as error:
                    refusal = error
                rest.append(asker.unanswered(index))
            going, left = [one for one in going if not one.stopped], np.concatenate(rest)
        shares = [one.answered() for one in askers if len(one.unanswered(chosen)) < len(chosen)]
        if not shares:
            raise refusal or ConfigurationError("expected at least one query per account")
        return [Answers(one.index, self.recovery.finish(one.embeddings)) for one in shares]

    def _loss(
        self, trunk: nn.Module, heads: nn.ModuleList, inputs: Tensor, targets: Sequence[Tensor]
    ) -> Loss:
        """Return the mean over accounts of the objective on the batch's rows of each."""
        owner = torch.cat([torch.full((len(rows),), i) for i, rows in enumerate(targets)])
        place = torch.cat([torch.arange(len(rows)) for rows in targets])

        def loss(index: Tensor) -> Tensor:
            features = run_network(trunk, inputs[index])
            losses = []
            for number, (head, rows) in enumerate(zip(heads, targets, strict=True)):
                mine = owner[index] == number
                if mine.any():
                    wanted = rows[place[index[mine]]]
                    losses.append(self.objective(head(features[mine]), wanted) * mine.sum())
            return torch.stack(losses).sum() / len(index)

        return loss


def _scaled(embeddings: Embeddings) -> Tensor:
    """Return one account's answers (m, d), centered and scaled to RMS 1."""
    raw = torch.from_numpy(embeddings).to(device())
    centered = raw - raw.mean(dim=0)
    return centered / centered.square().mean().sqrt().clamp(min=1e-12)
