"""Truncated Cross Entropy (ForTIFAI, arXiv 2509.08972): ignore what the model is already sure of."""

from torch import Tensor

from collapsebench.errors import UserError
from collapsebench.losses import Elements, Loss, truncated_cross_entropy


class TruncatedCrossEntropy(Loss):
    """Cross entropy over elements with p ≤ gamma; the mean is over all elements, as in the paper's code."""

    gamma: float = 0.9

    def check_parameters(self) -> None:
        if not 0 < self.gamma <= 1:
            raise UserError(
                f"TruncatedCrossEntropy: gamma={self.gamma} is not allowed; choose 0 < gamma ≤ 1 (1 is cross entropy)."
            )

    def elementwise(self, e: Elements) -> Tensor:
        return truncated_cross_entropy(e.log_p, self.gamma)
