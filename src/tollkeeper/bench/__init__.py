"""The lab's experiments: run them, compare two runs, audit what is committed."""

from tollkeeper.bench.audit import audit
from tollkeeper.bench.compare import Comparison, compare
from tollkeeper.bench.experiment import BenchError, Experiment, Metric, Result, read_result
from tollkeeper.bench.registry import main_list
from tollkeeper.bench.runner import progress_bar, run

__all__ = [
    "BenchError",
    "Comparison",
    "Experiment",
    "Metric",
    "Result",
    "audit",
    "compare",
    "main_list",
    "progress_bar",
    "read_result",
    "run",
]
