"""What a contestant writes who needs more than a loss: a `Method` is a loss plus hooks that default to nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from collapsebench.errors import MethodError
from collapsebench.losses import Loss
from collapsebench.parameters import Parametrised

Track = Literal["loss", "provenance", "open"]
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class View:
    """What a hook may look at; never selection or test data.

    Attributes:
        generation: which one is being made. generator: for the method's draws, its own in every generation.
    """

    generation: int
    generator: Generator


class Method(Parametrised):
    """A loss, and what else a method changes in the recursion.

    Example::

        class Averaged(Method):
            track: ClassVar = "open"
            decay: float = 0.5

            def after_training(self, weights: Weights, see: View) -> Weights: ...

    Annotated class attributes are parameters, as those of a `Loss`. A fresh object is made for every generation, also
    within one process; what it needs from the generation before is what `state` gave then.

    Attributes:
        track: ``open`` for whatever overrides a hook; ranked apart.
        loss: the training loss, or the name of a registered one; a fresh one every time it is trained with.
    """

    track: ClassVar[Track] = "loss"
    loss: ClassVar[str | Loss | type[Loss]] = "ce"

    def make_loss(self) -> Loss:
        """The loss that this generation is trained with; override it where the loss depends on parameters."""
        from collapsebench.methods import load_loss

        return load_loss(self.loss)

    def after_training(self, weights: Weights, see: View) -> Weights:  # noqa: ARG002  (an override uses it)
        """Return the weights that the generation samples with and is measured by.

        Args:
            weights: as training left them, by name, on the model's device: a copy.

        Returns:
            Finite tensors of the same names, shapes and types.
        """
        return weights

    def state(self) -> dict[str, Tensor]:
        """What the next generation's object is to know; saved with this generation, as safetensors."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` of the generation before gave, on the CPU; not called where that was nothing."""


HOOKS = ("after_training", "state", "restore")


class LossAlone(Method):
    """A loss, and nothing else.

    Args:
        given: the loss.
    """

    def __init__(self, given: Loss) -> None:
        super().__init__()
        self._given = given

    def make_loss(self) -> Loss:
        return self._given


def check_hooks(method_class: type[Method]) -> None:
    """Raise `MethodError` where a method overrides hooks without saying that it belongs to the open track."""
    changed = [name for name in HOOKS if getattr(method_class, name) is not getattr(Method, name)]
    if changed and method_class.track != "open":
        raise MethodError(
            f"{method_class.__name__} overrides {', '.join(changed)}, which only the open track may: write "
            '`track: ClassVar = "open"` in its class body.'
        )


def checked_weights(method: Method, before: Weights, after: object) -> Weights:
    """What `Method.after_training` returned, if it is what it must be.

    Raises:
        MethodError: names, shapes or types are others, or a value is not finite.
    """
    name = f"{type(method).__name__}.after_training"
    if not isinstance(after, dict) or after.keys() != before.keys():
        raise MethodError(f"{name} must return the weights that it was given: a dict with the same names.")
    for key, tensor in before.items():
        found = after[key]
        if not isinstance(found, Tensor) or (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            given = f"{tuple(found.shape)} {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
            raise MethodError(f"{name} returned {given} for {key}; needed is {tuple(tensor.shape)} {tensor.dtype}.")
        if found.is_floating_point() and not bool(torch.isfinite(found).all()):
            raise MethodError(f"{name} returned NaN or infinity in {key}.")
    return after
