"""What a copy costs a thief in accounts, by the best response that is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tollkeeper.bench.experiment import Metric
from tollkeeper.bench.figures.ways import ALONE, SEVERAL

ENOUGH = 0.9
"""Share of the undefended copy that a thief is content with."""

_ORDERS = ("random", "sharded")


def queries_wanted(
    metrics: Mapping[str, Metric], encoder: str, budgets: Sequence[int]
) -> int | None:
    """Return the smallest budget whose undefended copy is within 90% of the best budget's.

    None where nothing was stolen, so that no price can be put on it.
    """
    curve = {n: metrics.get(f"theft.{encoder}.none.open.n{n}") for n in budgets}
    known = {count: found.value for count, found in curve.items() if found is not None}
    most = max(known.values(), default=0.0)
    if most <= 0:
        return None
    return min(count for count, value in known.items() if value >= ENOUGH * most)


def accounts(metrics: Mapping[str, Metric], encoder: str, profile: str, queries: int) -> float:
    """Return the fewest accounts that are good for 90% of the undefended copy.

    One where a single account gets that far with the largest budget, by asking on regardless, by
    averaging repeats or in disguise; as many as ask on together, where that is enough; otherwise
    those that clean answers to `queries` inputs take, by the better order of asking. That these
    answers, which come in several transforms, make as good a copy as one account's is assumed
    in the thief's favor.
    """
    prices = [metrics[f"accounts_{one}.{encoder}.{profile}.n{queries}"].value for one in _ORDERS]
    for way, count in {**dict.fromkeys(ALONE, 1), **SEVERAL}.items():
        share = metrics.get(f"theft_share.{encoder}.{profile}.{way}")
        if share is not None and share.value >= ENOUGH:
            prices.append(float(count))
    return min(prices)


def prices(
    metrics: Mapping[str, Metric],
    encoders: Sequence[str],
    profiles: Sequence[str],
    budgets: Sequence[int],
) -> Iterator[tuple[str, Metric]]:
    """Yield how many queries a good copy of each encoder takes, and its price behind a guard."""
    for encoder in encoders:
        enough = queries_wanted(metrics, encoder, budgets)
        if enough is None:
            continue
        yield f"queries_wanted.{encoder}", Metric(float(enough), "inputs", "higher")
        for profile in profiles:
            price = accounts(metrics, encoder, profile, enough)
            yield f"price_accounts.{encoder}.{profile}", Metric(price, "accounts", "higher")
