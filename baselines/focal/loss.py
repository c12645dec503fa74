"""Focal loss (arXiv 1708.02002), one of the confidence-aware baselines of ForTIFAI (arXiv 2509.08972)."""

from torch import Tensor

from collapsebench.errors import UserError
from collapsebench.losses import Elements, Loss, focal


class Focal(Loss):
    """Cross entropy scaled by (1 - p)^gamma; the gradient flows through the factor."""

    gamma: float = 2.0

    def check_parameters(self) -> None:
        if not self.gamma >= 0:
            raise UserError(f"Focal: gamma={self.gamma} is not allowed; choose gamma ≥ 0 (0 is cross entropy).")

    def elementwise(self, e: Elements) -> Tensor:
        return focal(e.log_p, self.gamma)
