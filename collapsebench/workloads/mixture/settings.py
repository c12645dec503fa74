"""Settings of Gaussian-mixture tasks: model, training and sampling. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from collapsebench.frozen import Frozen
from collapsebench.workloads.settings import WorkloadSettings
from collapsebench.workloads.training_settings import Training


class MixtureModel(Frozen):
    """A one-dimensional Gaussian mixture, and the initial values of its parameters in generation 0.

    Attributes:
        weights, means, scales: one number per component.
        learned: the parameters that training may change; the others keep their initial values.
    """

    weights: tuple[float, ...] = Field(min_length=1)
    means: tuple[float, ...]
    scales: tuple[float, ...]
    learned: tuple[Literal["weights", "means", "scales"], ...] = ("weights", "means", "scales")

    @model_validator(mode="after")
    def _components_agree(self) -> MixtureModel:
        if not len(self.weights) == len(self.means) == len(self.scales):
            raise ValueError("weights, means and scales need one number per component")
        if min(*self.weights, *self.scales, 1.0) <= 0 or not self.learned:
            raise ValueError("weights and scales must be positive, and something must be learned")
        return self


class MixtureSampler(Frozen):
    """How points are drawn.

    Attributes:
        temperature: components are drawn in proportion to weight^(1/T), with variances multiplied by T. As for
            language models, T < 1 favours likely values, and T = 1 is the model itself.
    """

    temperature: float = Field(1.0, gt=0, le=2)


class GmmSettings(WorkloadSettings):
    """The workload section of a Gaussian-mixture task."""

    kind: Literal["gmm"]
    model: MixtureModel
    training: Training
    sampler: MixtureSampler = MixtureSampler()
