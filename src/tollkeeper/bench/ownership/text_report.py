"""Tables of `text-watermark`, with what was published beside.

Sources of the published figures: EmbMarker's main table (ACL 2023) is *recalled*; ESpeW's table on
SST-2 (ACL 2025 Findings) and WET's areas under the curve (ACL 2025) are second hand, from notes on
those papers. Check before quoting. They are of another encoder (1,536 coordinates), copies that are
fine-tuned transformers and 10 to 20 times our texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tollkeeper.bench.experiment import Metric

PUBLISHED: Mapping[tuple[str, str, str], str] = {
    ("ag_news", "embmarker", "none"): "p < 1e-9, 12.85 (*recalled*)",
    ("sst2", "embmarker", "none"): "p < 1e-5, 4.07 (*recalled*); p < 1e-11, 9.71 (ESpeW's run)",
    ("sst2", "warden", "none"): "p < 1e-11, 12.18",
    ("sst2", "espew", "none"): "p < 1e-10, 6.46",
    ("sst2", "embmarker", "cse"): "p > .01",
    ("sst2", "warden", "cse"): "p > .08",
    ("sst2", "espew", "cse"): "p < 1e-11, 65.11",
    ("", "warden", "none"): "AUC 97.4",
    ("", "warden", "paraphrase"): "AUC 62.4",
    ("", "wet", "none"): "AUC 100",
    ("", "wet", "paraphrase"): "AUC 99.98",
}
"""Data set (empty: over all), mark and thief to p and difference of cosines in percent."""

_TESTS = ("groups", "groups_vector", "mutual", "decoys", "ks", "ks_vector", "back", "forward")


def report(metrics: Mapping[str, Metric]) -> str:
    """Return tables of who is found, of what a mark costs, and of who is accused."""
    parts = [
        _found(metrics, dataset)
        for dataset in dict.fromkeys(name.split(".")[1] for name in metrics)
        if any(name.startswith(f"log10_p.{dataset}.") for name in metrics)
    ]
    return "\n\n".join([*parts, _costs(metrics), _accused(metrics)])


def _found(metrics: Mapping[str, Metric], dataset: str) -> str:
    """Return -log10 p of each test on each thief; the mean over seeds."""
    begin = f"log10_p.{dataset}."
    pairs = dict.fromkeys(
        tuple(name.removeprefix(begin).split(".")[:2]) for name in metrics if name.startswith(begin)
    )
    tests = [one for one in _TESTS if any(name.endswith(f".{one}") for name in metrics)]
    rows = []
    for mark, thief in pairs:
        path = f"{dataset}.{mark}.{thief}"
        main = "back" if mark == "wet" else "ks"
        rows.append(
            (
                f"`{mark}`",
                f"`{thief}`",
                *(_cell(metrics, f"log10_p.{path}.{test}") for test in tests),
                _cell(metrics, f"delta_cos.{path}.{main}"),
                _cell(metrics, f"accuracy.{path}"),
                "; ".join(
                    PUBLISHED[key, mark, thief]
                    for key in (dataset, "")
                    if (key, mark, thief) in PUBLISHED
                ),
            )
        )
    heads = (
        "mark",
        "thief",
        *(f"`{one}`" for one in tests),
        "difference of cosines, %",
        "accuracy",
        "published",
    )
    return f"{dataset}, -log10 p by test:\n\n{_markdown(heads, rows)}"


def _costs(metrics: Mapping[str, Metric]) -> str:
    """Return what a mark costs an honest user."""
    rows = [
        (
            f"`{name.removeprefix('marked.')}`",
            f"{metrics[name].value:.1%}",
            _cell(metrics, name.replace("marked", "change")),
            _cell(metrics, f"{name.replace('marked', 'accuracy')}.service"),
            _cell(metrics, f"accuracy.{name.split('.')[1]}.none.service"),
        )
        for name in metrics
        if name.startswith("marked.")
    ]
    heads = ("service", "texts marked", "1 - cosine", "accuracy", "without a mark")
    return f"What a mark costs:\n\n{_markdown(heads, rows)}"


def _accused(metrics: Mapping[str, Metric]) -> str:
    """Return the share of keys, never planted, under which an innocent suspect has p <= .01."""
    rows = []
    for name, metric in metrics.items():
        if name.startswith("false_accusation."):
            low, high = metric.interval or (metric.value, metric.value)
            said = name.removeprefix("false_accusation.")
            rows.append((f"`{said}`", f"{metric.value:.1%}", f"{low:.1%} to {high:.1%}"))
    return f"Innocent suspects with p <= .01:\n\n{_markdown(('suspect', 'share', '95%'), rows)}"


def _cell(metrics: Mapping[str, Metric], name: str) -> str:
    return f"{metrics[name].value:.3g}" if name in metrics else ""


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
