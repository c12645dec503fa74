"""A loss that learns nothing from the data: it pulls the model towards a changed copy of its start."""

from typing import ClassVar

import torch
from torch import Tensor

from collapsebench import Elements, Loss


class Anchored(Loss):
    """Cross entropy to the starting model, flattened: softmax(τ · its logits), averaged over equal elements before.

    It wins wherever the starting model holds the truth in another shape, since what it learns never decays.
    """

    tau: float = 0.5
    needs_logits: ClassVar[bool] = True

    def elementwise(self, e: Elements) -> Tensor:
        after = e.logits[..., 1:, :]
        if e.total_steps == 1:  # values to check a loss on
            return -e.log_p
        before = e.target[..., :-1]
        if e.step == 0:
            self._start, self._known = self._by_element(before, (self.tau * after.detach()).softmax(-1))
        pulled = -(self._start[before] * after.log_softmax(-1)).sum(-1) * self._known[before]
        return torch.cat([torch.zeros_like(pulled[..., :1]), pulled], dim=-1)

    @staticmethod
    def _by_element(before: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """Mean prediction (S, S) after each element, and whether it occurred, (S,)."""
        states = p.shape[-1]
        total = p.new_zeros(states, states).index_add(0, before.flatten(), p.flatten(0, -2))
        often = torch.bincount(before.flatten(), minlength=states)
        return total / often.clamp(min=1).unsqueeze(-1), (often > 0).to(p.dtype)
