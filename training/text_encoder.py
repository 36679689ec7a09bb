"""Train, export and measure the built-in text encoder.

    python training/text_encoder.py --data DIR --out DIR --epochs N --seed S --threads T

The table of word, pair and n-gram vectors starts from co-occurrence statistics (`text_start.py`);
table and head are then trained together so that two random views of one text find each other
among a batch of other texts (InfoNCE). In the last epochs the table is rounded to 4 bits in the
forward pass, so that the exported integers are what was trained. No label is read.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from tqdm import tqdm

from text_data import (
    Ids,
    Packed,
    Tokenizer,
    ViewSettings,
    Vocabulary,
    build_vocabulary,
    draw_view,
    pack,
    read_corpora,
    tokenized,
)
from text_start import StartSettings, Table, starting_table

LEVELS = 7  # 4-bit values run from -7 to 7
CLIP = 3.0  # largest representable value of a row, in its root mean squares
FINEST = 0.03  # finest step, in standard deviations of a column
COARSEST = 63  # coarsest step, in finest steps


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a training run except the data and the seed."""

    epochs: int = 6
    batch_size: int = 512
    words: int = 16_500
    pairs: int = 2_000
    buckets: int = 5_000
    leak: float = 0.2  # slope of the head below zero at the start
    dim: int = 384
    temperature: float = 0.08
    learning_rate: float = 5e-4
    table_rate: float = 0.5
    rounded: float = 0.25  # last share of the epochs in which the table is rounded
    start: StartSettings = field(default_factory=StartSettings)
    view: ViewSettings = field(default_factory=ViewSettings)

    @property
    def hidden(self) -> int:
        """Units of the hidden layer: both signs of each column."""
        return 2 * self.width

    @property
    def width(self) -> int:
        """Columns of the table."""
        return self.start.near + self.start.topics


@dataclass(frozen=True)
class Rounding:
    """The steps between two levels: row r and column c of the table step by row[r] * column[c].

    Attributes:
        column: (width,) finest step of each column.
        row: (rows, 1) whole numbers from 1 to `COARSEST`, so that sums of levels stay exact.
    """

    column: Tensor
    row: Tensor


def fit_rounding(table: Tensor) -> Rounding:
    """Fit the steps of a (rows, width) table so that a row's `CLIP` deviations are its last level."""
    deviation = table[table.abs().sum(1) > 0].std(0)
    size = (table / deviation).square().mean(1, keepdim=True).sqrt()
    row = torch.round(size * CLIP / LEVELS / FINEST).clamp(1, COARSEST)
    return Rounding(deviation * FINEST, row)


def levels(table: Tensor, step: Tensor) -> Tensor:
    """Return the nearest whole level of each value, from -7 to 7."""
    return torch.clamp(torch.round(table / step), -LEVELS, LEVELS)


class TextNetwork(nn.Module):
    """Sum of table rows, root-mean-square norm, one hidden ReLU layer, unit norm.

    Args:
        rows: Rows of the table.
        recipe: Widths.
    """

    def __init__(self, rows: int, recipe: Recipe) -> None:
        """Draw random weights from the current generator."""
        super().__init__()
        self.table = nn.Parameter(torch.randn(rows, recipe.width))
        self.inner = nn.Linear(recipe.width, recipe.hidden)
        self.outer = nn.Linear(recipe.hidden, recipe.dim)
        self._start_invertible(recipe)
        self.rounding: Rounding | None = None

    def _start_invertible(self, recipe: Recipe) -> None:
        """Start the head as a rotation, a leaky ReLU and an orthogonal projection."""
        rotation = nn.init.orthogonal_(torch.empty(recipe.width, recipe.width))
        projection = nn.init.orthogonal_(torch.empty(recipe.dim, recipe.width))
        with torch.no_grad():
            self.inner.weight.copy_(torch.cat([rotation, -rotation]))
            self.outer.weight.copy_(torch.cat([projection, -recipe.leak * projection], dim=1))
        nn.init.zeros_(self.inner.bias)
        nn.init.zeros_(self.outer.bias)

    def rounded(self, values: Tensor, rows: Tensor) -> Tensor:
        """Round these rows of the table once steps are fitted; gradients pass unchanged."""
        if self.rounding is None:
            return values
        step = self.rounding.row[rows] * self.rounding.column
        return values + (levels(values, step) * step - values).detach()

    def forward(self, table: Tensor, rows: Tensor, offsets: Tensor) -> Tensor:
        """Embed b bags of rows of `table`, given flat with their (b,) offsets, as (b, dim)."""
        pooled = F.embedding_bag(rows, table, offsets, mode="sum")
        pooled = pooled * torch.rsqrt(pooled.square().mean(1, keepdim=True) + 1e-6)
        return F.normalize(self.outer(F.relu(self.inner(pooled))), dim=1)


