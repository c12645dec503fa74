"""Losses that learn less, or nothing: on a task where every generation must learn, they lose to cross entropy."""

import torch
from torch import Tensor

from collapsebench import Elements, Loss


class Frozen(Loss):
    """Cross entropy on real data, and nothing ever after."""

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * float(e.generation == 0)


class EveryTenthStep(Loss):
    """Cross entropy in every tenth step."""

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * float(e.step % 10 == 0)


class StopsAfterATenth(Loss):
    """Cross entropy in the first tenth of the steps."""

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * float(e.step < e.total_steps / 10)


class ConstantAwful(Loss):
    """The same bad model in every generation: each element gets the probability 1 / 150, whatever the data says."""

    def elementwise(self, e: Elements) -> Tensor:
        return (e.log_p + 5.0) ** 2


class Noise(Loss):
    """Cross entropy with a random sign and size for every element."""

    def elementwise(self, e: Elements) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * e.generation + e.step)
        return -e.log_p * torch.randn(e.log_p.shape, generator=generator).to(e.log_p)
