"""The card of the built-in image encoder, written from measured figures."""

from __future__ import annotations

from typing import Any

TEMPLATE = """# tollkeeper-image

A {dim}-dimensional encoder of 32x32 RGB images, trained without labels. It exists so that
Tollkeeper can be tried, tested and measured offline; it is not a competitive image model.

| | |
| --- | --- |
| input | `images`, uint8 (n, 32, 32, 3), RGB; normalization is inside the graph |
| output | `embeddings`, float32 (n, {dim}), non-negative, not normalized |
| size | {parameters:,} parameters, {macs:.1f} M multiply-adds an image, {megabytes:.2f} MB (float16 weights, computed in float32) |
| speed | {batch_1} ms an image alone, {batch_32} ms in batches of 32 (onnxruntime, 1 thread, a 2-core AMD EPYC server shared with other work) |
| rows | bytes of a row are {stable} for batches of 1, 2, 7, 32 and 256, with 1 and 2 threads |

## Quality

| CIFAR-10, train20k to test10k | linear probe | kNN |
| --- | --- | --- |
| this encoder | **{probe:.2%}** | {knn:.2%} |
| the same network, untrained | {untrained_probe:.2%} | {untrained_knn:.2%} |
| raw pixels, 512 principal components | {pixels_probe:.2%} | {pixels_knn:.2%} |

Linear probe: features standardized with the training set's mean and deviation; multinomial logistic
regression (150 steps of L-BFGS on the mean cross-entropy plus penalty / 2 times the squared
weights); the penalty is the best of 1e-3, 1e-2 and 1e-1 when fitted on the
first 16,000 training images and scored on the last 4,000 (chosen: {penalty:g}); refitted on all
20,000 and scored once on the 10,000 test images. kNN: cosine, 20 neighbors, votes weighted with
exp(similarity / 0.1). The untrained network has the same architecture and seed; its
batch-normalization statistics come from 2,048 training images. {zeros:.1%} of the entries of the
test embeddings are zero; {dead} of {dim} coordinates are always zero.

Measure again: `python training/evaluate_image.py --data DIR`.

## Training

{method}

```
{command}
```

Wall time of the training: {minutes:.0f} minutes, next to other work on the same machine. Versions:
{versions}. All random numbers come from generators seeded with the seed of the command (initial
weights: seed, head: seed + 1, augmentations: seed + 2, order: seed + 3). Bit-exact repetition
needs the same processor type, versions and number of threads; how much the figures differ elsewhere
was not measured. {continued}

Recipe: {recipe}.

## Data and licenses

CIFAR-10 `train20k` (the first 2,000 training images of each class) and CIFAR-100 `train10k` (the
first 100 training images of each class), 30,000 images. Labels of 6,000 of them serve a kNN figure
in the log and nothing else. Krizhevsky,
*Learning Multiple Layers of Features from Tiny Images*, 2009. No license is stated for either set; the
authors ask for citation. Both are subsets of Tiny Images, collected from the web and withdrawn by
its authors in 2020 for offensive labels and images. The weights hold no images;
`image-calibration.npz` holds the mean, spread and 512 embeddings of training images.
`test10k` was used only for the figures above.

## Limits

- Small photographs of objects and animals; other images are scaled to 32x32 and answered, not well.
- Larger images are squeezed to a square, so shapes of long images change.
- The figures are of one training run (one seed); recipe choices were made by a probe within
  train20k, never on test images.
- The embedding has no privacy or fairness review. Do not use it for decisions about people.
"""


def card(facts: dict[str, Any]) -> str:
    """Return the card as Markdown.

    Args:
        facts: What `training/image_encoder.py` writes to `image.json`.
    """
    measured, recipe = facts["measured"], facts["recipe"]
    encoder, untrained = measured["encoder"], measured["untrained_network"]
    pixels = measured["raw_pixels"]
    return TEMPLATE.format(
        dim=measured["dim"],
        parameters=measured["parameters"],
        macs=measured["macs"] / 1e6,
        megabytes=measured["bytes"] / 1e6,
        batch_1=measured["ms_per_image"]["batch_1"],
        batch_32=measured["ms_per_image"]["batch_32"],
        stable=(
            "identical" if all(measured["rows_independent_of_batch"].values()) else "NOT identical"
        ),
        probe=encoder["linear_probe"]["accuracy"],
        knn=encoder["knn_accuracy"],
        penalty=encoder["linear_probe"]["penalty"],
        untrained_probe=untrained["linear_probe"]["accuracy"],
        untrained_knn=untrained["knn_accuracy"],
        pixels_probe=pixels["linear_probe"]["accuracy"],
        pixels_knn=pixels["knn_accuracy"],
        zeros=measured["share_of_zero_entries"],
        dead=measured["dead_coordinates"],
        method=_method(recipe),
        command=facts["command"],
        continued=_continued(facts["continued_after_epochs"]),
        minutes=facts["training_seconds"] / 60,
        versions=", ".join(f"{name} {value}" for name, value in facts["versions"].items()),
        recipe=", ".join(f"{name} {value}" for name, value in recipe.items()),
    )


def _continued(epochs: int) -> str:
    """Return a sentence on whether the run was interrupted."""
    if not epochs:
        return "The run was not interrupted."
    return (
        f"The run was stopped after epoch {epochs} and\ncontinued with `--checkpoint`, which gives "
        "the same weights as one uninterrupted run; the number of\nepochs was set then, by the time "
        "that was left."
    )


def _method(recipe: dict[str, Any]) -> str:
    """Return a paragraph on the method."""
    stable = recipe["epochs"] - recipe["cooldown"]
    return (
        "SimCLR (Chen et al. 2020) with the decoupled contrastive loss (Yeh et al. 2022), on a compact\n"
        f"ResNet: two views an image by random resized crop ({recipe['early_side']} pixels a side for "
        f"{stable} epochs, then {recipe['late_side']}\nfor {recipe['cooldown']}), mirroring, color "
        "jitter and gray scale; SGD with Nesterov momentum, linear warm-up,\nconstant rate, linear "
        "decay in the last epochs; convolutions in bfloat16 (autocast)."
    )