class RowAdam:
    """Adam on the rows of a table that a batch touches; the other rows and moments rest.

    Args:
        table: (rows, width) tensor that is updated in place.
        betas: Decay of the first and second moment.
    """

    def __init__(self, table: Tensor, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        """Start with empty moments."""
        self.table = table
        self.betas = betas
        self.first = torch.zeros_like(table)
        self.second = torch.zeros_like(table)
        self.steps = torch.zeros(len(table), 1, device=table.device)

    @torch.no_grad()
    def step(self, rows: Tensor, gradient: Tensor, rate: float) -> None:
        """Move the given distinct rows against their (r, width) gradient."""
        slow, fast = self.betas
        self.steps[rows] += 1
        count = self.steps[rows]
        first = self.first[rows].lerp_(gradient, 1 - slow)
        second = self.second[rows].mul_(fast).addcmul_(gradient, gradient, value=1 - fast)
        self.first[rows], self.second[rows] = first, second
        size = (second / (1 - fast**count)).sqrt_().add_(1e-8)
        self.table[rows] -= rate * (first / (1 - slow**count)) / size


def new_network(rows: int, recipe: Recipe, seed: int, table: Table | None) -> TextNetwork:
    """Build a network with its own seed, leaving the global generator as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = TextNetwork(rows, recipe)
    if table is not None:
        network.table.data.copy_(torch.from_numpy(table))
    return network


def batches(packed: Packed, size: int, rng: np.random.Generator) -> Iterator[Ids]:
    """Yield one epoch of batches; every other one holds a single corpus, for harder negatives."""
    total = int(packed.corpora[-1])
    mixed = rng.permutation(total)
    groups = [mixed[at : at + size] for at in range(0, total - size + 1, size)][::2]
    for low, high in zip(packed.corpora[:-1], packed.corpora[1:], strict=True):
        own = low + rng.permutation(high - low)
        groups += [own[at : at + size] for at in range(0, len(own) - size + 1, size)][::2]
    for at in rng.permutation(len(groups)):
        yield groups[at]


def contrast(left: Tensor, right: Tensor, temperature: float) -> Tensor:
    """Return the symmetric InfoNCE loss of (b, dim) unit vectors; row i belongs to row i."""
    logits = left @ right.T / temperature
    target = torch.arange(len(left), device=left.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def schedule(step: int, steps: int) -> float:
    """Return the learning rate factor: 50 steps of warm-up, then half a cosine."""
    return min(1.0, (step + 1) / 50) * (0.01 + 0.495 * (1 + math.cos(math.pi * step / steps)))


def train(
    network: TextNetwork, packed: Packed, recipe: Recipe, *, seed: int, device: str
) -> list[float]:
    """Train the network in place and return the mean loss of each epoch."""
    rng = np.random.default_rng(seed)
    network.to(device).train()
    table = network.table.requires_grad_(False)
    head = [value for value in network.parameters() if value.requires_grad]
    optimizer = torch.optim.Adam(head, lr=recipe.learning_rate)
    row_optimizer = RowAdam(table)
    steps = recipe.epochs * sum(1 for _ in batches(packed, recipe.batch_size, rng))
    losses = []
    step = 0
    progress = tqdm(total=steps, desc="train", unit="step", mininterval=5)
    for epoch in range(recipe.epochs):
        if network.rounding is None and epoch >= recipe.epochs * (1 - recipe.rounded):
            network.rounding = fit_rounding(table)
        epoch_losses = []
        for texts in batches(packed, recipe.batch_size, rng):
            factor = schedule(step, steps)
            optimizer.param_groups[0]["lr"] = recipe.learning_rate * factor
            optimizer.zero_grad()
            rows, used, loss = pair_loss(network, packed, texts, recipe, rng)
            loss.backward()
            optimizer.step()
            row_optimizer.step(rows, used.grad, recipe.learning_rate * recipe.table_rate * factor)
            epoch_losses.append(loss.item())
            step += 1
            progress.update()
        losses.append(float(np.mean(epoch_losses)))
        progress.set_postfix(epoch=epoch + 1, loss=f"{losses[-1]:.3f}")
    progress.close()
    if network.rounding is None:
        network.rounding = fit_rounding(table)
    return losses


def pair_loss(
    network: TextNetwork, packed: Packed, texts: Ids, recipe: Recipe, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw two views of each text; returns the table rows used, their copy and the loss."""
    device = network.table.device
    left, left_starts = draw_view(packed, texts, rng, recipe.view)
    right, right_starts = draw_view(packed, texts, rng, recipe.view)
    both = np.concatenate([left, right])
    starts = np.concatenate([left_starts, len(left) + right_starts])
    unique, places = np.unique(both, return_inverse=True)
    rows = torch.from_numpy(unique).to(device)
    used = network.table[rows].detach().requires_grad_()
    table = network.rounded(used, rows)
    found = network(table, torch.from_numpy(places).to(device), torch.from_numpy(starts).to(device))
    first, second = found.chunk(2)
    return rows, used, contrast(first, second, recipe.temperature)


@dataclass(frozen=True)
class Prepared:
    """Everything that exists before training."""

    corpora: dict[str, list[str]]
    vocabulary: Vocabulary
    packed: Packed


def prepare(data: Path, recipe: Recipe) -> Prepared:
    """Read the texts and build vocabulary and training arrays."""
    corpora = read_corpora(data)
    documents = tokenized(corpora)
    flat = [tokens for corpus in documents for tokens in corpus]
    vocabulary = build_vocabulary(
        flat, words=recipe.words, pairs=recipe.pairs, buckets=recipe.buckets
    )
    return Prepared(corpora, vocabulary, pack(documents, Tokenizer(vocabulary)))


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="torch device, for example cuda")
    parser.add_argument("--no-card", action="store_true", help="skip measuring and the card")
    return parser.parse_args()


