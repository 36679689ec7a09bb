"""A victim that remembers what it was asked, for whoever judges an attack's queries."""

from __future__ import annotations

import numpy as np

from tollkeeper.encoders.base import Encoder
from tollkeeper.types import Batch, Embeddings, Images, Probabilities


class Recorder:
    """Passes calls on and keeps them; a call that fails is not kept.

    Attributes:
        asked: (m, c, h, w) pictures of each call, in asking order.
        answers: (m, k) of each call.
    """

    def __init__(self, victim: Encoder) -> None:
        """Stand in front of a classifier of tensors."""
        self.name, self.dim, self.accepts = victim.name, victim.dim, victim.accepts
        self.asked: list[Images] = []
        self.answers: list[Probabilities] = []
        self._victim = victim

    @property
    def images(self) -> Images:
        """Everything asked, (n, c, h, w) in asking order.

        Raises:
            ValueError: nothing was asked.
        """
        return np.concatenate(self.asked)

    @property
    def probabilities(self) -> Probabilities:
        """Everything answered, (n, k) in asking order.

        Raises:
            ValueError: nothing was asked.
        """
        return np.concatenate(self.answers)

    def embed(self, inputs: Batch) -> Embeddings:
        """Return the victim's answers (n, k) to n tensors."""
        answers = self._victim.embed(inputs)
        if len(inputs):
            self.asked.append(np.array(inputs, dtype=np.float32))
            self.answers.append(np.array(answers, dtype=np.float32))
        return answers
