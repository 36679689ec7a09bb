"""What `tollkeeper calibrate` says of a sample and of the accounts beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tollkeeper.guard.calibration import Calibration
    from tollkeeper.guard.knee import Customer
    from tollkeeper.guard.profiles import Profile
    from tollkeeper.types import Embeddings

SHORT = 256
"""Different inputs below which an account has said little of where it will end: as many as
`recommended` has landmarks."""

_STEADY = 1000
"""Embeddings from which landmarks are steady from one sample to the next."""

_FEW = 32
"""Rows that were not kept, at least, to tell where the sample's edge is."""

_NEARLY = 0.9
_AT_MOST = 5000
"""Rows that are looked at; more would say the same."""

_EDGE = 0.1
_FOREIGN = 1 / 3
"""Share of an account's inputs beyond the sample's edge, where a tenth of its own are. In trials
with the built-in encoders tasks that a sample held stayed below a fifth. Beside a sample of one
narrow task foreign ones were above two thirds; a sample of photographs held most pictures."""


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """What can be seen of a sample by its rows that the calibration did not keep.

    Those it kept would tell nothing: each landmark is nearest to itself.

    Attributes:
        curve: (n,) price signal of an account that asks them; None if there are too few.
        free: how many it is answered before it pays; None if it never does or cannot be told.
        edge: cosine to the nearest kept row that a tenth of them stay below; None if there
            are too few.
    """

    curve: NDArray[np.float64] | None = None
    free: int | None = None
    edge: float | None = None


def different(rows: Embeddings) -> int:
    """Return how many of n rows are different."""
    return len({row.tobytes() for row in rows})


def look(
    sample: Embeddings, fitted: Calibration, profile: Profile, *, rng: np.random.Generator
) -> Sight:
    """Let an account ask what of the sample was not kept."""
    import numpy as np

    from tollkeeper.guard import knee
    from tollkeeper.guard.price import Geometric

    kept = {row.tobytes() for row in fitted.sample}
    others = sample[[row.tobytes() not in kept for row in sample]][:_AT_MOST]
    count = different(others)
    edge = float(np.quantile(_nearness(others, fitted), _EDGE)) if count >= _FEW else None
    if not profile.tables or count < SHORT:
        return Sight(edge=edge)
    (broad,) = knee.follow(profile, fitted, [("the sample", others)], rng=rng)
    free = None
    price = profile.with_knee(fitted.knee).price
    if isinstance(price, Geometric) and broad.end > price.knee:
        free = broad.free(price.knee)
    return Sight(broad.curve, free, edge)


def about_sample(fitted: Calibration, sight: Sight, *, accounts: int) -> list[str]:
    """Return what is to be said of a sample."""
    found = []
    if fitted.count < _STEADY:
        found.append(
            f"a sample of {fitted.count} different inputs is small: another one would give another "
            f"knee; {_STEADY:,} or more are steady"
        )
    if sight.free is not None and not accounts:
        found.append(
            f"an account as wide as this sample pays after {sight.free} inputs; if the sample "
            "holds what one kind of customer asks, that customer pays. Give real accounts with "
            "--traffic"
        )
    if fitted.probe is None:
        found.append(
            "made from embeddings alone: no server can tell whether its model is the one they "
            "came from"
        )
    return found


def about_knee(
    customers: Sequence[Customer], fitted: Calibration, profile: Profile, false_penalty: float
) -> list[str]:
    """Return what is to be said of a knee that accounts chose."""
    from tollkeeper.guard.price import Geometric

    found = []
    if customers and 0 < false_penalty * len(customers) < 1:
        found.append(
            f"to show a false-penalty rate of {false_penalty:g} takes "
            f"{math.ceil(1 / false_penalty)} accounts, got {len(customers)}; the knee is just "
            "above the widest of them"
        )
    price = profile.price
    if (fitted.knee or 1) < price.free_until:
        found.append(
            f"this knee is below the usual {price.free_until:g}: customers who are wider than "
            "those that were given will pay sooner than without --traffic"
        )
    if isinstance(price, Geometric) and (fitted.knee or 0) + price.levels * price.step > 1:
        found.append(
            f"a knee of {fitted.knee:.2f} leaves no room for the price levels above it: the guard "
            "will hardly slow anyone; leave the widest account out"
        )
    return found


def about_accounts(
    accounts: Sequence[tuple[str, Embeddings]],
    customers: Sequence[Customer],
    sight: Sight,
    fitted: Calibration,
) -> list[str]:
    """Return what is to be said of each account beside the sample."""
    found = []
    if accounts and sight.curve is None:
        found.append(
            "too little of the sample is left to tell whether an account is as wide as it; give "
            "more inputs"
        )
    for (name, rows), customer in zip(accounts, customers, strict=True):
        if (count := different(rows)) < SHORT:
            found.append(
                f"{name} has only {count} different inputs: where it will end is not known, but it "
                "counts in the false-penalty rate; leave it out"
            )
            continue
        share = _beyond(rows[:_AT_MOST], sight.edge, fitted)
        if share > _FOREIGN:
            found.append(
                f"{name} asks what the sample does not hold: {share:.0%} of its inputs are farther "
                f"from it than all but {_EDGE:.0%} of its own, so its price signal means little. "
                "Put inputs like these into the sample"
            )
        if sight.curve is not None and _as_wide(customer, sight.curve):
            found.append(
                f"{name} is nearly as wide as the sample: a thief would look the same. "
                "Widen the sample, or leave the account out and serve it apart"
            )
    return found


def _beyond(rows: Embeddings, edge: float | None, fitted: Calibration) -> float:
    """Return the share of rows that lie beyond the sample's edge; 0 where that is not known."""
    return 0.0 if edge is None else float((_nearness(rows, fitted) < edge).mean())


def _as_wide(customer: Customer, curve: NDArray[np.float64]) -> bool:
    """Tell whether an account gets as far as one that asks as many inputs of the sample."""
    last = min(len(curve), len(customer.curve)) - 1
    return bool(customer.curve[last] >= _NEARLY * curve[last])


def _nearness(rows: Embeddings, fitted: Calibration) -> NDArray[np.float32]:
    """Return the (n,) largest cosine of each row to a kept one, seen from the mean."""
    kept = _units(fitted.sample - fitted.mean)
    nearest: NDArray[np.float32] = (_units(rows - fitted.mean) @ kept.T).max(axis=1)
    return nearest


def _units(rows: Embeddings) -> Embeddings:
    """Return rows of length 1; zeros stay."""
    import numpy as np

    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    unit: Embeddings = rows / lengths
    return unit
