"""Experiment `dataset-inference`: whom does it find, whom does it accuse, what does hiding cost.

Owners train a victim on D_P and keep D_N; both are dealt by one shuffle, so the split is randomized
and the permutation test exact. Thieves copy the victims with the attacks of the toolkit, openly and
through the guard. Independents met neither a victim nor its data. Everybody is judged before every
claim: to another owner's claim a thief is as innocent as anybody.

The false-accusation rate is over independents and over splits drawn anew; the published mixture
test is run on the same encoders, and on every claim with its sides swapped, which is a claim as
likely as the true one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from tollkeeper.audit.consistency import MODES
from tollkeeper.audit.similarity import similarity
from tollkeeper.bench.experiment import Context, Experiment, Measurement
from tollkeeper.bench.ownership import suspects as who
from tollkeeper.bench.ownership.judging import PRIMARY, Case, rule
from tollkeeper.bench.ownership.making import Made, Stage, make_all
from tollkeeper.bench.ownership.measuring import Asked, Told, prepare
from tollkeeper.bench.ownership.references import evidence
from tollkeeper.bench.ownership.reporting import report
from tollkeeper.bench.ownership.scene import OTHERS, Sizes, load_scene
from tollkeeper.bench.ownership.suspects import Suspect, Training
from tollkeeper.bench.ownership.tabling import Judged, facts, tabled
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.bench.theft.payload import shared
from tollkeeper.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How large the experiment is.

    Attributes:
        block: images on either side of a claim, and of every other encoder.
        claims: owners.
        references: encoders that owners calibrate with, 8 or more.
        same: independents of the victim's distribution, recipe and size.
        each: independents of every further kind.
        public: images that no encoder was trained on.
        probe_train: labeled images downstream classifiers are trained on.
        probe_test: labeled images they are tested on.
        budgets: queries of thieves, ascending.
        profile: guard of the guarded victims.
        epochs: of every training.
        copy_epochs: of every copy.
        width: hidden units of every network.
        views: of each image.
        resplits: splits drawn anew for each independent.
        workers: processes.
    """

    block: int = 1000
    claims: int = 2
    references: int = 8
    same: int = 12
    each: int = 2
    public: int = 2000
    probe_train: int = 2000
    probe_test: int = 1000
    budgets: tuple[int, ...] = (250, 500, 1000, 2000, 4000, 8000)
    profile: str = "recommended"
    epochs: int = 100
    copy_epochs: int = 50
    width: int = 512
    views: int = 6
    resplits: int = 1000
    workers: int = 2

    def sizes(self) -> Sizes:
        """Return how many images each part gets."""
        most = self.budgets[-1]
        return Sizes(
            block=self.block,
            claims=self.claims,
            references=self.references,
            public=self.public,
            probe_train=self.probe_train,
            probe_test=self.probe_test,
            pool=most,
            other=max(most // 2, self.each * self.block),
        )

    def roster(self) -> list[Suspect]:
        """Return everybody but the victims."""
        return [
            *who.references(self.references),
            *who.independents(self.same, OTHERS, self.each),
            *who.insiders(self.claims),
            *who.thieves(
                self.claims,
                self.budgets,
                block=self.block,
                others=OTHERS,
                profile=self.profile,
            ),
        ]

    def hiding(self) -> tuple[Suspect, ...]:
        """Return who goes through every obfuscation: a victim, its best copy, an innocent."""
        names = ("victim", f"stolen.mse.{self.budgets[-1]}", "same.0")
        everybody = [*who.victims(self.claims), *self.roster()]
        return tuple(one for one in everybody if one.name in names and one.claim in (-1, 0))


SMOKE = Setting(
    block=300,
    claims=1,
    same=2,
    each=1,
    public=300,
    probe_train=200,
    probe_test=100,
    budgets=(100, 400),
    epochs=40,
    copy_epochs=10,
    width=128,
    views=3,
    resplits=50,
    workers=1,
)
"""The path, in seconds: too small to find a thief, and with too few independents for z-scores."""


def measure(setting: Setting, context: Context) -> Measurement:
    """Make everybody, judge everybody, count.

    Raises:
        ConfigurationError: sizes that do not fit each other or the data.
        AuditRefused: a victim is not found by its own claim; the sizes are too small.
    """
    _check(setting)
    data: dict[str, str] = {}
    scene = load_scene(setting.sizes(), rng=context.rng(1), data=data)
    asked = prepare(scene, k=setting.views, rng=context.rng(2))
    training = Training(setting.epochs, setting.copy_epochs, setting.width)
    everybody = make_all(
        Stage(scene, asked, training, context.seed),
        who.victims(setting.claims),
        setting.roster(),
        hiding=setting.hiding(),
        workers=setting.workers,
        progress=context.progress,
    )
    judged = _judged(everybody, asked, setting, context)
    matched = [
        [similarity(one.told.public, owner.told.public) for one in everybody if _is_matched(one)]
        for owner in everybody[: setting.claims]
    ]
    metrics = tabled(judged, matched, resplits=setting.resplits)
    return Measurement(metrics, diagnostics=facts(judged), data=data)


def _is_matched(one: Made) -> bool:
    """Return whether an encoder has the victim's recipe and size and other data of its kind."""
    return one.suspect.role == "reference" or one.suspect.name.startswith("same.")


def _check(setting: Setting) -> None:
    if tuple(sorted(setting.budgets)) != setting.budgets or setting.budgets[0] < 8:
        raise ConfigurationError(f"expected ascending budgets of 8 or more, got {setting.budgets}")
    if setting.same < 1 or setting.each < 1 or setting.claims < 1:
        raise ConfigurationError("expected at least one claim and one encoder of each kind")


# -- judging ---------------------------------------------------------------------


def _judged(
    everybody: Sequence[Made], asked: Asked, setting: Setting, context: Context
) -> list[Judged]:
    """Return everybody but the references before every claim, and what hides before the first."""
    told = {role: [m.told for m in everybody if m.suspect.role == role] for role in _HELD}
    rows: list[tuple[Made, Told, int, str]] = []
    for one in everybody:
        if one.suspect.role != "reference":
            rows += [(one, one.told, claim, "") for claim in range(setting.claims)]
            rows += [(one, answers, 0, name) for name, answers in one.hidden.items()]
    cases = [
        _case(one, answers, claim, hidden, setting=setting, seed=(context.seed, number))
        for number, (one, answers, claim, hidden) in enumerate(rows)
    ]
    with shared(evidence(asked, told["reference"], told["victim"])) as payload:
        rulings = run_jobs(
            partial(rule, payload), cases, workers=setting.workers, progress=context.progress
        )
    return [
        Judged(
            one.suspect,
            claim,
            hidden,
            ruling,
            answers.accuracy,
            similarity(answers.public, told["victim"][claim].public),
        )
        for (one, answers, claim, hidden), ruling in zip(rows, rulings, strict=True)
    ]


_HELD = ("reference", "victim")
"""Roles of those whom owners have themselves."""


def _case(
    one: Made,
    told: Told,
    claim: int,
    hidden: str,
    *,
    setting: Setting,
    seed: tuple[int, ...],
) -> Case:
    """Return a case; in all modes where obfuscation is expected."""
    return Case(
        name=f"judging {one.suspect.name}",
        claim=claim,
        scores=told.scores[claim],
        plain=None if hidden else told.plain[claim],
        modes=MODES if hidden else PRIMARY,
        resplits=setting.resplits if one.suspect.role == "independent" and not hidden else 0,
        seed=seed,
    )


EXPERIMENT = Experiment(
    id="dataset-inference",
    title="dataset inference of encoders: power, false accusations, and what hiding costs",
    scales={"smoke": SMOKE, "cpu": Setting()},
    measure=measure,
    promises=(
        "false_accusation_rate",
        "false_accusation_rate.*",
        "power",
        "power.*",
        "effect.victim",
        "effect.stolen.*",
        "effect.independent.*",
        "gmm_*",
        "accuracy.*",
        "z.*",
        "obfuscation.*",
    ),
    report=report,
)
