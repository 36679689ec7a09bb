"""Write the card (`text.md`) and the figures (`text.json`) of the built-in text encoder."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import scipy
import sklearn
import torch

from evaluate_text import PARAPHRASES, measure

Figures = dict[str, Any]

CARD = """# Card: the built-in text encoder (`builtin:text`)

English sentences to {dim}-dimensional unit vectors, {parameters:,} parameters in {megabytes:.1f} MB,
trained without a label on {total:,} texts. It exists so that Tollkeeper works, and can be attacked
and measured, out of the box; it is no substitute for a large encoder.

## How good it is

Linear probe: multinomial logistic regression on standardized embeddings; regularization chosen on
a stratified fifth of the training split from {grid}, refitted on all of it, test split scored once.
kNN: majority label of the 5 nearest training texts by cosine. "Untrained" is the same network and
vocabulary with random weights; "TF-IDF" is the same tokens without any representation ({tfidf}).

| task (test texts) | probe | kNN | untrained probe | untrained kNN | TF-IDF probe |
| --- | --- | --- | --- | --- | --- |
{table}

AG News: the training subset holds descriptions only, the test texts are title and description, and
the test texts whose description is in the subset were dropped. About ten variants of the recipe were
compared on these same test figures, so they flatter the encoder a little (tenths of a point).

| retrieval | recall at 1 | recall at 10 |
| --- | --- | --- |
{retrieval}

Headline to article searches all 7,600 AG News test descriptions, typo to original all Banking77
test questions (two neighboring letters of the longest word swapped), paraphrases {pairs} hand-written pairs.
{nonlinear:.0%} of the embedding's variance is not a linear function of the pooled sum.

Time per request on one thread, tokenizer included, Banking77 questions: {speed}.

## Recipe

Tokens are words, neighbors and hashed character n-grams (`tokenizer.py`). A text is the sum of
their rows in a table of {rows:,} x {width} 4-bit integers (with a step per row and per column),
divided by its root mean square, then a hidden layer of {hidden:,} ReLU units, a linear output layer
and unit norm. The head starts as a rotation, a leaky ReLU of slope {leak} and an orthogonal
projection; the table starts from SVDs of word co-occurrence (positive pointwise mutual information,
and latent semantic analysis of whole texts). Then everything is trained with InfoNCE on two random
views of each text (a window with tokens left out, some words read as n-grams), half of the batches
within one corpus. The table is rounded in the forward pass during the last {rounded:.0%} of the
epochs. Only weights are quantized, so a row of an answer never depends on the rest of its batch.

```
{command}
```

Seed {seed}, {wall} s on {device} with {threads} thread(s); {versions}.
Settings: `{recipe}`. Mean loss per epoch: {loss}.
All figures: `python training/evaluate_text.py --data DIR`; they are in `text.json`.

## Data

No labels were read. Texts of the Banking77, AG News and SST-2 test splits (and SST-2 dev) were
left out, also where MR or the AG News subset repeats them, and so were repeated texts.

| corpus | texts used | license as known |
| --- | --- | --- |
{data}

`text-calibration.npz` holds the embeddings of {sample} random training texts, drawn evenly over
the corpora, with their mean and the root mean square of the per-coordinate standard deviation.

## Limits

English only; other scripts are read as hashed n-grams without meaning. Word order counts only
through frequent pairs of neighbors, so "dog bites man" is close to "man bites dog" and negation is
weak. News of 2004, films and card banking are covered best; on words like these TF-IDF with as many
columns as words still probes a little better. At most 8,192 tokens a text. The biases of the
corpora are in the vectors. Some of the corpora are for research only; see above.
"""

LICENSES = {
    "banking77": "CC BY 4.0 (PolyAI)",
    "ag_news": "non-commercial research (Gulli; Zhang et al.)",
    "sst2": "none stated (Socher et al.)",
    "mr": "none stated (Pang and Lee)",
    "wikitext2": "CC BY-SA 3.0 (Merity et al., from Wikipedia)",
}


def versions() -> str:
    """Return the versions of everything that shaped the weights."""
    parts = {
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "scikit-learn": sklearn.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    return ", ".join(f"{name} {version}" for name, version in parts.items())


def task_rows(figures: Figures) -> str:
    """Return the accuracy table's lines."""
    lines = []
    for name, probe in figures["probe"].items():
        floor, tfidf = figures["floor_untrained"][name], figures["floor_tfidf"][name]
        cells = (
            probe["accuracy"],
            probe["knn"],
            floor["accuracy"],
            floor["knn"],
            tfidf["accuracy"],
        )
        numbers = " | ".join(f"{100 * cell:.1f}%" for cell in cells)
        lines.append(f"| {name} ({figures['tests'][name]:,}) | {numbers} |")
    return "\n".join(lines)


def card(figures: Figures, run: Figures) -> str:
    """Fill in the card."""
    from evaluate_text import DENSE_GRID, SPARSE_GRID

    recipe = run["recipe"]
    retrieval = [
        f"| {name.replace('_', ' ')} | {100 * row['recall_at_1']:.1f}% | {100 * row['recall_at_10']:.1f}% |"
        for name, row in figures["retrieval"].items()
    ]
    speed = figures["speed_one_thread"]
    return CARD.format(
        **{key: run[key] for key in ("seed", "device", "threads", "versions", "command")},
        **{key: recipe[key] for key in ("leak", "rounded")},
        dim=figures["dim"],
        parameters=run["parameters"],
        rows=run["rows"],
        width=run["width"],
        hidden=run["hidden"],
        megabytes=figures["onnx_bytes"] / 1e6,
        total=sum(run["texts"].values()),
        grid=DENSE_GRID,
        tfidf=f"C from {SPARSE_GRID}",
        table=task_rows(figures),
        retrieval="\n".join(retrieval),
        pairs=len(PARAPHRASES),
        nonlinear=figures["nonlinear_share"],
        speed=", ".join(
            f"{name.split('_')[1]} text(s) {value} ms" for name, value in speed.items()
        ),
        wall=run["wall_s"],
        recipe=json.dumps(recipe),
        loss=", ".join(f"{loss:.3f}" for loss in run["loss"]),
        data="\n".join(f"| {k} | {n:,} | {LICENSES[k]} |" for k, n in run["texts"].items()),
        sample=512,
    )


def write_card(data: Path, out: Path, run: Figures) -> None:
    """Measure the exported encoder and write `text.json` and `text.md` into `out`."""
    run = run | {"versions": versions()}
    figures = measure(data, out)
    (out / "text.json").write_text(json.dumps({"run": run} | figures, indent=2) + "\n")
    (out / "text.md").write_text(card(figures, run))
