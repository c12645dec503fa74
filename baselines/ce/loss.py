"""Cross entropy: the loss everything else is compared with."""

from torch import Tensor

from collapsebench.losses import Elements, Loss, cross_entropy


class CrossEntropy(Loss):
    """Negative log-likelihood of the observed element."""

    def elementwise(self, e: Elements) -> Tensor:
        return cross_entropy(e.log_p)
