"""Attacks on classifiers with the settings of their papers, and the same for two cores.

Each reads whole probabilities unless `labels_only` is set: `replace(attack, labels_only=True)`,
or `--set labels_only=true`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from tollkeeper.attacks.classifier.active_thief import ActiveThief
from tollkeeper.attacks.classifier.choices import (
    DeepFoolNearest,
    DeepFoolThenFar,
    FarFromKnown,
)
from tollkeeper.attacks.classifier.copies import Conv3Copy, CopyFactory, Copying
from tollkeeper.attacks.classifier.data_free import DataFree
from tollkeeper.attacks.classifier.dfme import DFME
from tollkeeper.attacks.classifier.jbda import JBDA, STEP, Augmenting, TRandom
from tollkeeper.attacks.classifier.knockoff import AdaptiveKnockoff, Copycat, Knockoff
from tollkeeper.attacks.classifier.maze import MAZE
from tollkeeper.attacks.classifier.sybils import Rotating
from tollkeeper.lab.fit import SGD, Adam, Schedule

C = TypeVar("C", bound=Copying)

STROKES = 0.05
"""Pixels above -0.9 in [-1, 1]."""


def knockoff() -> Knockoff:
    """Random policy: SGD 0.01 with momentum 0.5, batch 64, 100 epochs."""
    return Knockoff()


def knockoff_adaptive() -> AdaptiveKnockoff:
    """The bandit with all three rewards; set `labels` to the classes of the pool."""
    return AdaptiveKnockoff()


def copycat() -> Copycat:
    """Labels only, with the schedule of Knockoff: the paper's is of a trained VGG-16."""
    return Copycat()


def jbda() -> JBDA:
    """SAME's setting: 200 seeds and steps of 0.1 in [-1, 1]; ten epochs a round."""
    return JBDA()


def jbda_papernot() -> JBDA:
    """The step changes sign every 5 rounds, and after 3 rounds 400 pictures are stepped from.

    Seeds and numbers of rounds as in PredPoison's code.
    """
    return JBDA(
        seeds=100,
        flip_every=5,
        reservoir_after=3,
        rounds=Schedule(epochs=20, batch=64, rate=0.1, optimizer=SGD()),
    )


def jbda_strokes() -> JBDA:
    """Moves what is drawn and leaves the ground alone."""
    return JBDA(strokes=STROKES)


def jbda_half() -> JBDA:
    """Half the step."""
    return JBDA(step=STEP / 2)


def jbda_gray() -> JBDA:
    """Moves the channels of a pixel alike."""
    return JBDA(gray=True)


def t_random() -> TRandom:
    """One step towards a random class."""
    return TRandom()


def t_random_iterated() -> TRandom:
    """Eight steps of an eighth."""
    return TRandom(iterations=8)


def dfme() -> DFME:
    """Batches of 256, one direction, five steps of the copy: 1,792 queries an iteration."""
    return DFME()


def maze() -> MAZE:
    """Batches of 128, ten directions, five steps of the copy: 1,920 queries an iteration."""
    return MAZE()


def active_thief() -> ActiveThief:
    """Largest entropy."""
    return ActiveThief()


def active_thief_k_center() -> ActiveThief:
    """Farthest from what is known."""
    return ActiveThief(choice=FarFromKnown())


def active_thief_dfal() -> ActiveThief:
    """Nearest to a boundary of the copy."""
    return ActiveThief(choice=DeepFoolNearest())


def active_thief_both() -> ActiveThief:
    """Nearest to a boundary, and of those farthest from what is known."""
    return ActiveThief(choice=DeepFoolThenFar())


def knockoff_rotating() -> Rotating:
    """Random policy through accounts that take turns."""
    return Rotating(inner=knockoff())


def jbda_rotating() -> Rotating:
    """Jacobian steps through accounts that take turns."""
    return Rotating(inner=jbda())


def for_two_cores(attack: C, *, epochs: int = 20, network: CopyFactory | None = None) -> C:
    """Return the attack with a network and a schedule that two cores can train in minutes.

    Args:
        attack: with its published settings.
        epochs: passes over the answers.
        network: another one than the small default.
    """
    schedule = Schedule(epochs=epochs, batch=32, rate=1e-3, optimizer=Adam())
    changes: dict[str, Any] = {"network": network or Conv3Copy(width=16), "schedule": schedule}
    if isinstance(attack, Augmenting):
        changes["rounds"] = replace(schedule, epochs=min(10, epochs))
    if isinstance(attack, DataFree):
        # At small budgets the game leaves an untrained copy, which learns from what it bought.
        changes |= {"filters": 32, "memory": 20_000, "generator_rate": 1e-3}
    if isinstance(attack, DFME):
        # In a short game rates that fall would stop the copy before it has left its first plateau.
        changes |= {"fall": 1.0, "student_rate": 0.03}
    if isinstance(attack, ActiveThief):
        changes |= {"choice": _small(attack.choice), "iterations": 5}
    return replace(attack, **changes)


def _small(choice: Any) -> Any:
    """Return a choice that looks at fewer pictures.

    They must stay several times those wanted, or nothing is chosen. What is nearest to a border
    is there within a step or two; what takes longer is not chosen anyway.
    """
    if isinstance(choice, DeepFoolNearest):
        return replace(choice, subset=4000, iterations=3)
    if isinstance(choice, DeepFoolThenFar):
        return replace(choice, near=_small(choice.near))
    return choice
