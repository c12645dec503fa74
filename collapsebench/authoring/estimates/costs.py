"""The terms in which every workload states what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Memory:
    """Bytes at the worst moment of each phase, where the model runs. Data and libraries are not in it.

    Attributes:
        weights: there in every phase. gradients, optimiser: while training; the optimiser's two moments per
            parameter, and the moving average of the weights where there is one.
        activations: while training, what the backward pass needs of one batch.
        sampling, evaluation: what these phases hold besides the weights.
    """

    weights: int
    gradients: int
    optimiser: int
    activations: int
    sampling: int = 0
    evaluation: int = 0

    @property
    def training(self) -> int:
        """While training, with the weights."""
        return self.weights + self.gradients + self.optimiser + self.activations

    @property
    def peak(self) -> int:
        """The largest of the three phases."""
        return max(self.training, self.weights + max(self.sampling, self.evaluation))


@dataclass(frozen=True)
class Costs:
    """What a workload costs per unit of work. FLOPs: a multiplication and an addition are two.

    Attributes:
        parameters: that are learned.
        update: FLOPs of one optimiser step. sample: of one sample, a fraction where samples share work.
        evaluation: of one evaluation, by part. gallery: of the samples for people.
        preparation: of what is computed once per machine and task, then cached.
        memory: at its worst.
        model_bytes: of the weights on disk. item_bytes: of one sample.
        notes: what was assumed, for people.
    """

    parameters: int
    update: int
    sample: Fraction
    evaluation: dict[str, int]
    gallery: int
    memory: Memory
    model_bytes: int
    item_bytes: int
    preparation: int = 0
    notes: tuple[str, ...] = ()
