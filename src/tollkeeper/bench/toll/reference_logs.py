"""Experiment `pow-logs`: the published figures, from the reference's own logs and our formulas.

The logs belong to the paper's repository, cleverhans-lab/model-extraction-iclr, folder `pow`, and
are not shipped here: copy that folder to where the experiment runs.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tollkeeper.bench.experiment import Context, Experiment, Measurement, Metric
from tollkeeper.challenge.difficulty import ExcessPrice, HonestFit
from tollkeeper.errors import DataError

DATASETS = ("mnist", "svhn", "cifar10")

_LOGS = _COSTS, _COPIES = "time_privacy_cost", "model_extraction_attack_accuracy"

_BATCH_QUERIES = 1000 / 16
"""The reference's rule counts 16 batches of 64 as 1,000 queries."""

_HONEST = "standard"
_FULL = "data_free"
"""Whose batches were whole, 350 a row: 22,400 queries."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a user's log.

    Attributes:
        seconds: since the beginning.
        accuracy: of the copy, percent.
        batches: since the row before.
        cost: since the beginning.
    """

    seconds: float
    accuracy: float
    batches: int
    cost: float


@dataclass(frozen=True, slots=True)
class Setting:
    """Where the logs are.

    Attributes:
        folder: the folder `pow` of the paper's repository.
    """

    folder: str = "pow"


def measure(setting: Setting, context: Context) -> Measurement:
    """Compute the published figures again.

    Raises:
        DataError: a log is missing or damaged.
    """
    del context
    folder = Path(setting.folder)
    metrics = recomputed(folder)
    logs = sorted(folder / f"{kind}_{name}.csv" for kind in _LOGS for name in DATASETS)
    return Measurement(
        metrics, data={log.name: sha256(log.read_bytes()).hexdigest() for log in logs}
    )


def recomputed(folder: Path) -> dict[str, Metric]:
    """Return queries, cost per query, the copy's accuracy and time ratios of every logged user.

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
            for _, cost, queries in _rows(folder / f"{_COSTS}_{dataset}.csv")
        ]
        price = ExcessPrice(HonestFit.fit(points), one_sided=False)
        for user, log in _users(folder / f"{_COPIES}_{dataset}.csv"):
            name = f"{dataset}.{user}"
            rows, batches = _ratios(log, price)
            asked = sum(row.batches for row in log) * (64 if user == _FULL else _BATCH_QUERIES)
            cost = log[-1].cost / asked
            metrics[f"logged_queries.{name}"] = Metric(asked, "inputs", "lower")
            copied = Metric(
                log[-1].accuracy / 100, "share", "higher" if user == _HONEST else "lower"
            )
            metrics[f"logged_accuracy.{name}"] = copied
            metrics[f"logged_cost_per_query.{name}"] = Metric(cost, "epsilon", "higher")
            metrics[f"logged_time_ratio.{name}"] = Metric(rows, "ratio", "higher")
            metrics[f"logged_time_ratio_batch.{name}"] = Metric(batches, "ratio", "higher")
    return metrics


def _ratios(log: list[Row], price: ExcessPrice) -> tuple[float, float]:
    """Return the ratios by row and by batch."""
    # The reference takes its second back where nothing was asked, and nowhere else.
    by_row, by_batch, queries, before = price(0, 0) - 1, 0.0, 0.0, 0.0
    for row in log[1:]:
        for batch in range(1, row.batches + 1):
            share = before + (row.cost - before) * batch / row.batches
            by_batch += price(queries + batch * _BATCH_QUERIES, share)
        queries, before = queries + row.batches * _BATCH_QUERIES, row.cost
        by_row += price(queries, row.cost)
    seconds = log[-1].seconds
    return 1 + by_row / seconds, 1 + by_batch / seconds


def _users(path: Path) -> Iterator[tuple[str, list[Row]]]:
    """Yield each user's rows; names lose their spaces."""
    logs: dict[str, list[Row]] = {}
    for seconds, user, accuracy, batches, cost in _rows(path):
        row = Row(float(seconds), float(accuracy), int(batches), float(cost))
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


EXPERIMENT = Experiment(
    id="pow-logs",
    title="published figures of proof of work by leakage, from the authors' logs",
    scales={"smoke": Setting(), "cpu": Setting()},
    measure=measure,
    promises=(
        "logged_queries.*",
        "logged_cost_per_query.*",
        "logged_accuracy.*",
        "logged_time_ratio.*",
        "logged_time_ratio_batch.*",
    ),
)
