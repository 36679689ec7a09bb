"""How good a copy is: on tasks, and compared with the victim itself.

A `Reference` holds the victim's clean answers on inputs that no attack was given; `score`
asks any encoder about the same inputs. Scores of the victim and of an untrained surrogate
come from the same function, and `fidelity` puts a copy between the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tollkeeper.bench.experiment import BenchError
from tollkeeper.bench.theft.probes import Labels, knn200, linear_probe, unit
from tollkeeper.bench.theft.tasks import Task
from tollkeeper.encoders.base import Encoder, checked
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Batch, Embeddings

NEIGHBORS = 10
_CHUNK = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The victim's answers on held-out inputs, and on a task if the inputs belong to one.

    Attributes:
        name: of the task, or of the inputs.
        inputs: m held-out inputs; a task's test inputs.
        embeddings: (m, d) float32, what the victim's own, clean embeddings are.
        task: None for inputs without labels.
        predictions: (m,) by the linear probe on the victim's embeddings; None without a task.
    """

    name: str
    inputs: Batch
    embeddings: Embeddings
    task: Task | None = None
    predictions: Labels | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """How good one encoder is, every figure in [0, 1] but the cosine in [-1, 1].

    Attributes:
        accuracy: task to accuracy of the linear probe.
        knn: task to accuracy of the 200 weighted nearest neighbors.
        agreement: task to the share of test inputs on which this encoder's probe and the
            victim's predict the same class.
        recall10: `recall_at_10`, mean over references.
        centered_cosine: mean over references; None where the widths differ.
    """

    accuracy: Mapping[str, float] = field(default_factory=dict)
    knn: Mapping[str, float] = field(default_factory=dict)
    agreement: Mapping[str, float] = field(default_factory=dict)
    recall10: float = 0.0
    centered_cosine: float | None = None

    def named(self) -> dict[str, float]:
        """Return every figure by name: `accuracy.<task>`, `recall10` and so on."""
        families = {"accuracy": self.accuracy, "knn": self.knn, "agreement": self.agreement}
        found = {
            f"{family}.{task}": value
            for family, values in families.items()
            for task, value in values.items()
        }
        found["recall10"] = self.recall10
        if self.centered_cosine is not None:
            found["centered_cosine"] = self.centered_cosine
        return found


def task_reference(victim: Encoder, task: Task) -> Reference:
    """Ask the clean victim about a task and probe its answers.

    Raises:
        ConfigurationError: a task of a single class.
        EncoderError: the victim failed.
    """
    train, test = _embed(victim, task.train_inputs), _embed(victim, task.test_inputs)
    predictions = linear_probe(train, task.train_labels, test)
    return Reference(task.name, task.test_inputs, test, task, predictions)


def input_reference(victim: Encoder, name: str, inputs: Batch) -> Reference:
    """Ask the clean victim about inputs without labels, more than ten of them.

    Raises:
        EncoderError: the victim failed.
    """
    return Reference(name, inputs, _embed(victim, inputs))


def score(encoder: Encoder, references: Sequence[Reference]) -> Scores:
    """Compare an encoder with the victim.

    Args:
        encoder: a surrogate, the victim itself, or an untrained network.
        references: at least one.

    Raises:
        ConfigurationError: no reference, or one of too few inputs.
        EncoderError: the encoder failed or returned NaN.
    """
    if not references:
        raise ConfigurationError("expected at least one task or held-out set to score on")
    accuracy: dict[str, float] = {}
    knn: dict[str, float] = {}
    same: dict[str, float] = {}
    recalls: list[float] = []
    cosines: list[float] = []
    for reference in references:
        rows = _embed(encoder, reference.inputs)
        recalls.append(recall_at_10(reference.embeddings, rows))
        if rows.shape == reference.embeddings.shape:
            cosines.append(centered_cosine(reference.embeddings, rows))
        task = reference.task
        if task is None or reference.predictions is None:
            continue
        train = _embed(encoder, task.train_inputs)
        predicted = linear_probe(train, task.train_labels, rows)
        accuracy[task.name] = agreement(predicted, task.test_labels)
        same[task.name] = agreement(predicted, reference.predictions)
        knn[task.name] = agreement(knn200(train, task.train_labels, rows), task.test_labels)
    cosine = float(np.mean(cosines)) if cosines else None
    return Scores(accuracy, knn, same, float(np.mean(recalls)), cosine)