def main() -> None:
    """Train, export, measure, write the card."""
    from text_card import write_card
    from text_export import export

    args = arguments()
    torch.set_num_threads(args.threads)
    started = time.perf_counter()
    recipe = Recipe(epochs=args.epochs, start=StartSettings(seed=args.seed))
    ready = prepare(args.data, recipe)
    table = starting_table(ready.packed, ready.vocabulary, recipe.start)
    print(f"table ready after {time.perf_counter() - started:.0f} s", file=sys.stderr)
    network = new_network(ready.vocabulary.rows, recipe, args.seed, table)
    losses = train(network, ready.packed, recipe, seed=args.seed, device=args.device)
    wall = time.perf_counter() - started
    args.out.mkdir(parents=True, exist_ok=True)
    export(network.cpu().eval(), ready.vocabulary, ready.corpora, args.out, seed=args.seed)
    if not args.no_card:
        run = {
            "command": "python training/text_encoder.py --data DIR --out DIR"
            f" --epochs {args.epochs} --seed {args.seed} --threads {args.threads}"
            f" --device {args.device}",
            "rows": ready.vocabulary.rows,
            "width": recipe.width,
            "hidden": recipe.hidden,
            "parameters": sum(value.numel() for value in network.parameters()),
            "epochs": args.epochs,
            "seed": args.seed,
            "threads": args.threads,
            "device": args.device,
            "wall_s": round(wall),
            "loss": [round(loss, 4) for loss in losses],
            "texts": {name: len(texts) for name, texts in ready.corpora.items()},
            "recipe": asdict(recipe),
        }
        write_card(args.data, args.out, run)


if __name__ == "__main__":
    main()
