"""The types in which every workload's cost is given."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Memory:
    """Peak memory in bytes of each phase on the model's device, without data and libraries.

    Attributes:
        weights: held in every phase. gradients, optimiser: held while training; the optimiser has two moments per
            parameter, and the moving average of the weights if there is one.
        activations: while training, the part of one batch needed by the backward pass.
        sampling, evaluation: memory of these phases besides the weights.
    """

    weights: int
    gradients: int
    optimiser: int
    activations: int
    sampling: int = 0
    evaluation: int = 0

    @property
    def training(self) -> int:
        """Peak memory of training, including the weights."""
        return self.weights + self.gradients + self.optimiser + self.activations

    @property
    def peak(self) -> int:
        """Peak memory over the three phases."""
        return max(self.training, self.weights + max(self.sampling, self.evaluation))


@dataclass(frozen=True)
class Costs:
    """The cost of a workload per unit of work. A multiplication plus an addition are two FLOPs.

    Attributes:
        parameters: number of learned parameters.
        update: FLOPs of one optimiser step. sample: FLOPs of one sample, a fraction if samples share work.
        evaluation: FLOPs of one evaluation, by part. gallery: FLOPs of the samples for display.
        preparation: FLOPs of computations that are made once per machine and task and then cached.
        memory: peak memory.
        model_bytes: size of the weights on disk. item_bytes: size of one sample.
        notes: assumptions, as readable text.
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
