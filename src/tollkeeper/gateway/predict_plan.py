"""The part of a plan that is about predictions: what a query and an account meet, by their ranks.

A rank is the share of honest traffic that a detector finds less suspicious, so one plan fits every
classifier and every detector. `docs/policy.md` shows how to choose.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Rank = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
MOST_BITS = 32
"""2^32 hashes are more than an hour of the reference machine for one input."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReverseSigmoidSetting(_Frozen):
    """See `responses.outputs.ReverseSigmoid`."""

    beta: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    gamma: float = Field(default=0.1, gt=0, allow_inf_nan=False)


class MadSetting(_Frozen):
    """See `responses.mad.MaximizingAngularDeviation`."""

    distance: float = Field(default=1.0, gt=0, le=2)
    keep_label: bool = True


class MisinformationSetting(_Frozen):
    """See `responses.misinformation.AdaptiveMisinformation`."""

    threshold: float = Field(default=0.99, ge=0, le=1)
    steepness: float = Field(default=1000.0, gt=0, allow_inf_nan=False)


class Output(_Frozen):
    """One change of every answer; exactly one field is written.

    Attributes:
        top_k: keep so many classes.
        decimals: round to so many; 0 leaves the label alone.
        noise: standard deviation of noise that is the same whenever an input is asked, at most 10.
        reverse_sigmoid: its constants.
        mad: turns a thief's gradient; needs a detector file with a surrogate.
        adaptive_misinformation: wrong where the classifier is unsure; needs a misinformer.
    """

    top_k: int | None = Field(default=None, ge=1)
    decimals: int | None = Field(default=None, ge=0, le=7)
    noise: float | None = Field(default=None, gt=0, le=10)
    reverse_sigmoid: ReverseSigmoidSetting | None = None
    mad: MadSetting | None = None
    adaptive_misinformation: MisinformationSetting | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        written = [name for name, value in self if value is not None]
        if len(written) != 1:
            known = ", ".join(type(self).model_fields)
            raise ValueError(f"expected one of {known} in each output, got {written or 'none'}")
        return self


class Predictions(_Frozen):
    """What predictions meet; what is None is not used. Repeats meet nothing but `outputs`.

    Attributes:
        refuse_rank: a new input that ranks at least so high is not answered.
        challenge_rank: new inputs that rank above cost a puzzle.
        floor_bits: where its difficulty begins: 2^bits hashes are expected.
        ceiling_bits: for what is more suspicious than all honest traffic.
        alarm: an account as suspicious as at most this share of honest ones ever gets gets no new
            input answered.
        outputs: changes of every answer, in their order.
    """

    refuse_rank: Annotated[float, Field(gt=0, lt=1)] | None = None
    challenge_rank: Rank | None = None
    floor_bits: int = Field(default=8, ge=0, le=MOST_BITS)
    ceiling_bits: int = Field(default=20, ge=0, le=MOST_BITS)
    alarm: Annotated[float, Field(gt=0, lt=1)] | None = 0.01
    outputs: tuple[Output, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.ceiling_bits < self.floor_bits:
            raise ValueError("expected ceiling_bits to be at least floor_bits")
        if None not in (self.refuse_rank, self.challenge_rank) and (
            (self.challenge_rank or 0) >= (self.refuse_rank or 0)
        ):
            raise ValueError("expected challenge_rank below refuse_rank, to be reached")
        return self
