"""The card of a victim, written from measured figures."""

from __future__ import annotations

from typing import Any

TEMPLATE = """# {name}

A {dim}-dimensional encoder of {side}x{side} RGB images, trained without labels to be stolen from in
experiments. Its embeddings are channel averages after a ReLU: non-negative, not normalized.
`victim.pt` is loaded by the encoder SPEC `lab:DIR/victim.pt`.

## Quality

| {dataset}, {known:,} labeled images, {test:,} to test | linear probe | kNN-200 |
| --- | --- | --- |
| this encoder | **{probe:.2%}** | {knn:.2%} |
| the same network, untrained | {untrained_probe:.2%} | {untrained_knn:.2%} |

The probes are those of `tollkeeper.bench.theft.probes`: a multinomial logistic regression on
standardized embeddings whose regularization is chosen within the labeled images, and the vote of
the 200 nearest by cosine, weighted exp(cosine / 0.5). The untrained network has the same seed; its
batch-normalization statistics come from up to {calibration:,} training images. One run, one seed.

## Training

{method}, on the {training:,} images without
their labels; epochs: {epochs}, images a step: {batch}; {minutes:.1f} minutes on {device}.

```
{command}
```

Mean loss: {first} in the first epoch, {last} in the last. Versions: {versions}.
Random numbers come from generators seeded with the seed of the command (initial weights: seed,
heads: seed + 1, augmentations: seed + 2, order: seed + 3).

Recipe: {recipe}.

## Data

{dataset}, {source}; {training:,} training images, SHA-256 of the pixels
`{sha256}`.
"""


def card(facts: dict[str, Any]) -> str:
    """Return the card as Markdown.

    Args:
        facts: What `training/victim.py` writes to `victim.json`.
    """
    victim, floor = facts["measured"]["victim"], facts["measured"]["untrained"]
    return TEMPLATE.format(
        name=facts["name"],
        dim=facts["dim"],
        side=facts["recipe"]["side"],
        dataset=facts["dataset"],
        known=facts["training_images"],
        training=facts["training_images"],
        test=facts["test_images"],
        probe=victim["linear_probe"],
        knn=victim["knn200"],
        untrained_probe=floor["linear_probe"],
        untrained_knn=floor["knn200"],
        calibration=facts["calibration_images"],
        method=facts["method_title"],
        epochs=facts["epochs"],
        batch=facts["recipe"]["batch_size"],
        minutes=facts["training_seconds"] / 60,
        device=facts["device"],
        command=facts["command"],
        first=facts["loss_per_epoch"][0],
        last=facts["loss_per_epoch"][-1],
        versions=_listed(facts["versions"]),
        recipe=_listed(facts["recipe"]),
        source=facts["source"],
        sha256=facts["training_sha256"],
    )


def _listed(values: dict[str, Any]) -> str:
    """Name values in a sentence."""
    return ", ".join(f"{name} {value}" for name, value in values.items())
