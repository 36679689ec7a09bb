"""The published table again, from the reference's own logs and our formulas.

The logs belong to the paper's repository, cleverhans-lab/model-extraction-iclr, folder `pow`,
and are not shipped here; point `reference_logs` at that folder of a clone.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from tollkeeper.bench.experiment import Metric
from tollkeeper.challenge.difficulty import ExcessPrice, HonestFit
from tollkeeper.errors import DataError

DATASETS = ("mnist", "svhn", "cifar10")

_BATCH_QUERIES = 1000 / 16
"""The reference's rule counts 16 batches of 64 as 1,000 queries."""

_FULL = "data_free"
"""Whose batches were whole, 350 a row: 22,400 queries."""


def recomputed(folder: Path) -> dict[str, Metric]:
    """Return cost per query and time ratios of every logged user.

    `logged_time_ratio` charges one puzzle a row of the log, as the reference's evaluation does;
    `logged_time_ratio_batch` one for each batch of 64, as its server does, with the cost of the
    batches of a row taken to be equal.

    Raises:
        DataError: a file is missing or not what was published.
    """
    metrics = {}
    for dataset in DATASETS:
        points = [
            (float(queries), float(cost))
            for _, cost, queries in _rows(folder / f"time_privacy_cost_{dataset}.csv")
        ]
        price = ExcessPrice(HonestFit.fit(points), one_sided=False)
        for user, log in _users(folder / f"model_extraction_attack_accuracy_{dataset}.csv"):
            name = f"{dataset}.{user}"
            rows, batches = _ratios(log, price)
            asked = sum(row[1] for row in log) * (64 if user == _FULL else _BATCH_QUERIES)
            cost = log[-1][2] / asked
            metrics[f"logged_cost_per_query.{name}"] = Metric(cost, "epsilon", "higher")
            metrics[f"logged_time_ratio.{name}"] = Metric(rows, "ratio", "higher")
            metrics[f"logged_time_ratio_batch.{name}"] = Metric(batches, "ratio", "higher")
    return metrics


_Log = list[tuple[float, int, float]]
"""Rows of cumulative seconds, batches since the row before, and cumulative cost."""


def _ratios(log: _Log, price: ExcessPrice) -> tuple[float, float]:
    """Return the ratios by row and by batch."""
    # The reference takes its second back where nothing was asked, and nowhere else.
    by_row, by_batch, queries, before = price(0, 0) - 1, 0.0, 0.0, 0.0
    for _, batches, cost in log[1:]:
        for batch in range(1, batches + 1):
            share = before + (cost - before) * batch / batches
            by_batch += price(queries + batch * _BATCH_QUERIES, share)
        queries, before = queries + batches * _BATCH_QUERIES, cost
        by_row += price(queries, cost)
    seconds = log[-1][0]
    return 1 + by_row / seconds, 1 + by_batch / seconds


def _users(path: Path) -> Iterator[tuple[str, _Log]]:
    """Yield each user's rows; names lose their spaces."""
    logs: dict[str, _Log] = {}
    for seconds, user, _accuracy, batches, cost in _rows(path):
        row = float(seconds), int(batches), float(cost)
        logs.setdefault(user.replace(" ", "_"), []).append(row)
    yield from logs.items()


def _rows(path: Path) -> Iterator[list[str]]:
    """Yield the rows of a file without its head.

    Raises:
        DataError: it cannot be read, or a row is short.
    """
    try:
        head, *rows = list(csv.reader(path.read_text().splitlines()))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected the reference's log, got {error}") from error
    for row in rows:
        if len(row) != len(head):
            raise DataError(f"{path}: expected {len(head)} columns, got {len(row)}")
        yield row
