"""Attacks with the settings of their papers, and the same attacks for two cores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar, cast

from tollkeeper.attacks.base import Attack
from tollkeeper.attacks.behind import Behind
from tollkeeper.attacks.classifier import presets as classifier_presets
from tollkeeper.attacks.classifier.copies import CopyFactory, Copying
from tollkeeper.attacks.classifier.sybils import Rotating
from tollkeeper.attacks.cont_steal import ContSteal
from tollkeeper.attacks.direct import Direct
from tollkeeper.attacks.head_recreation import HeadRecreation
from tollkeeper.attacks.merged import Merge
from tollkeeper.attacks.networks.convnet import ConvNet
from tollkeeper.attacks.networks.ngram import NGram
from tollkeeper.attacks.networks.resnet import ResNet
from tollkeeper.attacks.objectives import (
    BCE,
    MSE,
    Cosine,
    InfoNCE,
    SoftNN,
    SupCon,
    Symmetrized,
    Wasserstein,
)
from tollkeeper.attacks.objectives.barlow_cross import BarlowCross
from tollkeeper.attacks.objectives.base import Objective
from tollkeeper.attacks.rda import RDA
from tollkeeper.attacks.recovery.standardized import Standardized
from tollkeeper.attacks.stolen_encoder import StolenEncoder
from tollkeeper.attacks.surrogate import NetworkFactory
from tollkeeper.attacks.sybil.alignment import RotationMatcher
from tollkeeper.attacks.sybil.canary import StopAtNoise
from tollkeeper.attacks.sybil.mapped import Mapped
from tollkeeper.attacks.sybil.mappers import RidgeMapper
from tollkeeper.attacks.sybil.matched import Matched
from tollkeeper.attacks.sybil.shared_trunk import SharedTrunk
from tollkeeper.attacks.text import TextDistillation
from tollkeeper.attacks.two_views import TwoViews
from tollkeeper.lab.fit import SGD, Adam, Schedule

A = TypeVar("A", bound=Attack)

_ADAM = Adam(weight_decay=1e-4)
_RESNET34 = ResNet(depth=34)


def _direct(objective: Objective, schedule: Schedule) -> Direct:
    return Direct(objective=objective, schedule=schedule, network=_RESNET34)


def mse() -> Direct:
    """Mean squared error: Adam 1e-3, batch 64."""
    return _direct(MSE(), Schedule(batch=64, optimizer=_ADAM))


def cosine() -> Direct:
    """Cosine distance, with the settings of mean squared error; not in the paper."""
    return _direct(Cosine(), Schedule(batch=64, optimizer=_ADAM))


def bce() -> Direct:
    """Rounded activations, with the settings of mean squared error."""
    return _direct(BCE(), Schedule(batch=64, optimizer=_ADAM))


def wasserstein() -> Direct:
    """Feature distributions, with the settings of mean squared error."""
    return _direct(Wasserstein(), Schedule(batch=64, optimizer=_ADAM))


def infonce() -> Direct:
    """InfoNCE at temperature 0.07: Adam 3e-4, batch 256."""
    return _direct(InfoNCE(), Schedule(rate=3e-4, optimizer=_ADAM))


def softnn() -> Direct:
    """Soft nearest neighbors at temperature 100: Adam 1e-3, batch 256."""
    return _direct(SoftNN(), Schedule(optimizer=_ADAM))


def supcon() -> Direct:
    """Supervised contrast; set `labels` of the pool: SGD 0.05, batch 256."""
    return _direct(SupCon(), Schedule(rate=0.05, optimizer=SGD(weight_decay=1e-4)))


def barlow() -> TwoViews:
    """Barlow Twins on two views."""
    return TwoViews(schedule=Schedule(rate=3e-4, optimizer=_ADAM), network=_RESNET34)


def barlow_cross() -> Direct:
    """Barlow Twins between surrogate and victim, which needs one view only."""
    return _direct(BarlowCross(), Schedule(rate=3e-4, optimizer=_ADAM))


def symmetrized() -> TwoViews:
    """SimSiam's loss on two views: SGD 0.05, batch 256."""
    schedule = Schedule(rate=0.05, optimizer=SGD(weight_decay=1e-4))
    return TwoViews(make_objective=Symmetrized, schedule=schedule, network=_RESNET34)


def head_recreation() -> HeadRecreation:
    """A new head on the victim first, then the surrogate through it."""
    return HeadRecreation(network=_RESNET34)


def stolen_encoder() -> StolenEncoder:
    """StolenEncoder with lambda 20 and one augmented copy."""
    return StolenEncoder(network=_RESNET34)


def cont_steal() -> ContSteal:
    """Cont-Steal with two views of each image."""
    return ContSteal()


def rda() -> RDA:
    """RDA with ten views of each image."""
    return RDA()


def text_distillation() -> TextDistillation:
    """A smaller text encoder."""
    return TextDistillation()


def sybil_overlap() -> Mapped:
    """InfoNCE over several accounts, mapped by ridge on shared inputs."""
    return Mapped(inner=infonce(), mapper=RidgeMapper())


def sybil_matching() -> Matched:
    """InfoNCE over several accounts, matched without shared inputs, in standardized units."""
    return Matched(inner=replace(infonce(), recovery=Standardized()))


def sybil_rotation() -> Matched:
    """InfoNCE over several accounts, rotated onto each other without shared inputs."""
    return Matched(inner=infonce(), matcher=RotationMatcher())


def sybil_trunk() -> SharedTrunk:
    """One trunk with a head per account."""
    return SharedTrunk()


def merged_inputs() -> Merge:
    """InfoNCE on answers to inputs that are all merged with the beginning of the pool."""
    return Merge(inner=infonce())


def stop_at_noise() -> StopAtNoise:
    """InfoNCE on the answers of one account until the first that is perturbed."""
    return StopAtNoise(inner=infonce())


def sybil_stop() -> StopAtNoise:
    """One trunk with a head per account, each left at its first perturbed answer."""
    return StopAtNoise(inner=sybil_trunk())


def for_two_cores(
    attack: A,
    *,
    text: bool = False,
    epochs: int = 20,
    network: NetworkFactory | CopyFactory | None = None,
) -> A:
    """Return the attack with a network and a schedule that two cores can train in minutes.

    Args:
        attack: with its published settings.
        text: whether the victim reads text.
        epochs: passes over the answers.
        network: another one than the small default, of the kind that the attack takes.
    """
    if isinstance(attack, Mapped | Behind | Rotating):
        inner = for_two_cores(attack.inner, text=text, epochs=epochs, network=network)
        return cast("A", replace(attack, inner=inner))
    if isinstance(attack, Copying):
        own = cast("CopyFactory | None", network)
        return cast("A", classifier_presets.for_two_cores(attack, epochs=epochs, network=own))
    if isinstance(attack, Matched):
        direct = for_two_cores(attack.inner, text=text, epochs=epochs, network=network)
        return cast("A", replace(attack, inner=direct))
    small = network or (NGram() if text else ConvNet())
    schedule = Schedule(epochs=epochs, batch=64, rate=3e-3, optimizer=Adam())
    changes: dict[str, Any] = {"network": small, "schedule": schedule}
    if isinstance(attack, HeadRecreation):
        changes["head_schedule"] = schedule
    return replace(attack, **changes)  # type: ignore[type-var]  # every attack is a dataclass
