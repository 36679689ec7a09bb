"""What an operator reads about a tenant."""

from __future__ import annotations

from dataclasses import dataclass

from tollkeeper.gateway.grants import Grant


@dataclass(frozen=True, slots=True)
class TenantReport:
    """One tenant, its standing and what its pool has done.

    Attributes:
        name: the tenant.
        pool: the sketch it is charged on.
        suspended: whether it is refused.
        budget: inputs allowed in total, or None.
        spent: inputs charged to the pool.
        queries: inputs answered to the pool.
        coverage: fraction of the embedding space the pool has visited, in [0, 1], without what
            it visited under allowances; None when the running profile keeps no coverage.
        alone: the same of what the tenant asked itself; differs where tenants are linked.
        noise_scale: what new answers of the pool would carry now, in feature-std units
            or absolute, as the profile counts.
        standing: what its next new input meets: a rung of its plan (`free`, `metered`,
            `challenged`, `throttled`, `pays` for noise, `refused`), `alarmed` where no new
            prediction is answered, or `suspended`.
        plan: name of its plan.
        mode: whether that is enforced: `enforce` or `shadow`.
        price_s: puzzle seconds of its next new input, on the reference machine.
        grant: its allowance grant, if it has one.
        grant_left: inputs that it still covers; None without one.
        note: the operator's text.
        predicted: inputs charged to the pool for predictions.
        suspicion: of its account by what looks at whole accounts, the natural logarithm of what
            a wager against its honesty has won; None without a classifier.
        alarm_at: suspicion at which its plan answers nothing new; None where none does.
    """

    name: str
    pool: str
    suspended: bool
    budget: float | None
    spent: float
    queries: int
    coverage: float | None
    alone: float | None
    noise_scale: float | None
    standing: str
    plan: str
    mode: str
    price_s: float
    grant: Grant | None
    grant_left: int | None
    note: str
    predicted: float = 0.0
    suspicion: float | None = None
    alarm_at: float | None = None
