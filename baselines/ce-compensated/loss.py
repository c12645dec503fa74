"""Cross entropy on what a sampler with a temperature draws from: it undoes the sampler, and is no cure."""

from typing import ClassVar

from torch import Tensor

from collapsebench.errors import UserError
from collapsebench.losses import Elements, Loss


class CompensatedCrossEntropy(Loss):
    """−log softmax(logits / temperature) of the observed class.

    A model trained so, and sampled at that temperature, draws what it has learned: the sampler no longer sharpens.
    """

    needs_logits: ClassVar[bool] = True
    temperature: float = 0.9

    def check_parameters(self) -> None:
        if not self.temperature > 0:
            raise UserError(
                f"CompensatedCrossEntropy: temperature={self.temperature} is not allowed; give the sampler's, above 0."
            )

    def elementwise(self, e: Elements) -> Tensor:
        scaled = (e.logits / self.temperature).log_softmax(-1)
        return -scaled.gather(-1, e.target.unsqueeze(-1)).squeeze(-1)
