"""For contestants who need more than a loss: a `Method` is a loss plus hooks that do nothing by default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from collapsebench.errors import MethodError
from collapsebench.losses import Elements, Loss, cross_entropy
from collapsebench.parameters import Parametrised

Track = Literal["loss", "provenance", "open"]
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class View:
    """What a hook may look at; never selection or test data.

    Attributes:
        generation: the one being made.
        generator: for random draws of the method; a new one in every generation.
    """

    generation: int
    generator: Generator


class CrossEntropy(Loss):
    """The loss of a method that names none."""

    def elementwise(self, e: Elements) -> Tensor:
        return cross_entropy(e.log_p)


class Method(Parametrised):
    """A loss, and whatever else a method changes in the recursion.

    Example::

        class Averaged(Method):
            track: ClassVar = "open"
            decay: float = 0.5

            def after_training(self, weights: Weights, see: View) -> Weights: ...

    Annotated class attributes are parameters, as in a `Loss`. A fresh object is made for every generation, even within
    one process. Only what `state` returned in the previous generation is passed on to it.

    Attributes:
        track: ``open`` if the method overrides a hook; ranked separately.
        loss: the training loss, an object or a class; ``load_loss("tce:gamma=0.8")`` returns one by its name.
    """

    track: ClassVar[Track] = "loss"
    loss: ClassVar[Loss | type[Loss]] = CrossEntropy

    def make_loss(self) -> Loss:
        """Return the loss that this generation is trained with; override it if the loss depends on parameters."""
        return self.loss() if isinstance(self.loss, type) else self.loss

    def after_training(self, weights: Weights, see: View) -> Weights:  # noqa: ARG002  (an override uses it)
        """Return the weights with which the generation samples and is measured.

        Args:
            weights: a copy of the trained weights, by name, on the model's device.

        Returns:
            Finite tensors of the same names, shapes and types.
        """
        return weights

    def state(self) -> dict[str, Tensor]:
        """Return what to pass on to the next generation's object; saved with this generation as safetensors."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Receive what `state` returned in the previous generation, on the CPU; not called if that was empty."""


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
    """Raise `MethodError` if a method overrides hooks without declaring the open track."""
    changed = [name for name in HOOKS if getattr(method_class, name) is not getattr(Method, name)]
    if changed and method_class.track != "open":
        raise MethodError(
            f"{method_class.__name__} overrides {', '.join(changed)}, which only the open track may: write "
            '`track: ClassVar = "open"` in its class body.'
        )


def checked_weights(method: Method, before: Weights, after: object) -> Weights:
    """Return the result of `Method.after_training` if it is valid.

    Raises:
        MethodError: names, shapes or types differ from the weights before, or a value is not finite.
    """
    name = f"{type(method).__name__}.after_training"
    if not isinstance(after, dict) or after.keys() != before.keys():
        raise MethodError(f"{name} must return the weights that it was given: a dict with the same names.")
    for key, tensor in before.items():
        found = after[key]
        if not isinstance(found, Tensor) or (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            given = f"{tuple(found.shape)} {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
            raise MethodError(f"{name} returned {given} for {key}; expected {tuple(tensor.shape)} {tensor.dtype}.")
        if found.is_floating_point() and not bool(torch.isfinite(found).all()):
            raise MethodError(f"{name} returned NaN or infinity in {key}.")
    return after
