"""The card of the built-in classifier of digits, written from measured figures."""

from __future__ import annotations

from typing import Any

TEMPLATE = """# tollkeeper-digits

A classifier of handwritten digits with the detectors that guard it. It exists so that the
prediction gateway can be tried, tested and measured offline; it is not a product.

| | |
| --- | --- |
| spec | `builtin:digits` |
| input | 28 x 28 gray pictures: float32 (n, 1, 28, 28) in [0, 1], white on black |
| output | probabilities of the classes 0 to 9 |
| network | three convolutions and two layers, half the width of SAME's victim |
| size | `digits.onnx` {victim_kb:.0f} kB, `digits.tkd` {bundle_kb:.0f} kB (weights kept as float16) |
| accuracy | {accuracy:.2%} of MNIST's 10,000 test images |
| one query | {victim_us:.0f} µs; the recommended detector {fused_us:.0f} µs more, {ratio:.1f} times (one thread, shared machine) |

## Detectors

`digits.tkd` was fitted on MNIST training images that the classifier has not seen and on nothing
else. It holds {names}.
Recommended is `fused`; whole accounts are followed by `history`. The networks that responses need
are in it too: a misinformer, and the untrained surrogate of MAD, whose weights are public here and
therefore no secret; fit your own file to keep them one.

Share of queries that rank above 95 % and 99 % of honest traffic, at 2,000 of each foreign set. The
column of MNIST test images is what honest users would be charged.

{table}

Honest scores, for those who set thresholds by score:

{thresholds}

Accounts: the test images were dealt out to {accounts} honest ones of {of:,} each, of which {false} ever
reached the alarm of {alarm:.0%}. So few show little: a true rate of {unseen:.0%} would leave all of them quiet
one time in twenty. Ten accounts that ask all test images of one digit each are no draws from that
traffic, so the alarm's rate is not promised for them; of the ten it was reached by {one_digit}.

Median query at which a thief is caught at that alarm, by the share of EMNIST
letters among its otherwise honest queries:

{mixes}

These letters come as EMNIST renders them; a thief who re-renders them is harder to tell, see the
experiments. A thief who asks honest digits only is not told at all.

## Training

```
{command}
```

{own:,} training images of MNIST for the classifier, {rest:,} others for the detectors, split at
random by the seed. Wall time {minutes:.0f} minutes, next to other work on the same machine.
Versions: {versions}.
Bit-exact repetition needs the same processor type, versions and threads.

## Data and licenses

MNIST (LeCun, Cortes and Burges 1998), of NIST's special databases; EMNIST letters, Kuzushiji-MNIST
and Fashion-MNIST appear in the figures only. The files hold no images.

## Limits

- One run, one seed. The honest users of the figures are writers of MNIST.
- Everything that is not like MNIST is suspicious to the detectors, honest or not: a camera, another
  pen, another way to crop. Fit detectors on your own traffic.
"""


def card(facts: dict[str, Any]) -> str:
    """Return the card as Markdown.

    Args:
        facts: what `training/digits.py` writes to `digits.json`.
    """
    measured = facts["measured"]
    took, alarms = measured["microseconds"], measured["false_alarms"]
    return TEMPLATE.format(
        victim_kb=facts["bytes"]["digits.onnx"] / 1e3,
        bundle_kb=facts["bytes"]["digits.tkd"] / 1e3,
        accuracy=measured["accuracy"],
        victim_us=took["victim"],
        fused_us=took["fused"],
        ratio=took["fused"] / took["victim"],
        names=", ".join(f"`{name}`" for name in measured["above"]),
        table=_table(measured["above"]),
        thresholds=_thresholds(measured["honest_scores"]),
        accounts=alarms["accounts"],
        of=alarms["of"],
        false=alarms["raised"] or "none",
        unseen=1 - 0.05 ** (1 / alarms["accounts"]),
        alarm=alarms["rate"],
        one_digit=_digits(measured["one_digit_alarms"]),
        mixes=_mixes(measured["queries_to_alarm"]),
        command=facts["command"],
        own=facts["training_images"]["victim"],
        rest=facts["training_images"]["detectors"],
        minutes=facts["training_seconds"] / 60,
        versions=", ".join(f"{name} {value}" for name, value in facts["versions"].items()),
    )


def _digits(found: list[str]) -> str:
    return "those of " + " and ".join(found) if found else "none"


def _table(above: dict[str, dict[str, list[float]]]) -> str:
    traffics = list(next(iter(above.values())))
    rows = [
        [f"`{name}`", *(" / ".join(f"{100 * share:.1f}" for share in of[t]) for t in traffics)]
        for name, of in above.items()
    ]
    return _rows(["%", *traffics], rows)


def _thresholds(honest: dict[str, dict[str, float]]) -> str:
    marks = ("0.5", "0.95", "0.99")
    rows = [
        [f"`{name}`", f"{one['count']:,}", *(f"{one[mark]:.4g}" for mark in marks)]
        for name, one in honest.items()
    ]
    return _rows(["detector", "queries", "median", "95 %", "99 %"], rows)


def _mixes(queries: dict[str, float | None]) -> str:
    cells = ["not in 10,000" if at is None else f"{at:,.0f}" for at in queries.values()]
    return _rows([f"{100 * float(mix):g} %" for mix in queries], [cells])


def _rows(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