def fidelity(
    copy: Scores, *, victim: Scores | None = None, untrained: Scores | None = None
) -> float:
    """Put a copy between an untrained network, 0, and the victim, 1.

    The mean accuracy over tasks that the copy gained over the untrained network, divided by
    what the victim gained: sums are divided, not tasks one by one, because a task on which
    an untrained network is nearly as good as the victim would drown the others in noise.
    Not clipped: a copy can be worse than an untrained network, or better than the victim.
    Without tasks it is `recall10`, and the other arguments do not matter.

    Args:
        copy: scores of the surrogate.
        victim: scores of the clean victim on the same references; needed if there are tasks.
        untrained: scores of the surrogate's network before training, on the same references.

    Raises:
        ConfigurationError: scores of other tasks, or none.
        BenchError: the victim is no better than the untrained network.
    """
    if not copy.accuracy:
        return copy.recall10
    if victim is None or untrained is None:
        raise ConfigurationError("expected scores of the victim and of an untrained network")
    tasks, *others = (sorted(scores.accuracy) for scores in (copy, victim, untrained))
    if others != [tasks, tasks]:
        raise ConfigurationError(f"expected three scores of the same tasks, got {tasks}, {others}")
    best, gained = (
        sum(scores.accuracy[task] - untrained.accuracy[task] for task in tasks)
        for scores in (victim, copy)
    )
    if best <= 0:
        raise BenchError(
            f"on {', '.join(tasks)} the victim is no better than an untrained network; "
            "choose other tasks"
        )
    return gained / best


def recall_at_10(victim: Embeddings, surrogate: Embeddings) -> float:
    """Return the share of each input's ten nearest others that the surrogate finds too.

    Nearest by cosine among the same n inputs, mean over inputs.

    Args:
        victim: (n, d).
        surrogate: (n, d'), of the same inputs.

    Raises:
        ConfigurationError: different n, or not more than ten inputs.
    """
    if victim.ndim != 2 or surrogate.ndim != 2 or len(victim) != len(surrogate):
        raise ConfigurationError(
            f"expected embeddings of the same inputs, got {victim.shape} and {surrogate.shape}"
        )
    if len(victim) <= NEIGHBORS:
        raise ConfigurationError(
            f"expected more than {NEIGHBORS} inputs to find neighbors among, got {len(victim)}"
        )
    wanted, found = _nearest(victim), _nearest(surrogate)
    return float((found[:, :, None] == wanted[:, None, :]).any(axis=2).mean())


def centered_cosine(victim: Embeddings, surrogate: Embeddings) -> float:
    """Return the mean cosine of corresponding rows, each side less its own mean row.

    Uncentered, embeddings of one orthant are at a high cosine whatever they show.

    Args:
        victim: (n, d).
        surrogate: (n, d), of the same inputs.

    Raises:
        ConfigurationError: different shapes.
    """
    if victim.shape != surrogate.shape or victim.ndim != 2 or len(victim) == 0:
        raise ConfigurationError(
            f"expected two embeddings of one shape (n, d), got {victim.shape}, {surrogate.shape}"
        )
    one, other = (unit(rows - rows.mean(axis=0)) for rows in (victim, surrogate))
    return float(np.einsum("ij,ij->i", one, other).mean())


def agreement(one: Labels, other: Labels) -> float:
    """Return the share of n predictions that are equal; with true labels this is accuracy.

    Raises:
        ConfigurationError: different lengths, or none.
    """
    if one.shape != other.shape or one.size == 0:
        raise ConfigurationError(
            f"expected two equal numbers of predictions, got {one.shape} and {other.shape}"
        )
    return float((one == other).mean())


def _nearest(embeddings: Embeddings) -> NDArray[np.intp]:
    """Return each row's ten nearest other rows by cosine, (n, 10) in no order."""
    rows = unit(embeddings)
    found = []
    for start in range(0, len(rows), _CHUNK):
        cosines = rows[start : start + _CHUNK] @ rows.T
        at = np.arange(len(cosines))
        cosines[at, start + at] = -np.inf
        found.append(np.argpartition(cosines, -NEIGHBORS, axis=1)[:, -NEIGHBORS:])
    return np.concatenate(found)


def _embed(encoder: Encoder, inputs: Batch) -> Embeddings:
    return checked(encoder.embed(inputs), n=len(inputs), dim=encoder.dim)
